"""Random contractions, compiled and run, against their meaning in NumPy: every type, semiring, stride pattern and
epilogue.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stein.backends.cpu.machine import Machine, host, machine_of
from stein.ir.loops import Apply, Axis, Contraction, Leaf, Literal, Load, Total
from stein.ir.semiring import ALL, MAX_PLUS, PLUS_TIMES, PRODUCT, SEMIRINGS, Semiring
from stein.ir.types import (
    BF16,
    BOOL,
    C64,
    C128,
    DTYPES,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    DType,
    accumulation_type,
    real_type,
)  # fmt: skip
from stein.tests.backends.cpu.contraction_oracle import Array, execute, oracle, schedule, view

FLOATS = (F16, BF16, F32, F64, C64, C128)
LENGTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 50, 64, 65)
EPSILON = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52, "c64": 2.0**-23, "c128": 2.0**-52}


class Case:
    """A contraction with memory for its tensors: random values, random layouts."""

    def __init__(self, rng: np.random.Generator, problem: Contraction, spread: float = 1.0) -> None:
        self.problem, self.memory, self.starts = problem, [], []
        for t, dtype in enumerate(problem.dtypes):
            low = sum(min(0, (a.extent - 1) * a.strides[t]) for a in problem.axes if a.extent)
            high = sum(max(0, (a.extent - 1) * a.strides[t]) for a in problem.axes if a.extent)
            memory = np.zeros(high - low + dtype.itemsize + 128, np.uint8)
            start = int(rng.integers(0, 8)) - low + 32
            self.memory.append(memory)
            self.starts.append(start)
            extents, strides = [a.extent for a in problem.axes], [a.strides[t] for a in problem.axes]
            if 0 not in extents:
                array = view(memory, start, dtype, extents, strides)
                array[...] = random_values(rng, dtype, array.shape, spread)

    def output(self) -> Array:
        axes = [a for a in self.problem.axes if not a.reduced]
        return view(
            self.memory[0],
            self.starts[0],
            self.problem.dtypes[0],
            [a.extent for a in axes],
            [a.strides[0] for a in axes],
        )


def random_values(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...], spread: float = 1.0) -> Array:
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -5
        return rng.integers(low, 6, shape).astype(dtype.numpy)
    values = rng.standard_normal(shape) * spread
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape) * spread
    return values.astype(dtype.numpy)


def layout(
    rng: np.random.Generator, dtype: DType, extents: list[int], used: list[bool], plain: float = 0.5
) -> list[int]:
    """Byte strides of a tensor over some axes in random order: dense, padded, reversed or unaligned."""
    strides, step = [0] * len(extents), dtype.itemsize
    if rng.random() > plain:
        step += int(rng.choice([0, 1, 3, dtype.itemsize]))
    for i in rng.permutation(len(extents)):
        if used[i]:
            strides[i] = step * (1 if rng.random() < 0.7 else -1)
            step = step * max(1, extents[i]) + int(rng.choice([0, 0, 0, 5, 16]))
    return strides


def random_contraction(
    rng: np.random.Generator, dtypes: tuple[DType, ...], accumulate: DType, semiring: Semiring
) -> Contraction:
    """One to five axes; each is reduced or not; each operand has some of them."""
    rank = int(rng.integers(0, 6))
    extents = [int(rng.choice(LENGTHS)) for _ in range(rank)]
    while np.prod([float(n) for n in extents]) > 60_000:
        extents[int(rng.integers(rank))] = int(rng.choice((1, 2, 3)))
    reduced = [bool(rng.random() < 0.4) for _ in range(rank)]
    columns = [layout(rng, dtypes[0], extents, [not r for r in reduced])]
    for dtype in dtypes[1:]:
        columns.append(layout(rng, dtype, extents, [bool(rng.random() < 0.7) for _ in range(rank)]))
    axes = tuple(Axis(n, tuple(c[i] for c in columns), reduced[i]) for i, n in enumerate(extents))
    factors = tuple(Load(i) for i in range(len(dtypes) - 1))
    return Contraction(axes, dtypes, factors, accumulate, semiring)


def bound(problem: Contraction, case: Case) -> Array:
    """(K + operations + 2) eps sum |terms|: what rounding may do to a sum of K products, and to its last conversion."""
    terms = 1
    for axis in problem.axes:
        terms *= axis.extent if axis.reduced else 1
    wide = C128 if problem.accumulate.kind == "c" else F64
    memory = [np.array(m) for m in case.memory]
    absolute = Contraction(
        problem.axes, problem.dtypes, tuple(Apply("abs", (f,), _real(f, problem)) for f in problem.factors), F64,
        PLUS_TIMES if problem.semiring.add == "add" else problem.semiring,
    )  # fmt: skip
    size = np.abs(oracle(absolute, memory, case.starts)).astype(float)
    out = problem.dtypes[0]
    accumulate = EPSILON.get(problem.accumulate.name, 0.0)
    last = EPSILON.get(out.name, 0.0)
    factor = 4 if wide == C128 else 1
    return factor * (terms + len(problem.factors) + 2) * accumulate * size + last * size + 1e-7 * (last > 1e-4)


def _real(leaf: Leaf, problem: Contraction) -> DType:
    dtype = problem.dtypes[leaf.operand + 1] if isinstance(leaf, Load) else leaf.dtype  # type: ignore[union-attr]
    return real_type(dtype)


def check(
    case: Case,
    tolerance: Array | float | None = None,
    shares: int = 1,
    machine: Machine | None = None,
    **options: object,
) -> None:
    """Run the case and compare; integers and bool must agree exactly."""
    problem = case.problem
    expected = oracle(problem, case.memory, case.starts)
    out = problem.dtypes[0]
    exact = out.kind in "biu" and problem.accumulate.kind in "biu"
    allowed = 0.0 if exact else bound(problem, case) if tolerance is None else tolerance
    if problem.update:
        expected = expected + case.output()
    with np.errstate(all="ignore"):
        expected = expected.real if expected.dtype.kind == "c" and out.kind not in "cb" else expected
        wanted = expected.astype(out.numpy)
    plan = schedule(problem, machine=machine, **options)  # type: ignore[arg-type]
    guards = [m.copy() for m in case.memory]
    execute(plan, case.memory, case.starts, shares)
    for before, after in zip(guards[1:], case.memory[1:], strict=True):
        assert np.array_equal(before, after), "an operand was written"
    got = case.output()
    if out.kind in "biu":
        if exact:
            assert np.array_equal(got, wanted), plan.describe()
        elif out.kind == "b":
            assert ((got == wanted) | (np.abs(expected) <= allowed)).all(), plan.describe()
        else:
            near = np.abs(got.astype(float) - np.real(expected)) <= 1 + allowed
            assert (near | (got == wanted)).all(), plan.describe()
        return
    assert np.array_equal(np.isnan(got), np.isnan(wanted)), plan.describe()
    with np.errstate(all="ignore"):
        same = (got == wanted) | np.isnan(wanted) | (np.abs(got - expected.astype(got.dtype)) <= allowed)
    assert same.all(), plan.describe()


@pytest.mark.parametrize("seed", range(60))
def test_products_of_random_types_and_layouts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    name = list(DTYPES)[seed % len(DTYPES)]
    dtype = DTYPES[name]
    operands = int(rng.integers(1, 4))
    problem = random_contraction(rng, (dtype,) * (operands + 1), accumulation_type(dtype), PLUS_TIMES)
    check(Case(rng, problem), constants=bool(seed % 3 == 0), shares=1 + seed % 2)


@pytest.mark.parametrize("seed", range(40))
def test_mixed_types(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    pool = list(DTYPES.values())
    dtypes = tuple(pool[int(rng.integers(len(pool)))] for _ in range(int(rng.integers(2, 4))))
    accumulate = (F32, F64, C64, C128, I32, I64)[seed % 6]
    if accumulate.kind == "i":
        dtypes = tuple(d if d.kind in "biu" else I16 for d in dtypes)
    problem = random_contraction(rng, dtypes, accumulate, PLUS_TIMES)
    if dtypes[0].kind == "u":  # what a negative number becomes there is the platform's choice
        problem = replace(
            problem,
            dtypes=(I64, *dtypes[1:]),
            axes=tuple(replace(a, strides=(a.strides[0] * 8, *a.strides[1:])) for a in problem.axes),
        )
    check(Case(rng, problem))


@pytest.mark.parametrize("seed", range(48))
def test_semirings(seed: int) -> None:
    rng = np.random.default_rng(2000 + seed)
    rings = [*SEMIRINGS.values(), ALL, Semiring("mine", "minimum", "maximum", "inf", "-inf"), PRODUCT]
    semiring = rings[seed % len(rings)]
    dtype = (F32, F64, I32, I8, U8, F16)[int(rng.integers(6))]
    if semiring.name in ("boolean", "all"):
        dtype = (BOOL, F32)[int(rng.integers(2))]
    if semiring.name == "logsumexp":
        dtype = (F32, F64)[int(rng.integers(2))]
    operands = 1 if not semiring.mul else int(rng.integers(1, 4))
    problem = random_contraction(rng, (dtype,) * (operands + 1), accumulation_type(dtype), semiring)
    if semiring.name == "prod":
        problem = replace(
            problem,
            accumulate=F64,
            dtypes=(F64, dtype),
            axes=tuple(replace(a, strides=(a.strides[0] * 8, a.strides[1])) for a in problem.axes),
        )
    case = Case(rng, problem)
    check(case, semiring_bound(problem, case))


def semiring_bound(problem: Contraction, case: Case) -> Array | float:
    """What rounding may do: selections are exact but for the products, a product of K factors rounds K times, and the
    sum of exponentials K times with a few units for each exponential. Values are below 16, products of sums below 48.
    """
    add, mul = problem.semiring.add, problem.semiring.mul
    if add == "add":
        return bound(problem, case)
    terms = np.prod([a.extent for a in problem.axes if a.reduced])
    with np.errstate(all="ignore"):
        size = np.abs(oracle(problem, case.memory, case.starts).astype(float))
    size = np.where(np.isfinite(size), size, 0)
    eps = EPSILON.get(problem.accumulate.name, 0.0)
    last = EPSILON.get(problem.dtypes[0].name, 0.0) * size
    if add == "logaddexp":
        return (terms + 8) * eps + eps * (size + 48) + last
    if problem.semiring.name == "prod":
        return (terms + 2) * eps * size + last
    return (3 * eps * (size + 48) if mul in ("add", "mul") else 0.0) + last


# --- epilogues, prologues, updates -----------------------------------------------------------------------------------


def product_axes(m: int, n: int, k: int, dtype: DType, out: DType | None = None) -> tuple[Axis, ...]:
    """The axes of a dense C[m,n] = A[m,k] B[k,n]."""
    s, o = dtype.itemsize, (out or dtype).itemsize
    return Axis(m, (n * o, k * s, 0)), Axis(n, (o, 0, s)), Axis(k, (0, s, n * s), True)


@pytest.mark.parametrize("family", ["direct", "packed"])
@pytest.mark.parametrize("size", [(17, 35, 20), (90, 101, 70), (30, 100, 700)])
def test_epilogue_with_bias_scale_and_relu(family: str, size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(7)
    m, n, k = size
    axes = tuple(replace(a, strides=(*a.strides, (0, 4, 0)[i])) for i, a in enumerate(product_axes(m, n, k, F32)))
    scaled = Apply("add", (Apply("mul", (Total(), Literal(0.25, F32)), F32), Load(2)), F32)
    problem = Contraction(axes, (F32,) * 4, (Load(0), Load(1)), F32, epilogue=Apply("relu", (scaled,), F32))
    check(Case(rng, problem), (k + 4) * 2.0**-23 * (k + 4), shares=2, family=family)


def test_epilogue_may_change_the_type() -> None:
    rng = np.random.default_rng(8)
    above = Apply("gt", (Total(), Literal(0.0, F32)), BOOL)
    problem = Contraction(product_axes(20, 33, 8, F32, BOOL), (BOOL, F32, F32), (Load(0), Load(1)), F32, epilogue=above)
    check(Case(rng, problem))
    cast = Apply("cast", (Apply("mul", (Total(), Literal(10.0, F32)), F32),), I32)
    problem = Contraction(product_axes(20, 33, 8, F32, I32), (I32, F32, F32), (Load(0), Load(1)), F32, epilogue=cast)
    check(Case(rng, problem))


def test_epilogue_of_a_reduction_across_lanes_loads_operands() -> None:
    rng = np.random.default_rng(9)
    for m, k in ((13, 1000), (1, 77), (40, 256)):
        axes = (Axis(m, (4, 4 * k, 8)), Axis(k, (0, 4, 0), True))
        leaf = Apply("sub", (Apply("cast", (Total(),), F64), Load(1)), F64)
        check(
            Case(rng, Contraction(axes, (F32, F32, F64), (Load(0),), F32, epilogue=leaf)), (k + 4) * 2.0**-23 * (k + 4)
        )


def test_prologue_is_evaluated_before_the_product() -> None:
    rng = np.random.default_rng(10)
    square = Apply("mul", (Apply("sub", (Load(0), Load(1)), F32), Apply("sub", (Load(0), Load(1)), F32)), F32)
    m, n, k = 19, 37, 23
    axes = (Axis(m, (n * 4, k * 4, 0)), Axis(n, (4, 0, k * 4)), Axis(k, (0, 4, 4), True))
    check(Case(rng, Contraction(axes, (F32,) * 3, (square,), F32)), 1e-4)
    weighted = (Apply("exp", (Load(0),), F32), Load(1))
    check(Case(rng, Contraction(product_axes(50, 100, 90, F32), (F32,) * 3, weighted, F32)), 5e-3, family="packed")


@pytest.mark.parametrize("family", [None, "packed"])
@pytest.mark.parametrize("dtype", [F32, F64, I32, BF16], ids=str)
def test_update_adds_to_the_output(family: str | None, dtype: DType) -> None:
    rng = np.random.default_rng(11)
    problem = Contraction(
        product_axes(40, 100, 300, dtype), (dtype,) * 3, (Load(0), Load(1)), accumulation_type(dtype), update=True
    )
    case = Case(rng, problem, 0.25)
    check(case, 2.0**-6 * 8 if dtype == BF16 else bound(problem, case) + 16 * EPSILON.get(dtype.name, 0), family=family)


def test_update_by_maximum() -> None:
    rng = np.random.default_rng(12)
    problem = Contraction(product_axes(9, 20, 30, F32), (F32,) * 3, (Load(0), Load(1)), F32, MAX_PLUS, update=True)
    case = Case(rng, problem)
    wanted = np.maximum(case.output(), oracle(problem, case.memory, case.starts))
    execute(schedule(problem), case.memory, case.starts)
    assert np.array_equal(case.output(), wanted)


@pytest.mark.parametrize("extents", [(5, 7), (33, 50), (1, 9), (64, 3)])
@pytest.mark.parametrize("dtype", [F32, I64, C64], ids=str)
def test_collisions_are_added_one_after_the_other(extents: tuple[int, int], dtype: DType) -> None:
    """y[i + j] += x[i] z[j], and y[0] += x[i] with all points on one place."""
    rng = np.random.default_rng(13)
    (m, n), s = extents, dtype.itemsize
    axes = (Axis(m, (s, s, 0)), Axis(n, (s, 0, s)))
    problem = Contraction(axes, (dtype,) * 3, (Load(0), Load(1)), dtype, update=True, collides=True)
    memory = [np.zeros((m + n) * s, np.uint8) for _ in range(3)]
    for array in memory[1:]:
        array.view(dtype.numpy)[:] = random_values(rng, dtype, (m + n,))
    x, z = (a.view(dtype.numpy) for a in memory[1:])
    execute(schedule(problem), memory, [0, 0, 0], shares=3)
    wanted = np.zeros(m + n, dtype.numpy)
    np.add.at(wanted, np.add.outer(np.arange(m), np.arange(n)), x[:m, None] * z[:n])
    assert np.allclose(memory[0].view(dtype.numpy), wanted, rtol=1e-5, atol=1e-5)
    point = Contraction((Axis(m, (0, s, 0)),), (dtype, dtype, dtype), (Load(0),), dtype, update=True, collides=True)
    memory[0][:] = 0
    execute(schedule(point), memory, [0, 0, 0])
    assert np.allclose(memory[0].view(dtype.numpy)[0], x[:m].sum(), rtol=1e-4, atol=1e-4)


# --- edges -----------------------------------------------------------------------------------------------------------


def test_scalars_and_empty_extents() -> None:
    rng = np.random.default_rng(14)
    check(Case(rng, Contraction((), (F32, F32, F32), (Load(0), Load(1)), F32)))
    check(Case(rng, Contraction((Axis(0, (0, 8), True),), (F64, F64), (Load(0),), F64)), 0.0)
    plus_one = Apply("add", (Total(), Literal(1.0, F64)), F64)
    check(
        Case(
            rng, Contraction((Axis(3, (8, 8)), Axis(0, (0, 8), True)), (F64, F64), (Load(0),), F64, epilogue=plus_one)
        ),
        0.0,
    )
    check(Case(rng, Contraction((Axis(0, (0, 4), True),), (I32, I32), (Load(0),), I32, MAX_PLUS)))
    nothing = Contraction((Axis(0, (4, 4)), Axis(5, (0, 4), True)), (F32, F32), (Load(0),), F32)
    assert schedule(nothing).stages == ()


def test_literal_factors_fill() -> None:
    rng = np.random.default_rng(15)
    check(Case(rng, Contraction((Axis(37, (8,)),), (F64,), (Literal(2.5, F64),), F64)), 0.0)


@pytest.mark.parametrize("dtype", [F32, F64, C64], ids=str)
@pytest.mark.parametrize("family", ["direct", "packed"])
def test_nan_and_infinity_are_not_skipped(dtype: DType, family: str) -> None:
    rng = np.random.default_rng(16)
    case = Case(rng, Contraction(product_axes(90, 100, 70, dtype), (dtype,) * 3, (Load(0), Load(1)), dtype))
    a = view(case.memory[1], case.starts[1], dtype, [90, 70], [70 * dtype.itemsize, dtype.itemsize])
    a[3, 5], a[77, 69] = np.nan, np.inf
    execute(schedule(case.problem, family=family), case.memory, case.starts)
    got = case.output()
    assert np.isnan(got[3]).all() and np.isnan(got).sum() >= 100
    assert not np.isfinite(got[77]).any() and np.isfinite(got[4]).all()


@pytest.mark.parametrize("ring", ["maxplus", "minplus", "maxmin", "logsumexp"])
@pytest.mark.parametrize("length", [1, 5, 16, 40, 100])
def test_reductions_with_special_values(ring: str, length: int) -> None:
    rng = np.random.default_rng(17)
    for specials in ([-np.inf], [np.inf], [np.nan], [-np.inf, np.inf], [-np.inf] * 100, [1e30, -1e30]):
        values = rng.standard_normal(length).astype(np.float32)
        chosen = rng.permutation(length)[: len(specials)]
        values[chosen] = specials[: len(chosen)]
        result = np.zeros(1, np.float32)
        problem = Contraction((Axis(length, (0, 4), True),), (F32, F32), (Load(0),), F32, SEMIRINGS[ring])
        execute(schedule(problem), [result.view(np.uint8), values.view(np.uint8)], [0, 0])
        with np.errstate(all="ignore"):
            ufunc = {"maxplus": np.maximum, "minplus": np.minimum, "maxmin": np.maximum, "logsumexp": np.logaddexp}[
                ring
            ]
            wanted = ufunc.reduce(values)
        assert np.isclose(result[0], wanted, rtol=1e-5, equal_nan=True), (values, result, wanted)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("features", ["+sse2,+sse4.1", "+avx,+avx2,+fma,+f16c,+sse4.1,+sse4.2"])
def test_other_instruction_sets(seed: int, features: str) -> None:
    if host().vector_bytes < machine_of("", features).vector_bytes:
        pytest.skip("this processor has no AVX2")
    rng = np.random.default_rng(3000 + seed)
    dtype = list(DTYPES.values())[seed % len(DTYPES)]
    problem = random_contraction(rng, (dtype,) * 3, accumulation_type(dtype), PLUS_TIMES)
    check(Case(rng, problem), machine=machine_of("x86-64", features))
    if dtype.kind == "f":
        dense = Contraction(product_axes(30, 70, 40, dtype), (dtype,) * 3, (Load(0), Load(1)), accumulation_type(dtype))
        check(Case(rng, dense), machine=machine_of("x86-64", features))
        deep = Contraction(product_axes(90, 100, 70, dtype), (dtype,) * 3, (Load(0), Load(1)), accumulation_type(dtype))
        check(Case(rng, deep), machine=machine_of("x86-64", features), family="packed")


@pytest.mark.parametrize("dtype", [F32, F64, I32, BF16, I8], ids=str)
def test_packed_products_of_any_orientation(dtype: DType) -> None:
    rng = np.random.default_rng(18)
    m, n, k = 83, 99, 97
    for a_row, a_col in ((k, 1), (1, m)):
        for b_row, b_col in ((n, 1), (1, k)):
            s = dtype.itemsize
            axes = (
                Axis(m, (n * s, a_row * s, 0)),
                Axis(n, (s, 0, b_col * s)),
                Axis(k, (0, a_col * s, b_row * s), True),
            )
            problem = Contraction(axes, (dtype,) * 3, (Load(0), Load(1)), accumulation_type(dtype))
            assert schedule(problem, family="packed").families[-1] == "packed"
            check(Case(rng, problem), shares=3, family="packed")


def test_long_sums_are_blocked() -> None:
    """Four million terms in single precision: plain summation in 64 lanes loses 2e-5, blocks keep 1e-6."""
    n = 1 << 22
    x = np.random.default_rng(19).random(n, np.float32)
    for axes in (
        (Axis(n, (0, 4), True),),
        (Axis(2, (4, 0)), Axis(n // 64, (0, 256), True), Axis(32, (0, 4), True)),
        (Axis(4, (4, 4)), Axis(n // 4, (0, 16), True)),
    ):
        out = np.zeros(4, np.float32)
        problem = Contraction(axes, (F32, F32), (Load(0),), F32)
        execute(schedule(problem), [out.view(np.uint8), x.view(np.uint8)], [0, 0])
        taken = view(
            x.view(np.uint8), 0, F32, [a.extent for a in axes if a.reduced], [a.strides[1] for a in axes if a.reduced]
        )
        assert abs(out[0] / taken.astype(float).sum() - 1) < 1e-6


def test_long_sums_in_one_stage_are_blocked() -> None:
    """A million equal terms for each of many results: 1e-4 is lost in one accumulator per lane, 1e-6 in blocks of
    256.
    """
    n, results = 1 << 20, 100
    x, out = np.full(n + 2 * results, 0.1, np.float32), np.zeros(results, np.float32)
    problem = Contraction((Axis(results, (4, 8)), Axis(n, (0, 4), True)), (F32, F32), (Load(0),), F32)
    plan = schedule(problem)
    assert len(plan.stages) == 1
    execute(plan, [out.view(np.uint8), x.view(np.uint8)], [0, 0])
    assert (np.abs(out / (float(np.float32(0.1)) * n) - 1) < 1e-5).all()


@pytest.mark.parametrize("seed", range(12))
def test_any_split_gives_the_same_bits(seed: int) -> None:
    rng = np.random.default_rng(4000 + seed)
    m, n, k = (int(v) for v in rng.integers(1, 120, 3))
    problem = Contraction(product_axes(m, n, k, F32), (F32,) * 3, (Load(0), Load(1)), F32)
    case = Case(rng, problem)
    results = []
    for shares in (1, 2, 3, 7):
        execute(schedule(problem, family="packed" if seed % 2 else None), case.memory, case.starts, shares)
        results.append(case.output().copy())
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("seed", range(10))
def test_shares_of_outer_positions_cover_everything(seed: int) -> None:
    """Two to four outer axes, cut anywhere: rows begin and end in the middle."""
    rng = np.random.default_rng(5000 + seed)
    extents = [int(n) for n in rng.integers(2, 6, int(rng.integers(2, 5)))]
    strides: list[int] = []
    step = 4 * 3 * 5
    for n in reversed(extents):  # gaps, so that nothing merges
        strides.insert(0, step)
        step *= n + 1
    axes = (*(Axis(n, (s, s)) for n, s in zip(extents, strides, strict=True)), Axis(3, (20, 20)), Axis(4, (4, 4)))
    # An update shows a position that is done twice.
    case = Case(rng, Contraction(axes, (I32, I32), (Load(0),), I32, update=True))
    plan = schedule(case.problem)
    assert plan.stages[0].count > 1
    check(case, 0.0, shares=int(rng.integers(1, plan.stages[0].count + 1)))


def test_literals_are_told_apart_by_sign_and_type() -> None:
    rng = np.random.default_rng(21)
    for value in (0.0, -0.0):
        case = Case(rng, Contraction((Axis(5, (8,)),), (F64,), (Literal(value, F64),), F64))
        execute(schedule(case.problem), case.memory, case.starts)
        assert (np.signbit(case.output()) == np.signbit(value)).all()


def test_logical_sum_of_one_term_is_a_truth_value() -> None:
    rng = np.random.default_rng(22)
    axes = (Axis(9, (4, 4)), Axis(1, (0, 4), True))
    check(Case(rng, Contraction(axes, (F32, F32), (Load(0),), F32, SEMIRINGS["boolean"])), 0.0)
