"""Accuracy, special values and portability of the vector functions, run through a small module compiled with
llvmlite."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stein.backends.cpu.vector_math import MATH_FUNCTIONS, math_function
from stein.ir.errors import BackendError

llvm = pytest.importorskip("llvmlite.binding")

Array = npt.NDArray[Any]
ELEMENTS: dict[str, Any] = {"float": np.float32, "double": np.float64}
UNARY = [name for name, arity in MATH_FUNCTIONS.items() if arity == 1]

# Units in the last place, a little above what math_function's docstring says was measured over far more arguments.
# logaddexp: twice exp's error where log(1 + e) is in a binade below e, and half a unit from each of two sums.
BOUNDS = {
    "exp": (1.05, 1.1), "expm1": (1.5, 2.2), "tanh": (1.4, 1.4), "sigmoid": (1.5, 1.5), "erf": (1.3, 1.1),
    "log": (0.85, 0.85), "log1p": (0.9, 0.9), "sin": (0.51, 0.8), "cos": (0.51, 0.8),
    "pow": (0.6, 1.5), "logaddexp": (3.0, 3.0),
}  # fmt: skip


def module_text(name: str, element: str, lanes: int) -> str:
    """The function with a loop `apply` that runs it over arrays whose length is a multiple of `lanes`."""
    symbol, text = math_function(name, element, lanes)
    vector, count = f"<{lanes} x {element}>", range(MATH_FUNCTIONS[name])
    loads = "\n".join(
        f"  %q{i} = getelementptr {element}, ptr %p{i}, i64 %i\n  %a{i} = load {vector}, ptr %q{i}, align 4"
        for i in count
    )
    return f"""{text}

define void @apply(i64 %n, {", ".join(f"ptr %p{i}" for i in count)}, ptr %out) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{loads}
  %r = call {vector} @{symbol}({", ".join(f"{vector} %a{i}" for i in count)})
  %o = getelementptr {element}, ptr %out, i64 %i
  store {vector} %r, ptr %o, align 4
  %next = add i64 %i, {lanes}
  %c = icmp slt i64 %next, %n
  br i1 %c, label %loop, label %exit
exit:
  ret void
}}
"""


def compiled(name: str, element: str, lanes: int, cpu: str = "", passes: bool = False) -> Callable[..., Array]:
    """The function on arrays of any length (padded by repetition), for this processor or the named older one."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(module_text(name, element, lanes))
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(),
        features="" if cpu else llvm.get_host_cpu_features().flatten(),
        opt=2,
        codemodel="jitdefault",
    )
    if passes:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    arity = MATH_FUNCTIONS[name]
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * (arity + 1))(
        engine.get_function_address("apply")
    )

    def apply(*arrays: Array, keep: object = engine) -> Array:
        size = arrays[0].size
        padded = [np.ascontiguousarray(np.resize(a, -(-size // lanes) * lanes)) for a in arrays]
        assert len(padded) == arity and all(a.dtype == ELEMENTS[element] for a in padded)
        out = np.empty_like(padded[0])
        function(out.size, *[a.ctypes.data for a in padded], out.ctypes.data)
        return out[:size]

    return apply


def same_bits(a: Array, b: Array) -> bool:
    """Equal bit for bit, except that any NaN equals any NaN."""
    kind = f"i{a.itemsize}"
    return bool(np.all((a.view(kind) == b.view(kind)) | (np.isnan(a) & np.isnan(b))))


def numpy_reference(name: str, *arrays: Array) -> Array:
    """NumPy's answer, in the type of the arguments."""
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            e: Array = np.exp(-np.abs(arrays[0]))
            quotient: Array = np.where(arrays[0] < 0, e, 1).astype(e.dtype) / (1 + e)
            return quotient
        library = pytest.importorskip("scipy.special") if name == "erf" else np
        values: Array = getattr(library, {"pow": "power"}.get(name, name))(*arrays)
        return values


def arguments(name: str, element: str, count: int) -> list[tuple[Array, ...]]:
    """Random arguments in the ranges where each function does something different, subnormals included."""
    rng, dtype, single = np.random.default_rng(7), ELEMENTS[element], element == "float"
    edge, least, top = (104.0, -148, 127) if single else (746.0, -1073, 1023)

    def uniform(low: float, high: float) -> Array:
        return rng.uniform(low, high, count).astype(dtype)

    def spread(low: float, high: float) -> Array:
        return np.exp2(rng.uniform(low, high, count)).astype(dtype)

    signed = spread(least, 0) * rng.choice(np.array([-1, 1], dtype), count)
    whole = np.round(uniform(-20, 20))
    cases: dict[str, list[tuple[Array, ...]]] = {
        "exp": [(uniform(-edge, edge * 0.86),), (uniform(-edge, -edge * 0.83),), (uniform(-1, 1),), (signed,)],
        "expm1": [(uniform(-edge, edge * 0.86),), (uniform(-2, 2),), (signed,)],
        "log": [(spread(least, top),), (uniform(0.5, 2),), (uniform(0.95, 1.05),)],
        "log1p": [(spread(least, top),), (uniform(-0.999, 3),), (signed,)],
        "tanh": [(uniform(-11, 11),), (uniform(-1.3, 1.3),), (signed,)],
        "erf": [(uniform(-6.5, 6.5),), (uniform(-1.3, 1.3),), (signed,)],
        "sigmoid": [(uniform(-edge, 40),), (uniform(-20, 5),), (signed,)],
        "sin": [(uniform(-4, 4),), (uniform(-1e5, 1e5),), (whole * dtype(5e3 * np.pi),), (signed,)],
        "logaddexp": [(uniform(-3, 3), uniform(-3, 3)), (signed, -uniform(0, edge)),
                      (uniform(-edge, edge), uniform(-edge, edge))],
        "pow": [
            (uniform(0.5, 2), uniform(-edge, edge)),
            (spread(least, top), uniform(-1, 1)),
            (dtype(1) + uniform(-0.01, 0.01), uniform(-edge * 90, edge * 90)),
            (uniform(1.35, 1.4142), uniform(-edge * 2.7, edge * 2.7)),
            (-uniform(0, 20), whole),
        ],
    }  # fmt: skip
    return cases["sin" if name == "cos" else name]


@pytest.mark.parametrize("name", MATH_FUNCTIONS)
def test_float_accuracy(name: str) -> None:
    """Errors of f32 against NumPy in f64, whose own error is below 2^-27 units."""
    apply, limits = compiled(name, "float", 16), np.finfo(np.float32)
    for case in arguments(name, "float", 1 << 15):
        wide = [a.astype(np.float64) for a in case]
        got, want = apply(*case).astype(np.float64), numpy_reference(name, *wide)
        size = np.abs(want)
        if name == "logaddexp":
            size = np.maximum(np.abs(np.maximum(*wide)), np.log1p(np.exp(-np.abs(wide[0] - wide[1]))))
        unit = np.ldexp(1.0, np.maximum(np.frexp(size)[1] - 1, limits.minexp) - limits.nmant)
        beyond = np.abs(want) >= float(limits.max) * (1 + 2.0**-25)
        with np.errstate(invalid="ignore"):
            error = np.where(beyond, np.where(got == np.copysign(np.inf, want), 0, np.inf), np.abs(got - want) / unit)
        assert error.max() <= BOUNDS[name][0], [a[error.argmax()] for a in case]


def exact_value(mp: Any, name: str, *x: Any) -> Any:
    """The function in mpmath's working precision."""
    if name == "sigmoid":
        return 1 / (1 + mp.exp(-x[0]))
    if name == "logaddexp":
        return max(x) + mp.log1p(mp.exp(-abs(x[0] - x[1])))
    return mp.power(*x) if name == "pow" else getattr(mp, name)(*x)


@pytest.mark.parametrize("name", MATH_FUNCTIONS)
def test_double_accuracy(name: str) -> None:
    """Errors of f64 against mpmath with 100 bits more than cancel."""
    mp = pytest.importorskip("mpmath")
    apply, limits = compiled(name, "double", 8), np.finfo(np.float64)
    with mp.workprec(170):
        for case in arguments(name, "double", 500):
            for got, *x in zip(apply(*case), *case, strict=True):
                values = [mp.mpf(float(v)) for v in x]
                want = exact_value(mp, name, *values)
                if abs(want) >= mp.mpf(float(limits.max)) * (1 + mp.mpf(2) ** -54):
                    assert np.isinf(got) and (got > 0) == (want > 0), x
                    continue
                size = abs(want)
                if name == "logaddexp":
                    size = max(abs(max(values)), mp.log1p(mp.exp(-abs(values[0] - values[1]))))
                exponent = max(mp.frexp(size)[1] - 1, int(limits.minexp))
                error = abs(mp.mpf(float(got)) - want) / mp.ldexp(1, exponent - limits.nmant)
                assert error <= BOUNDS[name][1], (x, got)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", MATH_FUNCTIONS)
def test_special_values_at_every_width(name: str, element: str) -> None:
    """NumPy's infinities, NaN, zeros with their signs, subnormals and range ends; every number of lanes gives the same
    bits."""
    dtype = ELEMENTS[element]
    f = np.finfo(dtype)
    half = [
        0,
        1,
        np.inf,
        np.nan,
        2,
        0.5,
        3,
        1.5,
        f.max,
        f.tiny,
        f.smallest_subnormal,
        f.tiny / 3,
        1e-30,
        1e10,
        1e30,
        88.7,
        88.8,
    ]
    half += [
        87.5,
        103.9,
        104.5,
        709.7,
        709.79,
        745.1,
        745.2,
        746,
        1 + f.eps,
        1 - f.epsneg,
        2**24 - 1,
        2**24 + 2,
        2**53 - 1,
        2**53,
    ]
    values = np.array(half, dtype)
    values = np.concatenate([values, -values])
    points = [values] if MATH_FUNCTIONS[name] == 1 else [g.ravel() for g in np.meshgrid(values, values)]
    want = numpy_reference(name, *points)
    first = compiled(name, element, 1)(*points)
    near = np.isfinite(want) & np.isfinite(first)
    with np.errstate(invalid="ignore"):
        near &= np.abs(first - want) <= np.maximum(4 * f.eps * np.abs(want), f.smallest_subnormal)
    right = ((first == want) | near) & (np.signbit(first) == np.signbit(want)) | (np.isnan(first) & np.isnan(want))
    assert right.all(), [(tuple(p[i] for p in points), first[i], want[i]) for i in np.flatnonzero(~right)[:5]]
    for lanes in (2, 4, 8, 16, 64):
        assert same_bits(compiled(name, element, lanes)(*points), first), lanes


@pytest.mark.parametrize("element", ELEMENTS)
def test_exp_rounds_once_into_subnormals(element: str) -> None:
    f = np.finfo(ELEMENTS[element])
    n = np.arange(f.minexp - f.nmant, f.minexp + 1)
    x = (n * np.log(2)).astype(f.dtype)
    got = compiled("exp", element, 8)(x)
    assert got[0] == f.smallest_subnormal and (np.diff(got) > 0).all()
    np.testing.assert_array_less(
        np.abs(got - np.ldexp(f.dtype.type(1), n)), 1.01 * f.smallest_subnormal + 1e3 * f.eps * got
    )


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_huge_angles_take_the_library_in_their_lane_only(name: str, element: str) -> None:
    dtype = ELEMENTS[element]
    x = np.array(
        [1.0, 1e22, -2.5, np.finfo(dtype).max, 2.0**30, -(2.0**31), 1e15, 0.1, -1e30, np.inf, np.nan, 7.0], dtype
    )
    got = compiled(name, element, 4)(x)
    with np.errstate(invalid="ignore"):
        want = getattr(np, name)(x.astype(np.float64))  # NumPy's float64 reduces any argument exactly
    np.testing.assert_allclose(got, want, rtol=2 * np.finfo(dtype).eps)


def test_optimised_code_keeps_every_bit() -> None:
    """The usual passes inline the function and change no result: nothing in it may be reassociated or contracted."""
    for name in ("exp", "pow", "sin", "logaddexp"):
        for element in ELEMENTS:
            case = arguments(name, element, 1000)[0]
            assert same_bits(compiled(name, element, 8, passes=True)(*case), compiled(name, element, 8)(*case)), name


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compares two generations of x86 processors")
@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
def test_older_processors_give_the_same_bits(cpu: str) -> None:
    """SSE2 (fma from the C library) and AVX2 agree with the newest instructions of this machine."""
    llvm.initialize_native_target()
    if cpu == "x86-64-v3" and not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("this processor has no AVX2")
    for name in MATH_FUNCTIONS:
        for element in ELEMENTS:
            case = arguments(name, element, 300)[0]
            assert same_bits(compiled(name, element, 4, cpu)(*case), compiled(name, element, 4)(*case)), (name, element)


def test_texts_join_into_one_module() -> None:
    """Blocks are whole, equal for equal symbols, and call nothing but LLVM intrinsics and their own helpers."""
    blocks: dict[str, None] = {}
    for name in MATH_FUNCTIONS:
        for element in ELEMENTS:
            for lanes in (1, 8):
                symbol, text = math_function(name, element, lanes)
                assert symbol == f"stein_{name}_v{lanes}{'f32' if element == 'float' else 'f64'}"
                assert all(re.match(r"declare [^\n]*$|define (.|\n)*}$", block) for block in text.split("\n\n"))
                assert set(re.findall(r"@(\w+)", text)) <= {"llvm", symbol, f"stein_{name}_far_v{lanes}f64"}
                blocks.update(dict.fromkeys(text.split("\n\n")))
    module = llvm.parse_assembly("\n\n".join(blocks))
    module.verify()
    assert {f.name for f in module.functions} >= {"stein_pow_v8f64", "stein_sin_v1f32", "stein_sin_far_v8f64"}


@pytest.mark.parametrize(
    ("name", "element", "lanes", "word"),
    [
        ("gamma", "float", 4, "gamma"),
        ("exp", "half", 4, "half"),
        ("exp", "float", 3, "power of two"),
        ("exp", "float", 128, "64"),
    ],
)
def test_unknown_requests_are_user_errors(name: str, element: str, lanes: int, word: str) -> None:
    with pytest.raises(BackendError, match=word):
        math_function(name, element, lanes)


def test_tables_come_from_the_fits() -> None:
    """The fitting tool reproduces what is stored (a few tables: the fast ones of each kind)."""
    mp = pytest.importorskip("mpmath")
    from stein.backends.cpu import vector_math_fit, vector_math_tables

    with mp.workdps(70):
        for fit in vector_math_fit.fits():
            if fit.name in ("EXP_F32", "TANH_F32", "LOG_F64", "SIN_F64"):
                assert vector_math_fit.solve(fit)[0] == getattr(vector_math_tables, fit.name), fit.name
