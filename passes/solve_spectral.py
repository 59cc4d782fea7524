"""Sums of Kronecker products that one change of basis makes diagonal: `kron(A, B) + c*I`, `kron(A, I) + kron(I, B)`.

Every term has, for each group of digits, either one and the same matrix or the identity, so that the sum is a
polynomial in commuting matrices. Symmetric factors have real eigenvectors: rotate, divide by the eigenvalues of the
sum, rotate back (structures row 13). Factors that nothing is known of have a Schur form, and the sum of Kronecker
products of triangles is solved by substitution (Bartels and Stewart 1972, for two terms).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..ir.expr import Const, Read, Structure
from ..ir.functions import CAST
from ..ir.index import Affine
from ..ir.size import Size
from ..ir.structures.operator import Atom, Operand, Operator, Term
from ..ir.structures.slot import var
from .solve_emit import Emitter, Value
from .solve_forms import Dense, Diagonal, Form, Power, log_total, split


@dataclass(frozen=True)
class Spectral(Form):
    """The sum over terms of coefficient x the Kronecker product of the term's factors and of identities.

    `factors[k]` acts on the digits at the places `digits[k]`. A term is its coefficient (an operator without digits)
    and the numbers of its factors.
    """

    extents: tuple[int, ...]
    factors: tuple[Dense | Diagonal, ...]
    digits: tuple[tuple[int, ...], ...]
    terms: tuple[tuple[Operator, tuple[int, ...]], ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """The digits."""
        return self.extents

    @property
    def cols(self) -> tuple[int, ...]:
        """The digits."""
        return self.extents

    @property
    def symmetric(self) -> bool:
        """Whether every factor is known to be symmetric, so that real eigenvectors do."""
        return all(isinstance(f, Diagonal) or "symmetric" in f.assume for f in self.factors)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The size of each factor, and at the end that of all other digits."""
        return tuple(f.size for f in self.factors)

    # ---------------------------------------------------------------- pieces

    def _coefficients(self, e: Emitter) -> list[Value]:
        return [e.terms("coefficient", (), (), c.terms, c.extents) for c, _ in self.terms]

    def _spectrum(self, e: Emitter, own: list[Value]) -> Value:
        """The eigenvalues of the sum, an axis for each factor, from those of the factors."""
        names = [f"a{k}" for k in range(len(own))]
        total: Value | None = None
        for c, (_, factors) in zip(self._coefficients(e), self.terms, strict=True):
            here = [names[k] for k in factors]
            one = e.einsum("term", here, (_like(e, c, own[0]), ()), *((own[k], [names[k]]) for k in factors))
            missing = [k for k in range(len(own)) if k not in factors]
            if missing:
                spread = [
                    (e.map("one", "add", _zeros(e, own[k]), e.number(1, own[k].dtype)), [names[k]]) for k in missing
                ]
                one = e.einsum("spread", names, (one, here), *spread)
            else:
                one = e.moved(one, [factors.index(k) for k in range(len(own))])
            total = one if total is None else e.map("spectrum", "add", total, one)
        assert total is not None
        return total

    def _grouped(self, e: Emitter, x: Value) -> Value:
        """Right sides with an axis for each factor, then one of all that is left."""
        front = [k for group in self.digits for k in group]
        order = [*front, *(k for k in range(len(x.shape)) if k not in front)]
        x = e.moved(x, order)
        return e.reshaped(x, (*self._sizes, prod(x.shape[len(front) :])))

    def _ungrouped(self, e: Emitter, x: Value, shape: tuple[int, ...]) -> Value:
        front = [k for group in self.digits for k in group]
        order = [*front, *(k for k in range(len(shape)) if k not in front)]
        x = e.reshaped(x, [shape[k] for k in order])
        return e.moved(x, [order.index(k) for k in range(len(order))])

    def _rotated(self, e: Emitter, x: Value, bases: list[Value | None], back: bool) -> Value:
        """x in the basis of the factors, or back; factors without a basis are diagonal."""
        names = [f"d{k}" for k in range(len(bases))]
        for k, basis in enumerate(bases):
            if basis is None:
                continue
            new = [*names, "c"]
            new[k] = "n"
            ends = ("n", names[k]) if back else (names[k], "n")
            if basis.dtype.kind == "c" and not back:
                basis = e.map("conjugate", "conj", basis)
            x = e.einsum("rotated", new, (basis, ends), (x, [*names, "c"]))
        return x

    # ---------------------------------------------------------------- what a form gives

    def solve(self, e: Emitter, x: Value) -> Value:
        """Rotate, divide, rotate back."""
        flat = self._grouped(e, x)
        if self.symmetric:
            own, bases = self._eigen(e)
            spectrum = e.linalg("divisors", self._spectrum(e, own))
            turned = self._rotated(e, flat, bases, False)
            solved = e.map("quotient", "div", turned, spectrum)
        else:
            kind = e.dtype if e.dtype.kind == "c" else None
            matrices = [self._matrix(e, f) for f in self.factors]
            own = [e.linalg("schur_form", m) for m in matrices]
            bases = [e.linalg("schur_vectors", m) for m in matrices]
            turned = self._rotated(e, flat if kind else e.map("complex", CAST, flat, dtype=own[0].dtype), bases, False)
            coefficients = [_like(e, c, own[0]) for c in self._coefficients(e)]
            solved = e.linalg("solve_kronecker", turned, *coefficients, *own, assume=self._assume)
        found = self._rotated(e, solved, bases, True)
        if found.dtype != e.dtype:
            found = e.map("real", "real", found)
        return self._ungrouped(e, found, x.shape)

    def logdet(self, e: Emitter) -> Value:
        """The sum of the logarithms of the eigenvalues."""
        if self.symmetric:
            own, _ = self._eigen(e, False)
        else:
            own = [self._triangle(e, e.linalg("schur_form", self._matrix(e, f))) for f in self.factors]
        total = log_total(e, self._spectrum(e, own))
        rest = self.size // max(prod(self._sizes), 1)
        return total if rest == 1 else e.map("share", "mul", total, e.number(rest, total.dtype))

    def has_power(self, power: Power) -> bool:
        """Where the eigenvectors are real."""
        return self.symmetric and len(self.rows) == sum(map(len, self.digits))

    def power(self, e: Emitter, power: Power) -> Operator:
        """The eigenvectors, with powers of the eigenvalues between them."""
        own, bases = self._eigen(e)
        values = e.linalg("powers", self._spectrum(e, own), power)
        ranks = [f"a{k}" for k in range(len(own))]
        atoms, deltas, extents = (
            [Atom(values.name, tuple(map(var, ranks)))],
            [],
            dict(zip(ranks, values.shape, strict=True)),
        )
        operands = {values.name: Operand(values.shape)}
        for k, basis in enumerate(bases):
            extents |= {f"r{k}": values.shape[k], f"c{k}": values.shape[k]}
            if basis is None:
                deltas += [(var(f"{end}{k}"), var(f"a{k}")) for end in "rc"]
                continue
            operands[basis.name] = Operand(basis.shape)
            atoms += [Atom(basis.name, (var(f"{end}{k}"), var(f"a{k}"))) for end in "rc"]
        ends = [tuple(f"{end}{k}" for k in range(len(own))) for end in "rc"]
        op = Operator(ends[0], ends[1], (Term(1, tuple(atoms), tuple(deltas)),), extents, operands)
        return self._placed(op)

    def describe(self) -> str:
        """What the solver does, in a few words."""
        sizes = ", ".join(f"{n}x{n}" for n in self._sizes)
        count = "a sum of Kronecker products" if len(self.terms) > 1 else "a Kronecker product"
        if self.symmetric:
            return f"{count}, diagonal in the eigenvectors of its symmetric factors ({sizes})"
        return f"{count}, triangular in the Schur bases of its factors ({sizes}; if they are symmetric, declare it)"

    # ---------------------------------------------------------------- helpers

    def _eigen(self, e: Emitter, vectors: bool = True) -> tuple[list[Value], list[Value | None]]:
        """Eigenvalues and eigenvectors of each factor (no eigenvectors for diagonal ones)."""
        own: list[Value] = []
        bases: list[Value | None] = []
        for factor in self.factors:
            if isinstance(factor, Diagonal):
                own.append(e.reshaped(factor.values(e), (factor.size,)))
                bases.append(None)
                continue
            matrix = factor.stored(e)
            own.append(e.linalg("eigenvalues", matrix, assume=("symmetric",)))
            bases.append(e.linalg("eigenvectors", matrix, assume=("symmetric",)) if vectors else None)
        return own, bases

    def _matrix(self, e: Emitter, factor: Dense | Diagonal) -> Value:
        """A factor as a stored matrix."""
        if isinstance(factor, Dense):
            return factor.stored(e)
        values = e.reshaped(factor.values(e), (factor.size,))
        term = Term(1, (Atom(values.name, (var("i"),)),), ((var("i"), var("j")),))
        extents = {"i": factor.size, "j": factor.size}
        return e.matrix(Operator(("i",), ("j",), (term,), extents, {}), "diagonal_matrix")

    def _triangle(self, e: Emitter, form: Value) -> Value:
        """The diagonal of a Schur form."""
        i = Affine.of("i")
        read = Read(form.name, (i, i), form.dtype, None, e.span)
        return e.add("eigenvalues", form.shape[:1], (i,), {"i": form.shape[0]}, read)

    @property
    def _assume(self) -> tuple[Structure, ...]:
        return tuple(Structure("term", tuple(("factor", Size.of(k)) for k in f)) for _, f in self.terms)

    def _placed(self, op: Operator) -> Operator:
        """An operator with an axis for each factor, on this form's digits."""
        groups = [tuple(self.rows[k] for k in g) for g in self.digits]
        op = split(op, groups, groups)
        places = [k for g in self.digits for k in g]
        order = [places.index(k) for k in range(len(self.rows))]
        return op.ordered(order, order)


def _like(e: Emitter, value: Value, other: Value) -> Value:
    """A value in the type of another one (real to complex)."""
    return value if value.dtype == other.dtype else e.map("cast", CAST, value, dtype=other.dtype)


def _zeros(e: Emitter, value: Value) -> Value:
    """Zeros in the shape of a value."""
    zero = Const(0j if value.dtype.kind == "c" else 0.0, value.dtype)
    names = [f"i{k}" for k in range(len(value.shape))]
    return e.add("zeros", value.shape, tuple(map(Affine.of, names)), dict(zip(names, value.shape, strict=True)), zero)
