"""Vectorised elementary functions as textual LLVM IR, for the CPU emitter to paste into its modules.

`math_function` writes one function on explicit vectors from arithmetic, fma and a few intrinsics that are single
instructions, so that no vector library is needed. Accuracy and algorithms: see its docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ...ir.errors import BackendError
from .vector_math_emit import Block, Value
from .vector_math_exp import erf, exp, expm1, sigmoid, tanh
from .vector_math_log import log, log1p, logaddexp, power
from .vector_math_trig import cos, sin

_UNARY: dict[str, Callable[[Block, Value], Value]] = {
    "exp": exp,
    "expm1": expm1,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "log": log,
    "log1p": log1p,
    "sin": sin,
    "cos": cos,
}
_BINARY: dict[str, Callable[[Block, Value, Value], Value]] = {"logaddexp": logaddexp, "pow": power}

MATH_FUNCTIONS: dict[str, int] = {**dict.fromkeys(_UNARY, 1), **dict.fromkeys(_BINARY, 2)}
"""The functions written here, with their numbers of arguments."""

MAX_LANES = 64


@lru_cache(maxsize=512)
def math_function(name: str, element: str, lanes: int) -> tuple[str, str]:
    """(symbol, text) of the function `name` on `<lanes x element>`: all arguments and the result have that type.

    The text is blocks separated by blank lines, each one complete `declare` or `define`. Equal symbols have equal
    blocks, so the texts of several functions make one module once repeated blocks are dropped. The function is
    `internal`; all but sin and cos are straight-line code marked `alwaysinline` (without an inliner pass they are
    called, at ten to twenty percent of the time). No fast-math flags are used and every lane is computed alike: the
    result is the same, bit for bit but for the payload of NaN, for any number of lanes and on any processor (one
    without fma calls the C library's `fma`, which is slow). The only other call is `sin`/`cos` of the C library, for
    lanes with |x| > 2^30.

    Largest errors seen, in units in the last place of the correctly rounded type; f32: every 41st of all bit patterns
    against float64 (pow, logaddexp: 10^6 random pairs per range); f64: 10^6 random arguments per range against 80-bit
    arithmetic, erf 16 000 against mpmath; subnormal results included:

        ========== ===== =====   ========== ===== =====   ============ ===== =====
        function   f32   f64     function   f32   f64     function     f32   f64
        ========== ===== =====   ========== ===== =====   ============ ===== =====
        exp        1.00  1.03    erf        1.20  1.02    sin, cos     0.51  0.78
        expm1      1.42  2.03    log        0.83  0.83    pow          0.54  1.38
        tanh       1.33  1.34    log1p      0.84  0.84    logaddexp    2.3   2.1 *
        sigmoid    1.45  1.46
        ========== ===== =====   ========== ===== =====   ============ ===== =====

    (*) of the larger of |max(a, b)| and log(1 + e^-|a-b|), which may cancel. f64 sin and cos: for |x| up to 10^9.

    Special values (infinities, NaN, signed zeros, poles, pow's table) are NumPy's. Raises BackendError for a function,
    element or number of lanes that there is none for. For the algorithms see the `vector_math_*` modules.

    >>> symbol, text = math_function("exp", "float", 16)
    >>> symbol, text.splitlines()[0]
    ('stein_exp_v16f32', 'declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)')
    """
    if name not in MATH_FUNCTIONS:
        known = ", ".join(sorted(MATH_FUNCTIONS))
        raise BackendError(f"no vector code for the function {name!r}; there is: {known}", code="vector-function")
    if element not in ("float", "double"):
        raise BackendError(f"vector functions are for float and double, not {element!r}", code="vector-element")
    if not (1 <= lanes <= MAX_LANES and lanes & (lanes - 1) == 0):
        raise BackendError(f"lanes are a power of two from 1 to {MAX_LANES}, not {lanes}", code="vector-lanes")
    block = Block(lanes)
    arguments = [Value(block, f"%{letter}", element) for letter in "xy"[: MATH_FUNCTIONS[name]]]
    result = _UNARY[name](block, arguments[0]) if name in _UNARY else _BINARY[name](block, *arguments)
    symbol = f"stein_{name}_v{lanes}{'f32' if element == 'float' else 'f64'}"
    inline = "" if name in ("sin", "cos") else "alwaysinline "  # a body with branches is better called
    definition = block.define(f"@{symbol}", arguments, result, f"{inline}nounwind")
    return symbol, "\n\n".join([*(block.outside[s] for s in sorted(block.outside)), definition])
