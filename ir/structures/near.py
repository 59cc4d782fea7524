"""Near misses: why a network that looks like a structure is none. The last rules; they only ever give reasons."""

from __future__ import annotations

import itertools
import re

from .view import DELTA, STEP, Again, Factor, Match, Near, View


def spoken(name: str) -> str:
    """An index or an operand as the user wrote it.

    >>> spoken("(i~0k~12)"), spoken("t*step.1a2b3c4d")
    ('(ik)', 't*step')
    """
    return re.sub(r"~[\d.~]+|\.[0-9a-f]{8}", "", name)


def _named(atom: Factor) -> str:
    return {DELTA: "a delta", STEP: "a guard"}.get(atom.name, spoken(atom.name))


def two_slots(view: View, again: Again) -> Match | Near | None:
    """Operands that are read at different combinations of the same digits: Toeplitz times Hankel, entry by entry."""
    slots = [(_named(view.atoms[k]), q) for k, q in view.affine if view.atoms[k].name not in (DELTA, STEP)]
    for (a, p), (b, q) in itertools.combinations(slots, 2):
        if a != b and len(p.terms) > 1 and set(p.indices) == set(q.indices):
            reads = f"{a} is read at {spoken(str(p))} and {b} at {spoken(str(q))}"
            return Near("toeplitz", f"{reads}, neither of which is a function of the other")
    return None


def shared_digit(view: View, again: Again) -> Match | Near | None:
    """A digit of the result or of the argument in two operands that would be Kronecker factors without it."""
    if len(view.atoms) < 2 or view.opaque:
        return None
    shared = [i for i in (*view.rows, *view.cols) if len(view.at(i)) > 1]
    groups = view.components(shared)
    if not shared or len(groups) < 2 or len(view.components()) > 1:
        return None
    i = shared[0]
    names = [_named(view.atoms[k]) for k in view.at(i)]
    side = "row" if i in view.rows else "column"
    return Near("kronecker", f"{spoken(i)} stands in {' and '.join(dict.fromkeys(names))}: a {side} that factors share")
