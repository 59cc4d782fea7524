"""Tensor train: a path of operands, neighbours joined by one summed index, each with digits of its own."""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import var
from .view import Again, Match, View


@dataclass(frozen=True)
class TensorTrain(Structure):
    """Site k is rows[k] x cols[k]; ranks stand between the sites.

    >>> TensorTrain((2, 3, 4), (4, 3, 2), (2, 2)).operator().size
    (24, 24)
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    ranks: tuple[int, ...]
    name: str = "G"

    def operator(self) -> Operator:
        """One operand for each site: the name and a number, read [left rank, row, column, right rank]."""
        n = len(self.rows)
        extents = {f"i{k}": self.rows[k] for k in range(n)} | {f"j{k}": self.cols[k] for k in range(n)}
        extents |= {f"r{k}": r for k, r in enumerate(self.ranks)}
        atoms = []
        for k in range(n):
            left = [f"r{k - 1}"] if k else []
            right = [f"r{k}"] if k < n - 1 else []
            atoms.append(Atom(f"{self.name}{k}", tuple(map(var, (*left, f"i{k}", f"j{k}", *right)))))
        operands = {m: Operand(tuple(extents[s.terms[0][0]] for s in slots)) for m, slots in atoms}
        rows, cols = (tuple(f"{c}{k}" for k in range(n)) for c in "ij")
        return Operator(rows, cols, (Term(1, tuple(atoms)),), extents, operands)

    def extra(self) -> tuple[Method, ...]:
        """Site by site, from the last."""
        return (Method("site by site", self._sites),)

    def _sites(self, b: Builder, x: Value) -> Value:
        op = b.adopt(self.operator())
        sites = op.terms[0].atoms
        batch = b.indices(x.shape[: len(x.shape) - len(sites)])
        done: list[str] = []  # rows already made, first site last
        current, rank = x, list[str]()
        for k in reversed(range(len(sites))):
            read = Atom(current.name, tuple(map(var, (*batch, *op.cols[: k + 1], *rank, *done))))
            rank = [sites[k].slots[0].terms[0][0]] if k else []
            done = [op.rows[k], *done]
            out = [*batch, *op.cols[:k], *rank, *done]
            current = b.let([b.extents[i] for i in out], map(var, out), [Term(1, (sites[k], read))], x.complex)
        return current

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Every summed index joins two operands, the operands form a path, and each has digits that no other has."""
        n, bound = len(view.atoms), view.bound
        if view.opaque or n < 3 or len(bound) != n - 1 or any(len(view.at(r)) != 2 for r in bound):
            return None
        degrees = sorted(len(t & set(bound)) for t in view.touches)
        own = [t - set(bound) for t in view.touches]
        path = degrees == [1, 1] + [2] * (n - 2) and len(view.components()) == 1
        if path and all(own) and sum(map(len, own)) == len(frozenset[str]().union(*own)):
            return Match("tensor_train", {"ranks": tuple(view.extents[r] for r in bound)})
        return None
