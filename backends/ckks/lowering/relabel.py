"""Maps that only move elements, taken into their neighbours: a peephole on steps.

A transposition, a reshape, a shift or a scale by a number between two linear maps is the same two maps at other slots.
What is left of such maps after this stands next to the client, or between products, where the planner sees it as a
change of layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from .problem import Linear, Polynomial, Product, Slot, Step, Sum, Term, arguments


def folded(steps: Sequence[Step], shapes: Mapping[str, tuple[int, ...]], kept: Set[str]) -> tuple[Step, ...]:
    """The steps without the maps that could be taken into the one step before or after them.

    `kept` names values that must stay (outputs); a value that several steps read stays too.

    >>> i, j = Slot((("i", 1),)), Slot((("j", 1),))
    >>> product = Linear("h", "x", (Term((("i", 2), ("j", 3)), (i,), (j,), "W", (i, j)),))
    >>> turned = Linear("y", "h", (Term((("i", 2),), (Slot((("i", -1),), 1),), (i,)),))
    >>> folded([product, turned], {"x": (3,), "h": (2,), "y": (2,)}, {"y"})[0].terms[0].rows
    (Slot(terms=(('i', -1),), offset=1, modulus=0),)
    """
    made = list(steps)
    progress = True
    while progress:
        progress = False
        uses = Counter(n for s in made for n in arguments(s))
        by_name = {s.name: s for s in made}
        for outer in made:
            if not isinstance(outer, Linear | Sum) or len(arguments(outer)) != 1:
                continue
            inner = by_name.get(arguments(outer)[0])
            if inner is None or inner.name in kept or uses[inner.name] > 1:
                continue
            joint = _scaled(inner, outer) if isinstance(outer, Sum) else _joined(inner, outer, shapes)
            if joint is not None:
                made = [joint if s is outer else s for s in made if s is not inner]
                progress = True
                break
    return tuple(made)


def _scaled(inner: Step, outer: Sum) -> Step | None:
    """One step for a step and a multiple of it plus a bias, None where there is no such step."""
    factor = outer.operands[0][1]
    if isinstance(inner, Linear) and (inner.bias is None or (outer.bias is None and factor == 1.0)):
        terms = tuple(replace(t, factor=factor * t.factor) for t in inner.terms)
        return replace(inner, name=outer.name, terms=terms, bias=outer.bias or inner.bias)
    if outer.bias is not None:
        return None
    if isinstance(inner, Product):
        return replace(inner, name=outer.name, factor=factor * inner.factor)
    if isinstance(inner, Polynomial):
        coefficients = tuple(factor * c for c in inner.coefficients)
        return replace(inner, name=outer.name, coefficients=coefficients, error=abs(factor) * inner.error)
    if isinstance(inner, Sum) and inner.bias is None:
        return replace(inner, name=outer.name, operands=tuple((n, factor * f) for n, f in inner.operands))
    return None


def _joined(inner: Step, outer: Linear, shapes: Mapping[str, tuple[int, ...]]) -> Step | None:
    """One step for two, None where neither only moves elements."""
    shape = shapes[inner.name]
    moves = _moves(outer) and _bare(outer.terms[0].columns, outer.terms[0], shape)
    if isinstance(inner, Product):
        return _turned(inner, outer, shapes[outer.name]) if moves else None
    if not isinstance(inner, Linear) or inner.bias is not None:
        return None
    terms: list[Term | None] = []
    if moves:
        move = outer.terms[0]
        values = [str(s.bare) for s in move.columns]
        terms = [
            _put_in(t, "rows", t.rows, move.rows, values, shape, move.factor)
            if len(move.indices) == len(values)
            else None
            for t in inner.terms
        ]
    elif _moves(inner) and _bare(inner.terms[0].rows, inner.terms[0], shape):
        move = inner.terms[0]
        values = [str(s.bare) for s in move.rows]
        if len(move.indices) == len(values):
            terms = [_put_in(t, "columns", t.columns, move.columns, values, shape, move.factor) for t in outer.terms]
    found = tuple(t for t in terms if t is not None)
    if not found or len(found) < len(terms):
        return None
    return replace(outer, argument=inner.argument, terms=found)


def _moves(step: Linear) -> bool:
    return len(step.terms) == 1 and step.terms[0].coefficients is None and step.terms[0].factor != 0.0


def _bare(slots: tuple[Slot, ...], term: Term, shape: tuple[int, ...]) -> bool:
    """Whether slots are different indices that run over a whole shape."""
    extents, names = dict(term.indices), [s.bare for s in slots]
    if None in names or len(set(names)) < len(names):
        return False
    return all(extents[str(n)] == k for n, k in zip(names, shape, strict=True))


def _put_in(
    term: Term,
    side: str,
    own: tuple[Slot, ...],
    outside: tuple[Slot, ...],
    names: Sequence[str],
    shape: tuple[int, ...],
    factor: float,
) -> Term | None:
    """The term whose slots on one side, `own`, go through a map of positions: `outside`, over indices `names`.

    None where the positions between may leave their axes (`shape`), or the composition is not affine.
    """
    extents = dict(term.indices)
    if not all(_inside(s, extents, n) for s, n in zip(own, shape, strict=True)):
        return None
    values = dict(zip(names, own, strict=True))
    slots = [_put(s, values) for s in outside]
    found = tuple(s for s in slots if s is not None)
    if len(found) < len(slots):
        return None
    if side == "rows":
        return replace(term, rows=found, factor=term.factor * factor)
    return replace(term, columns=found, factor=term.factor * factor)


def _inside(slot: Slot, extents: Mapping[str, int], size: int) -> bool:
    """Whether a slot stays on an axis of `size` at every point."""
    if slot.modulus:
        return slot.modulus <= size
    low = slot.offset + sum(min(0, c * (extents[n] - 1)) for n, c in slot.terms)
    high = slot.offset + sum(max(0, c * (extents[n] - 1)) for n, c in slot.terms)
    return low >= 0 and high < size


def _put(slot: Slot, values: Mapping[str, Slot]) -> Slot | None:
    """A slot with slots in place of its indices."""
    if slot.bare is not None:
        return values[slot.bare]
    if any(values[n].modulus for n, _ in slot.terms):
        return None
    total: Counter[str] = Counter()
    offset = slot.offset
    for name, scale in slot.terms:
        offset += scale * values[name].offset
        for index, c in values[name].terms:
            total[index] += scale * c
    return Slot(tuple((n, c) for n, c in sorted(total.items()) if c), offset, slot.modulus)


def _turned(inner: Product, outer: Linear, shape: tuple[int, ...]) -> Product | None:
    """A product whose result is transposed after it."""
    move = outer.terms[0]
    if outer.bias is not None or not _bare(move.rows, move, shape):
        return None
    names = {str(s.bare): n for s, n in zip(move.columns, inner.output, strict=True)}
    rows = [str(s.bare) for s in move.rows]
    if set(rows) != set(names):
        return None
    return replace(inner, name=outer.name, output=tuple(names[r] for r in rows), factor=inner.factor * move.factor)
