"""sin and cos as vector LLVM IR; see `vector_math` for accuracy and use.

|x| <= 2^30 is reduced by pi/2 in parts (Cody & Waite with fma; Muller, chapter 11), f32 in double. Lanes beyond take
the scalar `llvm.sin.f64`/`llvm.cos.f64`, which the code generator turns into a call of the C library's sin/cos: rare,
so in a cold helper.
"""

from __future__ import annotations

from . import vector_math_tables as tables
from .vector_math_emit import Block, Value, literal
from .vector_math_exp import FORMATS

_TWO_OVER_PI = 0.6366197723675814
# pi/2 = the sum, each the nearest double to what the ones before leave
_HALF_PI = tuple(map(float.fromhex, ("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54", "-0x1.f1976b7ed8fbcp-110")))
_BOUND = 2.0**30


def _far_helper(b: Block, name: str) -> str:
    """Add the cold helper, which replaces the lanes beyond the bound by the C library's `name`; its symbol."""
    vector = f"<{b.lanes} x double>"
    symbol = f"@stein_{name}_far_v{b.lanes}f64"
    b.outside["@llvm.fabs.f64"] = "declare double @llvm.fabs.f64(double)"
    b.outside[f"@llvm.{name}.f64"] = f"declare double @llvm.{name}.f64(double)"
    b.outside[symbol] = f"""\
define internal {vector} {symbol}({vector} %x, {vector} %usual) noinline cold nounwind {{
entry:
  br label %lane
lane:
  %i = phi i32 [ 0, %entry ], [ %next, %join ]
  %done = phi {vector} [ %usual, %entry ], [ %result, %join ]
  %e = extractelement {vector} %x, i32 %i
  %size = call double @llvm.fabs.f64(double %e)
  %far = fcmp ogt double %size, {literal(_BOUND, "double")}
  br i1 %far, label %library, label %join
library:
  %value = call double @llvm.{name}.f64(double %e)
  %new = insertelement {vector} %done, double %value, i32 %i
  br label %join
join:
  %result = phi {vector} [ %done, %lane ], [ %new, %library ]
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, {b.lanes}
  br i1 %more, label %lane, label %exit
exit:
  ret {vector} %result
}}"""
    return symbol


def _quadrant(b: Block, x: Value) -> tuple[Value, Value]:
    """(n, bits): n = x / (pi/2) rounded, as double, and an integer vector with n in its low bits."""
    magic = FORMATS["double"].magic
    shifted = b.fma(x, _TWO_OVER_PI, magic)
    return shifted - magic, shifted.bits()


def _reduced(b: Block, x: Value, n: Value) -> tuple[Value, Value]:
    """x - n pi/2 as a pair. The first step is exact: a multiple of 2^-53 below 1 in magnitude."""
    first = b.fma(n, -_HALF_PI[0], x)
    product, rest = b.two_product(n, _HALF_PI[1])
    r, low = b.two_sum(first, -product)
    return r, low - b.fma(n, _HALF_PI[2], rest)


def _double_kernels(b: Block, r: Value, low: Value) -> tuple[Value, Value]:
    """(sin, cos) of r + low on [-pi/4, pi/4], below one ulp (the forms of fdlibm's k_sin.c and k_cos.c)."""
    z = r * r
    cube = z * r
    half = z * 0.5
    sine = r + b.fma(cube, b.polynomial(z, tables.SIN_F64), b.fma(-half, low, low))
    top = 1.0 - half
    cosine = top + ((1.0 - top - half) + b.fma(z * z, b.polynomial(z, tables.COS_F64), -(r * low)))
    return sine, cosine


def _single_kernels(b: Block, r: Value) -> tuple[Value, Value]:
    """(sin, cos) of r on [-pi/4, pi/4] in double, to about 33 bits: for a result rounded to float."""
    z = r * r
    sine = r * b.fma(z, b.polynomial(z, tables.SIN_MIXED), 1.0)
    cosine = b.fma(z * z, b.polynomial(z, tables.COS_MIXED), b.fma(z, -0.5, 1.0))
    return sine, cosine


def _sincos(b: Block, x: Value, name: str) -> Value:
    single = x.kind == "float"
    wide = x.widen() if single else x
    n, quadrant = _quadrant(b, wide)
    if single:
        r = b.fma(n, -_HALF_PI[1], b.fma(n, -_HALF_PI[0], wide))
        sine, cosine = _single_kernels(b, r)
    else:
        sine, cosine = _double_kernels(b, *_reduced(b, wide, n))
    if name == "cos":  # cos x = sin(x + pi/2)
        quadrant = quadrant + 1
    value = (quadrant & 1).equals(0).select(sine, cosine)
    value = (value.bits() ^ ((quadrant & 2) << 62)).real()
    if name == "sin":
        value = wide.equals(0.0).select(wide, value)  # keeps -0
    value = b.rarely(wide.abs() > _BOUND, value, _far_helper(b, name), wide, value)
    return value.narrow() if single else value


def sin(b: Block, x: Value) -> Value:
    """Sine of x in radians; NaN for the infinities."""
    return _sincos(b, x, "sin")


def cos(b: Block, x: Value) -> Value:
    """Cosine of x in radians; NaN for the infinities."""
    return _sincos(b, x, "cos")
