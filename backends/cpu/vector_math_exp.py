"""exp and its relatives (expm1, tanh, sigmoid, erf) as vector LLVM IR; see `vector_math` for accuracy and use.

The exponential reduces x = n ln 2 + r with a two-part ln 2 (Cody & Waite, *Software Manual for the Elementary
Functions*; with an fma the first part may have all its bits), evaluates a minimax polynomial of r on [-ln 2 / 2, ln 2 /
2] and multiplies by 2^n. n is rounded by adding 1.5 * 2^m (m: mantissa bits), which leaves it in the low bits: no
conversion instruction, and no poison from NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import vector_math_tables as tables
from .vector_math_emit import Block, Value


@dataclass(frozen=True)
class Format:
    """What the algorithms must know of an element type: mantissa bits, exponent bias, ln 2 in parts, exp's range."""

    mantissa: int
    bias: int
    ln2_high: float
    ln2_low: float
    exp_low: float  # below, exp rounds to 0
    exp_high: float  # above, exp rounds to infinity; n is still in range

    @property
    def magic(self) -> float:
        """Adding it to |x| < 2^(mantissa - 1) rounds x to an integer and leaves that in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def magic_bits(self) -> int:
        """The bits of `magic` as an integer."""
        return ((self.bias + self.mantissa) << self.mantissa) | (1 << (self.mantissa - 1))


# ln2_low = ln 2 - ln2_high; expm1 needs exp_high / ln 2 to round to bias + 1 and no further
_FLOAT_LN2 = (float.fromhex("0x1.62e430p-1"), float.fromhex("-0x1.05c610p-29"))
_DOUBLE_LN2 = (float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56"))
FORMATS = {
    "float": Format(23, 127, *_FLOAT_LN2, exp_low=-105.0, exp_high=88.8),
    "double": Format(52, 1023, *_DOUBLE_LN2, exp_low=-746.0, exp_high=709.9),
}
_LOG2E = 1.4426950408889634


def reduce_exp(b: Block, x: Value) -> tuple[Value, Value]:
    """(n, r) with x = n ln 2 + r, |r| <= ln 2 / 2, for x within exp's range; `n` has that integer in its low bits."""
    f = FORMATS[x.kind]
    shifted = b.fma(x, _LOG2E, f.magic)
    n = shifted - f.magic
    r = b.fma(n, -f.ln2_high, x)  # exact: a multiple of the last bit of ln2_high or x, and below 1/2
    return shifted.bits(), b.fma(n, -f.ln2_low, r)


def _power_bits(f: Format, power: int) -> int:
    """The bits of 2^power. Added to an exponent field they multiply by it."""
    return (f.bias + power) << f.mantissa


def power_of_two(n: Value, offset: int = 0) -> Value:
    """2^(n + offset) for the low bits `n` of `reduce_exp` (the shift drops the rest), where that is a normal number."""
    f = FORMATS["float" if n.kind == "i32" else "double"]
    return ((n << f.mantissa) + _power_bits(f, offset)).real()


def exp(
    b: Block, x: Value, low: Value | None = None, table: Sequence[float] | None = None, ordinary: bool = False
) -> Value:
    """e^(x + low); `table` is another polynomial, `ordinary` promises that 2^n is a normal number.

    If it need not be, 2^n is two factors: 2^(n-1) and 2, or, for small results, 2^(n+s) and 2^-s. Only the product with
    the last one rounds or overflows, so subnormal results are right.
    """
    f = FORMATS[x.kind]
    if not ordinary:
        x = x.at_most(f.exp_high).at_least(f.exp_low)
    n, r = reduce_exp(b, x)
    if low is not None:
        r = r + low
    table = table or (tables.EXP_F32 if x.kind == "float" else tables.EXP_F64)
    p = b.fma(r * r, b.polynomial(r, table), r) + 1.0
    if ordinary:
        return p * power_of_two(n)
    small = x < f.exp_low * 0.75
    lift = f.bias // 2
    first = (n << f.mantissa) + small.select(b.operand(_power_bits(f, lift), n.kind), _power_bits(f, -1))
    return p * first.real() * small.select(b.operand(2.0**-lift, x.kind), 2.0)


def expm1(b: Block, x: Value) -> Value:
    """e^x - 1 = 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)), after fdlibm's s_expm1.c; halves keep n = bias + 1 finite."""
    f = FORMATS[x.kind]
    n, r = reduce_exp(b, x.at_most(f.exp_high).at_least(-50.0))
    q = b.fma(r * r, b.polynomial(r, tables.EXP_F32 if x.kind == "float" else tables.EXP_F64), r)
    half = power_of_two(n, -1)
    total = b.fma(half, q, half - 0.5)
    return x.equals(0.0).select(x, total + total)


def tanh(b: Block, x: Value) -> Value:
    """x + x^3 P(x^2) below 0.625, else 1 - 2 / (e^(2|x|) + 1) (Cephes' tanh.c, with a polynomial for its quotient)."""
    single = x.kind == "float"
    z = x * x
    near = b.fma(x * z, b.polynomial(z, tables.TANH_F32 if single else tables.TANH_F64), x)
    size = x.abs().at_most(10.0 if single else 20.0)  # tanh is 1 from 9.02 and 19.07 on
    far = 1.0 - 2.0 / (exp(b, size + size, ordinary=True) + 1.0)
    return (size < 0.625).select(near, far).copysign(x)  # the sign after the choice: near loses that of -0


def sigmoid(b: Block, x: Value) -> Value:
    """1 / (1 + e^-x), for negative x as e^x / (1 + e^x): no overflow, and small results keep their precision.

    The rounding of 1 + e and of the quotient is undone by one step on the remainder, so that exp's own error is nearly
    all of it.
    """
    e = exp(b, -x.abs())
    top = (x < 0.0).select(e, 1.0)
    bottom, low = b.fast_two_sum(b.operand(1.0, x.kind), e)
    inverse = 1.0 / bottom
    q = top * inverse
    return b.fma(b.fma(-q, low, b.fma(-q, bottom, top)), inverse, q)


def erf(b: Block, x: Value) -> Value:
    """x + x P(x^2) below 0.92 (f32) or 1 (f64), else 1 - exp(|x| Q(|x|)) with Q fitted to log(erfc(t)) / t.

    The shape is N. Juffa's `erff`; errors of Q are damped by erfc(t), so one polynomial serves the whole tail.
    """
    single = x.kind == "float"
    z = x * x
    near = b.fma(x, b.polynomial(z, tables.ERF_F32 if single else tables.ERF_F64), x)
    size = x.abs().at_most(4.0 if single else 6.0)  # erf is 1 from 3.92 and 5.93 on
    q = b.polynomial(size, tables.ERFC_F32 if single else tables.ERFC_F64)
    far = 1.0 - exp(b, size * q, ordinary=True)
    return (size < (0.925 if single else 1.0)).select(near, far.copysign(x))
