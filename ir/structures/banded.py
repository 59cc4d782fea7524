"""Banded operators: the diagonals are stored as rows of an operand, a[j-i+lower, i], or as its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .algebra import Defined, Structure
from .build import Builder, Method, Run, Value
from .operator import Atom, Operand, Operator, Term, named_let
from .permutation import shift_of
from .slot import Slot, slot, var
from .toeplitz import band_of, pair_levels
from .view import DELTA, STEP, Again, Match, View, axes_of, leaf


@dataclass(frozen=True)
class Banded(Structure):
    """y[i] = a[j-i+lower, i] x[j], with `lower` diagonals below the main one and `upper` above; `by_rows` says that
    the operand is a[i, j-i+lower].

    >>> Banded(6, 7, 1, 2).operator().operands["a"].shape
    (4, 6)
    """

    rows: int
    cols: int
    lower: int
    upper: int
    name: str = "a"
    by_rows: bool = False

    @property
    def width(self) -> int:
        """The number of diagonals."""
        return self.lower + self.upper + 1

    def read(self, d: Slot, i: Slot) -> Atom:
        """The entry of diagonal d in row i."""
        return Atom(self.name, (i, d) if self.by_rows else (d, i))

    def operator(self) -> Operator:
        """The operand read along diagonals; zero outside of the band."""
        read = self.read(slot([("j", 1), ("i", -1)], self.lower), var("i"))
        shape = (self.rows, self.width) if self.by_rows else (self.width, self.rows)
        extents = {"i": self.rows, "j": self.cols}
        return Operator(("i",), ("j",), (Term(1, (read,)),), extents, {self.name: Operand(shape)})

    def extra(self) -> tuple[Method, ...]:
        """A sum over diagonals; dense products of blocks of rows, each with the columns that its band reaches."""
        sizes = [1 << (self.width.bit_length() + k) for k in range(3)]
        blocks = [Method(f"blocks of {n} rows", self._blocked(n)) for n in sizes if n < self.rows]
        return (Method("diagonals", self._diagonals), *blocks)

    def _diagonals(self, b: Builder, x: Value) -> Value:
        batch = b.indices(x.shape[:-1])
        i, d = b.indices((self.rows, self.width))
        band = self.read(var(d), var(i))
        read = Atom(x.name, (*map(var, batch), slot([(i, 1), (d, 1)], -self.lower)))
        return b.let((*x.shape[:-1], self.rows), map(var, (*batch, i)), [Term(1, (band, read))], x.complex)

    def _blocked(self, size: int) -> Run:
        """Rows I*size + a read x from I*size - lower on: size x (size + width - 1) blocks, which are formed first."""

        def run(b: Builder, x: Value) -> Value:
            count, reach = -(-self.rows // size), size + self.width - 1
            batch = tuple(map(var, b.indices(x.shape[:-1])))
            g, a, c = b.indices((count, size, reach))
            row = slot([(g, size), (a, 1)])
            band = self.read(slot([(c, 1), (a, -1)]), row)  # zero outside of the band and below the last row
            blocks = b.let((count, size, reach), map(var, (g, a, c)), [Term(1, (band,))])
            read = Atom(x.name, (*batch, slot([(g, size), (c, 1)], -self.lower)))
            atoms = Atom(blocks.name, tuple(map(var, (g, a, c)))), read
            y = b.let((*x.shape[:-1], count * size), (*batch, row), [Term(1, atoms)], x.complex)
            if count * size == self.rows:
                return y
            (i,) = b.indices((self.rows,))
            out = (*batch, var(i))
            return b.let((*x.shape[:-1], self.rows), out, [Term(1, (Atom(y.name, out),))], x.complex)

        return run

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand with a slot i-j and a slot i (or j), and few diagonals."""
        shifted = _shifted(view)
        if shifted is not None:
            return shifted
        if len(view.atoms) != 1 or len(view.rows) != 1 or len(view.cols) != 1 or len(view.atoms[0].ports) != 2:
            return None
        found = pair_levels(view)
        if found is None or len(found[0]) != 1:
            return None
        kinds, levels, used = found
        dense = [q.bare for q in view.atoms[0].slots if q.bare is not None]
        level = levels[0]
        if len(dense) != 1 or dense[0] not in used or level.length >= min(level.rows, level.cols):
            return None
        if kinds[0] not in ("toeplitz", "circulant"):
            return None
        options: dict[str, Any] = {"width": level.length}
        if not level.modulus:
            options["band"] = band_of(view, level)
        return Match("banded", options, _term(view, level.step, level.offset, level.length))


def _shifted(view: View) -> Match | None:
    """One diagonal: operands of the row or of the column beside a delta that says column = row + c."""
    deltas = [k for k, a in enumerate(view.atoms) if a.name == DELTA]
    rest = [k for k in range(len(view.atoms)) if k not in deltas]
    if len(deltas) != 1 or not rest or len(view.rows) != 1 or len(view.cols) != 1:
        return None
    shift = shift_of(view, view.atoms[deltas[0]])
    lone = all(len(view.touches[k]) == 1 and all(q.bare for q in view.atoms[k].slots) for k in rest)
    if shift is None or not lone or view.bound or (view.opaque and any(a.name == STEP for a in view.atoms)):
        return None
    return Match("banded", {"width": 1, "band": (-shift, shift)}, leaf(view))


def _term(view: View, step: int, offset: int, width: int) -> Structure | None:
    """`Banded` where the operand is stored as it wants it."""
    atom = view.atoms[0]
    reads = axes_of(view, atom)
    if len(reads) != 2 or (reads[0].bare is None) == (reads[1].bare is None):
        return None
    by_rows = reads[0].bare is not None
    line, skew = reads if by_rows else reads[::-1]
    turned = line.bare in view.cols
    if step != (1 if turned else -1) or skew.modulus or not 0 <= offset < width:
        return None
    rows, cols = view.dims
    upper = width - 1 - offset
    if not turned:
        return Banded(rows, cols, offset, upper, atom.name, by_rows)
    # The transpose has the diagonals in the other order, each shifted to the rows that were its columns.
    stored = Banded(cols, rows, offset, upper, atom.name, by_rows)
    read = stored.read(slot([("d", -1)], width - 1), slot([("i", 1), ("d", 1)], -upper))
    slots, shape = (var("i"), var("d")), (rows, width)
    let = named_let(f"{atom.name}'", shape, slots, (Term(1, (read,)),), {"d": width, "i": rows})
    operand = Operand(view.shapes[atom.name], facts=view.known(atom))
    return Defined(Banded(rows, cols, upper, offset, let.name, True), (let,), ((atom.name, operand),))
