"""Lookups: factors `(j == J[s])`, which say that an index takes the value that a tensor of integers holds.

`sum[j] (j == J[s]) * x[j,b]` is x[J[s],b], a gather; `y[i,a] = (i == I[s]) * t[s,a]` adds t[s,:] to row I[s] of y, a
scatter. A value outside of the range of the index selects nothing, as the comparison says: such a point adds the
semiring's 0. Block lists, coordinate lists and permutations given as data are all written so; the surface form
`x[J[s],b]` is short for it. Passes keep a lookup beside the one tensor that it moves, backends run it as addressing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .expr import Expr, Map, Position, Read, free_indices, reads


@dataclass(frozen=True)
class Lookup:
    """The factor `(index == value)`; `value` is an expression of an integer type that lacks `index`."""

    index: str
    value: Expr

    @property
    def factor(self) -> Map:
        """The factor again, with the index on the left."""
        from .index import Affine
        from .types import BOOL

        return Map("eq", (Position(Affine.of(self.index)), self.value), BOOL)

    @property
    def lists(self) -> tuple[str, ...]:
        """The indices that the value depends on."""
        return free_indices(self.value)


def lookup_of(factor: Expr) -> Lookup | None:
    """The lookup that a factor is, or None. A comparison of two index expressions is a delta, no lookup.

    >>> from .index import Affine
    >>> from .types import BOOL, I64
    >>> value = Read("J", (Affine.of("s"),), I64)
    >>> lookup_of(Map("eq", (value, Position(Affine.of("j"))), BOOL)).index
    'j'
    """
    if not isinstance(factor, Map) or factor.function != "eq":
        return None
    for position, value in (factor.args, factor.args[::-1]):
        if not isinstance(position, Position) or position.affine.bare is None or value.dtype.kind not in "iu":
            continue
        if reads(value) and position.affine.bare not in free_indices(value):
            return Lookup(position.affine.bare, value)
    return None


def is_listed(factor: Expr) -> bool:
    """Whether a factor is a lookup whose values stand in a tensor, so that a kernel can follow them."""
    found = lookup_of(factor)
    if found is None or not isinstance(found.value, Read) or found.value.pad is not None:
        return False
    return all(s.modulus is None for s in found.value.slots)


def split_lookups(factors: Sequence[Expr]) -> tuple[tuple[Lookup, ...], tuple[Expr, ...]]:
    """(lookups that a kernel can follow, other factors).

    One lookup for an index, each after those that its value depends on; what stands in a circle or comes second stays
    a factor that is compared.
    """
    waiting: dict[str, Lookup] = {}
    rest: list[Expr] = []
    for factor in factors:
        found = lookup_of(factor) if is_listed(factor) else None
        if found is None or found.index in waiting:
            rest.append(factor)
        else:
            waiting[found.index] = found
    ordered: list[Lookup] = []
    while waiting:
        ready = [found for found in waiting.values() if not set(found.lists) & set(waiting)]
        if not ready:
            break
        ordered += ready
        for found in ready:
            del waiting[found.index]
    return tuple(ordered), (*rest, *(found.factor for found in waiting.values()))
