"""Kronecker products of any number of factors, sums of them, and the Kronecker sum A (x) I + I (x) B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

from .algebra import Beside, Plus, Structure, arranged, identity, kron, matrix, ones
from .build import Method
from .hadamard import Hadamard
from .operator import Operator, dense
from .reshaped import Reshaped
from .slot import var
from .view import Again, Component, Match, Near, View, leaf


@dataclass(frozen=True)
class Kronecker(Structure):
    """F1 (x) F2 (x) ..., factor k of shape rows[k] x cols[k].

    >>> Kronecker((3, 5), (4, 2)).operator().size
    (15, 8)
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    names: tuple[str, ...] = ("A", "B", "C", "D", "E", "F")

    def _term(self) -> Structure:
        return kron(*(matrix(n, r, c) for n, r, c in zip(self.names, self.rows, self.cols, strict=False)))

    def operator(self) -> Operator:
        """The factors side by side."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """One factor after the other."""
        return self._term().extra()

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Two or more groups of operands without a common index, one of them with rows and columns."""
        groups = view.components()
        if len(groups) < 2 or not all(g.side for g in groups):
            return None
        if not any(g.rows for g in groups) or not any(g.cols for g in groups):
            return None
        views = [view.only(g.atoms) for g in groups]
        parts = tuple(again(v) if v.affine or len(v.atoms) > 1 or any(v.known(0)) else None for v in views)
        order = sorted(range(len(groups)), key=lambda k: _first(view, groups[k]))
        terms = [(p.term if p and p.term else None) or leaf(v) for v, p in zip(views, parts, strict=True)]
        factors = [terms[k] for k in order]
        rows = [i for k in order for i in views[k].out]
        cols = [i for k in order for i in views[k].x]
        alone = [i for i in view.rows if i not in rows], [i for i in view.cols if i not in cols]
        if alone[0] or alone[1]:  # digits that no operand has: all ones
            sizes = [tuple(view.extents[d] for d in view.digits(end)) for end in alone]
            factors.append(ones(sizes[0], sizes[1]))
        have = view.digits((*rows, *alone[0])), view.digits((*cols, *alone[1]))
        power = hadamard_power(factors)
        sizes_of = [tuple(view.extents[d] for d in end) for end in have]
        whole = kron(*factors) if power is None else Reshaped(Hadamard(power), sizes_of[0], sizes_of[1])
        term = arranged(whole, have, (view.digits(view.out), view.digits(view.x)))
        kinds = tuple(parts[k].kind if parts[k] else "dense" for k in order)  # type: ignore[union-attr]
        options = {"factors": kinds, "permuted": is_permuted(view, groups)}
        ends = tuple((g.rows, g.cols) for g in groups)
        if power is not None and not options["permuted"]:
            return Match("hadamard", options | {"declared": True}, term, tuple(parts[k] for k in order), ends)
        return Match("kronecker", options, term, tuple(parts[k] for k in order), ends)


def hadamard_power(factors: Sequence[Structure]) -> int | None:
    """The binary digits of a Kronecker product of Hadamard transforms, which is one itself; None if it is none."""
    powers = [f.of.power for f in factors if isinstance(f, Reshaped) and isinstance(f.of, Hadamard)]
    return sum(powers) if len(powers) == len(factors) else None


def _first(view: View, group: Component) -> tuple[int, int]:
    """Where a factor stands: by its first row, else by its first column."""
    places = [view.out.index(i) for i in group.rows] or [len(view.out)]
    return min(places), min([view.x.index(i) for i in group.cols] or [len(view.x)])


def is_permuted(view: View, groups: Sequence[Component]) -> bool:
    """Whether the factors stand in other orders in the result than in the argument."""
    for a, b in combinations(groups, 2):
        orders = {view.out.index(i) < view.out.index(j) for i in a.rows for j in b.rows}
        orders |= {view.x.index(i) < view.x.index(j) for i in a.cols for j in b.cols}
        if len(orders) > 1:
            return True
    return False


@dataclass(frozen=True)
class KroneckerSumOf(Structure):
    """The sum over n of A[n] (x) B[n]: hypercomplex and adapter layers.

    >>> KroneckerSumOf(3, (2, 4), (2, 5)).operator().size
    (8, 10)
    """

    terms: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    names: tuple[str, str] = ("A", "B")

    def operator(self) -> Operator:
        """Both factors with the summed index."""
        a, b = (dense(name, (self.terms, r), (c,)) for name, r, c in zip(self.names, self.rows, self.cols, strict=True))
        both = a.beside(b)
        (p, i, q, k), (j, l) = both.rows, both.cols  # noqa: E741
        terms = tuple(t.put(q, var(p)) for t in both.terms)
        extents = {n: e for n, e in both.extents.items() if n != q}
        return Operator((i, k), (j, l), terms, extents, both.operands)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | Near | None:
        """Kronecker after cutting summed indices; useful if they are fewer than the entries of each factor."""
        if view.opaque:
            return None
        for rank, cut in view.cuts():
            groups = view.components(cut)
            sides = [g.side for g in groups]
            both = sides.count("RC")
            if len(groups) < 2 or not all(sides) or not (both >= 2 or (both and {"R", "C"} <= set(sides))):
                continue
            sizes = [view.size(g.rows) * view.size(g.cols) for g in groups if g.side == "RC"]
            if len(sizes) < len(groups):
                sizes.append(prod(view.size(g.rows) * view.size(g.cols) for g in groups if g.side != "RC"))
            if rank >= min(sizes):
                return Near("kronecker_sum_of", f"{rank} terms are as many as a factor has entries ({min(sizes)})")
            parts = tuple(again(view.only(g.atoms, cut)) for g in groups)
            kinds = tuple(p.kind if p else "dense" for p in parts)
            options = {"terms": rank, "factors": kinds, "permuted": is_permuted(view, groups)}
            return Match("kronecker_sum_of", options, None, parts, tuple((g.rows, g.cols) for g in groups))
        return None

    @staticmethod
    def recognise_sum(views: Sequence[View], matches: Sequence[Match | None]) -> Match | None:
        """A sum of Kronecker products over the same digits; a factor may be an identity."""
        if any((m is None or not m.groups) and one_factor(v) is None for v, m in zip(views, matches, strict=True)):
            return None
        if len({(len(v.out), len(v.x)) for v in views}) > 1 or _factors(views, matches) < 2:
            return None
        return Match("kronecker_sum_of", {"terms": sum(m.options.get("terms", 1) if m else 1 for m in matches)})


def _factors(views: Sequence[View], matches: Sequence[Match | None]) -> int:
    """How many factors all terms of a sum have in common: groups of places that no term joins.

    Digits that every term leaves alone, or carries as a batch, are no factor.
    """
    parent = {(end, k): (end, k) for end, side in (("r", views[0].out), ("c", views[0].x)) for k in range(len(side))}

    def root(p: tuple[str, int]) -> tuple[str, int]:
        while parent[p] != p:
            p = parent[p]
        return p

    busy: set[tuple[str, int]] = set()
    for v, m in zip(views, matches, strict=True):
        whole = tuple(i for i in v.out if v.at(i)), tuple(i for i in v.x if v.at(i))
        groups = m.groups if m is not None and m.groups else (whole,)
        for rows, cols in groups:
            places = [("r", v.out.index(i)) for i in rows] + [("c", v.x.index(i)) for i in cols]
            busy.update(places)
            for p in places[1:]:
                parent[root(p)] = root(places[0])
        for i in v.batch:
            parent[root(("r", v.out.index(i)))] = root(("c", v.x.index(i)))
    return len({root(p) for p in busy})


@dataclass(frozen=True)
class Kronsum(Structure):
    """A (x) I + I (x) B, A and B square: the Sylvester operator.

    >>> Kronsum(3, 4).operator().size
    (12, 12)
    """

    first: int
    second: int
    names: tuple[str, str] = ("A", "B")

    def _term(self) -> Structure:
        a, b = matrix(self.names[0], self.first, self.first), matrix(self.names[1], self.second, self.second)
        return Plus(Beside(a, identity(self.second)), Beside(identity(self.first), b))

    def operator(self) -> Operator:
        """The sum of two products with identities."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """Each factor on its digit, added."""
        return self._term().extra()

    @staticmethod
    def recognise_sum(views: Sequence[View], matches: Sequence[Match | None]) -> Match | None:
        """Each term acts on one group of digits and leaves the others, and the groups are disjoint."""
        places = [one_factor(v) for v in views]
        if len(views) < 2 or None in places or len(set(places)) < len(places):
            return None
        if any(set(a or ()) & set(b or ()) for a, b in combinations(places, 2)):
            return None
        return Match("kronsum", {"factors": len(places)})


def one_factor(view: View) -> tuple[int, ...] | None:
    """The places of the digits that the operands act on, where all others are left alone; None otherwise."""
    rows = tuple(k for k, i in enumerate(view.out) if view.at(i))
    cols = tuple(k for k, i in enumerate(view.x) if view.at(i))
    free = [i for i in view.batch if not view.at(i)]
    return rows if free and rows and rows == cols and len(view.out) == len(view.x) else None
