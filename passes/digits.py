"""N2 and N4 over a sum: one system of digits for all terms, as coarse as they allow.

`refined` splits the digits of the result and of the argument at the cuts of any term, where the cuts nest; `merged`
joins neighbours that behave alike in every term, so that a matrix spelled with two digits is one with one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

from ..ir.structures.slot import slot, var
from ..ir.structures.view import DELTA, STEP, Factor, Port, View


def _weights(view: View, side: tuple[str, ...]) -> list[int]:
    weight, found = 1, []
    for i in reversed(side):
        found.append(weight)
        weight *= view.extents[i]
    return found


def refined(found: list[View]) -> list[View]:
    """N2 over a sum: all terms get the common cuts of the result and of the argument, where these nest."""
    for end in ("out", "x"):
        cuts = sorted({w for v in found for w in _weights(v, getattr(v, end))})
        if all(b % a == 0 for a, b in itertools.pairwise(cuts)):
            found = [_cut(v, end, cuts) for v in found]
    return found


def _cut(view: View, end: str, cuts: list[int]) -> View:
    for c in cuts:
        weight = 1
        for i in reversed(getattr(view, end)):
            if weight < c < weight * view.extents[i]:
                view = _split_view(view, i, c // weight)
                break
            weight *= view.extents[i]
    return view


def _split_view(view: View, index: str, low: int) -> View:
    a, b = f"{index}h{low}", f"{index}l{low}"
    extents = {**view.extents, a: view.extents[index] // low, b: low}
    value = slot([(a, low), (b, 1)])

    def ports(p: Port) -> list[Port]:
        keys, q = p
        if q.bare != index or keys[0][1] == 0:
            return [(keys, q.put(index, value))]
        axis, weight = keys[0]
        return [(((axis, weight * low),), var(a)), (((axis, weight),), var(b))]

    def digits(side: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(q for i in side for q in ((a, b) if i == index else (i,)))

    atoms = tuple(Factor(f.name, tuple(q for p in f.ports for q in ports(p))) for f in view.atoms)
    return replace(view, out=digits(view.out), x=digits(view.x), atoms=atoms, extents=extents)


def merged(found: list[View]) -> list[View]:
    """N4: neighbouring digits of equal signature, in one order in result and argument and in every term, become one.

    The storage order inside an operand does not matter; only one that occurs twice is left alone.
    """
    twice = {n for n, k in Counter([a.name for v in found for a in v.atoms]).items() if k > 1}
    again = True
    while again:
        again = False
        for end in ("out", "x"):
            sides = [getattr(v, end) for v in found]
            if len({len(s) for s in sides}) > 1:
                continue
            for k in range(len(sides[0]) - 1):
                pairs = [(s[k], s[k + 1]) for s in sides]
                if all(_alike(v, *p, twice) for v, p in zip(found, pairs, strict=True)) and _uniform(found, pairs):
                    found = [_glue(v, *p) for v, p in zip(found, pairs, strict=True)]
                    again = True
                    break
            if again:
                break
    out = []
    for v in found:
        pair = _bound_pair(v, twice)
        while pair is not None:
            v = _glue(v, *pair)
            pair = _bound_pair(v, twice)
        out.append(v)
    return out


def _bound_pair(v: View, twice: set[str]) -> tuple[str, str] | None:
    groups: dict[tuple[int, ...], list[str]] = {}
    for i in v.bound:
        groups.setdefault(v.at(i), []).append(i)
    pairs = (p for same in groups.values() for p in itertools.combinations(same, 2))
    return min((p for p in pairs if _alike(v, *p, twice)), default=None)


def _uniform(found: list[View], pairs: list[tuple[str, str]]) -> bool:
    def place(v: View, a: str) -> int:
        return v.x.index(a) if a in v.x and a in v.out else -1

    return len({(v.extents[a], v.extents[b], place(v, a)) for v, (a, b) in zip(found, pairs, strict=True)}) == 1


def _alike(v: View, i: str, j: str, twice: set[str]) -> bool:
    if i == j or v.signature(i) != v.signature(j):
        return False
    for side in (v.out, v.x):
        if i in side and (side.count(i) > 1 or side.count(j) > 1 or side.index(j) != side.index(i) + 1):
            return False
    return _free(v, i, twice) and _free(v, j, twice)


def _free(v: View, i: str, twice: set[str]) -> bool:
    """Whether an index stands alone wherever it stands, once in each atom, in operands that occur once."""
    for k in v.at(i):
        atom = v.atoms[k]
        places = [q for _, q in atom.ports if i in q.indices]
        if atom.name in twice or atom.name in (DELTA, STEP) or len(places) > 1 or places[0].bare != i:
            return False
    return True


def _glue(v: View, i: str, j: str) -> View:
    """Digits i and j become one, with i major."""
    new = f"({i}{j})"
    atoms = []
    for a in v.atoms:
        if i in a.touch:
            minor = next(keys for keys, q in a.ports if q.bare == j)
            kept = [(keys + minor, var(new)) if q.bare == i else (keys, q) for keys, q in a.ports if q.bare != j]
            a = Factor(a.name, tuple(kept))
        atoms.append(a)
    fine = {**v.fine, new: v.digits((i, j))}
    extents = {**v.extents, new: v.extents[i] * v.extents[j]}
    out, x = (tuple(new if q == i else q for q in side if q != j) for side in (v.out, v.x))
    return replace(v, out=out, x=x, atoms=tuple(atoms), extents=extents, fine=fine)
