"""The tensor IR: programs of equations over scalar expressions.

An `Equation` gives every position of one tensor a value: `name[slots] = expr`, over the ranges of its indices. The
expression is a small tree: `Read` a tensor at affine slots, a `Const`, the value of an index (`Position`), an
elementwise `Map`, an `Einsum` (a product of factors, summed over bound indices in a semiring), `Softmax`, and `Linalg`
(a function of whole matrices). Frozen, hashable, without spans in equality; every pass maps a `Program` to a `Program`.
The meaning is `ir.interpret`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from .errors import EMPTY, NOWHERE, Source, Span
from .index import Affine, Index
from .semiring import PLUS_TIMES, Scalar, Semiring
from .size import Size
from .types import I64, DType

Pad: TypeAlias = "float | str"  # a number (read outside the range), "edge" or "wrap"


@dataclass(frozen=True)
class Const:
    """A number of type `dtype`."""

    value: Scalar
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class SizeValue:
    """A size used as a number (`sqrt(d)`), of type i64."""

    size: Size
    dtype: DType = I64
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Position:
    """The value of an index expression, of type i64: `(i >= j)`, `z[n]^l`."""

    affine: Affine
    dtype: DType = I64
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Read:
    """The element of `tensor` at `slots`; `pad` says what stands outside its range (None: nothing is read there)."""

    tensor: str
    slots: tuple[Affine, ...]
    dtype: DType
    pad: Pad | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Approx:
    """The user's leave to put a polynomial of `degree` for a function on low..high (targets that have only those)."""

    degree: int
    low: float
    high: float


@dataclass(frozen=True)
class Map:
    """An elementwise function of `ir.functions`, or "cast", whose arguments are first converted to their promoted type.

    "where" promotes its last two arguments only; "cast" converts its one argument to `dtype`. `approx` is the user's
    leave to approximate; targets that can evaluate the function itself do.
    """

    function: str
    args: tuple[Expr, ...]
    dtype: DType
    approx: Approx | None = field(default=None, kw_only=True)
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Einsum:
    """The sum over `bound` of the product of `factors`, in `semiring`.

    Every factor is converted to `accumulate` first, the result to `dtype`. A bool factor counts as the semiring's 1
    or 0 where `accumulate` is not bool. No factor is the semiring's 1. Names in `bound` have meaning inside only.
    """

    bound: tuple[str, ...]
    factors: tuple[Expr, ...]
    dtype: DType
    accumulate: DType
    semiring: Semiring = PLUS_TIMES
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Softmax:
    """exp(body - max) / sum(exp(body - max)), both over `along`, which stay indices of the result."""

    along: tuple[str, ...]
    body: Expr
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Structure:
    """A declared structure: `bsr(block=32)` is Structure("bsr", (("block", 32),))."""

    name: str
    options: tuple[tuple[str, Size], ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Linalg:
    """A function of whole tensors, `solve`, `inv`, `logdet`, `powm` or a part of one (see `ir.linalg`).

    Each of `args` reads a whole tensor at bare indices of its own, all of them in `bound`; `result` names the axes of
    the value in order. `assume` says what holds of the matrix. It is all that its equation computes.
    """

    function: str
    result: tuple[str, ...]
    bound: tuple[str, ...]
    args: tuple[Expr, ...]
    dtype: DType
    assume: tuple[Structure, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Expr: TypeAlias = Const | SizeValue | Position | Read | Map | Einsum | Softmax | Linalg


@dataclass(frozen=True)
class Input:
    """An argument of a program. `const` is given at compile time; `origin` is where each axis began in the source."""

    name: str
    shape: tuple[Size, ...]
    dtype: DType
    structure: tuple[Structure, ...] = ()
    const: bool = False
    encrypted: bool = False
    pad: Pad | None = None
    origin: tuple[Size, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Equation:
    """name[slots] = expr, for every value of the free indices.

    `indices` lists every index of the equation, free and bound, under names that differ. A position that no index value
    reaches holds the semiring's 0, one reached several times their sum. With `update`, the sum with that tensor's
    value.
    """

    name: str
    slots: tuple[Affine, ...]
    shape: tuple[Size, ...]
    indices: tuple[Index, ...]
    expr: Expr
    dtype: DType
    semiring: Semiring = PLUS_TIMES
    update: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @cached_property
    def extents(self) -> dict[str, Size]:
        """The extent of each index by name."""
        return {i.name: i.extent for i in self.indices}

    @cached_property
    def free(self) -> tuple[str, ...]:
        """The indices of the left side, in order of appearance."""
        return tuple(dict.fromkeys(n for s in self.slots for n in s.indices))


@dataclass(frozen=True)
class Constraint:
    """What must hold of the sizes, checked when they are known: left `relation` right, one of `==`, `>=`, `divides`.

    `divides` says that left divides right. `sentence` may use {left}, {right} and any size name in braces; `values` are
    further sizes, {0}, {1}, ...
    """

    relation: str
    left: Size
    right: Size
    code: str
    sentence: str
    help: str = ""
    values: tuple[Size, ...] = ()
    spans: tuple[Span, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Program:
    """Inputs, equations in order of evaluation, and the names of the outputs."""

    inputs: tuple[Input, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[str, ...]
    constraints: tuple[Constraint, ...] = ()
    source: Source = field(default=EMPTY, compare=False, repr=False)

    @cached_property
    def tensors(self) -> dict[str, Input | Equation]:
        """Every tensor by name (an equation's name is that of its result)."""
        inputs: dict[str, Input | Equation] = {i.name: i for i in self.inputs}
        return inputs | {e.name: e for e in self.equations}


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly below."""
    match expr:
        case Map(args=args) | Linalg(args=args):
            return args
        case Einsum(factors=factors):
            return factors
        case Softmax(body=body):
            return (body,)
    return ()


def with_children(expr: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same node above other children."""
    match expr:
        case Map() | Linalg():
            return replace(expr, args=new)
        case Einsum():
            return replace(expr, factors=new)
        case Softmax():
            return replace(expr, body=new[0])
    return expr


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node, from the top."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def transform(expr: Expr, rule: Callable[[Expr], Expr]) -> Expr:
    """The tree with `rule` applied to every node, children first."""
    old = children(expr)
    new = tuple(transform(c, rule) for c in old)
    return rule(expr if all(a is b for a, b in zip(old, new, strict=True)) else with_children(expr, new))


def free_indices(expr: Expr) -> tuple[str, ...]:
    """The indices that the value of `expr` depends on, in order of appearance."""
    match expr:
        case Position(affine=affine):
            return affine.indices
        case Read(slots=slots):
            return tuple(dict.fromkeys(n for s in slots for n in s.indices))
        case Einsum(bound=bound):
            return tuple(dict.fromkeys(n for c in children(expr) for n in free_indices(c) if n not in bound))
        case Softmax(along=along):
            return tuple(dict.fromkeys((*free_indices(expr.body), *along)))
        case Linalg(result=result):
            return result
    return tuple(dict.fromkeys(n for c in children(expr) for n in free_indices(c)))


def reads(expr: Expr) -> tuple[Read, ...]:
    """Every read, from left to right."""
    return tuple(e for e in walk(expr) if isinstance(e, Read))


def substitute(expr: Expr, values: dict[str, Affine]) -> Expr:
    """The expression with free indices replaced by (non-modular) affine expressions; bound names must not clash."""

    def rule(e: Expr) -> Expr:
        match e:
            case Position():
                return replace(e, affine=e.affine.substitute(values))
            case Read():
                return replace(e, slots=tuple(s.substitute(values) for s in e.slots))
            case Einsum():
                return replace(e, bound=tuple(_renamed(b, values) for b in e.bound))
            case Softmax():
                return replace(e, along=tuple(_renamed(b, values) for b in e.along))
            case Linalg():
                bound, result = (tuple(_renamed(b, values) for b in names) for names in (e.bound, e.result))
                return replace(e, bound=bound, result=result)
        return e

    return transform(expr, rule)


def _renamed(name: str, values: dict[str, Affine]) -> str:
    if name not in values:
        return name
    bare = values[name].bare
    assert bare is not None, f"bound index {name} can be renamed, not replaced"
    return bare
