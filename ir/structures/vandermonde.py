"""Vandermonde operators z[i]^j, as the language writes them or as a declared operand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .algebra import Structure, Turned
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import slot, var
from .view import Again, Match, View

# What `network` calls the opaque atom z[i]^j: the text with open names, then the operand.
_POWER = re.compile(r'^\?pow\("\$0"\["%0"\](?::\w+)?,(?:cast\[\w+\]\()?at\("%1"\)\)?\)\((.+)\)$')


@dataclass(frozen=True)
class Vandermonde(Structure):
    """V[i, j] = z[i]^j for the vector `name`.

    >>> Vandermonde(3, 4).operator().size
    (3, 4)
    """

    rows: int
    cols: int
    name: str = "z"

    def operator(self) -> Operator:
        """A product of as many factors z[i] as j says: z[i] is read for every k below j."""
        return _powers(self.rows, self.cols, self.name)

    def extra(self) -> tuple[Method, ...]:
        """Horner's scheme: one product and one sum for each power, from the last."""
        return (Method("horner", self._horner),)

    def _horner(self, b: Builder, x: Value) -> Value:
        shape = (*x.shape[:-1], self.rows)
        total: Value | None = None
        for j in reversed(range(self.cols)):
            i = b.indices(shape)
            batch, row = i[:-1], var(i[-1])
            terms = [Term(1, (Atom(x.name, (*map(var, batch), slot((), j))),))]
            if total is not None:
                terms.append(Term(1, (Atom(self.name, (row,)), Atom(total.name, tuple(map(var, i))))))
            total = b.let(shape, map(var, i), terms, x.complex)
        assert total is not None, "a Vandermonde operator has columns"
        return total

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One power whose base runs over a row and whose exponent is a column (or the reverse)."""
        if len(view.atoms) != 1 or len(view.rows) != 1 or len(view.cols) != 1:
            return None
        if "vandermonde" in view.known(0):
            return Match("vandermonde", {"declared": True})
        power = _POWER.match(view.atoms[0].name)
        ends = {keys[0][0]: q.bare for keys, q in view.atoms[0].ports}
        if power is None or set(ends.values()) != {*view.rows, *view.cols}:
            return None
        rows, cols = view.dims
        if ends[0] in view.rows:
            return Match("vandermonde", {}, Vandermonde(rows, cols, power[1]))
        return Match("vandermonde", {"transposed": True}, Turned(Vandermonde(cols, rows, power[1])))


def _powers(rows: int, cols: int, name: str) -> Operator:
    """One term for each column j: a delta that says j, and j factors z[i]."""
    terms = tuple(
        Term(1, tuple(Atom(name, (var("i"),)) for _ in range(j)), ((var("j"), slot((), j)),)) for j in range(cols)
    )
    return Operator(("i",), ("j",), terms, {"i": rows, "j": cols}, {name: Operand((rows,))})
