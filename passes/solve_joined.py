"""Forms made of forms: Kronecker products, products, and a matrix of some form plus one of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from ..ir.structures.algebra import identity
from ..ir.structures.operator import Operator, unit
from .solve_emit import Emitter, Value
from .solve_forms import Dense, Diagonal, Form, Power, is_whole


@dataclass(frozen=True)
class Split(Form):
    """A Kronecker product: factors on groups of digits, the identity on all others.

    `rows_of` and `cols_of` give the places of each factor's digits; they differ where a permutation follows.
    """

    row_digits: tuple[int, ...]
    col_digits: tuple[int, ...]
    factors: tuple[Form, ...]
    rows_of: tuple[tuple[int, ...], ...]
    cols_of: tuple[tuple[int, ...], ...]
    free: tuple[tuple[int, int], ...] = field(default=())  # (row place, column place) of the other digits

    @property
    def rows(self) -> tuple[int, ...]:
        """The row digits."""
        return self.row_digits

    @property
    def cols(self) -> tuple[int, ...]:
        """The column digits."""
        return self.col_digits

    @property
    def permuted(self) -> bool:
        """Whether digits stand in another order in the columns."""
        return self.rows_of != self.cols_of or any(r != c for r, c in self.free)

    def solve(self, e: Emitter, x: Value) -> Value:
        """Factor by factor, each with all other axes as right sides."""
        names = [f"r{k}" for k in range(len(self.rows))] + [f"x{k}" for k in range(len(x.shape) - len(self.rows))]
        for factor, rows, cols in zip(self.factors, self.rows_of, self.cols_of, strict=True):
            front = [names.index(f"r{k}") for k in rows]
            order = [*front, *(k for k in range(len(names)) if k not in front)]
            x = factor.solve(e, e.moved(x, order))
            names = [*(f"c{k}" for k in cols), *(names[k] for k in order[len(front) :])]
        places = {f"r{r}": f"c{c}" for r, c in self.free}
        names = [places.get(n, n) for n in names]
        want = [f"c{k}" for k in range(len(self.cols))] + [n for n in names if n[0] == "x"]
        return e.moved(x, [names.index(n) for n in want])

    def logdet(self, e: Emitter) -> Value:
        """Each factor's, times the size of all others."""
        total: Value | None = None
        for factor in self.factors:
            part = factor.logdet(e)
            if self.size != factor.size:
                part = e.map("share", "mul", part, e.number(self.size // max(factor.size, 1), part.dtype))
            total = part if total is None else e.map("sum", "add", total, part)
        assert total is not None, "a split has a factor"
        return total

    def inverse(self, e: Emitter) -> Operator:
        """The inverses side by side."""
        return self._beside([f.inverse(e) for f in self.factors], True)

    def has_power(self, power: Power) -> bool:
        """For whole powers; else where every factor is symmetric, so that a root of each is one of the product."""
        if self.permuted or not all(f.has_power(power) for f in self.factors):
            return False
        return is_whole(power) or len(self.factors) == 1 or all(_symmetric(f) for f in self.factors)

    def power(self, e: Emitter, power: Power) -> Operator:
        """The powers side by side, of factors that are positive if the product is.

        Symmetric factors of a positive semidefinite product may all be negative. With s_k the sign of the trace of
        factor k, the product of the s_k A_k from the second on, and of the first times all these signs, is the same.
        """
        if is_whole(power) or len(self.factors) == 1:
            return self._beside([f.power(e, power) for f in self.factors], False)
        signs: list[Value] = []
        for factor in self.factors[1:]:
            assert isinstance(factor, Dense | Diagonal)
            negative = e.map("negative", "lt", factor.trace(e), e.number(0))
            signs.append(e.map("sign", "where", negative, e.number(-1), e.number(1)))
        first = e.einsum("sign", (), *((s, ()) for s in signs))
        pairs = zip(self.factors, (first, *signs), strict=True)
        return self._beside(
            [f.signed(e, s).power(e, power) for f, s in pairs if isinstance(f, Dense | Diagonal)], False
        )

    def _beside(self, parts: Sequence[Operator], turned: bool) -> Operator:
        """The Kronecker product of operators on the factors' digits, in the order of this form (or of its inverse)."""
        rows_of, cols_of = (self.cols_of, self.rows_of) if turned else (self.rows_of, self.cols_of)
        free = [(c, r) if turned else (r, c) for r, c in self.free]
        shape = self.cols if turned else self.rows
        op = parts[0]
        for part in parts[1:]:
            op = op.beside(part)
        if free:
            op = op.beside(identity(*(shape[r] for r, _ in free)).operator())
        rows = [k for group in rows_of for k in group] + [r for r, _ in free]
        cols = [k for group in cols_of for k in group] + [c for _, c in free]
        return op.ordered([rows.index(k) for k in range(len(rows))], [cols.index(k) for k in range(len(cols))])

    def describe(self) -> str:
        """What the solver does, in a few words."""
        what = "; ".join(f.describe() for f in self.factors)
        if len(self.factors) == 1:
            return f"beside an identity: {what}" if self.free else what
        return f"Kronecker product of {len(self.factors)} factors, each on its own: {what}"


def _symmetric(form: Form) -> bool:
    return isinstance(form, Diagonal) or (isinstance(form, Dense) and "symmetric" in form.assume)


@dataclass(frozen=True)
class Product(Form):
    """A product of square matrices, the first applied last."""

    first: Form
    second: Form

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of the first."""
        return self.first.rows

    @property
    def cols(self) -> tuple[int, ...]:
        """The columns of the second."""
        return self.second.cols

    def solve(self, e: Emitter, x: Value) -> Value:
        """The first, then the second."""
        rest = x.shape[len(self.rows) :]
        return self.second.solve(e, e.reshaped(self.first.solve(e, x), (*self.second.rows, *rest)))

    def logdet(self, e: Emitter) -> Value:
        """The sum."""
        return e.map("sum", "add", self.first.logdet(e), self.second.logdet(e))

    def inverse(self, e: Emitter) -> Operator:
        """The inverses in reverse order."""
        first, second = self.first.inverse(e), self.second.inverse(e)
        if second.shape[1] == first.shape[0]:
            return second.times(first)
        return super().inverse(e)

    def describe(self) -> str:
        """What the solver does, in a few words."""
        return f"a product, factor by factor: {self.first.describe()}; {self.second.describe()}"


@dataclass(frozen=True)
class Woodbury(Form):
    """A matrix of known form plus a product of low rank, `left` (n x r) times `right` (r x n).

    With S = I + right base^-1 left of size r: the solution is y - base^-1 left S^-1 right y for y = base^-1 x (Woodbury
    1950), and det = det(base) det(S) (the matrix determinant lemma). A base that is singular is an error that says so.
    """

    base: Form
    left: Operator
    right: Operator

    @property
    def rows(self) -> tuple[int, ...]:
        """The digits."""
        return self.base.rows

    @property
    def cols(self) -> tuple[int, ...]:
        """The digits."""
        return self.base.cols

    def _base(self, e: Emitter, x: Value) -> Value:
        """The solution with the base alone."""
        before, e.part = e.part, True
        found = self.base.solve(e, x)
        e.part = before
        return found

    def _parts(self, e: Emitter) -> tuple[Value, Value, Value]:
        """base^-1 left, right and S, over the digits and one rank axis."""
        rank = prod(self.left.shape[1])
        left = e.reshaped(e.matrix(self.left, "left"), (*self.rows, rank))
        right = e.reshaped(e.matrix(self.right, "right"), (rank, *self.cols))
        carried = self._base(e, left)
        digits = [f"d{k}" for k in range(len(self.cols))]
        inner = e.einsum("inner", ("p", "q"), (right, ["p", *digits]), (carried, [*digits, "q"]))
        eye = e.matrix(unit((rank,)), "identity")
        return carried, right, e.map("core", "add", eye, inner)

    def solve(self, e: Emitter, x: Value) -> Value:
        """Two solutions with the base, one small one."""
        carried, right, core = self._parts(e)
        first = self._base(e, x)
        digits = [f"d{k}" for k in range(len(self.cols))]
        rest = [f"x{k}" for k in range(len(x.shape) - len(digits))]
        seen = e.einsum("seen", ["p", *rest], (right, ["p", *digits]), (first, [*digits, *rest]))
        sizes = seen.shape[1:]
        flat = e.reshaped(seen, (seen.shape[0], *((prod(sizes),) if sizes else ())))
        small = e.reshaped(e.linalg("solve", core, flat), seen.shape)
        update = e.einsum("update", [*digits, *rest], (carried, [*digits, "p"]), (small, ["p", *rest]))
        return e.map("difference", "sub", first, update)

    def logdet(self, e: Emitter) -> Value:
        """The base's and that of S."""
        core = self._parts(e)[2]
        return e.map("sum", "add", self.base.logdet(e), e.linalg("logdet", core))

    def describe(self) -> str:
        """What the solver does, in a few words."""
        rank = prod(self.left.shape[1])
        return f"low rank {rank} beside a part that is solved alone (Woodbury): {self.base.describe()}"
