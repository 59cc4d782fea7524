"""Tucker: a core with one rank index for each digit, and a factor for each."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure
from .operator import Atom, Operand, Operator, Term
from .slot import var
from .view import Again, Match, View


@dataclass(frozen=True)
class Tucker(Structure):
    """The core has the extents `ranks`, rows first.

    >>> Tucker((4, 5), (6,), (2, 2, 3)).operator().size
    (20, 6)
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    ranks: tuple[int, ...]
    name: str = "T"

    def operator(self) -> Operator:
        """The core `T`core and an operand `T`0, `T`1, ... for each digit, where `T` is the name."""
        digits = [f"i{k}" for k in range(len(self.rows))] + [f"j{k}" for k in range(len(self.cols))]
        ranks = [f"r{k}" for k in range(len(digits))]
        extents = dict(zip(digits + ranks, self.rows + self.cols + self.ranks, strict=True))
        atoms = [Atom(f"{self.name}core", tuple(map(var, ranks)))]
        atoms += [Atom(f"{self.name}{k}", (var(d), var(r))) for k, (d, r) in enumerate(zip(digits, ranks, strict=True))]
        operands = {n: Operand(tuple(extents[s.terms[0][0]] for s in slots)) for n, slots in atoms}
        k = len(self.rows)
        return Operator(tuple(digits[:k]), tuple(digits[k:]), (Term(1, tuple(atoms)),), extents, operands)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand has summed indices only, and each of these leads to one other operand with digits."""
        if view.opaque:
            return None
        bound = frozenset(view.bound)
        core = [k for k, t in enumerate(view.touches) if t and t <= bound]
        if len(core) != 1:
            return None
        ranks = view.touches[core[0]]
        arms = [t for k, t in enumerate(view.touches) if k != core[0]]
        fits = len(ranks) >= 3 and len(arms) == len(ranks) and ranks == bound
        if fits and all(len(a & ranks) == 1 and a - ranks for a in arms):
            return Match("tucker", {"ranks": tuple(sorted(view.extents[i] for i in ranks))})
        return None
