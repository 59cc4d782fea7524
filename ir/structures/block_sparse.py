"""Block sparse and sparse operators: stored blocks between two selections, which say where each block stands.

W[(I a), (J b)] = E[I,s] B[s,a,b] F[J,s] with E[I,s] = 1 where block s stands in block row I. Scalar blocks give the
unstructured sparse case (coordinate form; sorted by rows it is CSR).
"""

from __future__ import annotations

from dataclasses import dataclass

from .algebra import Structure
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import var
from .view import DELTA, Again, Match, View


@dataclass(frozen=True)
class BlockSparse(Structure):
    """`blocks` stored blocks of the extents `block` in a grid of block rows x block columns.

    >>> BlockSparse((4, 6), (3, 2), 5).operator().size
    (12, 12)
    """

    grid: tuple[int, int]
    block: tuple[int, int]
    blocks: int
    names: tuple[str, str, str] = ("E", "B", "F")

    def operator(self) -> Operator:
        """The three operands with the summed block number."""
        e, b, f = self.names
        rows, cols = (("I", "a"), ("J", "b")) if self.block != (1, 1) else (("I",), ("J",))
        inner = ("s", "a", "b") if self.block != (1, 1) else ("s",)
        extents = {"I": self.grid[0], "J": self.grid[1], "s": self.blocks}
        if self.block != (1, 1):
            extents |= {"a": self.block[0], "b": self.block[1]}
        atoms = Atom(e, (var("I"), var("s"))), Atom(b, tuple(map(var, inner))), Atom(f, (var("J"), var("s")))
        selection = frozenset({"selection"})
        operands = {
            e: Operand((self.grid[0], self.blocks), facts=selection),
            b: Operand(tuple(extents[i] for i in inner)),
            f: Operand((self.grid[1], self.blocks), facts=selection),
        }
        return Operator(rows, cols, (Term(1, atoms),), extents, operands)

    def extra(self) -> tuple[Method, ...]:
        """Gather blocks of x, multiply each, scatter-add."""
        return (Method("blocks", self._blocks),)

    def _blocks(self, b: Builder, x: Value) -> Value:
        op = b.adopt(self.operator())
        e, w, f = op.terms[0].atoms
        batch = b.indices(x.shape[: len(x.shape) - len(op.cols)])
        s = e.slots[1]
        kept = [s, *map(var, op.cols[1:])]
        size = b.extents[s.terms[0][0]]
        given = Atom(x.name, tuple(map(var, (*batch, *op.cols))))
        shape = [*(b.extents[i] for i in batch), size, *(b.extents[i] for i in op.cols[1:])]
        gathered = b.let(shape, [*map(var, batch), *kept], [Term(1, (f, given))], x.complex)
        read = Atom(gathered.name, (*map(var, batch), *kept))
        shape = [*(b.extents[i] for i in batch), size, *(b.extents[i] for i in op.rows[1:])]
        out = [*map(var, batch), s, *map(var, op.rows[1:])]
        done = b.let(shape, out, [Term(1, (w, read))], x.complex)
        shape = [b.extents[i] for i in (*batch, *op.rows)]
        return b.let(shape, map(var, (*batch, *op.rows)), [Term(1, (e, Atom(done.name, tuple(out))))], x.complex)

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """Two declared selections of one block number around one operand; others may only scale rows or columns."""
        chosen = [k for k, a in enumerate(view.atoms) if "selection" in view.known(a) and a.name != DELTA]
        rest = [k for k in range(len(view.atoms)) if k not in chosen]
        if len(chosen) != 2 or not rest:
            return None
        s = view.touches[chosen[0]] & view.touches[chosen[1]]
        core = [k for k in rest if view.touches[k] & s]
        rows, cols = set(view.rows), set(view.cols)
        if len(core) != 1 or not all(k in core or view.touches[k] <= rows or view.touches[k] <= cols for k in rest):
            return None
        sides = [view.touches[k] for k in chosen]
        if not s or not s <= set(view.bound) or not any(t & rows for t in sides) or not any(t & cols for t in sides):
            return None
        kind = "block_sparse" if view.touches[core[0]] - s else "sparse"
        return Match(kind, {"blocks": view.size(s)})
