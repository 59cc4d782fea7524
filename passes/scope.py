"""Proofs of range that the rules share: whether an index expression provably stays inside an axis."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.index import Affine
from ..ir.size import Size


def within(affine: Affine, extent: Size, extents: Mapping[str, Size]) -> bool:
    """Whether 0 <= affine < extent provably holds for every value of its indices, also where `extent` could be 0.

    A size is taken to be at least 1 only if an index of the expression has it in its range: where that is 0, there is
    no value and nothing to prove.

    >>> n = Size.name("n")
    >>> within(Affine.of("i"), n, {"i": n}), within(Affine.of("i") + 1, n, {"i": n}), within(Affine.constant(0), n, {})
    (True, False, False)
    """
    if affine.modulus is not None:
        return affine.modulus == extent and bool(affine.indices)
    low, high = affine.bounds(extents)
    covered = frozenset[str]().union(*(extents[n].names for n in affine.indices))
    room = extent - 1 - high
    return low.at_least(0, 1 if low.names <= covered else 0) and room.at_least(0, 1 if room.names <= covered else 0)
