"""The Hadamard transform (Sylvester's): a Kronecker power of [[1, 1], [1, -1]], applied by butterflies."""

from __future__ import annotations

from dataclasses import dataclass

from ..expr import Const, Map, Position
from ..index import Affine
from ..types import I64
from .algebra import Structure
from .build import Builder, Method, Value
from .operator import Atom, Operand, Operator, Term
from .slot import var
from .view import Again, Match, View, leaf

# 1 - 2*(row * column), over the axes 0 and 1
_SIGN = Map(
    "sub",
    (
        Const(1, I64),
        Map(
            "mul",
            (Const(2, I64), Map("mul", (Position(Affine.of("0")), Position(Affine.of("1"))), I64)),
            I64,
        ),
    ),
    I64,
)


@dataclass(frozen=True)
class Hadamard(Structure):
    """The 2^power x 2^power transform over `power` binary digits, not scaled. It needs a ring.

    >>> Hadamard(3).operator().size
    (8, 8)
    """

    power: int

    def operator(self) -> Operator:
        """A factor of signs for each digit; the constant is made by formula."""
        n = range(self.power)
        atoms = tuple(Atom("hadamard.2", (var(f"i{k}"), var(f"j{k}"))) for k in n)
        rows, cols = (tuple(f"{c}{k}" for k in n) for c in "ij")
        extents = dict.fromkeys(rows + cols, 2)
        return Operator(rows, cols, (Term(1, atoms),), extents, {"hadamard.2": Operand((2, 2), _SIGN)})

    def extra(self) -> tuple[Method, ...]:
        """One sweep of butterflies for each digit: n log n additions."""
        return (Method("butterfly", self._butterfly, "ring"),)

    def _butterfly(self, b: Builder, x: Value) -> Value:
        b.operands["hadamard.2"] = Operand((2, 2), _SIGN)
        for digit in range(len(x.shape) - self.power, len(x.shape)):
            i = b.indices(x.shape)
            (j,) = b.indices((2,))
            read = [j if k == digit else n for k, n in enumerate(i)]
            atoms = Atom("hadamard.2", (var(i[digit]), var(j))), Atom(x.name, tuple(map(var, read)))
            x = b.let(x.shape, map(var, i), [Term(1, atoms)], x.complex)
        return x

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand that is declared a Hadamard matrix."""
        if len(view.atoms) == 1 and "hadamard" in view.known(0) and len(view.rows) == len(view.cols) == 1:
            return Match("hadamard", {"declared": True}, leaf(view))
        return None
