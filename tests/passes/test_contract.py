"""Contraction order: paths, explicit paths and their errors, limits, kernels of several factors, constants, types."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from stein.ir.count import count_program
from stein.ir.errors import EinsumSyntaxError, ShapeError
from stein.ir.expr import Einsum, Equation, Map, Program, walk
from stein.ir.interpret import interpret, interpret_all
from stein.ir.semiring import PLUS_TIMES
from stein.passes.base import Context
from stein.passes.constants import ahead
from stein.passes.contract import Network, contraction_tree, kernel_flops
from stein.passes.paths import explicit_path, find_path, left_to_right, path_flops
from stein.passes.plan import plan
from stein.tests.passes.products import SEMIRINGS, assert_same, each_semiring, ir, planned, product, random_product

CHAIN = (
    "input A: f64[m, n]",
    "input B: f64[n, p]",
    "input C: f64[p, q]",
    "y[i, l]: f64[m, q] = einsum[plustimes, f64](j, k; A[i, j], B[j, k], C[k, l]) over i<m, j<n, k<p, l<q",
)


def kernels(program: Program) -> list[tuple[str, int]]:
    """Each equation with the number of factors that it multiplies."""
    out = []
    for equation in program.equations:
        found = [e for e in walk(equation.expr) if isinstance(e, Einsum)]
        out.append((equation.name, len(found[0].factors) if found else 0))
    return out


def test_mixed_types_are_promoted_before_the_first_product() -> None:
    text = (
        "input op0: bool[n, m]",
        "input op1: bool[n]",
        "input op2: f64[p]",
        "y: f64 = einsum[plustimes, f64](a, b, c; op0[a, b], op1[a], op2[c]) over a<n, b<m, c<p",
    )
    program = ir(*text)
    arrays = {"op0": np.ones((3, 4), bool), "op1": np.ones(3, bool), "op2": np.ones(2)}
    for options in ({}, {"optimize": [(0, 1), (0, 1)]}, {"optimize": False}, {"strict": True}):
        after = planned(program, sizes={"n": 300, "m": 400, "p": 200}, **options)
        assert interpret(after, arrays)["y"] == 24.0
    assert all(e.dtype.name == "f64" for e in planned(program, sizes={"n": 300, "m": 400, "p": 200}).equations)
    small = ir(*(line.replace("bool", "i8") for line in text))
    hundreds = {"op0": np.full((3, 4), 100, np.int8), "op1": np.full(3, 100, np.int8), "op2": np.ones(2)}
    got = interpret(planned(small, sizes={"n": 300, "m": 400, "p": 200}, optimize=[(0, 1), (0, 1)]), hundreds)
    assert got["y"] == 240000.0


def test_intermediates_are_kept_in_the_accumulation_type() -> None:
    program = ir(
        "input A: f16[n, m]",
        "input B: f16[m, p]",
        "input C: f16[p, q]",
        "y[i, l]: f16[n, q] = einsum[plustimes, f32](j, k; A[i, j], B[j, k], C[k, l]):f16 over i<n, j<m, k<p, l<q",
    )
    after = planned(program, sizes=dict.fromkeys("nmpq", 200))
    assert [e.dtype.name for e in after.equations] == ["f32", "f16"]
    assert [e.expr.dtype.name for e in after.equations] == ["f32", "f16"]


def test_the_order_follows_the_sizes() -> None:
    program = ir(*CHAIN)
    long = planned(program, sizes={"m": 1000, "n": 1000, "p": 1000, "q": 2})
    wide = planned(program, sizes={"m": 2, "n": 1000, "p": 1000, "q": 1000})
    assert [r.tensor for r in long.equations[0].expr.factors] == ["B", "C"]  # type: ignore[union-attr]
    assert [r.tensor for r in wide.equations[0].expr.factors] == ["A", "B"]  # type: ignore[union-attr]
    for after in (long, wide):
        assert_same(program, after, 1, {"m": 2, "n": 3, "p": 4, "q": 5})  # right for all other sizes, too


def test_small_and_optimize_false_are_one_kernel() -> None:
    program = ir(*CHAIN)
    assert kernels(planned(program, sizes={"m": 4, "n": 4, "p": 4, "q": 4})) == [("y", 3)]
    assert kernels(planned(program, sizes=dict.fromkeys("mnpq", 300), optimize=False)) == [("y", 3)]
    assert kernels(planned(program, sizes=dict.fromkeys("mnpq", 300))) == [("y.1", 2), ("y", 2)]


def test_three_factors_share_a_kernel_where_that_is_cheap() -> None:
    program = ir(
        "input X: f64[i, j, k]",
        "input B: f64[j, r]",
        "input C: f64[k, r]",
        "y[i, r]: f64[i, r] = einsum[plustimes, f64](j, k; X[i, j, k], B[j, r], C[k, r]) over i<i, r<r, j<j, k<k",
    )
    assert kernels(planned(program, sizes={"i": 64, "j": 64, "k": 64, "r": 32})) == [("y", 3)]
    assert len(kernels(planned(program, sizes={"i": 999, "j": 999, "k": 999, "r": 99}))) == 2  # worth packing


def test_strict_goes_from_left_to_right() -> None:
    for sizes in ({"m": 1000, "n": 1000, "p": 1000, "q": 2}, {"m": 2, "n": 1000, "p": 1000, "q": 1000}):
        after = planned(ir(*CHAIN), sizes=sizes, strict=True)
        assert [r.tensor for r in after.equations[0].expr.factors] == ["A", "B"]  # type: ignore[union-attr]
    assert left_to_right(4) == ((0, 1), (0, 2), (0, 1))
    sizes = dict.fromkeys("abcde", 9)
    inputs = [frozenset(s) for s in ("ab", "bc", "cd", "de")]
    tree = contraction_tree(Network(tuple(inputs), frozenset("ae"), sizes, (False,) * 4), Context(strict=True))
    met: list[int] = []
    node: Any = tree
    while not isinstance(node, int):
        met += [p for p in node.parts if isinstance(p, int)][::-1]
        node = next((p for p in node.parts if not isinstance(p, int)), 0)
    assert met == [3, 2, 1, 0]


@each_semiring
def test_explicit_paths_are_followed(semiring: Any) -> None:
    program = product(semiring, {"A": "ab", "B": "bd", "C": "de", "D": "ea"}, "")
    for path in (
        [(0, 1), (0, 1), (0, 1)],
        [(0, 1, 2), (0, 1)],
        ["einsum_path", (1, 3), (0, 2), (0, 1)],
        [(0, 1, 2, 3)],
    ):
        after = planned(program, optimize=path)
        steps = [s for s in path if not isinstance(s, str)]
        assert [n for _, n in kernels(after)] == [len(s) for s in steps]
        assert_same(program, after, 2)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ([(0, 5), (0, 1)], "step 0 of the path, .0, 5., names operand 5, but only 0 to 2 are left"),
        ([(0, 1), (0, 2)], "step 1 of the path, .0, 2., names operand 2, but only 0 to 1"),
        ([(0, 0), (0, 1)], "step 0 of the path, .0, 0., repeats"),
        ([(0, 1)], "leaves 2 operands"),
        ([(0, -1), (0, 1)], "names operand -1"),
        ([()], "repeats or lacks"),
    ],
)
def test_wrong_paths_name_the_step(path: object, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        explicit_path(path, 3)
    with pytest.raises(RuntimeError, match=words):  # as NumPy
        planned(ir(*CHAIN), optimize=path)


@pytest.mark.parametrize("given", [5, None, ["no such step"], [("a", 1)], [0, 1]])
def test_what_is_no_path_at_all(given: object) -> None:
    with pytest.raises(EinsumSyntaxError, match="path"):
        explicit_path(given, 3)


def test_unknown_path_finders_and_limits() -> None:
    sets = [frozenset("ab"), frozenset("bc"), frozenset("cd"), frozenset("de")]
    sizes = dict.fromkeys("abcde", 5)
    with pytest.raises(EinsumSyntaxError, match="no path finder") as error:
        find_path(sets, frozenset("ae"), sizes, "optimum")
    assert "greedy" in error.value.help
    with pytest.raises(EinsumSyntaxError, match="memory_limit"):
        find_path(sets, frozenset("ae"), sizes, "auto", "max")


@pytest.mark.parametrize(
    "name", ["auto", "auto-hq", "optimal", "dp", "branch-2", "greedy", "random-greedy", "eager", True]
)
def test_path_finders_by_name(name: object) -> None:
    program = product(PLUS_TIMES, {"A": "ab", "B": "bd", "C": "de", "D": "ea", "E": "bde"}, "d")
    assert_same(program, planned(program, optimize=name), 3)


def test_optimiser_objects_and_cotengra() -> None:
    import opt_einsum

    program = product(PLUS_TIMES, {"A": "ab", "B": "bd", "C": "de", "D": "ea", "E": "bde"}, "d")
    assert_same(program, planned(program, optimize=opt_einsum.RandomGreedy(max_repeats=4)), 3)
    calls = []

    def own(
        inputs: list[set[str]], output: set[str], sizes: dict[str, int], limit: Any = None
    ) -> list[tuple[int, ...]]:
        calls.append(len(inputs))
        return [(0, 1)] * (len(inputs) - 1)

    assert_same(program, planned(program, optimize=own), 3)
    assert calls == [5]
    pytest.importorskip("cotengra", reason="cotengra is not installed")
    assert_same(program, planned(program, optimize="cotengra"), 3)


def test_memory_limit_with_three_operands() -> None:
    sizes = {"m": 100, "n": 2, "p": 100, "q": 2}
    free, bound = (planned(ir(*CHAIN), sizes=sizes, memory_limit=limit) for limit in (None, 3))
    assert (len(free.equations), len(bound.equations)) == (2, 1)


@pytest.mark.parametrize("optimize", ["auto", "optimal", "dp", "greedy"])
@pytest.mark.parametrize("limit", [1, 100, "max_input", 10**9, -1, None])
def test_memory_limit_bounds_every_intermediate(optimize: str, limit: int | str | None) -> None:
    sizes = {"na": 50, "nb": 50, "nc": 1, "nd": 50, "ne": 50}
    program = product(PLUS_TIMES, {"A": "ab", "B": "bd", "C": "de", "D": "ea"}, "")
    after = planned(program, sizes=sizes, optimize=optimize, memory_limit=limit)
    bound = {None: 10**18, -1: 10**18, "max_input": 2500}.get(limit, limit)
    for equation in after.equations[:-1]:
        assert np.prod([s.evaluate(sizes) for s in equation.shape]) <= bound  # type: ignore[operator]
    assert_same(program, after, 4)


def test_numpy_pair_of_name_and_limit() -> None:
    context = Context(optimize=("greedy", 1e3))
    assert (context.optimize, context.memory_limit) == ("greedy", 1000)


def test_auto_is_never_worse_than_greedy() -> None:
    choose = random.Random(0)
    for _ in range(20):
        inputs = [frozenset(choose.sample("abcdefg", choose.randrange(1, 4))) for _ in range(7)]
        output = frozenset(choose.sample("abcdefg", 2)) & frozenset().union(*inputs)
        sizes = {c: choose.randrange(2, 30) for c in "abcdefg"}
        found = {n: path_flops(find_path(inputs, output, sizes, n), inputs, output, sizes) for n in ("auto", "greedy")}
        assert found["auto"] <= found["greedy"]


def test_three_operands_are_tried_out() -> None:
    choose = random.Random(1)
    for _ in range(50):
        inputs = [frozenset(choose.sample("abcde", choose.randrange(1, 4))) for _ in range(3)]
        output = frozenset(choose.sample("abcde", 2)) & frozenset().union(*inputs)
        sizes = {c: choose.randrange(1, 20) for c in "abcde"}
        best = min(path_flops(p, inputs, output, sizes) for p in (((0, 1), (0, 1)), ((0, 2), (0, 1)), ((1, 2), (0, 1))))
        assert path_flops(find_path(inputs, output, sizes), inputs, output, sizes) == best


def test_hundreds_of_operands_and_labels() -> None:
    count = 200
    lines = [f"input t{k}: f64[n, n]" for k in range(count)]
    factors = ", ".join(f"t{k}[i{k}, i{k + 1}]" for k in range(count))
    bound = ", ".join(f"i{k}" for k in range(1, count))
    ranges = ", ".join(f"i{k}<n" for k in range(count + 1))
    program = ir(*lines, f"y[i0, i{count}]: f64[n, n] = einsum[plustimes, f64]({bound}; {factors}) over {ranges}")
    after = planned(program, sizes={"n": 20})
    assert len(after.equations) == count - 1
    assert all(n == 2 for _, n in kernels(after))
    values = np.random.default_rng(0).integers(-1, 2, (count, 3, 3)).astype(float)
    values[:, 0] = np.eye(3)[np.arange(count) % 3]  # so that products stay small
    got = interpret(after, {f"t{k}": np.diag([1.0, -1.0, 1.0]) for k in range(count)})["y"]
    np.testing.assert_array_equal(got, np.eye(3))


def test_kernel_flops_count_as_opt_einsum_for_pairs() -> None:
    sizes = {"i": 2, "j": 3, "k": 5}
    assert kernel_flops([frozenset("ij"), frozenset("jk")], frozenset("ik"), sizes) == 2 * 30
    assert kernel_flops([frozenset("ij"), frozenset("k")], frozenset("ijk"), sizes) == 30
    assert kernel_flops([frozenset("ij")], frozenset("i"), sizes) == 6


# --- epilogues, several einsums -----------------------------------------------------------------------------------


def test_a_factor_that_the_sum_does_not_run_over_goes_to_the_epilogue() -> None:
    program = ir(
        "input d: f64[n]",
        "input A: f64[n, m]",
        "input B: f64[m, p]",
        "y[i, k]: f64[n, p] = einsum[plustimes, f64](j; d[i], A[i, j], B[j, k]) over i<n, j<m, k<p",
    )
    after = planned(program, sizes={"n": 100, "m": 100, "p": 100})
    assert kernels(after) == [("y", 2)]
    assert isinstance(after.equations[0].expr, Map)
    assert_same(program, after, 5, {"n": 2, "m": 3, "p": 4})


def test_several_einsums_become_kernels_with_one_output_pass() -> None:
    program = ir(
        "input A: f64[n, m]",
        "input b: f64[n]",
        "y[i, j]: f64[n, m] = mul(exp(einsum[maxplus, f64](k; A[i, k])), einsum[plustimes, f64](l; A[l, j]))"
        " over i<n, j<m, k<m, l<n",
    )
    after = planned(program)
    assert [e.name for e in after.equations] == ["y.1", "y.2", "y"]
    assert [e.shape for e in after.equations[:2]] == [program.equations[0].shape[:1], program.equations[0].shape[1:]]
    assert_same(program, after, 6, {"n": 2, "m": 3})


def test_a_sum_inside_a_function_inside_a_sum_is_stored_once() -> None:
    program = ir(
        "input A: f64[n, m]",
        "input v: f64[m]",
        "y[i]: f64[n] = einsum[plustimes, f64](j; relu(einsum[plustimes, f64](k; A[i, k], A[j, k])), A[i, j])"
        ' over i<n, j<m, k<m\nrequire n == m, code="c", sentence="s"',
    )
    after = planned(program, sizes={"n": 100, "m": 100})
    assert [e.name for e in after.equations] == ["y.1", "y"]
    assert isinstance(after.equations[0].expr, Map)  # relu is the epilogue of the product
    assert_same(program, after, 6, {"n": 3, "m": 3})


# --- constants ----------------------------------------------------------------------------------------------------


def test_constants_meet_each_other_first_where_calls_get_cheaper() -> None:
    lines = (
        "input const U: f64[n, r]",
        "input const V: f64[r, m]",
        "input x: f64[m, b]",
        "y[i, c]: f64[n, b] = einsum[plustimes, f64](k, j; U[i, k], V[k, j], x[j, c]) over i<n, c<b, k<r, j<m",
    )
    program = ir(*lines)
    wide, narrow = {"n": 64, "m": 64, "b": 64, "r": 512}, {"n": 512, "m": 512, "b": 512, "r": 8}
    assert ahead(planned(program, sizes=wide), Context()) == {"y.1"}  # U V is computed once
    assert ahead(planned(program, sizes=narrow), Context()) == frozenset()  # low rank stays apart
    plain = ir(*(line.replace("const ", "") for line in lines))
    context = Context(sizes=wide, constants=frozenset(("U", "V")))
    after, _ = plan(plain, context)
    assert ahead(after, context) == {"y.1"} and ahead(after, Context()) == frozenset()
    assert_same(program, planned(program, sizes=wide), 7, {"n": 2, "m": 3, "b": 2, "r": 4})


def test_what_is_computed_ahead_is_not_joined_to_what_is_not() -> None:
    program = ir(
        "input const a: f64[n]",
        "input const b: f64[n]",
        "input x: f64[n, m]",
        "y[k]: f64[m] = einsum[plustimes, f64](i; a[i], b[i], x[i, k]) over k<m, i<n",
    )
    sizes = {"n": 1000, "m": 1000}
    assert ahead(planned(program, sizes=sizes), Context()) == {"y.1"}
    assert_same(program, planned(program, sizes=sizes), 7, {"n": 3, "m": 2})


def test_ahead_needs_sizes_that_the_constants_know() -> None:
    program = ir(
        "input const W: f64[n]",
        "input x: f64[b]",
        "t[i]: f64[n] = exp(W[i]) over i<n",
        "u[i, j]: f64[n, b] = exp(W[i]) over i<n, j<b",
        "y[i, j]: f64[n, b] = mul(u[i, j], mul(t[i], x[j])) over i<n, j<b",
    )
    assert ahead(program, Context()) == {"t"}


def test_a_function_of_a_constant_is_computed_ahead() -> None:
    program = ir(
        "input const W: f64[n, m]",
        "input x: f64[m]",
        "y[i]: f64[n] = einsum[plustimes, f64](j; exp(W[i, j]), x[j]) over i<n, j<m",
    )
    after = planned(program)
    assert ahead(after, Context()) == {"y.1"}
    plain = planned(ir(*("input W: f64[n, m]", "input x: f64[m]", "y[i]: f64[n] = " + "einsum[plustimes, f64]"
                         "(j; exp(W[i, j]), x[j]) over i<n, j<m")))  # fmt: skip
    assert len(plain.equations) == 1


# --- all semirings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_products_of_many_factors(seed: int) -> None:
    choose = random.Random(seed)
    program = random_product(choose, choose.choice(SEMIRINGS), most=9)
    sizes = {"n" + c: choose.choice((1, 7, 90)) for c in "abcde"}
    after = planned(program, sizes=sizes)
    assert_same(program, after, seed)
    if all(e.semiring == PLUS_TIMES for e in program.equations):
        assert count_program(after, sizes).flops <= 2 * count_program(program, sizes).flops + 4096


def test_intermediates_have_the_names_of_their_results() -> None:
    after = planned(ir(*CHAIN), sizes=dict.fromkeys("mnpq", 99))
    assert [e.name for e in after.equations] == ["y.1", "y"]
    taken = ir("input y.1: f64[p, q]", *(line.replace("C", "y.1") for line in CHAIN if line != "input C: f64[p, q]"))
    again = planned(taken, sizes=dict.fromkeys("mnpq", 99))
    assert [e.name for e in again.equations] == ["y.2", "y"]
    assert isinstance(again.tensors["y.2"], Equation)
    arrays = {"A": np.ones((2, 2)), "B": np.ones((2, 2)), "y.1": np.ones((2, 2))}
    assert set(interpret_all(again, arrays)) == {"A", "B", "y.1", "y.2", "y"}
