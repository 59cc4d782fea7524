"""Small helpers that every pass uses: fresh names, extents under size hints, rebuilding an equation, points and
weights.

Passes keep programs symbolic; a hint only steers a choice. `Hints` therefore answers for every size name, with a
middling extent where the caller gave none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.expr import (
    Const,
    Einsum,
    Equation,
    Expr,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    children,
    substitute,
    walk,
)
from ..ir.functions import CAST
from ..ir.index import Affine, Index
from ..ir.lookup import is_listed
from ..ir.semiring import Semiring
from ..ir.size import ONE, ZERO, Size
from ..ir.types import BOOL, DType

if TYPE_CHECKING:
    from ..ir.rewrite import Trace
    from .base import Context

DEFAULT_EXTENT = 64  # what a size without a hint counts as


class Hints(dict[str, int]):
    """Extents by size name; a name without a hint counts as `DEFAULT_EXTENT`.

    >>> Hints({"n": 4})["n"], Hints({})["m"]
    (4, 64)
    """

    def __missing__(self, name: str) -> int:
        return DEFAULT_EXTENT

    def of(self, size: Size) -> int:
        """The value of a size, at least 1 (an empty loop costs nothing whatever we choose)."""
        constant = size.constant
        if constant is not None:
            return constant if constant > 1 else 1
        try:
            return max(1, size.evaluate(self))
        except ZeroDivisionError:
            return 1

    def extents(self, equation: Equation) -> dict[str, int]:
        """The extent of each index of an equation."""
        return {i.name: self.of(i.extent) for i in equation.indices}


class Names:
    """The tensor names of a program, and fresh ones: `y.1`, `y.2`, or `x.copy` and then `x.copy.1`."""

    def __init__(self, program: Program) -> None:
        self.taken = {i.name for i in program.inputs} | {e.name for e in program.equations}

    def numbered(self, base: str) -> str:
        """`base.1`, or the first free number."""
        k = 1
        while f"{base}.{k}" in self.taken:
            k += 1
        self.taken.add(f"{base}.{k}")
        return f"{base}.{k}"

    def fresh(self, name: str) -> str:
        """The name itself if it is free, else numbered."""
        if name in self.taken:
            return self.numbered(name)
        self.taken.add(name)
        return name


def fresh_index(base: str, taken: Iterable[str]) -> str:
    """An index name that is not in `taken`: `base`, `base1`, `base2`, ...

    >>> fresh_index("k", {"k", "k1"})
    'k2'
    """
    if base not in taken:
        return base
    base = base.rstrip("0123456789") or base
    k = 1
    while f"{base}{k}" in taken:
        k += 1
    return f"{base}{k}"


def bound_indices(expr: Expr) -> tuple[str, ...]:
    """Every index that an Einsum inside `expr` sums over, in order."""
    return tuple(dict.fromkeys(b for e in walk(expr) if isinstance(e, Einsum) for b in e.bound))


def all_indices(expr: Expr) -> set[str]:
    """Every index that occurs in `expr`, free or bound."""
    found: set[str] = set()
    for e in walk(expr):
        match e:
            case Read():
                found.update(n for s in e.slots for n in s.indices)
            case Position():
                found.update(e.affine.indices)
            case Einsum():
                found.update(e.bound)
            case Softmax():
                found.update(e.along)
    return found


def rebuilt(
    equation: Equation, expr: Expr, extents: Mapping[str, Size], slots: tuple[Affine, ...] | None = None
) -> Equation:
    """The equation with another right side; `indices` lists again exactly what occurs, the old ones first."""
    slots = equation.slots if slots is None else slots
    used = {n for s in slots for n in s.indices} | all_indices(expr)
    order = [i.name for i in equation.indices if i.name in used]
    order += sorted(used.difference(order))
    return replace(equation, slots=slots, expr=expr, indices=tuple(Index(n, extents[n]) for n in order))


def definition(
    name: str, axes: Iterable[str], expr: Expr, extents: Mapping[str, Size], dtype: DType, semiring: Semiring
) -> Equation:
    """The equation name[axes] = expr, of the shape that the axes have."""
    axes = tuple(axes)
    names = (*axes, *sorted(all_indices(expr).difference(axes)))
    return Equation(
        name,
        tuple(Affine.of(a) for a in axes),
        tuple(extents[a] for a in axes),
        tuple(Index(n, extents[n]) for n in names),
        expr,
        dtype,
        semiring,
    )


def read_of(equation: Equation) -> Read:
    """The read of an equation's whole result at its own indices."""
    return Read(equation.name, equation.slots, equation.dtype)


def is_plain(equation: Equation) -> bool:
    """Whether every position is written exactly once, by an index of its own on each axis, and not updated."""
    if equation.update is not None:
        return False
    seen: set[str] = set()
    for slot, size in zip(equation.slots, equation.shape, strict=True):
        name = slot.bare
        if name is None:
            if slot.terms or slot.offset != ZERO or size != ONE:  # an axis of length 1 needs no index
                return False
        elif name in seen or equation.extents[name] != size:
            return False
        else:
            seen.add(name)
    return True


def is_injective(equation: Equation) -> bool:
    """Whether no two points of the free indices provably meet at one position of the output.

    An index that stands alone in a slot is known from it; then slots are read as mixed-radix numbers: `i*m + k` with
    k < m tells both. What cannot be decided counts as a collision.
    """
    known = {s.bare for s in equation.slots if s.bare is not None}
    slots = [s for s in equation.slots if s.modulus is None and s.bare is None and s.terms]
    progress = bool(slots)
    while progress:
        progress = False
        for slot in slots:
            open_terms = [(n, c) for n, c in slot.terms if n not in known]
            if open_terms and _decodable(open_terms, equation.extents):
                known.update(n for n, _ in open_terms)
                progress = True
    for slot in equation.slots:  # one index, by a unit step, over no more than one period
        if slot.modulus is not None and len(slot.terms) == 1 and slot.terms[0][1] in (ONE, -ONE):
            name = slot.terms[0][0]
            if (slot.modulus - equation.extents[name]).at_least(0):
                known.add(name)
    return all(n in known or equation.extents[n] == ONE for n in equation.free)


def _decodable(terms: list[tuple[str, Size]], extents: Mapping[str, Size], reach: Size = ZERO) -> bool:
    """Whether the sum tells every index: in some order each coefficient exceeds the reach of those below."""
    if not terms:
        return True
    if all(c.constant is not None for _, c in terms):  # only the order of the coefficients can be right
        (name, coefficient), *left = sorted(terms, key=lambda t: abs(t[1].constant or 0))
        size = Size.of(abs(coefficient.constant or 0))
        return (size - reach).at_least(1) and _decodable(left, extents, reach + size * (extents[name] - 1))
    for position, (name, coefficient) in enumerate(terms):
        size = coefficient if coefficient.terms[-1][1] > 0 else -coefficient
        rest = terms[:position] + terms[position + 1 :]
        if (size - reach).at_least(1) and _decodable(rest, extents, reach + size * (extents[name] - 1)):
            return True
    return False


def is_copy(equation: Equation) -> bool:
    """Whether the right side is one read and nothing else: it alone may have a pad or a modulus when planned."""
    return isinstance(equation.expr, Read)


def has_special_slots(read: Read) -> bool:
    """Whether a read needs a gather: a pad, or a slot with a modulus."""
    return read.pad is not None or any(s.modulus is not None for s in read.slots)


def renamed_apart(expr: Expr, values: Mapping[str, Affine], extents: Mapping[str, Size], into: dict[str, Size]) -> Expr:
    """`expr` with its free indices replaced by `values` and its bound ones by names not in `into`, which gains them.

    `extents` are those of the equation that `expr` comes from.
    """
    mapping = dict(values)
    for name in bound_indices(expr):
        new = fresh_index(name, into)
        into[new] = extents[name]
        mapping[name] = Affine.of(new)
    return substitute(expr, mapping)


def cast(expr: Expr, dtype: DType) -> Expr:
    """`expr` in another type (itself where it has that type)."""
    return expr if expr.dtype == dtype else Map(CAST, (expr,), dtype)


def as_map(einsum: Einsum) -> Expr:
    """An Einsum without a sum as elementwise functions of the same value: each factor converted, then multiplied."""
    assert not einsum.bound, "a sum is no elementwise function"
    total: Expr | None = None
    for factor in einsum.factors:
        total = multiplied(total, factor, einsum)
    one = Const(einsum.semiring.one_of(einsum.accumulate), einsum.accumulate)
    return cast(one if total is None else total, einsum.dtype)


def multiplied(total: Expr | None, factor: Expr, einsum: Einsum) -> Expr:
    """`total` times one more factor, as a function of `einsum`'s semiring and accumulation type."""
    kind, semiring = einsum.accumulate, einsum.semiring
    if factor.dtype == BOOL and kind != BOOL:
        one, zero = Const(semiring.one_of(kind), kind), Const(semiring.zero_of(kind), kind)
        term: Expr = Map("where", (factor, one, zero), kind)
    else:
        term = cast(factor, kind)
    return term if total is None else Map(semiring.mul, (total, term), kind)


def replaced(expr: Expr, old: Expr, new: Expr) -> Expr:
    """`expr` with every subtree equal to `old` replaced."""
    if expr is old or expr == old:
        return new
    below = children(expr)
    if not below:
        return expr
    changed = tuple(replaced(c, old, new) for c in below)
    if all(a is b for a, b in zip(below, changed, strict=True)):
        return expr
    from ..ir.expr import with_children

    return with_children(expr, changed)


def einsums(expr: Expr) -> tuple[Einsum, ...]:
    """The outermost Einsum nodes, from left to right."""
    if isinstance(expr, Einsum):
        return (expr,)
    return tuple(e for c in children(expr) for e in einsums(c))


def holds_einsum(expr: Expr) -> bool:
    """Whether an Einsum or a Softmax stands anywhere in `expr`."""
    return any(isinstance(e, Einsum | Softmax) for e in walk(expr))


def points(names: Iterable[str], extents: Mapping[str, int]) -> int:
    """The number of points of the product of some indices' ranges."""
    total = 1
    for name in names:
        total *= extents[name]
    return total


_WEIGHTS = {
    **dict.fromkeys(("exp", "log", "tanh", "sigmoid", "gelu", "silu", "erf", "sin", "cos", "pow", "logaddexp"), 10),
    **dict.fromkeys(("div", "sqrt"), 4),
    "conj": 0,  # a change of sign, once for all products of a register tile; stored, it would hide a Hermitian product
}


def weight(expr: Expr) -> int:
    """The work of evaluating an elementwise expression at one point, in units of an addition (loads count nothing)."""
    match expr:
        case Map() if is_listed(expr):
            return 0
        case Map():
            own = _WEIGHTS.get(expr.function, 1)
            return (own * 3 if expr.dtype.kind == "c" else own) + sum(weight(a) for a in expr.args)
        case Einsum():
            return max(0, len(expr.factors) - 1) + sum(weight(f) for f in expr.factors)
        case Const() | SizeValue() | Read() | Position():
            return 0
    return 10


def nesting(expr: Expr) -> int:
    """How many nodes stand above one another in an expression."""
    level: tuple[Expr, ...] = (expr,)
    depth = 0
    while level:
        level, depth = tuple(c for e in level for c in children(e)), depth + 1
    return depth


def hints_of(context: Context) -> Hints:
    """The size hints of a context."""
    return Hints(context.sizes)


def note(trace: Trace, rule: str, equation: str, before: Expr, after: Expr) -> None:
    """Record one rewrite step, at the place in the source that `before` came from."""
    trace.record(rule, equation, before, after)
