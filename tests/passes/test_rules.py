"""Rules R1 to R22 of language.md, over the semirings that each claims, against the interpreter; and where none may fire."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stein.ir.errors import DTypeError
from stein.ir.expr import (
    Const,
    Einsum,
    Expr,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    substitute,
    walk,
)
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret
from stein.ir.rewrite import Scope, Trace
from stein.ir.semiring import BOOLEAN, LOGSUMEXP, MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.size import ONE, Size
from stein.ir.text import parse_ir, print_program
from stein.ir.types import BOOL, F64, I64
from stein.passes import rules
from stein.passes.adjoint import adjoint
from stein.passes.base import Context
from stein.passes.common import equation_key, key
from stein.passes.factor import factored
from stein.passes.fuse import fuse
from stein.passes.normalise import merge_composite, normalise, squeeze_ones
from stein.passes.symmetry import symmetric_axes
from stein.tests.passes.products import (
    SEMIRINGS,
    arguments,
    assert_same,
    dtype_of,
    extents,
    planned,
    product,
    random_product,
    read,
    rewritten,
)

each_semiring = pytest.mark.parametrize("semiring", SEMIRINGS, ids=lambda s: s.name)
CASES = 25  # random products for each rule and semiring


def products(semiring: Semiring, repeats: bool = True) -> list[tuple[int, random.Random, Program]]:
    out = []
    for seed in range(CASES):
        choose = random.Random(seed)
        out.append((seed, choose, random_product(choose, semiring, repeats=repeats)))
    return out


def root(program: Program) -> Einsum:
    expr = program.equations[0].expr
    assert isinstance(expr, Einsum)
    return expr


def scope_of(program: Program) -> Scope:
    return Scope(program, program.equations[0])


def check_rule(semiring: Semiring, rule: Callable[[Einsum, Scope], Expr | None]) -> int:
    """The rule on random products: the same values; the number of times that it changed something."""
    fired = 0
    for seed, _, program in products(semiring):
        after = rewritten(program, rule)
        if after is not None and after != program:
            fired += 1
            assert_same(program, after, seed)
    return fired


# --- R1 to R3: names and order ---------------------------------------------------------------------------------------


@each_semiring
def test_r1_renaming_keeps_value_and_key(semiring: Semiring) -> None:
    for seed, choose, program in products(semiring):
        equation = program.equations[0]
        names = [i.name for i in equation.indices]
        new = dict(zip(names, choose.sample([f"z{k}" for k in range(9)], len(names)), strict=True))
        values = {a: Affine.of(b) for a, b in new.items()}
        renamed = replace(
            equation,
            slots=tuple(s.substitute(values) for s in equation.slots),
            indices=tuple(Index(new[i.name], i.extent) for i in equation.indices),
            expr=substitute(equation.expr, values),
        )
        assert equation_key(renamed) == equation_key(equation)
        assert_same(program, replace(program, equations=(renamed,)), seed)


@each_semiring
def test_r2_factors_commute(semiring: Semiring) -> None:
    for seed, choose, program in products(semiring):
        einsum = root(program)
        factors = choose.sample(einsum.factors, len(einsum.factors))
        after = rewritten(program, lambda e, s, f=tuple(factors): replace(e, factors=f))  # type: ignore[misc]
        assert after is not None
        assert equation_key(after.equations[0]) == equation_key(program.equations[0])
        assert_same(program, after, seed)


def test_r2_key_tells_other_products_apart() -> None:
    sizes = extents()
    same = [
        root(product(PLUS_TIMES, {"A": "ab", "B": "bc"}, "ac")),
        root(product(PLUS_TIMES, {"B": "bc", "A": "ab"}, "ac")),
    ]
    other = root(product(PLUS_TIMES, {"A": "ba", "B": "bc"}, "ac"))
    assert key(same[0], sizes) == key(same[1], sizes) != key(other, sizes)
    assert key(same[0], sizes) != key(replace(same[0], semiring=MAX_PLUS), sizes)


@each_semiring
def test_r3_another_output_order_is_the_transpose(semiring: Semiring) -> None:
    one = product(semiring, {"A": "ab", "B": "bd"}, "ad")
    other = product(semiring, {"A": "ab", "B": "bd"}, "da")
    arrays = arguments(one, 3)
    np.testing.assert_array_equal(interpret(one, arrays)["y"].T, interpret(other, arrays)["y"])


# --- R4, R5: nesting ---------------------------------------------------------------------------------------------------


@each_semiring
def test_r4_any_subset_nests_and_r5_undoes_it(semiring: Semiring) -> None:
    for seed, choose, program in products(semiring):
        einsum = root(program)
        chosen = [k for k in range(len(einsum.factors)) if choose.random() < 0.5]
        if not chosen:
            continue
        nested = rewritten(program, lambda e, s, c=chosen: rules.nest(e, c, program.equations[0].free))  # type: ignore[misc]
        assert nested is not None
        assert_same(program, nested, seed)
        flat = rewritten(nested, rules.denest)
        assert flat is not None
        assert not any(isinstance(f, Einsum) for f in root(flat).factors)
        assert equation_key(flat.equations[0]) == equation_key(program.equations[0])


def test_r4_keeps_an_index_that_is_used_outside() -> None:
    inner = rules.nest(root(product(PLUS_TIMES, {"A": "ab", "B": "bd", "C": "be"}, "ade")), [0, 1], "ade").factors[0]
    assert isinstance(inner, Einsum)
    assert inner.bound == ()  # b is a hyperedge


def test_r5_does_not_mix_semirings_or_types() -> None:
    inner = root(product(MAX_PLUS, {"A": "ab"}, "a"))
    scope = scope_of(product(PLUS_TIMES, {"A": "ab"}, "a"))
    assert rules.denest(Einsum(("a",), (inner,), F64, F64, PLUS_TIMES), scope) is None
    counted = root(product(BOOLEAN, {"A": "ab"}, "a"))  # or of bools, then counted: no sum of products
    assert rules.denest(Einsum(("a",), (replace(counted, semiring=PLUS_TIMES),), F64, F64, PLUS_TIMES), scope) is None
    small = replace(inner, semiring=PLUS_TIMES, dtype=I64, accumulate=I64)
    assert rules.denest(Einsum(("a",), (small,), F64, F64, PLUS_TIMES), scope) is None


# --- R6, R7: deltas ----------------------------------------------------------------------------------------------------


def delta(a: str, b: str) -> Map:
    return Map("eq", (Position(Affine.of(a)), Position(Affine.of(b))), BOOL)


@each_semiring
def test_r7_repeats_become_deltas_and_r6_takes_them_back(semiring: Semiring) -> None:
    fired = 0
    for seed, _, program in products(semiring):
        spread = rewritten(program, rules.spread_repeats)
        assert spread is not None
        if spread == program:
            continue
        fired += 1
        assert_same(program, spread, seed)
        back = normalise(spread, Context(), Trace())
        assert not any(rules.delta_of(e) is not None for e in walk(back.equations[0].expr))
        assert_same(program, back, seed)
    assert fired > 3


@each_semiring
def test_r6_identity_matrix_disappears(semiring: Semiring) -> None:
    program = product(semiring, {"B": "bc"}, "ac")
    einsum = replace(root(program), bound=("b",), factors=(delta("a", "b"), root(program).factors[0]))
    sizes = extents() | {"a": Size.name("nb")}
    equation = replace(
        program.equations[0],
        expr=einsum,
        shape=(sizes["a"], sizes["c"]),
        indices=tuple(Index(c, sizes[c]) for c in "abc"),
    )
    program = replace(program, equations=(equation,))
    after = rewritten(program, rules.substitute_delta)
    assert after is not None
    assert root(after) == Einsum((), (read("B", "ac", dtype_of(semiring)),), einsum.dtype, einsum.accumulate, semiring)
    assert_same(program, after, 1)


def test_r6_pads_where_the_index_may_leave_its_range() -> None:
    program = parse_ir(
        "input T: f64[n, n]\n"
        "y[k]: f64[2*n-1] = einsum[plustimes, f64](i, j; eq(at(i+j), at(k)), T[i, j]) over k<2*n-1, i<n, j<n\nreturn y"
    )
    after = rewritten(program, rules.substitute_delta)
    assert after is not None
    assert [r.pad for r in root(after).factors if isinstance(r, Read)] == [0]
    assert_same(program, after, 5, {"n": 4})


def test_r6_leaves_what_it_cannot_prove() -> None:
    text = (
        "input x: f64[n]\ny[i]: f64[m] = einsum[plustimes, f64](j; eq(at(i), at(j)), exp(x[j])) over i<m, j<n\nreturn y"
    )
    assert rewritten(parse_ir(text), rules.substitute_delta) is None  # i may pass n, and exp(0) is not 0
    both = (
        "input x: f64[n]\ny[i,j]: f64[n, n] = einsum[plustimes, f64](; eq(at(i), at(j)), x[j]) over i<n, j<n\nreturn y"
    )
    assert rewritten(parse_ir(both), rules.substitute_delta) is None  # nothing is summed
    fixed = "input x: f64[n]\ny: f64 = einsum[plustimes, f64](j; eq(at(j), at(0)), exp(x[j])) over j<n\nreturn y"
    assert rewritten(parse_ir(fixed), rules.substitute_delta) is None  # n may be 0


# --- R8, R9, R22 -------------------------------------------------------------------------------------------------------


@each_semiring
def test_r8_ones_go(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    one = Const(semiring.one_of(dtype), dtype)
    for seed in range(5):
        program = product(semiring, {"A": "ab", "B": "b"}, "a", (one, Const(True, BOOL)))
        after = rewritten(program, rules.drop_ones)
        assert after is not None
        assert len(root(after).factors) == 2
        assert_same(program, after, seed)
    two = product(semiring, {"A": "ab"}, "a", (Const(semiring.zero_of(dtype), dtype),))
    assert rewritten(two, rules.drop_ones) is None


@each_semiring
@pytest.mark.parametrize("extent", [Size.of(3), Size.name("nd")], ids=str)
def test_r8_an_index_that_nothing_uses(semiring: Semiring, extent: Size) -> None:
    program = product(semiring, {"A": "ab"}, "a")
    equation = program.equations[0]
    wide = replace(
        equation,
        expr=replace(root(program), bound=("b", "e")),
        indices=(*equation.indices, Index("e", extent)),
    )
    program = replace(program, equations=(wide,))
    after = rewritten(program, rules.sum_of_nothing)
    counts = semiring == PLUS_TIMES
    idempotent = semiring not in (PLUS_TIMES, LOGSUMEXP) and extent.constant is not None
    assert (after is not None) == (counts or idempotent)
    for sizes in ({"na": 2, "nb": 3, "nd": 4}, {"na": 2, "nb": 3, "nd": 0}):
        if after is not None:
            assert any(isinstance(f, SizeValue) for f in root(after).factors) == counts
            assert_same(program, after, 2, sizes)


def test_r9_zero_only_in_exact_arithmetic() -> None:
    text = "input x: {t}[n]\ny: {t} = einsum[plustimes, {t}](i; x[i], {z}) over i<n\nreturn y"
    exact = parse_ir(text.format(t="i64", z="0:i64"))
    after = rewritten(exact, rules.zero_factor)
    assert after is not None
    assert after.equations[0].expr == Const(0, I64)
    assert_same(exact, after, 0, {"n": 3})
    inexact = parse_ir(text.format(t="f64", z="0.0:f64"))
    assert rewritten(inexact, rules.zero_factor) is None
    assert np.isnan(interpret(planned(inexact), {"x": np.array([np.nan, 1.0])})["y"])  # an observed 0 does not hide NaN


@pytest.mark.parametrize("function", ["maximum", "minimum", "logical_or", "logical_and"])
def test_r22_equal_summands_count_once(function: str) -> None:
    dtype = BOOL if function.startswith("logical") else F64
    left = root(product(BOOLEAN if dtype == BOOL else MAX_PLUS, {"A": "ab", "B": "bd"}, "ad"))
    right = substitute(replace(left, factors=left.factors[::-1]), {"b": Affine.of("e")})
    scope = Scope(product(PLUS_TIMES, {"A": "ab"}, "a"), product(PLUS_TIMES, {"A": "ab"}, "a").equations[0])
    scope.extents.update(extents() | {"e": Size.name("nb")})
    other = Read("C", (Affine.of("a"),), dtype)
    assert rules.drop_duplicates(Map(function, (left, right), dtype), scope) == left
    three = Map(function, (Map(function, (left, other), dtype), right), dtype)
    assert rules.drop_duplicates(three, scope) == Map(function, (left, other), dtype)
    assert rules.drop_duplicates(Map("add", (left, right), F64), scope) is None
    assert rules.drop_duplicates(Map(function, (left, other), dtype), scope) is None


# --- R10, R11 ----------------------------------------------------------------------------------------------------------


@each_semiring
def test_r10_scalars_leave_the_sum(semiring: Semiring) -> None:
    program = product(semiring, {"s": "", "A": "ab", "B": "bd"}, "ad")
    after = planned(program)
    expr = after.equations[0].expr
    assert_same(program, after, 4)
    if semiring != BOOLEAN:  # a bool may select: it stays
        assert isinstance(expr, Map) and expr.function == semiring.mul
        assert isinstance(expr.args[0], Einsum) and len(expr.args[0].factors) == 2
    assert isinstance(planned(program, strict=True).equations[-1].expr, Einsum)


@each_semiring
def test_r11_sums_distribute(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    total = Map(semiring.add, (read("A", "ab", dtype), read("B", "ab", dtype)), dtype)
    program = product(semiring, {"A": "ab", "B": "ab", "C": "bd"}, "ad")
    program = replace(
        program,
        equations=(
            replace(program.equations[0], expr=replace(root(program), factors=(total, root(program).factors[2]))),
        ),
    )
    after = rewritten(program, lambda e, s: rules.distribute(e, 0))
    assert after is not None
    assert isinstance(after.equations[0].expr, Map)
    # the two sums bind b twice: not a legal program, but a legal value
    assert_same(program, after, 6) if semiring != LOGSUMEXP else None


def test_r11_and_r21_differences_only_in_a_ring() -> None:
    minus = Map("sub", (read("A", "ab", F64), read("B", "ab", F64)), F64)
    einsum = Einsum(("b",), (minus, read("C", "bd", F64)), F64, F64)
    assert rules.distribute(einsum, 0) is not None
    assert rules.distribute(replace(einsum, semiring=MAX_PLUS), 0) is None
    assert [s.name for s in SEMIRINGS if rules.may_subtract(s)] == ["plustimes"]
    assert [s.name for s in SEMIRINGS if rules.may_divide(s)] == ["plustimes"]


SHARED = """input A: f64[n, n]
input B: f64[n, n]
input x: f64[n, m]
y[i, j]: f64[n, m] = {f}(einsum[plustimes, f64](k; A[i, k], x[k, j]), einsum[{s}, f64](l; x[l, j], B[{t}])) over i<n, j<m, k<n, l<n
return y"""


@pytest.mark.parametrize("function", ["add", "sub"])
def test_r11_backwards_takes_a_common_factor_out(function: str) -> None:
    program = parse_ir(SHARED.format(f=function, s="plustimes", t="i, l"))
    equation = program.equations[0]
    assert isinstance(factored(equation.expr, Scope(program, equation)), Einsum)
    assert_same(program, planned(program, sizes={"n": 300, "m": 300}), 7, {"n": 3, "m": 4})
    for other in (SHARED.format(f=function, s="maxplus", t="i, l"), SHARED.format(f=function, s="plustimes", t="l, l")):
        program = parse_ir(other)
        assert factored(program.equations[0].expr, Scope(program, program.equations[0])) is None


# --- R12 to R14 --------------------------------------------------------------------------------------------------------


@each_semiring
def test_r12_sums_of_one_operand_first(semiring: Semiring) -> None:
    assert check_rule(semiring, rules.split_single) > 3
    program = product(semiring, {"A": "ab", "B": "ad"}, "d")
    inner = rules.split_single(root(program), scope_of(program)).factors[0]
    assert isinstance(inner, Einsum)
    assert inner.bound == ("b",)
    kept = product(semiring, {"A": "ab", "B": "ab"}, "a")
    assert rules.split_single(root(kept), scope_of(kept)) is root(kept)


@each_semiring
def test_r13_equal_index_sets_merge(semiring: Semiring) -> None:
    assert check_rule(semiring, rules.merge_equal) > 1
    program = product(semiring, {"A": "ab", "B": "ba", "C": "bd"}, "ad")
    inner = rules.merge_equal(root(program), scope_of(program)).factors[0]
    assert isinstance(inner, Einsum)
    assert inner.bound == () and len(inner.factors) == 2


@each_semiring
def test_r14_components_separate(semiring: Semiring) -> None:
    assert check_rule(semiring, rules.split_components) > 1
    program = product(semiring, {"A": "ab", "B": "de"}, "ad")
    parts = rules.split_components(root(program), scope_of(program)).factors
    assert [p.bound for p in parts if isinstance(p, Einsum)] == [("b",), ("e",)]
    joined = product(semiring, {"A": "ab", "B": "bd"}, "a")
    assert rules.split_components(root(joined), scope_of(joined)) is root(joined)


# --- R15, R16 ----------------------------------------------------------------------------------------------------------


@each_semiring
def test_r15_length_one_goes(semiring: Semiring) -> None:
    for seed, _, program in products(semiring):
        one = {"nc": ONE}
        fixed = replace(
            program,
            inputs=tuple(replace(i, shape=tuple(s.substitute(one) for s in i.shape)) for i in program.inputs),
            equations=tuple(
                replace(
                    e,
                    shape=tuple(s.substitute(one) for s in e.shape),
                    indices=tuple(Index(i.name, i.extent.substitute(one)) for i in e.indices),
                )
                for e in program.equations
            ),
        )
        squeezed = squeeze_ones(fixed.equations[0])
        assert all(i.extent != ONE for i in squeezed.indices)
        assert_same(fixed, replace(fixed, equations=(squeezed,)), seed)
        assert squeeze_ones(squeezed) is squeezed


@each_semiring
def test_r16_indices_that_go_together_merge(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    ring = f"einsum[{semiring.name}, {kind}]"
    text = (
        f"input A: {kind}[m*n, p*q]\ninput x: {kind}[p*q]\n"
        f"y[{{n}}*i+k]: {kind}[m*n] = {ring}(j, l; A[{{n}}*i+k, {{q}}*j+l], x[{{q}}*j+l]) over i<m, k<n, j<p, l<q\nreturn y"
    )
    program = parse_ir(text)
    merged = merge_composite(program.equations[0])
    assert len(merged.indices) == 2
    assert_same(program, replace(program, equations=(merged,)), 8, {"m": 2, "n": 3, "p": 2, "q": 4})


@pytest.mark.parametrize(
    "text",
    [
        "input x: f64[m*n]\ny[i, k]: f64[m, n] = x[{n}*i+k] over i<m, k<n\nreturn y",  # i stands alone on the left
        "input x: f64[2*m+n]\ny[2*i+k]: f64[2*m+n] = x[2*i+k] over i<m, k<n\nreturn y",  # the step is not the extent
        "input x: f64[m*n]\ny[i]: f64[m] = einsum[plustimes, f64](k; x[{n}*i+k]) over i<m, k<n\nreturn y",  # only k is summed
    ],
)
def test_r16_leaves_other_pairs(text: str) -> None:
    equation = parse_ir(text).equations[0]
    assert merge_composite(equation) is equation


# --- R17 to R20 --------------------------------------------------------------------------------------------------------


@each_semiring
def test_r17_gram_matrices_are_symmetric(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    text = (
        f"input X: {kind}[m, n]\ninput Z: {kind}[m, n]\n"
        f"G[i, j]: {kind}[n, n] = einsum[{semiring.name}, {kind}](k; X[k, i], {{}}[k, j]) over i<n, j<n, k<m\nreturn G"
    )
    program = parse_ir(text.format("X"))
    assert symmetric_axes(program.equations[0]) == ((0, 1),)
    value = interpret(program, arguments(program, 1, {"m": 3, "n": 4}))["G"]
    np.testing.assert_array_equal(value, value.T)
    assert symmetric_axes(parse_ir(text.format("Z")).equations[0]) == ()


def test_r17_symmetry_of_three_axes() -> None:
    text = "input v: f64[n]\nT[i, j, k]: f64[n, n, n] = einsum[plustimes, f64](; v[i], v[j], v[k]) over i<n, j<n, k<n\nreturn T"
    assert symmetric_axes(parse_ir(text).equations[0]) == ((0, 1), (0, 2), (1, 2))
    rectangular = text.replace("f64[n, n, n]", "f64[n, m, n]").replace("j<n", "j<m")
    assert (0, 1) not in symmetric_axes(parse_ir(rectangular).equations[0])


def test_r18_adjoint_is_the_transposed_linear_map() -> None:
    for seed, choose, program in products(PLUS_TIMES):
        operand = choose.choice(program.inputs).name
        try:
            gradient = adjoint(program, "y", operand)
        except DTypeError:
            continue
        assert_transposed(program, gradient, operand, seed, lambda a: a)


def test_r18_conjugates_and_adds_the_places_of_an_operand() -> None:
    text = "input A: c128[n, n]\ninput x: c128[n]\ny[i]: c128[n] = einsum[plustimes, c128](j; A[i, j], x[j]) over i<n, j<n\nreturn y"
    program = parse_ir(text)
    assert_transposed(program, adjoint(program, "y", "A"), "A", 1, lambda a: a * (2 + 1j) - 1j)
    assert_transposed(program, adjoint(program, "y", "x"), "x", 2, lambda a: a * (1 - 3j))
    twice = parse_ir("input x: f64[n]\ny: f64 = einsum[plustimes, f64](i; x[i], x[i]) over i<n\nreturn y")
    given = {"x": np.arange(3.0), "g": np.array(2.0)}
    np.testing.assert_array_equal(interpret(adjoint(twice, "y", "x"), given)["grad"], 4 * np.arange(3.0))


def test_r18_and_r21_no_gradient_without_a_ring() -> None:
    with pytest.raises(DTypeError, match="ring"):
        adjoint(product(MAX_PLUS, {"A": "ab"}, "a"), "y", "A")


def assert_transposed(
    program: Program, gradient: Program, operand: str, seed: int, shake: Callable[[np.ndarray], np.ndarray]
) -> None:
    """<g, y(A + D) - y(A)> = <grad, D>, exactly, where the equation is linear in the operand."""
    sizes = {"na": 2, "nb": 3, "nc": 1, "nd": 4, "ne": 2, "n": 3}
    arrays = {n: shake(a) for n, a in arguments(program, seed, sizes).items()}
    moved = dict(arrays) | {operand: arrays[operand] + shake(arguments(program, seed + 99, sizes)[operand])}
    change = interpret(program, moved, sizes)["y"] - interpret(program, arrays, sizes)["y"]
    weights = shake(np.random.default_rng(seed).integers(0, 5, change.shape).astype(change.dtype))
    given = {i.name: weights if i.name == "g" else arrays[i.name] for i in gradient.inputs}
    grad = interpret(gradient, given, sizes)["grad"]
    assert np.sum(np.conj(weights) * change) == np.sum(np.conj(grad) * (moved[operand] - arrays[operand]))


def test_r19_functions_pass_through_views() -> None:
    text = (
        "input x: f64[n, m]\nt[j, i]: f64[m, n] = x[i, j] over i<n, j<m\n"
        'y[j]: f64[m] = exp(t[j, j]) over j<m\nreturn y\nrequire m == n, code="c", sentence="s"'
    )
    program = parse_ir(text)
    after = planned(program, sizes={"n": 3, "m": 3})
    assert [e.name for e in after.equations] == ["y"]
    assert_same(program, after, 3, {"n": 3, "m": 3})


@pytest.mark.parametrize(("function", "fuses"), [("tanh", True), ("exp", False)])
def test_r19_through_a_diagonal_only_if_zero_stays_zero(function: str, fuses: bool) -> None:
    text = f"input v: f64[n]\nD[i, i]: f64[n, n] = v[i] over i<n\ny[i, j]: f64[n, n] = {function}(D[i, j]) over i<n, j<n\nreturn y"
    program = parse_ir(text)
    after = fuse(program, Context(sizes={"n": 9}), Trace())
    assert (len(after.equations) == 1) == fuses
    assert_same(program, after, 3, {"n": 3})


@each_semiring
def test_r20_an_affine_access_is_a_structure_tensor(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    text = (
        f"input t: {kind}[2*n-1]\ninput x: {kind}[n]\n"
        f"y[i]: {kind}[n] = einsum[{semiring.name}, {kind}](j; t[i-j+{{n-1}}], x[j]) over i<n, j<n\nreturn y"
    )
    program = parse_ir(text)
    opened = rewritten(program, lambda e, s: rules.structure_tensor(e, 0, s))
    assert opened is not None
    assert len(root(opened).factors) == 3
    assert_same(program, opened, 5, {"n": 4})
    closed = rewritten(opened, rules.substitute_delta)
    assert closed is not None
    assert equation_key(closed.equations[0]) == equation_key(program.equations[0])


# --- all of them together ----------------------------------------------------------------------------------------------


@each_semiring
def test_normal_form_and_plan_keep_the_value(semiring: Semiring) -> None:
    for seed, _, program in products(semiring):
        assert_same(program, normalise(program, Context(), Trace()), seed)
        assert_same(program, planned(program), seed)
        assert_same(program, planned(program, sizes={}, optimize=False), seed)


def test_index_values_fold() -> None:
    text = "input x: f64[n]\ny[i, j]: f64[n, n] = where(eq(add(at(i), 1:i64), sub(mul(2:i64, at(j)), size(n))), x[i], x[j]) over i<n, j<n\nreturn y"
    program = parse_ir(text)
    after = normalise(program, Context(), Trace())
    assert "eq(at(i+1), at(2*j-n))" in print_program(after).replace("+{-n}", "-n")
    assert_same(program, after, 1, {"n": 4})
