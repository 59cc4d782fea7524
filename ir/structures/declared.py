"""Declared structure of one operand, as far as no other file reads it: `W: toeplitz`, `diag`, `banded`, ...

The declaration says that the values have the structure. Where a term of the algebra follows (a generator read along
the first row and column), it is given; the others are facts with a kind.
"""

from __future__ import annotations

from .algebra import Defined, Structure
from .operator import Atom, Operand, Term, named_let
from .slot import slot, var
from .toeplitz import Level, Toeplitz
from .view import Again, Match, View

KINDS = {
    "toeplitz": "toeplitz",
    "hankel": "hankel",
    "circulant": "circulant",
    "diag": "diagonal",
    "banded": "banded",
    "blockdiag": "block_diagonal",
    "bsr": "block_sparse",
    "lowrank": "low_rank",
    "monarch": "monarch",
    "identity": "identity",
}


class Declared:
    """The rule for one dense operand with a declared structure."""

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand with one row and one column digit, read as it is stored or transposed."""
        if len(view.atoms) != 1 or view.affine or len(view.rows) != 1 or len(view.cols) != 1:
            return None
        atom = view.atoms[0]
        if (
            len(view.shapes[atom.name]) != 2
            or len(atom.ports) != 2
            or view.digits(view.out + view.x)
            != (
                *view.rows,
                *view.cols,
            )
        ):
            return None
        kind = next((KINDS[f] for f in sorted(view.known(0)) if f in KINDS), None)
        if kind is None:
            return None
        return Match(kind, {"declared": True}, _generated(view, kind))


def _generated(view: View, kind: str) -> Structure | None:
    """Toeplitz and Hankel terms, whose generator is the first column and the first (last) row."""
    if kind not in ("toeplitz", "hankel", "circulant"):
        return None
    atom = view.atoms[0]
    rows, cols = view.dims
    stored = {axis: q for ((axis, _),), q in atom.ports}
    turned = stored[0].bare in view.cols
    length = rows + cols - 1
    d = {"d": length}

    def read(i: object, j: object) -> Atom:
        return Atom(atom.name, (j, i) if turned else (i, j))  # type: ignore[arg-type]

    if kind == "hankel":
        first = Term(1, (read(var("d"), slot()),))
        last = Term(1, (read(slot((), rows - 1), slot([("d", 1)], 1 - rows)),), (), (slot([("d", 1)], -rows),))
        level = Level(rows, cols, length, 1, 1)
    else:
        first = Term(1, (read(slot([("d", 1)], 1 - cols), slot()),))
        last = Term(1, (read(slot(), slot([("d", -1)], cols - 1)),), (), (slot([("d", -1)], cols - 2),))
        level = Level(rows, cols, length, 1, -1, cols - 1)
    let = named_let(f"{atom.name}.generator", (length,), (var("d"),), (first, last), d)
    operand = Operand(view.shapes[atom.name], facts=view.known(0))
    return Defined(Toeplitz((level,), let.name), (let,), ((atom.name, operand),))
