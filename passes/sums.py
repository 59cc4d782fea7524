"""N8: a sum of terms in normal form, and what a sum is as a whole.

Equal terms become one, and two terms that differ in one operand only become one term with the sum of these operands.
What remains is recognised term by term; then the rules for sums look at all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..ir.structures import SUM_RULES, Plus, Structure
from ..ir.structures.chain import PLAIN, band_of_match
from ..ir.structures.householder import Householder
from ..ir.structures.operator import Atom, Term, named_let
from ..ir.structures.slot import var
from ..ir.structures.view import DELTA, STEP, Factor, Match, Near, Port, View, axes_of, defined, leaf
from .canonical import graph_of, label_of
from .canonical_label import isomorphism
from .simplify import simplify


def factored(found: Sequence[View]) -> tuple[View, ...]:
    """N8 on the views of a sum over plus and times."""
    views = list(found)
    while len(views) > 1:
        for a, b in itertools.combinations(range(len(views)), 2):
            joined = _merged(views[a], views[b])
            if joined is not None:
                views[b : b + 1] = []
                views[a : a + 1] = joined
                break
        else:
            break
    return tuple(views)


def _merged(a: View, b: View) -> list[View] | None:
    """One term for two, or none where they cancel; None where they differ too much."""
    if len(a.atoms) != len(b.atoms) or len(a.out) != len(b.out) or len(a.x) != len(b.x):
        return None
    names, others = [f.name for f in a.atoms], [f.name for f in b.atoms]
    if sorted(names) == sorted(others):
        if label_of([replace(a, coefficient=1)], True) == label_of([replace(b, coefficient=1)], True):
            total = a.coefficient + b.coefficient
            return [replace(a, coefficient=total)] if total else []
        return None
    own, foreign = [n for n in names if n not in others], [n for n in others if n not in names]
    if len(own) != 1 or len(foreign) != 1 or len(a.atoms) < 2:
        return None
    if own[0][0] == "?" or {own[0], foreign[0]} & {DELTA, STEP}:
        return None
    return _with_sum(a, b, names.index(own[0]), others.index(foreign[0]))


def _with_sum(a: View, b: View, k: int, m: int) -> list[View] | None:
    """a with its operand k replaced by the sum of that and operand m of b, if all else is equal."""
    first, second = a.atoms[k], b.atoms[m]
    if any(q.bare is None for q in first.slots + second.slots) or a.known(first) or b.known(second):
        return None
    hole = "?hole"

    def opened(v: View, place: int) -> View:
        ports: list[Port] = [(((0, 0),), q) for _, q in v.atoms[place].ports]
        atoms = (*v.atoms[:place], Factor(hole, tuple(ports)), *v.atoms[place + 1 :])
        return replace(v, coefficient=1, atoms=atoms, shapes={**v.shapes, hole: ()})

    same = isomorphism(graph_of([opened(a, k)], True), graph_of([opened(b, m)], True))
    if same is None:
        return None
    digits = list(dict.fromkeys(i for i in (q.terms[0][0] for q in first.slots)))
    renamed: dict[str, str] = {}
    for i in digits:
        key = same["i", 0, i]
        assert isinstance(key, tuple)
        mine, theirs = a.digits((i,)), b.digits((key[2],))
        if [a.extents[d] for d in mine] != [b.extents[d] for d in theirs]:
            return None
        renamed.update(zip(theirs, mine, strict=True))
    fine = a.digits(digits)
    if set(renamed.values()) != set(fine):
        return None
    base = f"({a.coefficient:g}*{first.name}+{b.coefficient:g}*{second.name})"
    terms = (
        Term(a.coefficient, (Atom(first.name, axes_of(a, first)),)),
        Term(b.coefficient, (Atom(second.name, axes_of(b, second)),)).renamed(renamed),
    )
    shape = tuple(a.extents[d] for d in fine)
    used = frozenset[str]().union(*(t.indices for t in terms))
    let = named_let(base, shape, tuple(map(var, fine)), terms, {d: a.extents[d] for d in {*fine, *used}})
    name = let.name
    ports: list[Port] = []
    for i in digits:
        start = sum(len(k) for k, _ in ports)
        ports.append((tuple((start + n, 1) for n in range(len(a.digits((i,))))), var(i)))
    atoms = (*a.atoms[:k], Factor(name, tuple(ports)), *a.atoms[k + 1 :])
    lets = (*a.lets, *(x for x in b.lets if x not in a.lets), let)
    shapes = {**b.shapes, **a.shapes, name: shape}
    return [replace(a, coefficient=1, atoms=atoms, shapes=shapes, lets=lets)]


def whole(views: Sequence[View], matches: Sequence[Match | None]) -> Match | Near | None:
    """What a sum of two or more recognised terms is."""
    simple = [simplify(v) for v in views]
    rows, cols = simple[0].size(simple[0].out), simple[0].size(simple[0].x)
    kinds = [m.kind if m else None for m in matches]
    term = _plus(views, matches)
    if set(kinds) <= {"low_rank", "outer_product"}:
        rank = sum(m.options["rank"] for m in matches if m)
        if rank * (rows + cols) < rows * cols:
            return Match("low_rank", {"rank": rank}, term)
        return Near("low_rank", f"rank {rank} saves nothing: {rank}*({rows}+{cols}) >= {rows}*{cols}")
    for rule in SUM_RULES:
        found = rule(simple, matches)
        if found is not None:
            if found.kind == "householder":
                vector = next(v.atoms[0] for v in simple if v.atoms)
                if len(simple[0].x) == 1 and len(simple[0].digits(simple[0].x)) == 1:
                    return replace(found, term=Householder(cols, vector.name) if not simple[-1].lets else term)
            return replace(found, term=term)
    banded = _banded(simple, matches)
    if banded is not None:
        return replace(banded, term=term)
    if not any(kinds) or (None in kinds and _plain(matches) and not any(_on_diagonal(v) for v in views)):
        return None
    low = {"low_rank", "outer_product"}
    if kinds.count(None) == 1 and {k for k in kinds if k} <= low:
        return Match(
            "dense_plus_low_rank", {"rank": sum(m.options["rank"] for m in matches if m)}, term, tuple(matches)
        )
    parts = tuple("dense" if m is None else _spoken(m) for m in matches)
    return Match("sum", {"parts": parts}, term, tuple(matches))


def _spoken(match: Match) -> str:
    return f"{match.kind}_permuted" if match.options.get("permuted") else match.kind


def _on_diagonal(view: View) -> bool:
    """Whether an operand is read on its diagonal only: as it is written, all of it may be."""
    return any(len(a.touch) < sum(len(q.terms) for _, q in a.ports) for a in view.atoms if a.name not in (DELTA, STEP))


def _plain(matches: Sequence[Match | None]) -> bool:
    """Whether what is known of some terms beside dense ones saves nothing."""
    return all(m is None or m.kind in PLAIN for m in matches)


def _banded(views: Sequence[View], matches: Sequence[Match | None]) -> Match | None:
    """A sum of operators with known bands along one digit, all other digits left alone or a batch in each term.

    Terms that are constant along diagonals add up to a Toeplitz operator, others to a banded one.
    """
    places = [_line(v) for v in views]
    lines = {p for p in places if p}
    if len(views) < 2 or None in matches or None in places or len(lines) > 1:
        return None
    found = [m for m in matches if m is not None]
    if not lines:
        return Match("diagonal", {"sum": True}) if {m.kind for m in found} <= {"identity", "diagonal"} else None
    options: dict[str, Any] = {"sum": True}
    bands = [band_of_match(m) for m in found]
    if None not in bands:
        below, above = (max(b[k] for b in bands if b) for k in (0, 1))
        ((place,),) = lines
        long = next(v for v, p in zip(views, places, strict=True) if p)
        narrow = below + above + 1 < min(long.extents[long.out[place]], long.extents[long.x[place]])
        options |= {"band": (below, above), "width": below + above + 1, "banded": narrow}
    shifts = [m.kind in ("toeplitz", "circulant", "identity") or "shift" in m.options for m in found]
    if all(shifts) and not any("batch" in m.options for m in found):
        return Match("toeplitz", options)
    return Match("banded", options) if options.get("banded") else None


def _line(view: View) -> tuple[int, ...] | None:
    """The place at which a term has a row and a column, with all other digits on both sides at one place.

    A term without rows and columns fits any place: (). None for terms of another form.
    """
    if len(view.out) != len(view.x):
        return None
    off = tuple(k for k, (i, j) in enumerate(zip(view.out, view.x, strict=True)) if i != j)
    apart = all(view.out[k] not in view.x and view.x[k] not in view.out for k in off)
    return off if len(off) <= 1 and apart else None


def _plus(views: Sequence[View], matches: Sequence[Match | None]) -> Structure:
    """The terms added up, each with what was found of it."""
    terms = [(m.term if m and m.term else None) or defined(leaf(v), v) for v, m in zip(views, matches, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = Plus(total, term)
    return total
