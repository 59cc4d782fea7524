"""Rules R17, R18 and R21 of language.md: symmetric results, adjoints, and what needs a ring or a field."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.frontend.declare import Declaration
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.errors import DTypeError, SteinError
from stein.ir.expr import Einsum, Equation, Input, Map, Program, Read, reads, substitute, walk
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret
from stein.ir.rewrite import Scope
from stein.ir.semiring import BOOLEAN, MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.size import Size
from stein.ir.structures.build import Method, Value
from stein.ir.structures.toeplitz import Toeplitz
from stein.ir.text import parse_ir
from stein.ir.types import BOOL, C64, C128, DTYPES, F32, F64, I8, I32, I64, U16, DType
from stein.passes import rules
from stein.passes.adjoint import adjoint
from stein.passes.factor import factored
from stein.passes.fuse import quotient
from stein.passes.recognise import recognise
from stein.passes.structured import rewritten as candidates
from stein.passes.symmetry import symmetric_axes
from stein.passes.tools import Hints
from stein.tests.passes.products import (
    LABELS,
    MIN_MAX,
    SEMIRINGS,
    Arrays,
    arguments,
    assert_same,
    dtype_of,
    each_semiring,
    ir,
    logsumexp_bound,
    planned,
    product,
    random_product,
    read,
    root,
    scope_of,
)

quick = settings(max_examples=20, deadline=None)
choices = st.randoms(use_true_random=False)
NO_RINGS = (*(s for s in SEMIRINGS if s != PLUS_TIMES), MIN_MAX)
no_ring = pytest.mark.parametrize("semiring", NO_RINGS, ids=lambda s: s.name)
FOUR = {"n": 4}


def square_product(choose: random.Random, semiring: Semiring, dtype: DType, kept: int) -> Program:
    """A product of up to four reads of two matrices and a vector, all of one extent, so that tensors stand twice."""
    n = Size.name("n")
    tensors = {"S": 2, "T": 2, "v": 1}
    chosen = [choose.choice(tuple(tensors)) for _ in range(choose.randrange(1, 5))]
    factors = tuple(read(t, "".join(choose.choices(LABELS, k=tensors[t])), dtype) for t in chosen)
    used = sorted({i for f in factors for s in f.slots for i in s.indices})
    free = used[:kept]
    bound = tuple(i for i in used if i not in free)
    einsum = Einsum(bound, factors, dtype, dtype, semiring)
    slots, indices = tuple(Affine.of(i) for i in free), tuple(Index(i, n) for i in used)
    equation = Equation("y", slots, (n,) * len(free), indices, einsum, dtype, semiring)
    program = Program(tuple(Input(t, (n,) * tensors[t], dtype) for t in dict.fromkeys(chosen)), (equation,), ("y",))
    check_program(program)
    return program


# --- R17 --------------------------------------------------------------------------------------------------------------


@each_semiring
@quick
@given(choices, st.integers(2, 3))
def test_r17_claimed_symmetries_hold(semiring: Semiring, choose: random.Random, kept: int) -> None:
    program = square_product(choose, semiring, dtype_of(semiring), kept)
    arrays = arguments(program, choose.randrange(1000), FOUR)
    value = interpret(program, arrays, FOUR)["y"]
    bound = logsumexp_bound(program, arrays | {"y": value}, FOUR)
    for a, b in symmetric_axes(program.equations[0]):
        np.testing.assert_allclose(value, np.swapaxes(value, a, b), rtol=0, atol=bound)


@each_semiring
def test_r17_gram_matrices_are_symmetric(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    text = (
        f"input X: {kind}[m, n]\ninput Z: {kind}[m, n]\ninput W: {kind}[m]\n"
        f"G[i, j]: {kind}[n, n] = einsum[{semiring.name}, {kind}](k; X[k, i], W[k], {{}}[k, j]) over i<n, j<n, k<m\n"
        "return G"
    )
    program = parse_ir(text.format("X"))
    assert symmetric_axes(program.equations[0]) == ((0, 1),)
    value = interpret(program, arguments(program, 1, {"m": 3, "n": 4}))["G"]
    np.testing.assert_array_equal(value, value.T)
    assert symmetric_axes(parse_ir(text.format("Z")).equations[0]) == ()


@each_semiring
def test_r17_a_form_between_two_vectors_is_not_symmetric(semiring: Semiring) -> None:
    kind = dtype_of(semiring).name
    for slots, holds in (("i, k], S[k, j", False), ("k, i], S[k, j", True), ("i, k], S[j, k", True)):
        body = f"y[i, j]: {kind}[n, n] = einsum[{semiring.name}, {kind}](k; S[{slots}]) over i<n, j<n, k<n"
        program = ir(f"input S: {kind}[n, n]", body)
        assert (symmetric_axes(program.equations[0]) == ((0, 1),)) == holds
        values = [interpret(program, arguments(program, seed, FOUR))["y"] for seed in range(5)]
        bounds = [1e-9 * bool(semiring.name == "logsumexp")] * 5  # far above rounding, far below the asymmetry
        same = [np.allclose(v, v.T, rtol=0, atol=b) for v, b in zip(values, bounds, strict=True)]
        assert all(same) == holds


def test_r17_symmetry_of_three_axes() -> None:
    text = "y[i, j, k]: f64[n, n, n] = einsum[plustimes, f64](; v[i], v[j], v[k]) over i<n, j<n, k<n"
    assert symmetric_axes(ir("input v: f64[n]", text).equations[0]) == ((0, 1), (0, 2), (1, 2))
    rectangular = text.replace("f64[n, n, n]", "f64[n, m, n]").replace("j<n", "j<m")
    assert (0, 1) not in symmetric_axes(ir("input v: f64[n]", rectangular).equations[0])


@pytest.mark.parametrize(
    "line",
    [
        "y[i, j]: c128[n, n] = einsum[plustimes, c128](k; X[k, i], conj(X[k, j])) over i<n, j<n, k<m",  # Hermitian
        "y[i, j]: c128[n, n] = sub(X[0, i], X[0, j]) over i<n, j<n",
        "y[i, j]: c128[n, n] = einsum[plustimes, c128](; X[0, i], X[0, j], le(at(i), at(j))) over i<n, j<n",
        "y[i, j]: c128[2*n, n] = mul(X[0, i], X[0, j]) over i<n, j<n",  # half of it is empty
    ],
)
def test_r17_is_not_claimed_of(line: str) -> None:
    program = ir("input X: c128[m, n]", line)
    assert symmetric_axes(program.equations[0]) == ()
    value = interpret(program, arguments(program, 3, {"m": 2, "n": 3}))["y"]
    assert value.shape != value.T.shape or not np.array_equal(value, value.T)


# --- R18 --------------------------------------------------------------------------------------------------------------

RINGS = pytest.mark.parametrize("dtype", [F64, C128, I64, I8, U16], ids=str)


def inner(a: np.ndarray, b: np.ndarray, dtype: DType) -> object:
    """The sum of conj(a)*b in the ring of `dtype`: exact for small whole numbers, modulo for integers."""
    with np.errstate(over="ignore"):
        return np.sum(np.conj(a) * b, dtype=dtype.numpy)


def assert_adjoint(program: Program, operand: str, seed: int, sizes: dict[str, int], dtype: DType) -> None:
    """<g, Dy(D)> = <grad, D> in the ring, Dy(D) being the sum over the places of the operand with D put there."""
    gradient = adjoint(program, "y", operand)
    check_program(gradient)
    arrays = arguments(program, seed, sizes)
    shift = arguments(program, seed + 99, sizes)[operand]
    equation, einsum = program.equations[0], root(program)
    shape = tuple(i for i in program.inputs if i.name == operand)
    moved = []
    for place, factor in enumerate(einsum.factors):
        if isinstance(factor, Read) and factor.tensor == operand:
            factors = (*einsum.factors[:place], replace(factor, tensor="D"), *einsum.factors[place + 1 :])
            inputs = (*program.inputs, replace(shape[0], name="D"))
            one = replace(program, inputs=inputs, equations=(replace(equation, expr=replace(einsum, factors=factors)),))
            moved.append(interpret(one, arrays | {"D": shift}, sizes)["y"])
    change: np.ndarray = reduce(np.add, moved)
    choose = np.random.default_rng(seed)
    weights = choose.integers(0, 5, change.shape).astype(dtype.numpy)
    if dtype.kind == "c":
        weights = weights - 1j * choose.integers(0, 5, change.shape)
    given = {i.name: weights if i.name == "g" else arrays[i.name] for i in gradient.inputs}
    grad = interpret(gradient, given, sizes)["grad"]
    assert grad.shape == shift.shape and grad.dtype == shift.dtype
    assert inner(weights, change, dtype) == inner(grad, shift, dtype)


@RINGS
@quick
@given(choices)
def test_r18_adjoint_is_the_transposed_linear_map(dtype: DType, choose: random.Random) -> None:
    program = random_product(choose, PLUS_TIMES, dtype=dtype)
    sizes = {"na": 2, "nb": 3, "nc": 1, "nd": 4, "ne": choose.randrange(3)}
    assert_adjoint(program, choose.choice(program.inputs).name, choose.randrange(1000), sizes, dtype)


@RINGS
@quick
@given(choices, st.integers(0, 3))
def test_r18_adds_the_places_of_an_operand(dtype: DType, choose: random.Random, kept: int) -> None:
    program = square_product(choose, PLUS_TIMES, dtype, kept)
    assert_adjoint(program, choose.choice(program.inputs).name, choose.randrange(1000), {"n": 3}, dtype)


@RINGS
def test_r18_through_affine_accesses(dtype: DType) -> None:
    line = f"y[i]: {dtype}[n] = einsum[plustimes, {dtype}](j; t[i-j+{{n-1}}], x[j], A[i, i]) over i<n, j<n"
    program = ir(f"input t: {dtype}[2*n-1]", f"input x: {dtype}[n]", f"input A: {dtype}[n, n]", line)
    for operand in ("t", "x", "A"):
        for n in (0, 1, 5):
            sizes = {"n": n} if n else {}
            if n:
                assert_adjoint(program, operand, n, sizes, dtype)


@RINGS
def test_r18_of_a_sum_that_adds_to_its_operand(dtype: DType) -> None:
    """y = v + S v: the gradient by v is g + S* g."""
    n = Size.name("n")
    body = Einsum(("b",), (read("S", "ab", dtype), read("v", "b", dtype)), dtype, dtype)
    equation = Equation("y", (Affine.of("a"),), (n,), (Index("a", n), Index("b", n)), body, dtype, PLUS_TIMES, "v")
    program = Program((Input("S", (n, n), dtype), Input("v", (n,), dtype)), (equation,), ("y",))
    arrays: Arrays = arguments(program, 1, FOUR)
    g = arguments(program, 2, FOUR)["v"]
    gradient = adjoint(program, "y", "v")
    check_program(gradient)
    got = interpret(gradient, {"g": g, "S": arrays["S"]})["grad"]
    np.testing.assert_array_equal(got, g + np.conj(arrays["S"]).T @ g)
    only = replace(program, equations=(replace(equation, expr=replace(body, factors=(read("S", "ab", dtype),))),))
    np.testing.assert_array_equal(interpret(adjoint(only, "y", "v"), {"g": g})["grad"], g)


def test_r18_a_real_operand_of_a_complex_product_has_a_real_gradient() -> None:
    line = "y[i]: c128[n] = einsum[plustimes, c128](j; A[i, j], x[j]) over i<n, j<n"
    program = ir("input A: c128[n, n]", "input x: f64[n]", line)
    arrays, g = arguments(program, 1, FOUR), np.arange(4) * (1 - 2j)
    grad = interpret(adjoint(program, "y", "x"), {"g": g, "A": arrays["A"]})["grad"]
    assert grad.dtype == np.float64
    np.testing.assert_array_equal(grad, (np.conj(arrays["A"]).T @ g).real)


@no_ring
def test_r18_no_gradient_without_a_ring(semiring: Semiring) -> None:
    with pytest.raises(DTypeError, match="ring"):
        adjoint(product(semiring, {"A": "ab"}, "a"), "y", "A")
    outer = product(PLUS_TIMES, {"A": "ab", "v": "a"}, "a", dtype=dtype_of(semiring))
    updating = replace(outer, equations=(replace(outer.equations[0], semiring=semiring, update="v"),))
    with pytest.raises(DTypeError, match="ring"):  # max= of a sum of products
        adjoint(updating, "y", "A")


def test_r18_refuses_what_has_no_gradient() -> None:
    bools = product(PLUS_TIMES, {"A": "ab"}, "a", dtype=BOOL)
    with pytest.raises(DTypeError, match="bools"):
        adjoint(bools, "y", "A")
    for kind in ("bool", "i32"):
        line = "y[i]: f64[n] = einsum[plustimes, f64](j; A[i, j], x[j]) over i<n, j<n"
        mixed = ir(f"input A: {kind}[n, n]", "input x: f64[n]", line)
        assert adjoint(mixed, "y", "x").outputs == ("grad",)
        with pytest.raises(DTypeError, match=kind):
            adjoint(mixed, "y", "A")
    plain = product(PLUS_TIMES, {"A": "ab"}, "a")
    for operand, cotangent in (("B", "g"), ("A", "A")):
        with pytest.raises((DTypeError, KeyError)):
            adjoint(plain, "y", operand, cotangent)
    padded = ir("input x: f64[n]", "y[i]: f64[n] = einsum[plustimes, f64](j; x[i-j; pad=0.0]) over i<n, j<n")
    with pytest.raises(DTypeError, match="plain"):
        adjoint(padded, "y", "x")


# --- R21 --------------------------------------------------------------------------------------------------------------


def test_r21_who_may_subtract_and_divide() -> None:
    for semiring in (*SEMIRINGS, MIN_MAX):
        for dtype in DTYPES.values():
            ring = semiring == PLUS_TIMES and dtype != BOOL
            assert rules.may_subtract(semiring, dtype) == ring
            assert rules.may_divide(semiring, dtype) == (ring and dtype.kind in "fc")
            needs = [
                n for n in ("semiring", "ring", "complex") if Method("m", applied_nowhere, n).allowed(dtype, semiring)
            ]
            assert needs == [
                "semiring",
                *(["ring"] if ring else []),
                *(["complex"] if ring and dtype.kind in "fc" else []),
            ]


def applied_nowhere(*_: object) -> Value:
    raise AssertionError("only asked whether it is allowed")


def difference(semiring: Semiring, dtype: DType) -> Einsum:
    minus = Map("sub", (read("A", "ab", dtype), read("B", "ab", dtype)), dtype)
    return Einsum(("b",), (minus, read("C", "bd", dtype)), dtype, dtype, semiring)


@no_ring
def test_r21_differences_do_not_distribute(semiring: Semiring) -> None:
    scope = scope_of(product(PLUS_TIMES, {"A": "ab"}, "a"))
    assert rules.distribute(difference(semiring, dtype_of(semiring)), 0, scope) is None
    assert rules.distribute(difference(PLUS_TIMES, BOOL), 0, scope) is None
    for dtype in (F32, C64, I32):
        after = rules.distribute(difference(PLUS_TIMES, dtype), 0, scope)
        assert isinstance(after, Map) and after.function == "sub"


@no_ring
@pytest.mark.parametrize("function", ["add", "sub"])
def test_r21_differences_are_not_factored(semiring: Semiring, function: str) -> None:
    """(A x) - (B x) is no (A - B) x where x joins by a semiring's product."""
    dtype = dtype_of(semiring)
    one = product(semiring, {"A": "ab", "B": "ab", "x": "bd"}, "ad")
    first = replace(root(one), factors=(read("A", "ab", dtype), read("x", "bd", dtype)))
    second = substitute(replace(first, factors=(read("B", "ab", dtype), read("x", "bd", dtype))), {"b": Affine.of("e")})
    both = Map(function, (first, second), dtype)
    equation = replace(one.equations[0], expr=both, indices=(*one.equations[0].indices, Index("e", Size.name("nb"))))
    program = replace(one, equations=(equation,))
    assert factored(both, Scope(program, equation)) is None
    field = substitute_semiring(program, PLUS_TIMES)
    counts = substitute_semiring(program, Semiring("counts", "add", "mul", 0, 1))  # of the numbers from 0 up
    assert factored(counts.equations[0].expr, Scope(counts, counts.equations[0])) is None
    if dtype != BOOL:
        assert factored(field.equations[0].expr, Scope(field, field.equations[0])) is not None


def substitute_semiring(program: Program, semiring: Semiring) -> Program:
    equation = program.equations[0]
    assert isinstance(equation.expr, Map)
    args = tuple(replace(a, semiring=semiring) if isinstance(a, Einsum) else a for a in equation.expr.args)
    return replace(program, equations=(replace(equation, expr=replace(equation.expr, args=args)),))


@pytest.mark.parametrize("semiring", (PLUS_TIMES, *NO_RINGS[:-1]), ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", [F64, F32, C128, I64, U16], ids=str)
def test_r21_no_fourier_transform_outside_of_a_field(semiring: Semiring, dtype: DType) -> None:
    if semiring == BOOLEAN:
        dtype = BOOL
    text = f"y[i]: {dtype}[4] = einsum[{semiring.name}, {dtype}](j; t[i-j+3], x[j]) over i<4, j<4"
    program = ir(f"input t: {dtype}[7]", f"input x: {dtype}[4]", text)
    field = semiring == PLUS_TIMES and dtype.kind in "fc"
    methods = Toeplitz.of(4, 4).methods()
    needing = {m.name for m in methods if m.needs == "complex"}  # these round
    allowed = {m.name for m in methods if m.allowed(dtype, semiring)}
    assert "fft" in needing and "contraction" in allowed
    assert needing & allowed == (needing if field else set())
    found = {name: p for finding in recognise(program, "x") for name, p in candidates(program, finding)}
    assert ("fft" in found) == field and ("contraction" in found or semiring != PLUS_TIMES)
    for name, candidate in found.items():
        if name not in needing:
            assert_same(program, candidate, 3, {})
            assert not any(isinstance(e, Map) and e.function in ("sub", "div") for e in every(candidate))


def every(program: Program) -> list[object]:
    return [e for q in program.equations for e in walk(q.expr)]


@pytest.mark.parametrize("semiring", NO_RINGS[:-1], ids=lambda s: s.name)
@pytest.mark.parametrize("operator", ["-", "/"])
def test_r21_the_language_refuses_the_operations(semiring: Semiring, operator: str) -> None:
    said = {n: Declaration(("n", "n"), F64) for n in "ABC"}
    text = f"d[i,j] = A[i,k]*B[k,j] {operator} C[i,j] over {semiring.name}"
    with pytest.raises(SteinError, match=f"{semiring.name} has no"):
        elaborate(parse_program(text), said)
    assert elaborate(parse_program(text.split(" over")[0]), said).outputs == ("d",)


def quotients(semiring: Semiring, dtype: DType) -> Program:
    p, s = read("p", "ab", dtype), read("s", "a", dtype)
    total = Einsum(("b",), (read("q", "ab", dtype), read("v", "b", dtype)), dtype, dtype, semiring)
    n, m = Size.name("na"), Size.name("nb")
    a, b = Index("a", n), Index("b", m)
    value = Map("div", (p, s), dtype)
    slots = (Affine.of("a"), Affine.of("b"))
    first = Equation("q", slots, (n, m), (a, b), value, dtype)
    second = Equation("y", slots[:1], (n,), (a, b), total, dtype, semiring)
    inputs = (Input("p", (n, m), dtype), Input("s", (n,), dtype), Input("v", (m,), dtype))
    program = Program(inputs, (first, second), ("y",))
    check_program(program)
    return program


@each_semiring
def test_r21_a_quotient_leaves_a_sum_only_in_a_field(semiring: Semiring) -> None:
    if semiring == BOOLEAN:  # a quotient of bools is a float
        semiring = MIN_MAX
    program = quotients(semiring, F64)
    taken_out = quotient(*program.equations, Hints({}))
    assert (taken_out is not None) == (semiring == PLUS_TIMES)
    after = planned(program) if taken_out is None else replace(program, equations=(taken_out,))
    arrays = arguments(program, 4) | {"s": np.array([2.0, 0.5])}  # halves are exact
    given = {i.name: arrays[i.name] for i in after.inputs}
    bound = logsumexp_bound(program, arrays, {"na": 2, "nb": 3}) if semiring.name == "logsumexp" else 0
    np.testing.assert_allclose(interpret(after, given)["y"], interpret(program, arrays)["y"], rtol=0, atol=bound)
    for whole in (I64, U16):  # a quotient of whole numbers is a float, so its reader is no sum of integers
        source, reader = program.equations
        sums = replace(reader, expr=replace(root(replace(program, equations=(reader,))), accumulate=whole, dtype=whole))
        assert quotient(source, sums, Hints({})) is None


def test_r21_is_asked_wherever_a_pass_subtracts() -> None:
    """The adjoint reads what it needs of the semiring from the same place: a ring of a user has gradients."""
    mine = Semiring("mine", "add", "mul", 0, 1, ring=True)
    gradient = adjoint(product(mine, {"A": "ab", "x": "b"}, "a"), "y", "A")
    assert [r.tensor for r in reads(gradient.equations[0].expr)] == ["g", "x"]
    with pytest.raises(DTypeError, match="ring"):
        adjoint(product(MAX_PLUS, {"A": "ab", "x": "b"}, "a"), "y", "A")
