"""The functions of `ir.functions` on vector registers: one table from a name to the code that computes it.

`evaluate` turns a `Leaf` tree into values; `apply` does one function on arguments of one common type, as NumPy
defines it there (bool arithmetic is logic, integers wrap, half precisions are computed in single precision and
rounded). Complex functions are in `complex_math`, transcendental real ones in `vector_math`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.errors import DTypeError
from ...ir.functions import CAST, FUNCTIONS
from ...ir.loops import Apply, Leaf, Literal, Load, Total
from ...ir.types import BF16, BOOL, F16, F32, F64, I8, DType, promote, real_type
from .emit import split_definitions
from .values import Registers, Value, register_type

Rule = Callable[[Registers, DType, Sequence[Value]], Value]

_LIBRARY = ("exp", "log", "log1p", "tanh", "erf", "sin", "cos", "sigmoid")
_CONDITIONS = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}


def unsupported(name: str, dtype: DType) -> DTypeError:
    """The error for a function that NumPy does not define on a type either."""
    return DTypeError(f"{name} is not defined for elements of type {dtype}", code="no-such-function")


def working_type(name: str, dtypes: Sequence[DType]) -> DType:
    """The type that the arguments of a function are converted to before it is computed.

    >>> working_type("exp", (I8,)).name, working_type("add", (I8, F32)).name
    ('f64', 'f32')
    """
    rule = FUNCTIONS[name].rule
    joint = promote(*(dtypes[1:] if rule == "select" else dtypes))
    return F64 if rule == "float" and joint.kind in "biu" else joint


def evaluate(
    leaf: Leaf,
    registers: Registers,
    load: Callable[[int], tuple[Value, DType]],
    total: tuple[Value, DType] | None = None,
) -> tuple[Value, DType]:
    """The value of a tree and its type. `load` gives an operand's element; `total` is the reduced value, in an
    epilogue.
    """
    match leaf:
        case Load(operand):
            return load(operand)
        case Literal(value, dtype):
            return registers.constant(value, dtype), dtype
        case Total():
            assert total is not None, "Total outside an epilogue"
            return total
        case Apply(name, args, dtype):
            values = [evaluate(arg, registers, load, total) for arg in args]
            if name == CAST:
                return registers.convert(*values[0], dtype), dtype
            if name == "pow" and isinstance(args[1], Literal):
                short = _literal_power(registers, values, args[1], dtype)
                if short is not None:
                    return short, dtype
            return apply(registers, name, values, dtype), dtype
    raise AssertionError(leaf)


def apply(registers: Registers, name: str, args: Sequence[tuple[Value, DType]], result: DType) -> Value:
    """One function on arguments of any types; the value has type `result`."""
    joint = working_type(name, [dtype for _, dtype in args])
    first = BOOL if FUNCTIONS[name].rule == "select" else joint
    values = [registers.convert(v, t, first if i == 0 else joint) for i, (v, t) in enumerate(args)]
    value, dtype = compute(registers, name, joint, values)
    return registers.convert(value, dtype, result)


def compute(registers: Registers, name: str, dtype: DType, args: Sequence[Value]) -> tuple[Value, DType]:
    """One function on arguments of type `dtype` (the condition of `where` is bool); the value and its natural type."""
    from . import complex_math

    if name in _CONDITIONS:
        return _compare(registers, name, dtype, args), BOOL
    if name in ("logical_or", "logical_and", "logical_not"):
        return _logic(registers, name, dtype, args), BOOL
    if name == "where":
        mask = registers.mask_of(args[0], BOOL)
        return registers.select(mask, args[1], args[2], dtype), dtype
    if dtype.kind == "c":
        value = complex_math.compute(registers, name, dtype, args)
        return value, real_type(dtype) if FUNCTIONS[name].rule == "real" else dtype
    table = {"b": _BOOL, "i": _INTEGER, "u": _INTEGER, "f": _FLOAT}[dtype.kind]
    rule = table.get(name)
    if rule is None:
        raise unsupported(name, dtype)
    value = rule(registers, dtype, args)
    if dtype in (F16, BF16) and name not in _EXACT:
        value = tuple(registers.round_to(x, dtype) for x in value)
    return value, dtype


def math(registers: Registers, name: str, element: str, *args: str) -> str:
    """A call of a vector math function; its text joins the module once."""
    from .vector_math import math_function

    symbol, text = math_function(name, element, registers.lanes)
    registers.code.helpers.update(split_definitions(text))
    return registers.code.invoke(registers.of(element), symbol, *(f"{registers.of(element)} {a}" for a in args))


# --- comparisons and logic -------------------------------------------------------------------------------------------


def _compare(r: Registers, name: str, t: DType, args: Sequence[Value]) -> Value:
    element = register_type(t)
    a, b = args
    if t.kind == "c":
        if name in ("eq", "ne"):
            join, condition = ("and", "oeq") if name == "eq" else ("or", "une")
            return r.flag(
                r.binary(join, "i1", *(r.compare(condition, element, x, y) for x, y in zip(a, b, strict=True)))
            )
        # Complex numbers are ordered by the real part, then by the imaginary part.
        major = r.compare("olt" if name[0] == "l" else "ogt", element, a[0], b[0])
        equal = r.compare("oeq", element, a[0], b[0])
        order = r.binary("or", "i1", major, r.binary("and", "i1", equal, r.compare("o" + name, element, a[1], b[1])))
        known = r.binary("and", "i1", r.compare("ord", element, a[1], a[1]), r.compare("ord", element, b[1], b[1]))
        return r.flag(r.binary("and", "i1", order, known))
    if t.kind == "f":
        condition = "une" if name == "ne" else "o" + name
    elif name in ("eq", "ne"):
        condition = name
    else:
        condition = ("s" if t.kind == "i" else "u") + name
    return r.flag(r.compare(condition, element, a[0], b[0]))


def _logic(r: Registers, name: str, t: DType, args: Sequence[Value]) -> Value:
    flags = [r.convert(a, t, BOOL)[0] for a in args]
    if name == "logical_not":
        return (r.binary("xor", "i8", flags[0], r.same("i8", 1)),)
    return (r.binary("or" if name == "logical_or" else "and", "i8", *flags),)


# --- tables ----------------------------------------------------------------------------------------------------------


def _plain(opcode: str) -> Rule:
    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        return (r.binary(opcode, register_type(t), args[0][0], args[1][0]),)

    return rule


def _identity(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return args[0]


def _unary(intrinsic: str) -> Rule:
    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        return (r.intrinsic(intrinsic, register_type(t), args[0][0]),)

    return rule


def _zero(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return ("zeroinitializer",)


def _clip(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    raised, _ = compute(r, "maximum", t, args[:2])
    return compute(r, "minimum", t, [raised, args[2]])[0]


def _relu(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return compute(r, "maximum", t, [args[0], ("zeroinitializer",)])[0]


def _bool_power(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    value, dtype = compute(r, "pow", I8, args)
    return r.convert(value, dtype, BOOL)


_SHARED: dict[str, Rule] = {"clip": _clip, "relu": _relu, "conj": _identity, "real": _identity, "imag": _zero}
_WHOLE: dict[str, Rule] = {"floor": _identity, "ceil": _identity, "round": _identity}

_BOOL: dict[str, Rule] = {
    **_SHARED, **_WHOLE, "relu": _identity, "abs": _identity, "pow": _bool_power,
    "add": _plain("or"), "mul": _plain("and"), "maximum": _plain("or"), "minimum": _plain("and"),
}  # fmt: skip


# --- integers --------------------------------------------------------------------------------------------------------


def _integer_extreme(which: str) -> Rule:
    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        prefix = "s" if t.kind == "i" else "u"
        return (r.intrinsic(prefix + which, register_type(t), args[0][0], args[1][0]),)

    return rule


def _integer_negative(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return (r.binary("sub", register_type(t), "zeroinitializer", args[0][0]),)


def _integer_abs(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    if t.kind == "u":
        return args[0]
    negative = r.compare("slt", register_type(t), args[0][0], "zeroinitializer")
    return (r.pick(negative, register_type(t), _integer_negative(r, t, args)[0], args[0][0]),)


def _integer_sign(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    element = register_type(t)
    positive = r.flag(r.compare("ne" if t.kind == "u" else "sgt", element, args[0][0], "zeroinitializer"))
    if t.kind == "u":
        return r.convert(positive, BOOL, t)
    negative = r.flag(r.compare("slt", element, args[0][0], "zeroinitializer"))
    return r.convert((r.binary("sub", "i8", positive[0], negative[0]),), I8, t)


def _integer_power(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    """Repeated squaring, wrapping. A negative exponent (an error in NumPy) gives the truncated reciprocal."""
    element, (base,), (exponent,) = register_type(t), *args
    type_, one = r.of(element), r.same(element, 1)

    def bit(i: int | str, values: list[str]) -> list[str]:
        result, square, left = values
        odd = r.compare("ne", element, r.binary("and", element, left, one), "zeroinitializer")
        result = r.pick(odd, element, r.binary("mul", element, result, square), result)
        return [result, r.binary("mul", element, square, square), r.binary("lshr", element, left, one)]

    carried = [(type_, one), (type_, base), (type_, exponent)]
    value = r.code.loop(0, t.bits, 1, carried, bit)[0]
    if t.kind == "u":
        return (value,)
    minus = r.same(element, -1)
    parity = r.compare("eq", element, r.binary("and", element, exponent, one), "zeroinitializer")
    unit = r.pick(
        r.compare("eq", element, base, minus), element, r.pick(parity, element, one, minus), "zeroinitializer"
    )
    unit = r.pick(r.compare("eq", element, base, one), element, one, unit)
    return (r.pick(r.compare("slt", element, exponent, "zeroinitializer"), element, unit, value),)


_INTEGER: dict[str, Rule] = {
    **_SHARED, **_WHOLE, "add": _plain("add"), "sub": _plain("sub"), "mul": _plain("mul"), "neg": _integer_negative,
    "maximum": _integer_extreme("max"), "minimum": _integer_extreme("min"), "abs": _integer_abs, "sign": _integer_sign,
    "pow": _integer_power,
}  # fmt: skip


# --- floating point --------------------------------------------------------------------------------------------------


def _float_extreme(condition: str) -> Rule:
    """NaN in either argument gives NaN. The sign of a zero is free, as in NumPy."""

    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        element, (a,), (b,) = register_type(t), *args
        larger = r.pick(r.compare(condition, element, a, b), element, a, b)  # b where unordered
        return (r.pick(r.compare("uno", element, a, a), element, a, larger),)

    return rule


def _negative(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    return (r.code.op(f"fneg {r.type(t)} {args[0][0]}"),)


def _sign(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    element, a = register_type(t), args[0][0]
    one, minus = r.same(element, 1.0), r.same(element, -1.0)
    below = r.pick(r.compare("olt", element, a, "zeroinitializer"), element, minus, a)  # NaN and zero stay
    return (r.pick(r.compare("ogt", element, a, "zeroinitializer"), element, one, below),)


def _library(name: str) -> Rule:
    def rule(r: Registers, t: DType, args: Sequence[Value]) -> Value:
        return (math(r, name, register_type(t), *(a[0] for a in args)),)

    return rule


def _silu(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    element = register_type(t)
    return (r.binary("fmul", element, args[0][0], math(r, "sigmoid", element, args[0][0])),)


def _gelu(r: Registers, t: DType, args: Sequence[Value]) -> Value:
    element, a = register_type(t), args[0][0]
    error = math(r, "erf", element, r.binary("fmul", element, a, r.same(element, 0.5**0.5)))
    half = r.binary("fmul", element, a, r.same(element, 0.5))
    return (r.binary("fmul", element, half, r.binary("fadd", element, error, r.same(element, 1.0))),)


_FLOAT: dict[str, Rule] = {
    **_SHARED, **{name: _library(name) for name in (*_LIBRARY, "pow", "logaddexp")},
    "add": _plain("fadd"), "sub": _plain("fsub"), "mul": _plain("fmul"), "div": _plain("fdiv"), "neg": _negative,
    "maximum": _float_extreme("ogt"), "minimum": _float_extreme("olt"), "sqrt": _unary("sqrt"), "abs": _unary("fabs"),
    "floor": _unary("floor"), "ceil": _unary("ceil"), "round": _unary("roundeven"), "sign": _sign,
    "silu": _silu, "gelu": _gelu,
}  # fmt: skip
_EXACT = {"neg", "maximum", "minimum", "abs", "floor", "ceil", "round", "sign", "relu", "clip", "conj", "real", "imag"}


def _literal_power(r: Registers, args: Sequence[tuple[Value, DType]], exponent: Literal, result: DType) -> Value | None:
    """x ** 2 and the like by multiplications, which is exact for integers and closer than the general function."""
    joint = working_type("pow", [dtype for _, dtype in args])
    if isinstance(exponent.value, complex) or joint == BOOL:
        return None
    power = float(exponent.value)
    base = r.convert(*args[0], joint)
    if power == 0.5 and joint.kind == "f":
        return r.convert(*compute(r, "sqrt", joint, [base]), result)
    if power not in (1.0, 2.0, 3.0, 4.0):
        return None
    value = base
    if power >= 2:
        square = compute(r, "mul", joint, [base, base])[0]
        value = square if power == 2 else compute(r, "mul", joint, [square, square if power == 4 else base])[0]
    return r.convert(value, joint, result)


__all__ = ["F32", "apply", "compute", "evaluate", "math", "unsupported", "working_type"]
