"""Prints programs: the writing half of `ir.text`, which describes the form.

Names, sizes and index expressions are written so that `ir.text_read` gets the very same values back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .expr import (
    Const,
    Constraint,
    Einsum,
    Equation,
    Expr,
    Input,
    Linalg,
    Map,
    Pad,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    Structure,
    children,
)
from .functions import CAST, FUNCTIONS
from .index import Affine
from .linalg import FUNCTIONS as LINALG
from .semiring import PLUS_TIMES, Scalar
from .size import Opaque, Size
from .types import F64, I64, DType

_STATEMENTS = (
    "input",
    "const",
    "encrypted",
    "pad",
    "origin",
    "require",
    "code",
    "sentence",
    "help",
    "values",
    "return",
)
_CLAUSES = ("over", "in", "updating", "mod", "divides")
_NODES = ("einsum", "softmax", "linalg", "cast", "at", "size", "inf", "nan", "true", "false", "complex")
KEYWORDS = frozenset(_STATEMENTS + _CLAUSES + _NODES)
WORD = r"[^\W\d]\w*(?:\.\w+)*"  # what a name is that needs no quotes


def natural_type(expr: Expr, tensors: Mapping[str, DType]) -> DType | None:
    """The type that `expr` has by its parts (those that it states, not theirs in turn); None if it must be written."""
    match expr:
        case SizeValue() | Position():
            return I64
        case Read(tensor):
            return tensors.get(tensor)
        case Einsum(accumulate=accumulate):
            return accumulate
        case Softmax(body=body):
            return F64 if body.dtype.kind in "biu" else body.dtype
        case Map(function, args) if function in FUNCTIONS and len(args) == FUNCTIONS[function].arity:
            return FUNCTIONS[function].result(tuple(a.dtype for a in args))
        case Linalg(function, args=args) if function in LINALG and args:
            return LINALG[function].result(args[0].dtype)
    return None


def print_program(program: Program) -> str:
    """The text of a program, a line for each input, equation and constraint, ending in a newline.

    >>> from .types import F32
    >>> from .index import Index
    >>> i, n = Affine.of("i"), Size.name("n")
    >>> y = Equation("y", (i,), (n,), (Index("i", n),), Map("exp", (Read("x", (i,), F32),), F32), F32)
    >>> print(print_program(Program((Input("x", (n,), F32),), (y,), ("y",))), end="")
    input x: f32[n]
    y[i]: f32[n] = exp(x[i]) over i<n
    return y
    """
    tensors = {name: t.dtype for name, t in program.tensors.items()}
    lines = [_print_input(i) for i in program.inputs]
    lines += [print_equation(e, tensors) for e in program.equations]
    lines += [_print_constraint(c) for c in program.constraints]
    lines.append(" ".join(["return", *_commas(map(_name, program.outputs))]).rstrip())
    return "\n".join(lines) + "\n"


def print_equation(equation: Equation, tensors: Mapping[str, DType] | None = None) -> str:
    """The line of one equation; `tensors` gives the types of what it reads, whose absence adds them to the text."""
    text = _name(equation.name) + (_brackets(map(_affine, equation.slots)) if equation.slots else "")
    text += f": {_type(equation.dtype, equation.shape)} = {print_expr(equation.expr, tensors or {})}"
    if equation.indices:
        text += " over " + ", ".join(f"{_name(i.name)}<{_size(i.extent)}" for i in equation.indices)
    if equation.semiring != PLUS_TIMES:
        text += f" in {_name(equation.semiring.name)}"
    return text + ("" if equation.update is None else f" updating {_name(equation.update)}")


def print_expr(expr: Expr, tensors: Mapping[str, DType] | None = None) -> str:
    """The text of one expression; see `print_equation` for `tensors`."""
    types = tensors or {}
    parts = ", ".join(print_expr(c, types) for c in children(expr))
    match expr:
        case Const(value, dtype):
            return f"{_number(value)}:{dtype}"
        case SizeValue(size):
            text = f"size({_size(size)})"
        case Position(affine):
            text = f"at({_affine(affine)})"
        case Read(tensor, slots, _, pad):
            padding = "" if pad is None else f"; pad={_pad(pad)}"
            text = f"{_name(tensor)}[{', '.join(map(_affine, slots))}{padding}]"
        case Map(function, _, dtype, approx=approx):
            leave = "" if approx is None else f"; approx={approx.degree}, {_number(approx.low)}, {_number(approx.high)}"
            if function == CAST:
                return f"cast[{dtype}]({parts}{leave})"
            text = f"{_name(function)}({parts}{leave})"
        case Einsum(bound, _, _, accumulate, semiring):
            head = ", ".join(map(_name, bound)) + ";" + (" " if parts else "")
            text = f"einsum[{_name(semiring.name)}, {accumulate}]({head}{parts})"
        case Softmax(along):
            text = f"softmax{_brackets(map(_name, along))}({parts})"
        case Linalg(function, result, bound, _, _, assume):
            lists = "".join(f"{', '.join(map(_name, names))}; " for names in (result, bound))
            text = f"linalg{_brackets(map(str, (_name(function), *map(_structure, assume))))}({lists}{parts})"
    return text if expr.dtype == natural_type(expr, types) else f"{text}:{expr.dtype}"


def _print_input(tensor: Input) -> str:
    words = ["input", *["const"] * tensor.const, *["encrypted"] * tensor.encrypted]
    words += [f"{_name(tensor.name)}: {_type(tensor.dtype, tensor.shape)}"]
    words += map(_structure, tensor.structure)
    if tensor.pad is not None:
        words.append(f"pad={_pad(tensor.pad)}")
    if tensor.origin:
        words.append(f"origin={_brackets(map(_size, tensor.origin))}")
    return " ".join(words)


def _structure(structure: Structure) -> str:
    return f"{_name(structure.name)}({', '.join(f'{_name(key)}={_size(value)}' for key, value in structure.options)})"


def _print_constraint(constraint: Constraint) -> str:
    text = f"require {_size(constraint.left)} {constraint.relation} {_size(constraint.right)}"
    text += f", code={_quoted(constraint.code)}, sentence={_quoted(constraint.sentence)}"
    if constraint.help:
        text += f", help={_quoted(constraint.help)}"
    return text + (f", values={_brackets(map(_size, constraint.values))}" if constraint.values else "")


def _commas(parts: map[str]) -> list[str]:
    joined = ", ".join(parts)
    return [joined] if joined else []


def _brackets(parts: map[str]) -> str:
    return f"[{', '.join(parts)}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _name(name: str) -> str:
    return name if re.fullmatch(WORD, name) and name not in KEYWORDS else _quoted(name)


def _type(dtype: DType, shape: tuple[Size, ...]) -> str:
    return dtype.name + (_brackets(map(_size, shape)) if shape else "")


def _pad(pad: Pad) -> str:
    return _name(pad) if isinstance(pad, str) else _number(pad)


def _number(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, complex) and not isinstance(value, float):
        return f"complex({float(value.real)!r}, {float(value.imag)!r})"
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _signed(parts: list[tuple[bool, str]]) -> str:
    """A sum of (negative, text) terms."""
    text = "".join(("-" if negative else "+") + part for negative, part in parts)
    return text.removeprefix("+") or "0"


def _size(size: Size) -> str:
    parts = []
    for monomial, coefficient in sorted(size.terms, key=lambda t: -len(t[0])):
        factors = [_name(a) if isinstance(a, str) else _opaque(a) for a in monomial]
        if not factors or abs(coefficient) != 1:
            factors.insert(0, str(abs(coefficient)))
        parts.append((coefficient < 0, "*".join(factors)))
    return _signed(parts)


def _opaque(atom: Opaque) -> str:
    return f"{atom.operation}({', '.join(map(_size, atom.args))})"


def _affine(affine: Affine) -> str:
    parts = []
    for name, coefficient in affine.terms:
        value = coefficient.constant
        if value is None:
            parts.append((False, f"{{{_size(coefficient)}}}*{_name(name)}"))
        else:
            parts.append((value < 0, _name(name) if abs(value) == 1 else f"{abs(value)}*{_name(name)}"))
    value = affine.offset.constant
    if value:
        parts.append((value < 0, str(abs(value))))
    elif value is None:
        parts.append((False, f"{{{_size(affine.offset)}}}"))
    if affine.modulus is None:
        return _signed(parts)
    modulus = affine.modulus.constant
    return f"({_signed(parts)}) mod " + (str(modulus) if modulus and modulus > 0 else f"{{{_size(affine.modulus)}}}")
