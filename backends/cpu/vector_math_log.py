"""log, log1p, logaddexp and power as vector LLVM IR; see `vector_math` for accuracy and use.

x = 2^k m with m in [sqrt(1/2), sqrt(2)), f = m - 1 (exact), and log m from a polynomial in f (f32) or in s = f / (2 +
f) (f64: fdlibm's e_log.c, whose form of the last sums is kept). pow needs log with extra bits: a pair of doubles.
"""

from __future__ import annotations

import math

from . import vector_math_tables as tables
from .vector_math_emit import Block, Value
from .vector_math_exp import FORMATS, exp

_INFINITY = float("inf")
_NAN = float("nan")
_SQRT_HALF = {"float": 0x3F3504F3, "double": 0x3FE6A09E667F3BCD}  # bits of sqrt(1/2)
# ln 2 with its last 11 bits zero, so that k times it is exact for every exponent k, and the rest
_LN2_SHORT = float.fromhex("0x1.62e42fefa3800p-1")
_LN2_REST = float.fromhex("0x1.ef35793c76730p-45")
_TWO_THIRDS = 2.0 / 3.0
_TWO_THIRDS_REST = float.fromhex("0x1.5555555555555p-55")


def split(x: Value, subnormal: bool = True) -> tuple[Value, Value]:
    """(k, f): x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), k as float, for finite x > 0, perhaps `subnormal`."""
    form = FORMATS[x.kind]
    step = form.mantissa + 2
    tiny = x < 2.0 ** (1 - form.bias)
    scaled = tiny.select(x * 2.0**step, x) if subnormal else x
    bits = scaled.bits()
    k = (bits - _SQRT_HALF[x.kind]) >> form.mantissa
    f = (bits - (k << form.mantissa)).real() - 1.0
    exponent = (k + form.magic_bits).real() - form.magic  # AVX2 has no conversion of i64
    if subnormal:
        exponent = tiny.select(exponent - float(step), exponent)
    return exponent, f


def log_sum(b: Block, k: Value, f: Value, low: Value | None = None) -> Value:
    """k ln 2 + log(1 + f) + low for f in [sqrt(1/2) - 1, sqrt(2) - 1]; low is a correction far below the rest."""
    form = FORMATS[f.kind]
    rest = k * form.ln2_low if low is None else b.fma(k, form.ln2_low, low)
    if f.kind == "float":
        square = f * f
        inner = b.fma(f, b.polynomial(f, tables.LOG_F32), -0.5)
        return b.fma(k, form.ln2_high, b.fma(square, inner, rest) + f)
    half_square = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    tail = z * b.polynomial(z, tables.LOG_F64)
    return b.fma(k, form.ln2_high, f - (half_square - b.fma(s, half_square + tail, rest)))


def log(b: Block, x: Value) -> Value:
    """Natural logarithm: -inf at 0, NaN below."""
    result = log_sum(b, *split(x))
    result = (x < _INFINITY).select(result, x)  # +inf and NaN
    result = x.equals(0.0).select(-_INFINITY, result)
    return (x < 0.0).select(_NAN, result)


def log1p(b: Block, x: Value) -> Value:
    """log(1 + x) = log u + c / u with u + c = 1 + x exactly (fdlibm's s_log1p.c); f is x itself where k is 0."""
    u, c = b.two_sum(b.operand(1.0, x.kind), x)
    k, f = split(u, subnormal=False)
    near = k.equals(0.0)
    result = log_sum(b, k, near.select(x, f), near.select(0.0, c / u))
    result = (x < _INFINITY).select(result, x)
    result = x.equals(0.0).select(x, result)  # keeps -0
    result = x.equals(-1.0).select(-_INFINITY, result)
    return (x < -1.0).select(_NAN, result)


def logaddexp(b: Block, x: Value, y: Value) -> Value:
    """max + log(1 + e), e = e^-|x-y|; for e in [0, 1] the series in s = e / (2 + e) needs no reduction.

    Equal infinities give that infinity. The exponent takes the rounding error of x - y along, so that each summand is
    right to two units in its last place; where they cancel, the result has fewer correct bits, as in NumPy.
    """
    order = x > y
    larger, smaller = order.select(x, y), order.select(y, x)
    distance, low = b.two_sum(smaller, -larger)
    low = (distance > FORMATS[x.kind].exp_low).select(low, 0.0)  # of infinite arguments it is NaN
    e = exp(b, x.equals(y).select(0.0, distance), low)
    s = e / (e + 2.0)
    z = s * s
    tail = z * b.polynomial(z, tables.LOG1P_UNIT_F32 if x.kind == "float" else tables.LOG1P_UNIT_F64)
    return larger + (e - s * (e - tail))


def _log_pair(b: Block, x: Value) -> tuple[Value, Value]:
    """log x for finite x > 0 as the unevaluated sum of two doubles, relative error below 2^-64.

    log m = 2 s + s^3 (2/3 + z P(z)), z = s^2; s, z, s^3 and the bracket are pairs (Dekker; Muller, chapter 2).
    """
    k, f = split(x)
    d, d_low = b.fast_two_sum(b.operand(2.0, "double"), f)
    inverse = 1.0 / d
    s = f * inverse
    s_low = (b.fma(-s, d, f) - s * d_low) * inverse
    z, z_low = b.two_product(s, s)
    z_low = b.fma(s + s, s_low, z_low)
    c, c_low = b.fast_two_sum(b.operand(_TWO_THIRDS, "double"), z * b.polynomial(z, tables.POW_F64))
    c_low = c_low + _TWO_THIRDS_REST
    t, t_low = b.two_product(z, s)
    t_low = t_low + b.fma(z, s_low, z_low * s)
    u, u_low = b.two_product(t, c)
    u_low = u_low + b.fma(t, c_low, t_low * c)
    high, low = b.fast_two_sum(s + s, u)
    low = low + (s_low + s_low + u_low)
    high, carry = b.fast_two_sum(k * _LN2_SHORT, high)  # the first is 0 or the larger
    return b.fast_two_sum(high, carry + b.fma(k, _LN2_REST, low))


def _log_short(b: Block, x: Value) -> Value:
    """log x in double with relative error 2^-35, for a double x > 0 that was a float: enough for a float power."""
    k, f = split(x, subnormal=False)  # a float subnormal is a normal double
    square = f * f
    log_f = b.fma(square, b.fma(f, b.polynomial(f, tables.LOG_MIXED), -0.5), f)
    return b.fma(k, math.log(2.0), log_f)


def power(b: Block, x: Value, y: Value) -> Value:
    """x^y = e^(y log|x|), with the sign of x if y is odd; floats go through double, doubles through pairs of doubles.

    The special cases are those of C and NumPy: x^0 and 1^y are 1 (NaN too), (-1)^inf is 1, a finite negative base needs
    an integral exponent, 0 and the infinities follow from log|x| = -inf and +inf.
    """
    size = x.abs()
    result = _pow_single(b, size, y) if x.kind == "float" else _pow_double(b, size, y)
    result = size.equals(1.0).select(1.0, result)
    whole = y.floor()
    half = y * 0.5
    odd = half.floor().compare("une", half) & whole.equals(y)
    sign = odd.select(x.bits(), 0) & (-(2**31) if x.kind == "float" else -(2**63))
    result = (result.bits() ^ sign).real()
    root = (x < 0.0) & (size < _INFINITY) & whole.compare("une", y)
    result = root.select(_NAN, result)
    result = x.compare("uno", y).select(x + y, result)
    return (y.equals(0.0) | x.equals(1.0)).select(1.0, result)


def _log_limits(size: Value, logarithm: Value) -> Value:
    """`logarithm`, with the limits where `size` is 0 or infinite."""
    return size.equals(0.0).select(-_INFINITY, size.equals(_INFINITY).select(_INFINITY, logarithm))


def _pow_single(b: Block, size: Value, y: Value) -> Value:
    """size^y for floats, through double: one rounding to float, which also makes the subnormals, 0 and infinity."""
    wide = size.widen()
    product = y.widen() * _log_limits(wide, _log_short(b, wide))
    clamped = product.at_most(90.0).at_least(-110.0)  # beyond the range of float on both sides
    return exp(b, clamped, table=tables.EXP_MIXED, ordinary=True).narrow()


def _pow_double(b: Block, size: Value, y: Value) -> Value:
    """size^y for doubles: the logarithm and its product with y as pairs, the low part joins exp after its reduction."""
    high, low = _log_pair(b, size)
    high = _log_limits(size, high)
    product = y * high
    exact = product.abs() < 800.0  # beyond, the result is 0 or infinite and the low part may be NaN
    return exp(b, product, exact.select(b.fma(y, low, b.fma(y, high, -product)), 0.0))
