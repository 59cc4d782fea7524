"""Products of structured operators: `diag @ banded`, `toeplitz @ dense`, `L @ U` stay structured factor by factor.

For dense factors the best order of contraction is the product already, so this rule looks only where some factor has a
method of its own: an affine read, a guard, a declared matrix, a selection. It splits the operands in two, W = L R with
all columns in R, and recognises both sides again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .algebra import Structure, Times
from .chain import factors_of, joint_band
from .declared import METHOD_FACTS, is_part
from .view import DELTA, SELECTIONS, STEP, Again, Match, View, defined, leaf

CLUSTER_LIMIT = 6  # groups of operands that are split in every way; beyond, nothing is tried
_CLOSED = ("lower", "upper", "circulant", "permutation", "diagonal")  # of one size: kinds that products keep


@dataclass(frozen=True)
class Split:
    """The two sides of a product, with what was found of each; `middle` is the size of what lies between."""

    left: View
    right: View
    found: tuple[Match | None, Match | None]
    middle: int


class Product:
    """The rule for products of two sides, one of which has a method of its own."""

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """The split with the most sides that are recognised, and of these the one with the least between the sides."""
        if len(view.atoms) < 2 or not view.rows or not view.cols or not _is_special(view):
            return None
        best: Split | None = None
        for left, right in _splits(view):
            found = again(left), again(right)
            count = sum(m is not None for m in found)
            middle = left.size(left.x)
            if count and (best is None or (-count, middle) < (-sum(m is not None for m in best.found), best.middle)):
                best = Split(left, right, found, middle)
        if best is None:
            return None
        sides = [_term(m, v) for m, v in zip(best.found, (best.left, best.right), strict=True)]
        kinds = tuple(m.kind if m else "dense" for m in best.found)
        kind, figures = _joint(kinds, best, view)
        options = {"factors": tuple(k for m in best.found for k in factors_of(m)), **figures}
        return Match(kind, options, Times(sides[0], sides[1]), best.found)


def _is_special(view: View) -> bool:
    known = frozenset[str]().union(*(view.known(k) for k in range(len(view.atoms))))
    return bool(
        view.affine or view.opaque or known & (METHOD_FACTS | SELECTIONS) or any(is_part(a.name) for a in view.atoms)
    )


def _term(match: Match | None, view: View) -> Structure:
    return match.term if match is not None and match.term is not None else defined(leaf(view), view)


def _splits(view: View) -> Iterator[tuple[View, View]]:
    """Left and right side of every split into two groups of operands, of which the right one has all columns."""
    clusters = _clusters(view)
    if len(clusters) > CLUSTER_LIMIT:
        return
    yield from _scalings(view)
    for n in range(1, len(clusters)):
        for chosen in itertools.combinations(clusters, n):
            left = [k for c in chosen for k in c]
            found = _sides(view, left, [k for k in range(len(view.atoms)) if k not in left])
            if found is not None:
                yield found


def _scalings(view: View) -> Iterator[tuple[View, View]]:
    """A diagonal on either side: the operands that have rows (columns) only, and the rest."""
    for side, outer in ((view.out, view.rows), (view.x, view.cols)):
        scale = [k for k, t in enumerate(view.touches) if t and t <= set(outer)]
        rest = [k for k in range(len(view.atoms)) if k not in scale]
        if not scale or not rest or view.batch or len(set(side)) < len(side):
            continue
        diagonal = replace(view, coefficient=1, out=side, x=side, atoms=tuple(view.atoms[k] for k in scale), notes=())
        other = replace(view, coefficient=1, atoms=tuple(view.atoms[k] for k in rest), notes=())
        yield (diagonal, other) if side == view.out else (other, diagonal)


def _clusters(view: View) -> list[list[int]]:
    """The operands, each with the guards and deltas that speak of its indices only."""
    own = [k for k, a in enumerate(view.atoms) if a.name not in (DELTA, STEP)]
    clusters = {k: [k] for k in own}
    for k, a in enumerate(view.atoms):
        if a.name in (DELTA, STEP):
            host = next((h for h in own if a.touch <= view.touches[h]), None)
            clusters.setdefault(k if host is None else host, []).append(k)
    return list(clusters.values())


def _sides(view: View, left: Sequence[int], right: Sequence[int]) -> tuple[View, View] | None:
    """W = L R: between them run the indices of R that L or the result needs, columns too, which R leaves in place.

    None where one of them would act on nothing.
    """
    mine = frozenset[str]().union(*(view.touches[k] for k in left))
    theirs = frozenset[str]().union(*(view.touches[k] for k in right))
    if not set(view.cols) <= theirs or not set(view.rows) <= mine | theirs or not mine & theirs:
        return None
    batch = [i for i in view.x if i in view.out]
    between = [i for i in view.out if i in batch or (i in theirs and i not in view.x)]
    between += [i for i in view.x if i not in batch and i in mine]
    between += sorted(i for i in mine & theirs if i not in between and i not in view.x)
    if len(set(view.out)) < len(view.out) or set(between) in (set(view.out), set(view.x)):
        return None
    atoms = [tuple(view.atoms[k] for k in side) for side in (left, right)]
    first = replace(view, coefficient=1, x=tuple(between), atoms=atoms[0], notes=())
    second = replace(view, coefficient=1, out=tuple(between), atoms=atoms[1], notes=())
    return first, second


def _joint(kinds: tuple[str, ...], split: Split, view: View) -> tuple[str, dict[str, object]]:
    """What two structures make: some kinds are closed under products, bands add up while they are narrow."""
    if kinds[0] == kinds[1] and kinds[0] in _CLOSED:
        return kinds[0], {}
    band = joint_band(split.found, view)
    if band is not None and "banded" in kinds:
        return "banded", {"band": band, "width": sum(band) + 1}
    return "product", {}
