"""The syntax tree of the named language: what the parser makes of a text and elaboration reads.

One frozen class per production that matters, a span on each (left out of equality). Names are NFKC-normalised
identifiers; what they stand for (tensor, size, index, function) is decided by `elaborate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..ir.errors import NOWHERE, Source, Span
from ..ir.semiring import Scalar


@dataclass(frozen=True)
class Name:
    """A name with its place."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


# ---------------------------------------------------------------- sizes and slots


@dataclass(frozen=True)
class IndexName:
    """A name in a slot or a size."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class IndexNumber:
    """A whole number in a slot or a size."""

    value: int
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class IndexNegative:
    """-operand in a slot or a size."""

    operand: IndexExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class IndexBinary:
    """left `operator` right in a slot or a size; the operator is +, - or *."""

    operator: str
    left: IndexExpr
    right: IndexExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class IndexList:
    """J[s] in a slot: a position that a tensor of integers holds. `lists` writes it out, so elaboration sees none."""

    access: Access
    span: Span = field(default=NOWHERE, compare=False, repr=False)


IndexExpr: TypeAlias = IndexName | IndexNumber | IndexNegative | IndexBinary | IndexList


@dataclass(frozen=True)
class Modulo:
    """value mod modulus."""

    value: IndexExpr
    modulus: IndexExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Composite:
    """The composite axis (a b). `relative` ones are made by `whole`: they count from the beginning of the axis."""

    parts: tuple[Name, ...]
    relative: bool = False
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Dots:
    """The axes that `...` stands for."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


Slot: TypeAlias = IndexExpr | Modulo | Composite | Dots


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: Scalar
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Access:
    """A name, or a name with slots: a scalar or whole tensor, an index value, a size, an element."""

    name: Name
    slots: tuple[Slot, ...] | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Interval:
    """low..high, as an argument."""

    low: Expr
    high: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Tuple:
    """(a, b, ...), as an argument."""

    items: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Keyword:
    """name=value, as an argument."""

    name: Name
    value: Value
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Call:
    """function(args), or function(args)(body)."""

    function: Name
    args: tuple[Argument, ...]
    body: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Reduce:
    """operation[indices] body: `sum[k] e`, `max[k](e)`, `softmax[k](e)`."""

    operation: Name
    indices: tuple[Name, ...]
    body: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Binary:
    """left `operator` right: arithmetic (+ - * / @ ^) or a comparison."""

    operator: Name
    left: Expr
    right: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Sign:
    """+operand or -operand."""

    operator: Name
    operand: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Transpose:
    """operand'."""

    operand: Expr
    mark: Span
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Expr: TypeAlias = Number | Access | Call | Reduce | Binary | Sign | Transpose
Value: TypeAlias = "Expr | Interval | Tuple"
Argument: TypeAlias = "Value | Keyword"


# ---------------------------------------------------------------- statements


@dataclass(frozen=True)
class Dim:
    """One axis of a declaration: `n`, or `low..high`."""

    low: IndexExpr | None
    high: IndexExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Word:
    """A bare word of a declaration, or a word with arguments: `const`, `f32`, `bsr(block=32)`."""

    name: Name
    args: tuple[Argument, ...] | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Array:
    """A type with sizes: `f32[n, m]`."""

    name: Name
    dims: tuple[Dim, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Option:
    """`pad=0`, `pad=-inf`, `pad=edge`."""

    name: Name
    value: Scalar | Name
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Item: TypeAlias = Word | Array | Option


@dataclass(frozen=True)
class Declare:
    """names: items."""

    names: tuple[Name, ...]
    items: tuple[Item, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Range:
    """index in low..high."""

    index: Name
    low: IndexExpr
    high: IndexExpr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Assign:
    """target[slots] = value for ranges over algebra; `adds` for +=."""

    target: Name
    slots: tuple[Slot, ...] | None
    adds: bool
    value: Expr
    ranges: tuple[Range, ...] = ()
    algebra: Name | None = None
    left: Span = field(default=NOWHERE, compare=False, repr=False)
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Return:
    """return names."""

    names: tuple[Name, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Statement: TypeAlias = Declare | Assign | Return


@dataclass(frozen=True)
class Program:
    """Statements in order."""

    statements: tuple[Statement, ...]
    source: Source = field(compare=False, repr=False)


# ---------------------------------------------------------------- walking


def walk(node: Argument) -> Sequence[Argument]:
    """Every node of an expression, from the top, left to right."""
    out: list[Argument] = []
    stack: list[Argument] = [node]
    while stack:
        one = stack.pop()
        out.append(one)
        stack.extend(reversed(parts(one)))
    return out


def parts(node: Argument) -> tuple[Argument, ...]:
    """The expressions directly below a node."""
    match node:
        case Binary(left=left, right=right):
            return (left, right)
        case Sign(operand=operand) | Transpose(operand=operand):
            return (operand,)
        case Reduce(body=body):
            return (body,)
        case Call(args=args, body=more):
            return (*args, *(() if more is None else (more,)))
        case Keyword(value=value):
            return (value,)
        case Interval(low=low, high=high):
            return (low, high)
        case Tuple(items=items):
            return items
    return ()
