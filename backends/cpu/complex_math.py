"""Complex functions on vector registers, from formulas over real ones.

A value is a pair of vectors. The formulas are the classic ones that avoid overflow in the middle: Smith's division,
Kahan's square root ("Branch cuts for complex elementary functions", 1987). Single precision uses doubles where the
middle of a computation needs the range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.types import C64, C128, F32, F64, DType, real_type
from .values import Registers, Value, register_type

Rule = Callable[[Registers, DType, Sequence[Value]], Value]


def compute(r: Registers, name: str, dtype: DType, args: Sequence[Value]) -> Value:
    """One function on complex arguments; `abs`, `real` and `imag` give one vector, the others a pair."""
    from .elementwise import unsupported

    rule = _TABLE.get(name)
    if rule is None:
        raise unsupported(name, dtype)
    return rule(r, dtype, args)


def _each(name: str) -> Rule:
    """A function that acts on both parts alone."""

    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        from .elementwise import compute as real_function

        part = real_type(t)
        return tuple(real_function(r, name, part, [(a[i],) for a in args])[0][0] for i in (0, 1))

    return rule


def multiply(r: Registers, element: str, a: Value, b: Value) -> Value:
    """a b, four multiplications, two of them fused."""
    return multiply_add(
        r, element, (r.binary("fmul", element, a[0], b[0]), r.binary("fmul", element, a[0], b[1])), a[1], b
    )


def multiply_add(r: Registers, element: str, start: Value, imaginary: str, b: Value) -> Value:
    """start + i imaginary b."""
    minus = r.code.op(f"fneg {r.of(element)} {imaginary}")
    return r.intrinsic("fma", element, minus, b[1], start[0]), r.intrinsic("fma", element, imaginary, b[0], start[1])


def _multiply(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return multiply(r, register_type(t), args[0], args[1])


def _divide(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    """Smith's method, which NumPy uses too: divide by the larger part of the divisor first."""
    e, (a, b), (c, d) = register_type(t), *args
    steep = r.compare("olt", e, _abs1(r, e, c), _abs1(r, e, d))
    major, minor = r.pick(steep, e, d, c), r.pick(steep, e, c, d)
    first, second = r.pick(steep, e, b, a), r.pick(steep, e, a, b)
    # In the steep case (a + bi) / (c + di) has parts (b + a r) and (b r - a), else (a + b r) and (b - a r).
    ratio = r.binary("fdiv", e, minor, major)
    scale = r.intrinsic("fma", e, minor, ratio, major)
    real = r.intrinsic("fma", e, second, ratio, first)
    below = r.binary("fsub", e, second, r.binary("fmul", e, first, ratio))
    imaginary = r.pick(steep, e, r.code.op(f"fneg {r.of(e)} {below}"), below)
    zero = r.compare("oeq", e, _abs1(r, e, major), "zeroinitializer")
    real = r.pick(zero, e, r.binary("fdiv", e, a, _abs1(r, e, c)), r.binary("fdiv", e, real, scale))
    imaginary = r.pick(zero, e, r.binary("fdiv", e, b, _abs1(r, e, c)), r.binary("fdiv", e, imaginary, scale))
    return real, imaginary


def _abs1(r: Registers, e: str, a: str) -> str:
    return r.intrinsic("fabs", e, a)


def _extreme(name: str) -> Rule:
    """The argument that is `name` (ge, le) the other, lexicographically; the first one wins if it is NaN, then the
    second.
    """

    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        from .elementwise import compute as function

        e, (a, b) = register_type(t), args
        order, boolean = function(r, name, t, [a, b])
        unknown = r.compare("uno", e, a[0], a[1])
        chosen = r.binary("or", "i1", r.mask_of(order, boolean), unknown)
        return r.select(chosen, a, b, t)

    return rule


def _relu(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return _extreme("ge")(r, t, [args[0], ("zeroinitializer", "zeroinitializer")])


def _clip(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return _extreme("le")(r, t, [_extreme("ge")(r, t, args[:2]), args[2]])


def _absolute(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    a, b = args[0]
    if t == C64:  # squares of single precision numbers neither overflow nor underflow in double precision
        wide = [r.convert((x,), F32, F64)[0] for x in (a, b)]
        norm = r.intrinsic("fma", "double", wide[0], wide[0], r.binary("fmul", "double", wide[1], wide[1]))
        size = r.convert((r.intrinsic("sqrt", "double", norm),), F64, F32)[0]
        return (_infinite_wins(r, "float", a, b, size),)
    e = "double"
    x, y = _abs1(r, e, a), _abs1(r, e, b)
    swap = r.compare("olt", e, x, y)
    large, small = r.pick(swap, e, y, x), r.pick(swap, e, x, y)
    ratio = r.binary("fdiv", e, small, large)
    root = r.intrinsic("sqrt", e, r.intrinsic("fma", e, ratio, ratio, r.same(e, 1.0)))
    size = r.pick(
        r.compare("oeq", e, large, "zeroinitializer"), e, r.binary("fadd", e, x, y), r.binary("fmul", e, large, root)
    )
    return (_infinite_wins(r, e, a, b, size),)


def _infinite_wins(r: Registers, e: str, a: str, b: str, size: str) -> str:
    """An infinite part makes the absolute value infinite, even next to NaN."""
    infinity = r.same(e, float("inf"))
    infinite = [r.compare("oeq", e, _abs1(r, e, x), infinity) for x in (a, b)]
    return r.pick(r.binary("or", "i1", *infinite), e, infinity, size)


def _sign(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    e, size = register_type(t), _absolute(r, t, args)[0]
    zero = r.compare("oeq", e, size, "zeroinitializer")
    return tuple(r.pick(zero, e, "zeroinitializer", r.binary("fdiv", e, x, size)) for x in args[0])


def _exp(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    from .elementwise import math

    e, (a, b) = register_type(t), args[0]
    size = math(r, "exp", e, a)
    real = r.binary("fmul", e, size, math(r, "cos", e, b))
    flat = r.compare("oeq", e, b, "zeroinitializer")  # exp(inf + 0i) has imaginary part 0, not inf * 0
    return r.pick(flat, e, size, real), r.pick(flat, e, b, r.binary("fmul", e, size, math(r, "sin", e, b)))


def _log(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    from .elementwise import math

    e, (a, b) = register_type(t), args[0]
    return math(r, "log", e, _absolute(r, t, args)[0]), r.intrinsic("atan2", e, b, a)


def _sqrt(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    if t == C64:
        wide = [r.convert(args[0], C64, C128)]
        return r.convert(_sqrt(r, C128, wide), C128, C64)
    e, (a, b) = "double", args[0]
    half = r.same(e, 0.5)
    size = _absolute(r, t, args)[0]
    halves = r.binary("fadd", e, r.binary("fmul", e, _abs1(r, e, a), half), r.binary("fmul", e, size, half))
    root = r.intrinsic("sqrt", e, halves)
    other = r.binary("fdiv", e, r.binary("fmul", e, b, half), root)
    right = r.compare("oge", e, a, "zeroinitializer")
    real = r.pick(right, e, root, _abs1(r, e, other))
    imaginary = r.pick(right, e, other, r.intrinsic("copysign", e, root, b))
    zero = r.compare("oeq", e, root, "zeroinitializer")
    infinite = r.compare("oeq", e, _abs1(r, e, b), r.same(e, float("inf")))
    real = r.pick(zero, e, "zeroinitializer", r.pick(infinite, e, _abs1(r, e, b), real))
    return real, r.pick(r.binary("or", "i1", zero, infinite), e, b, imaginary)


def _hyperbolic(r: Registers, e: str, a: str) -> tuple[str, str]:
    """cosh and sinh; near zero from tanh(a/2), where the difference of exponentials would cancel."""
    from .elementwise import math

    half, one = r.same(e, 0.5), r.same(e, 1.0)
    grow = math(r, "exp", e, _abs1(r, e, a))
    shrink = r.binary("fdiv", e, one, grow)
    cosh = r.binary("fmul", e, half, r.binary("fadd", e, grow, shrink))
    large = r.intrinsic("copysign", e, r.binary("fmul", e, half, r.binary("fsub", e, grow, shrink)), a)
    t = math(r, "tanh", e, r.binary("fmul", e, a, half))
    small = r.binary("fdiv", e, r.binary("fadd", e, t, t), r.binary("fsub", e, one, r.binary("fmul", e, t, t)))
    return cosh, r.pick(r.compare("olt", e, _abs1(r, e, a), one), e, small, large)


def _circular(r: Registers, t: DType, args: Sequence[Value], sine: bool) -> Value:
    from .elementwise import math

    e, (a, b) = register_type(t), args[0]
    s, c = math(r, "sin", e, a), math(r, "cos", e, a)
    cosh, sinh = _hyperbolic(r, e, b)
    if sine:
        return r.binary("fmul", e, s, cosh), r.binary("fmul", e, c, sinh)
    return r.binary("fmul", e, c, cosh), r.code.op(f"fneg {r.of(e)} {r.binary('fmul', e, s, sinh)}")


def _sin(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return _circular(r, t, args, sine=True)


def _cos(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return _circular(r, t, args, sine=False)


def _tanh(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    """sinh a cosh a and sin b cos b over sinh^2 a + cos^2 b; for large |a|, +-1 and 4 sin b cos b exp(-2|a|)."""
    from .elementwise import math

    e, (a, b) = register_type(t), args[0]
    s, c = math(r, "sin", e, b), math(r, "cos", e, b)
    cosh, sinh = _hyperbolic(r, e, a)
    below = r.intrinsic("fma", e, sinh, sinh, r.binary("fmul", e, c, c))
    product = r.binary("fmul", e, s, c)
    real = r.binary("fdiv", e, r.binary("fmul", e, sinh, cosh), below)
    decay = math(r, "exp", e, r.binary("fmul", e, _abs1(r, e, a), r.same(e, -2.0)))
    far = r.compare("ogt", e, _abs1(r, e, a), r.same(e, 20.0))
    tail = r.binary("fmul", e, r.binary("fmul", e, product, r.same(e, 4.0)), decay)
    real = r.pick(far, e, r.intrinsic("copysign", e, r.same(e, 1.0), a), real)
    return real, r.pick(far, e, tail, r.binary("fdiv", e, product, below))


def _power(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    """exp(w log z), with z**0 = 1 and 0**w = 0."""
    e, (z, w) = register_type(t), args
    value = _exp(r, t, [multiply(r, e, w, _log(r, t, [z]))])

    def is_zero(x: Value) -> str:
        return r.binary("and", "i1", *(r.compare("oeq", e, p, "zeroinitializer") for p in x))

    value = r.select(is_zero(z), ("zeroinitializer", "zeroinitializer"), value, t)
    return r.select(is_zero(w), r.constant(1.0, t), value, t)


def _conjugate(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return args[0][0], r.code.op(f"fneg {r.type(t)} {args[0][1]}")


_TABLE: dict[str, Rule] = {
    **{name: _each(name) for name in ("add", "sub", "neg", "round")},
    "mul": _multiply, "div": _divide, "maximum": _extreme("ge"), "minimum": _extreme("le"), "relu": _relu,
    "clip": _clip,
    "abs": _absolute, "sign": _sign, "exp": _exp, "log": _log, "sqrt": _sqrt, "sin": _sin, "cos": _cos, "tanh": _tanh,
    "pow": _power, "conj": _conjugate, "real": lambda r, t, args: args[0][:1], "imag": lambda r, t, args: args[0][1:],
}  # fmt: skip
