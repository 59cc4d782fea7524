"""Vandermonde operators z[i]^j, as the language writes them or as a declared operand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .algebra import Structure, Turned
from .build import Builder, Method, Value
from .operator import Atom, Let, Operand, Operator, Term
from .slot import slot, var
from .view import Again, Factor, Match, View

# What `network` calls the opaque atom z[..]^j: the text with open names, then the operand. The exponent comes last.
_POWER = re.compile(r'^\?pow\("\$0"\[(?:"%\d+",?)+\](?::\w+)?,(?:cast\[\w+\]\()?at\("%(\d+)"\)\)?\)\((.+)\)$')


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
        """A product of z[i]^(2^b) over the bits b of j that are set."""
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
        power = power_of(view.atoms[0])
        ports = sorted(view.atoms[0].ports)
        if power is None or {q.bare for _, q in ports} != {*view.rows, *view.cols} or len(ports) != 2:
            return None
        rows, cols = view.dims
        if ports[0][1].bare in view.rows:
            return Match("vandermonde", {}, Vandermonde(rows, cols, power))
        return Match("vandermonde", {"transposed": True}, Turned(Vandermonde(cols, rows, power)))


def power_of(atom: Factor) -> str | None:
    """The operand z of an atom z[..]^j; None for other atoms."""
    found = _POWER.match(atom.name)
    return found[2] if found is not None else None


def powers(name: str, rows: int, row: str, exponent: str, count: int) -> tuple[tuple[Let, ...], Term, dict[str, int]]:
    """z[row]^exponent for exponents below `count` as a term, the lets that it reads, and its bits with extents.

    With the bits b of the exponent, z^e is the product of z^(2^b) over the bits that are set: a let of two columns for
    each bit, 1 and z^(2^b), which is the square of the one before.
    """
    lets, atoms, bits, weights = [], [], dict[str, int](), []
    for b in range(max(count - 1, 0).bit_length()):
        square = f"{name}.power.{1 << b}"
        base = Atom(name, (var("i"),)) if b == 0 else Atom(f"{name}.power.{1 << b - 1}", (var("i"), slot((), 1)))
        one = Term(1, (), ((var("b"), slot()),))
        rest = Term(1, (base,) if b == 0 else (base, base), ((var("b"), slot((), 1)),))
        bits[f"{exponent}'{b}"] = 2
        weights.append((f"{exponent}'{b}", 1 << b))
        lets.append(Let(square, (rows, 2), (var("i"), var("b")), (one, rest), {"i": rows, "b": 2}))
        atoms.append(Atom(square, (var(row), var(f"{exponent}'{b}"))))
    term = Term(1, tuple(atoms), ((var(exponent), slot(weights)),))
    return tuple(lets), term, bits


def _powers(rows: int, cols: int, name: str) -> Operator:
    """The lets of the bits, and one term over them."""
    lets, term, bits = powers(name, rows, "i", "j", cols)
    extents = {"i": rows, "j": cols, **bits}
    return Operator(("i",), ("j",), (term,), extents, {name: Operand((rows,))}, lets)
