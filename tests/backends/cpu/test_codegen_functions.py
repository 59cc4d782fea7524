"""Every elementwise function on every type that NumPy defines it for, in factors and in epilogues, with special
values.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from stein.backends.cpu.machine import host, machine_of
from stein.ir.errors import DTypeError
from stein.ir.functions import CAST, FUNCTIONS
from stein.ir.loops import Apply, Axis, Contraction, Literal, Load
from stein.ir.types import BF16, BOOL, C64, C128, DTYPES, F16, F32, F64, I32, U8, DType, dtype_of
from stein.tests.backends.cpu.contraction_oracle import Array, execute, schedule, value_of

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -0.5, -2.5, 3.0, 1e-3, 20.0, -20.0]
ONLY_REAL = {"sigmoid", "gelu", "silu", "erf", "floor", "ceil", "logaddexp"}
NO_BOOL = {"sub", "neg", "sign", "floor", "ceil", "round"}
# Units in the last place of the compute type that a formula may lose; complex functions compose several.
ROUNDING = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52, "c64": 2.0**-23, "c128": 2.0**-52}


def samples(dtype: DType, count: int, rng: np.random.Generator) -> Array:
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        values = rng.integers(0 if dtype.kind == "u" else -9, 10, count).astype(dtype.numpy)
        values[:2] = info.max, info.min
        return values
    values = np.concatenate([SPECIAL, rng.standard_normal(count - len(SPECIAL)) * 3])
    if dtype.kind == "c":
        other = np.concatenate([[0.0] * len(SPECIAL), rng.standard_normal(count - len(SPECIAL)) * 3])
        values = values + 1j * other
        values[4:7] = 2.0 + 1j
    return values.astype(dtype.numpy)


def run_map(leaf: Apply, arrays: list[Array], out: DType, machine: object = None) -> Array:
    """One elementwise kernel over vectors."""
    n = arrays[0].size
    strides = (out.itemsize, *(a.itemsize for a in arrays))
    types = (out, *(dtype_of(a.dtype) for a in arrays))
    problem = Contraction((Axis(n, strides),), types, (leaf,), leaf.dtype)
    result = np.empty(n, out.numpy)
    memory = [a.view(np.uint8) for a in (result, *arrays)]
    execute(schedule(problem, machine=machine), memory, [0] * len(memory))  # type: ignore[arg-type]
    return result


def defined(name: str, dtype: DType) -> bool:
    if dtype.kind == "c":
        return name not in ONLY_REAL
    return not (dtype.kind == "b" and name in NO_BOOL)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("dtype", [BOOL, I32, U8, F16, BF16, F32, F64, C64, C128], ids=str)
def test_function(name: str, dtype: DType) -> None:
    rng = np.random.default_rng(5)
    function = FUNCTIONS[name]
    arrays = [samples(dtype, 41, np.random.default_rng(5 + 7 * i)) for i in range(function.arity)]
    if function.arity >= 2:
        arrays = [rng.permutation(a) for a in arrays]
    if name == "pow" and dtype.kind in "iu":
        arrays[1] = np.abs(arrays[1] % 7).astype(dtype.numpy)
    if name == "where":
        arrays[0] = rng.integers(0, 2, 41).astype(bool)
    types = tuple(dtype_of(a.dtype) for a in arrays)
    out = function.result(types)
    leaf = Apply(name, tuple(Load(i) for i in range(function.arity)), out)
    if not defined(name, dtype):
        if dtype.kind == "c":
            with pytest.raises(DTypeError):
                run_map(leaf, arrays, out)
        return
    got = run_map(leaf, arrays, out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = value_of(leaf, arrays)
    if out.kind in "biu":
        assert np.array_equal(got, wanted)
        return
    compare(got, wanted, arrays, name, out)


def _floor(name: str, out: DType, eps: float) -> float:
    """What may be lost next to zero: cancellation in the formula, or a subnormal number."""
    return 4 * eps if name in ("gelu", "sin", "cos") else 2.0**-24 if out.bits == 16 else 1e-37


def compare(got: Array, wanted: Array, arrays: list[Array], name: str, out: DType) -> None:
    eps = ROUNDING[out.name]
    wide_got, wide = got.astype(complex), wanted.astype(complex)
    if out.kind == "c":  # infinities and NaN of complex functions differ between C libraries
        keep = np.isfinite(wide) & np.all([np.isfinite(a.astype(complex)) for a in arrays], axis=0)
        size = np.abs(wide[keep])
        power = 1.0
        if name == "pow":  # log z times w is rounded before the exponential: its size multiplies the relative error
            power = (
                1
                + np.abs(np.log(np.maximum(np.abs(arrays[0]), 1e-30)) * arrays[1])[keep]
                + 3.2 * np.abs(arrays[1])[keep]
            )
        assert (np.abs(wide_got[keep] - wide[keep]) <= 16 * eps * power * (size + 1e-30)).all()
        return
    assert np.array_equal(np.isnan(got), np.isnan(wanted))
    with np.errstate(all="ignore"):
        close = np.abs(wide_got - wide) <= 8 * eps * np.abs(wide) + _floor(name, out, eps)
    same = (got == wanted) | np.isnan(wanted)
    assert (same | close).all(), (name, got[~(same | close)], wanted[~(same | close)])


@pytest.mark.parametrize("source", list(DTYPES.values()), ids=str)
@pytest.mark.parametrize("target", list(DTYPES.values()), ids=str)
def test_conversion(source: DType, target: DType) -> None:
    rng = np.random.default_rng(3)
    if source.kind in "fc":
        values = np.concatenate([rng.standard_normal(30) * 50, [0.0, 0.5, 100.25, 7e-6, 6e4, 2.0**-25, 1.0009765625]])
        values = values + (1j * rng.standard_normal(37) if source.kind == "c" else 0)
        if target.kind == "u" or target.bits == 8:
            values = np.abs(np.real(values)) % 100 if source.kind == "f" else values * 0 + np.abs(values.real) % 100
        array = values.astype(source.numpy)
        if target.kind not in "fcb":
            array = np.where(np.abs(array) < 30000, array, array.dtype.type(3)).astype(source.numpy)
    elif source.kind == "b":
        array = rng.integers(0, 2, 37).astype(bool)
    else:
        info = np.iinfo(source.numpy)
        array = rng.integers(info.min, info.max, 37, dtype=source.numpy, endpoint=True)
    got = run_map(Apply(CAST, (Load(0),), target), [array], target)
    with np.errstate(all="ignore"):
        wanted = (array.real if source.kind == "c" and target.kind not in "cb" else array).astype(target.numpy)
    if (target.name == "bf16" and source.bits > 32) or (
        source.kind in "iu" and target.bits == 16 and target.kind == "f"
    ):
        ulp = 2.0**-7 if target.name == "bf16" else 2.0**-10  # NumPy rounds twice on the way to 16 bits
        assert np.allclose(got.astype(float), wanted.astype(float), rtol=ulp)
        return
    assert np.array_equal(got, wanted, equal_nan=True)


def test_half_conversions_without_hardware_are_the_same() -> None:
    plain = machine_of(host().cpu if host().vector_bytes == 16 else "x86-64", "+sse2,+sse4.1")
    bits = np.arange(0, 65536, 7, dtype=np.uint16).view(np.float16)
    wide = run_map(Apply(CAST, (Load(0),), F32), [bits], F32, plain)
    assert np.array_equal(wide, bits.astype(np.float32), equal_nan=True)
    rng = np.random.default_rng(0)
    many = np.concatenate(
        [wide, rng.standard_normal(2000) * 10.0 ** rng.integers(-9, 6, 2000), [65519.9, 65520.0]]
    ).astype(np.float32)
    with np.errstate(all="ignore"):
        assert np.array_equal(
            run_map(Apply(CAST, (Load(0),), F16), [many], F16, plain), many.astype(np.float16), equal_nan=True
        )


@pytest.mark.parametrize("plain", [False, True])
def test_double_to_half_rounds_once(plain: bool) -> None:
    """Just above a tie: rounding to single precision first would land on the tie, and then go down."""
    tie = 1 + 2.0**-11
    x = np.array(
        [tie, tie + 2.0**-40, tie - 2.0**-40, -tie - 2.0**-40, 2.0**-25 * (1 + 2.0**-40), np.inf, np.nan, 1e300, 0.0]
    )
    machine = machine_of("x86-64", "+sse2,+sse4.1") if plain else None
    with np.errstate(all="ignore"):
        wanted = x.astype(np.float16)
    assert np.array_equal(run_map(Apply(CAST, (Load(0),), F16), [x], F16, machine), wanted, equal_nan=True)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_half_precision_rounds_after_every_function(dtype: DType) -> None:
    x, y = (samples(dtype, 60, np.random.default_rng(i)) for i in (1, 2))
    leaf = Apply("sub", (Apply("add", (Load(0), Load(1)), dtype), Load(0)), dtype)
    with np.errstate(all="ignore"):
        wanted = (x + y) - x
    assert np.array_equal(run_map(leaf, [x, y], dtype), wanted, equal_nan=True)


def test_small_literal_powers_are_exact_products() -> None:
    x = np.random.default_rng(1).standard_normal(50)
    for power in (1, 2, 3, 4):
        got = run_map(Apply("pow", (Load(0), Literal(power, F64)), F64), [x], F64)
        wanted = {1: x, 2: x * x, 3: (x * x) * x, 4: (x * x) * (x * x)}[power]
        assert np.array_equal(got, wanted)
    assert np.array_equal(
        run_map(Apply("pow", (Load(0), Literal(0.5, F64)), F64), [np.abs(x)], F64), np.sqrt(np.abs(x))
    )
