"""The Hadamard transform (Sylvester's): a Kronecker power of [[1, 1], [1, -1]], applied by butterflies, or by
small dense transforms where arithmetic is cheaper than sweeps over memory.
"""

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


GROUP = 6  # binary digits of one small transform: 64 points keep a matrix product near the peak of a machine


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
        """One sweep of butterflies for each digit: n log n additions; or small dense transforms of several digits."""
        return Method("butterfly", self._butterfly, "ring"), Method("grouped", self._grouped, "ring")

    def _grouped(self, b: Builder, x: Value) -> Value:
        """As few sweeps over the data as leave transforms of at most 2^GROUP points, each a product with a constant."""
        b.operands["hadamard.2"] = Operand((2, 2), _SIGN)
        sweeps = -(-self.power // GROUP)
        first, batch = 0, len(x.shape) - self.power
        for sweep in range(sweeps):
            digits = (self.power - first) // (sweeps - sweep)
            into, out = b.indices((2,) * digits), b.indices((2,) * digits)
            signs = tuple(Atom("hadamard.2", (var(i), var(j))) for i, j in zip(out, into, strict=True))
            small = b.let((2,) * (2 * digits), map(var, out + into), [Term(1, signs)])
            i = b.indices(x.shape)
            at = batch + first
            read = i[:at] + into + i[at + digits :]
            left = i[:at] + out + i[at + digits :]
            atoms = Atom(small.name, tuple(map(var, out + into))), Atom(x.name, tuple(map(var, read)))
            x = b.let(x.shape, map(var, left), [Term(1, atoms)], x.complex)
            first += digits
        return x

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
