"""Elementwise functions of `ir.functions` as Triton text, and the operations of semirings.

Part of the printer. Half precisions are computed in f32 and rounded after each function, as the interpreter of the IR
does; maxima let NaN pass, as NumPy's do. Everything is written in Triton's core language, so that the same text runs
on NVIDIA and AMD and in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...ir.errors import BackendError
from ...ir.functions import CAST, FUNCTIONS
from ...ir.semiring import Scalar, Semiring
from ...ir.types import BOOL, F32, F64, I32, DType, accumulation_type, promote
from .emit import Code
from .values import Value, convert, literal, named, number_text, type_text, typed

HALF_LOG = "0.6931471805599453"
NAN = "propagate_nan=tl.PropagateNan.ALL"


def apply(code: Code, function: str, args: list[Value], dtype: DType) -> Value:
    """A function on values that broadcast to one another, with the result in `dtype`.

    Raises `BackendError` for a function that this backend has not.
    """
    if function == CAST:
        return convert(args[0], dtype)
    entry = FUNCTIONS[function]
    chosen = args[1:] if entry.rule == "select" else args
    joint = promote(*(a.dtype for a in chosen))
    if joint.kind == "c" or function not in _TEXTS:
        raise BackendError(
            f"the GPU target has no function {function!r} of {joint}",
            code="unsupported-function",
            help="target='cpu' has it",
        )
    work = F64 if entry.rule == "float" and joint.kind in "biu" else accumulation_type(joint)
    values = [convert(convert(a, joint), work) for a in chosen]
    if entry.rule == "select":
        values = [convert(args[0], BOOL), *values]
    if function != "pow" and (all(v.literal for v in values) or work.kind in "iub" or work == F64):
        values = [typed(v) for v in values]
    groups = joined(values)
    text = _TEXTS[function](code, values, work)
    result = BOOL if entry.rule == "bool" else work
    return convert(Value(text, groups, result), dtype)


def joined(values: list[Value]) -> tuple[tuple[str, ...], ...]:
    """The dimensions of what broadcasts `values` to one another."""
    ranked = [v.groups for v in values if v.groups]
    if not ranked:
        return ()
    return tuple(next((g for g in found if g), ()) for found in zip(*ranked, strict=True))


Text = Callable[[Code, "list[Value]", DType], str]


def _infix(sign: str) -> Text:
    return lambda code, v, work: f"({v[0].code} {sign} {v[1].code})"


def _bitwise(sign: str) -> Text:
    return lambda code, v, work: f"({_truth(v[0])} {sign} {_truth(v[1])})"


def _truth(value: Value) -> str:
    return value.code if value.dtype == BOOL else f"({value.code} != 0)"


def _call(text: str) -> Text:
    """A call in which {0}, {1} stand for the arguments."""
    return lambda code, v, work: text.format(*(a.code for a in v))


def _sum_or_or(sign: str, other: str) -> Text:
    """An operation that bool has under another name."""
    return lambda code, v, work: f"({v[0].code} {other if work == BOOL else sign} {v[1].code})"


def _extreme(name: str) -> Text:
    def text(code: Code, v: list[Value], work: DType) -> str:
        if work == BOOL:
            return f"({v[0].code} {'|' if name == 'maximum' else '&'} {v[1].code})"
        nan = f", {NAN}" if work.kind == "f" else ""
        second = v[1] if work == F32 and not v[0].literal else typed(v[1])
        return f"tl.{name}({typed(v[0]).code}, {second.code}{nan})"

    return text


def _quotient(code: Code, v: list[Value], work: DType) -> str:
    if work == F32:
        return f"tl.div_rn({typed(v[0]).code}, {typed(v[1]).code})"
    return f"({v[0].code} / {v[1].code})"


def _root(code: Code, v: list[Value], work: DType) -> str:
    return f"tl.sqrt_rn({v[0].code})" if work == F32 else f"tl.sqrt({v[0].code})"


def _power(code: Code, v: list[Value], work: DType) -> str:
    base, exponent, number = named(code, typed(v[0]), "base"), typed(v[1]), v[1].number
    if number is not None and number == int(number) and 0 <= number <= 16:
        return _repeated(code, base, int(number))
    if work.kind in "iu":
        return f"integer_power({base.code}, {exponent.code})"
    return convert(Value(f"power({convert(base, F64).code}, {convert(exponent, F64).code})", (), F64), work).code


def _repeated(code: Code, base: Value, exponent: int) -> str:
    """base ** exponent by squaring."""
    if exponent == 0:
        return f"({base.code} * 0 + 1)"
    square, factors = base, list[str]()
    while exponent:
        if exponent & 1:
            factors.append(square.code)
        exponent >>= 1
        if exponent:
            square = named(code, replace(square, code=f"{square.code} * {square.code}"), "square")
    return "(" + " * ".join(factors) + ")"


def _rounded(code: Code, v: list[Value], work: DType) -> str:
    if work.kind != "f":
        return v[0].code
    x = named(code, v[0], "x").code
    low = code.let("low", f"tl.floor({x})")
    up = f"(({x} - {low} > 0.5) | (({x} - {low} == 0.5) & ({low} != 2.0 * tl.floor({low} * 0.5))))"
    return f"tl.where({up}, {low} + 1.0, {low})"


def _step(name: str) -> Text:
    return lambda code, v, work: f"tl.{name}({v[0].code})" if work.kind == "f" else v[0].code


def _sign(code: Code, v: list[Value], work: DType) -> str:
    x = named(code, typed(v[0]), "x").code
    kind = type_text(work)
    text = f"(({x} > 0).to({kind}) - ({x} < 0).to({kind}))" if work.kind in "if" else f"({x} != 0).to({kind})"
    return f"tl.where({x} == {x}, {text}, {x})" if work.kind == "f" else text


# tanh x = x + x^3 p(x^2) / q(x^2) for |x| < 0.625 (Moshier, Methods and Programs for Mathematical Functions, 1989).
_TANH_P = (-0.9643991794250523, -99.28772310019186, -1614.6876844170845)
_TANH_Q = (1.0, 112.81167849163293, 2235.4883906010045, 4844.063053251255)


def _polynomial(factors: tuple[float, ...], x: str) -> str:
    """Horner's scheme, the highest power first."""
    text = repr(factors[0])
    for factor in factors[1:]:
        text = f"({text} * {x} + {factor!r})"
    return text


def _tanh(code: Code, v: list[Value], work: DType) -> str:
    """1 - 2 / (exp(2|x|) + 1); near 0, where that cancels, a quotient of polynomials."""
    x = named(code, typed(v[0]), "x").code
    large = code.let("large", f"1.0 - 2.0 / (tl.exp(2.0 * tl.abs({x})) + 1.0)")
    square = code.let("square", f"{x} * {x}")
    small = f"{x} + {x} * {square} * ({_polynomial(_TANH_P, square)} / {_polynomial(_TANH_Q, square)})"
    return f"tl.where(tl.abs({x}) < 0.625, {small}, tl.where({x} < 0, -{large}, {large}))"


def _sigmoid(code: Code, v: list[Value], work: DType) -> str:
    return f"(1.0 / (1.0 + tl.exp(-{typed(v[0]).code})))"


def _silu(code: Code, v: list[Value], work: DType) -> str:
    x = named(code, typed(v[0]), "x").code
    return f"({x} / (1.0 + tl.exp(-{x})))"


def _gelu(code: Code, v: list[Value], work: DType) -> str:
    x = named(code, typed(v[0]), "x").code
    return f"(0.5 * {x} * (1.0 + tl.erf({x} * 0.7071067811865476)))"


def _logaddexp(code: Code, v: list[Value], work: DType) -> str:
    a, b = (named(code, typed(x), name).code for x, name in zip(v, "ab", strict=True))
    top = code.let("top", f"tl.maximum({a}, {b}, {NAN})")
    rest = f"tl.log(1.0 + tl.exp(-tl.abs({a} - {b})))"
    return f"({top} + tl.where({a} == {b}, {HALF_LOG}, {rest}))"


def _clip(code: Code, v: list[Value], work: DType) -> str:
    inner = Value(_extreme("maximum")(code, v[:2], work), (), work)
    return _extreme("minimum")(code, [inner, v[2]], work)


def _negative(code: Code, v: list[Value], work: DType) -> str:
    return f"({v[0].code} == 0)" if work == BOOL else f"(-{typed(v[0]).code})"


def _relu(code: Code, v: list[Value], work: DType) -> str:
    return v[0].code if work.kind in "ub" else _extreme("maximum")(code, [v[0], literal(0, work)], work)


def _absolute(code: Code, v: list[Value], work: DType) -> str:
    return v[0].code if work.kind in "ub" else f"tl.abs({v[0].code})"


_TEXTS: dict[str, Text] = {
    "add": _sum_or_or("+", "|"),
    "sub": _infix("-"),
    "mul": _sum_or_or("*", "&"),
    "div": _quotient,
    "pow": _power,
    "neg": _negative,
    "maximum": _extreme("maximum"),
    "minimum": _extreme("minimum"),
    "logaddexp": _logaddexp,
    "logical_or": _bitwise("|"),
    "logical_and": _bitwise("&"),
    "logical_not": lambda code, v, work: f"({v[0].code} == 0)",
    "eq": _infix("=="),
    "ne": _infix("!="),
    "lt": _infix("<"),
    "le": _infix("<="),
    "gt": _infix(">"),
    "ge": _infix(">="),
    "where": _call("tl.where({0}, {1}, {2})"),
    "clip": _clip,
    "exp": _call("tl.exp({0})"),
    "log": _call("tl.log({0})"),
    "sqrt": _root,
    "abs": _absolute,
    "sign": _sign,
    "sin": _call("tl.sin({0})"),
    "cos": _call("tl.cos({0})"),
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "gelu": _gelu,
    "silu": _silu,
    "erf": _call("tl.erf({0})"),
    "floor": _step("floor"),
    "ceil": _step("ceil"),
    "round": _rounded,
    "conj": _call("{0}"),
    "real": _call("{0}"),
    "imag": _call("({0} * 0)"),
}

# Functions of our own that the text may call, printed at the head of a source that does.
HELPERS: dict[str, str] = {
    "multiply": """@triton.jit
def multiply(a, b):
    return a * b
""",
    "integer_power": '''@triton.jit
def integer_power(base, exponent):
    """base ** exponent by squaring, modulo the width of the type."""
    base, exponent = tl.broadcast(base, exponent)
    total = base * 0 + 1
    for _ in range(63):
        total = tl.where((exponent & 1) != 0, total * base, total)
        base = base * base
        exponent = exponent >> 1
    return total
''',
    "power": '''@triton.jit
def power(base, exponent):
    """base ** exponent in f64: exp2(exponent * log2 |base|), with the sign of odd powers."""
    base, exponent = tl.broadcast(base, exponent)
    size = tl.exp2(exponent * tl.log2(tl.abs(base)))
    whole = tl.floor(exponent) == exponent
    odd = whole & (tl.floor(exponent * 0.5) * 2 != exponent)
    signed = tl.where(odd, -size, tl.where(whole, size, float("nan")))
    size = tl.where(base < 0, signed, size)
    return tl.where((exponent == 0) | (base == 1), 1.0, size)
''',
}


# --- semirings --------------------------------------------------------------------------------------------------------


def combine(code: Code, function: str, a: Value, b: Value, dtype: DType, zero: Scalar | None = None) -> Value:
    """a `function` b in `dtype`; where `zero` is given, either being that makes it that (see `Semiring`)."""
    if zero is None:
        return apply(code, function, [a, b], dtype)
    a, b = named(code, a, "a"), named(code, b, "b")
    found = apply(code, function, [a, b], dtype)
    text = number_text(zero)
    return replace(found, code=f"tl.where(({a.code} == {text}) | ({b.code} == {text}), {text}, {found.code})")


def product_of(code: Code, semiring: Semiring, values: list[Value], dtype: DType) -> Value:
    """The product of some values in a semiring."""
    if not values:
        return typed(literal(semiring.one_of(dtype), dtype))
    total = values[0]
    zero = semiring.zero_of(dtype) if semiring.annihilates(dtype) else None
    for value in values[1:]:
        total = combine(code, semiring.mul, total, value, dtype, zero)
    return total


def reduced(code: Code, semiring: Semiring, value: Value, count: int, dtype: DType) -> Value:
    """The sum in a semiring over the last `count` dimensions of a tile."""
    kept = len(value.groups) - count
    if not count:
        return value
    for dimension in reversed(range(kept, len(value.groups))):
        value = _reduced_once(code, semiring, named(code, value, "p"), dimension, dtype)
    return value


def _reduced_once(code: Code, semiring: Semiring, value: Value, axis: int, dtype: DType) -> Value:
    groups, x = value.groups[:axis], value.code
    add = semiring.add
    if dtype == BOOL or add in ("logical_or", "logical_and"):
        name = "min" if add in ("logical_and", "minimum", "mul") else "max"
        text = f"(tl.{name}(({x} != 0).to(tl.int32), {axis}) != 0)"
        return convert(Value(text, groups, BOOL), dtype)
    if add == "add":
        text = f"tl.sum({x}, {axis})"
    elif add == "mul":
        text = f"tl.reduce({x}, {axis}, multiply)"
    elif add in ("maximum", "minimum"):
        text = f"tl.{add[:3]}({x}, {axis})"
        if dtype.kind == "f":
            text = f'tl.where(tl.sum(({x} != {x}).to(tl.int32), {axis}) > 0, float("nan"), {text})'
    elif add == "logaddexp":
        top = code.let("top", f"tl.max({x}, {axis})")
        near = code.let("near", f'tl.where(tl.abs({top}) == float("inf"), 0.0, {top})')
        widened = f"tl.expand_dims({near}, {axis})" if groups else near
        text = f"({near} + tl.log(tl.sum(tl.exp({x} - {widened}), {axis})))"
    else:
        raise BackendError(f"the GPU target cannot reduce by {add!r}", code="unsupported-semiring")
    text = f"{text}.to({type_text(dtype)})" if dtype.bits < 32 else text  # Triton reduces short integers in 32 bits
    return Value(text, groups, dtype)


def atomic_of(semiring: Semiring, dtype: DType) -> str | None:
    """The atomic operation that adds in a semiring, if the GPU has it for that type."""
    if semiring.add == "add" and dtype in (F32, F64, I32):
        return "add"
    if semiring.add == "add" and dtype.kind in "iu" and dtype.bits == 64:
        return "add"
    if semiring.add in ("maximum", "minimum") and (dtype == F32 or (dtype.kind == "i" and dtype.bits >= 32)):
        return semiring.add[:3]
    return None


__all__ = [
    "HELPERS", "apply", "atomic_of", "combine", "joined", "product_of", "reduced",
]  # fmt: skip
