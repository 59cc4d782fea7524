"""Which form a matrix has: its canonical views, as a linear function of an argument put beside it, become a `Form`.

The matrix is read as `recognise` reads any value, so that names, order, nesting and storage do not matter. The rules
here ask more than structure: a form must be square factor by factor. What has none is `Dense`, which is always right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..ir.expr import Program
from ..ir.structures.operator import Operator, Term
from ..ir.structures.view import DELTA, STEP, View, between, operator_of
from ..ir.types import DType
from .recognise import recognise_view
from .solve_bands import Banded, Circulant
from .solve_forms import Blocks, Dense, Diagonal, Form, Orthogonal
from .solve_joined import Product, Split, Woodbury
from .solve_spectral import Spectral
from .solve_views import (
    all_equal,
    band_of,
    batch_places,
    common_groups,
    cut_view,
    factor_digits,
    fine_places,
    first_column,
    is_square,
    is_symmetric,
    is_touched,
    joined,
    matrix_views,
    on_group,
    on_places,
    one_digit,
    rank_of,
    selects,
    thin_factors,
    triangle,
    with_lead,
    without,
)
from .sums import factored


@dataclass
class Reader:
    """Reads one matrix. `reasons` tell what was nearly found, and why not."""

    dtype: DType
    reasons: list[str] = field(default_factory=list)

    def read(self, program: Program, name: str) -> tuple[Form, tuple[View, ...]] | None:
        """The form of a tensor of a program at fixed sizes, and its views; None if it is no sum of products."""
        found = matrix_views(program, name)
        if found is None:
            return None
        if len({(_extents(v, v.out), _extents(v, v.x)) for v in found}) > 1:
            self.reasons.append("its terms divide the rows in ways that do not nest")
            return None
        if len(found) > 1:
            found = factored(found)
        if not found:
            self.reasons.append("it is zero: its terms cancel")
            return None
        return self.form(found), found

    # ---------------------------------------------------------------- any sum

    def form(self, found: Sequence[View]) -> Form:
        """The form of a sum of terms."""
        if all(not v.rows and not v.cols and v.out == v.x and not selects(v) for v in found):
            return _diagonal(found)
        if len(found) == 1:
            return self.term(found[0])
        rules = (
            self.beside_identity,
            self.circulant,
            self.banded,
            self.shared,
            self.spectral,
            self.low_rank,
            self.blocks,
        )
        for rule in rules:
            form = rule(found)
            if form is not None:
                return form
        return self.dense(found)

    def dense(self, found: Sequence[View]) -> Dense:
        """No structure, but what is known of the whole."""
        return Dense(joined(found), self.assumed(found))

    def assumed(self, found: Sequence[View]) -> tuple[str, ...]:
        """`lower`, `upper` or `symmetric`, where that is declared or proved."""
        if self.dtype.kind == "f" and is_symmetric(found):
            return ("symmetric",)
        sides = {triangle(v) for v in found}
        sides.discard("both")
        if len(sides) == 1 and None not in sides:
            return (str(sides.pop()),)
        return ()

    # ---------------------------------------------------------------- one term

    def term(self, view: View) -> Form:
        """The form of one term: factors side by side, the identity on digits that no operand has."""
        scalars = [k for k, a in enumerate(view.atoms) if not a.touch and a.name not in (DELTA, STEP)]
        rest = replace(view, atoms=tuple(a for k, a in enumerate(view.atoms) if k not in scalars))
        groups = rest.components()
        parts = [rest.only(g.atoms) for g in groups]
        taken = {i for p in parts for i in (*p.out, *p.x)}
        free = [i for i in view.batch if i not in taken]
        square = all(is_square(p) for p in parts)
        covered = taken | set(free) == {*view.out, *view.x}
        if not parts and view.coefficient == 1 and not scalars and set(view.out) == set(view.x):
            return Orthogonal(operator_of(view), "permutation")
        if not parts or not square or not covered:
            self.reasons.append("its factors are not square")
            return self.dense([view])
        scale = tuple(view.atoms[k] for k in scalars)
        parts[0] = replace(parts[0], coefficient=view.coefficient, atoms=(*parts[0].atoms, *scale))
        factors = [self.factor(p) for p in parts]
        rows, cols = view.digits(view.out), view.digits(view.x)
        ends = [(factor_digits(p, "out"), factor_digits(p, "x")) for p in parts]
        places = view.digits(free)
        form = Split(
            tuple(view.extents[d] for d in rows),
            tuple(view.extents[d] for d in cols),
            tuple(factors),
            tuple(tuple(rows.index(d) for d in r) for r, _ in ends),
            tuple(tuple(cols.index(d) for d in c) for _, c in ends),
            tuple((rows.index(d), cols.index(d)) for d in places),
        )
        alone = len(factors) == 1 and not places
        straight = form.rows_of == form.cols_of == (tuple(range(len(rows))),) if alone else False
        return factors[0] if alone and straight else form

    def factor(self, view: View) -> Form:
        """One connected group of operands with what scales it."""
        if not view.rows and not view.cols:
            return _diagonal([view])
        carried = view.batch
        if carried:
            op = with_lead(view)
            if op is None:
                return self.dense([view])
            return Blocks(op, len(view.digits(carried)))
        special = self.circulant([view]) or self.banded([view]) or self.orthogonal(view) or self.product(view)
        return special or self.dense([view])

    def orthogonal(self, view: View) -> Form | None:
        """A permutation, or one operand that is declared orthogonal, times nothing."""
        if view.coefficient != 1 or any(not a.touch for a in view.atoms):
            return None
        match = recognise_view(view)
        if match is not None and match.kind == "permutation":
            return Orthogonal(operator_of(view), "permutation")
        if self.dtype.kind == "f" and len(view.atoms) == 1 and "orthogonal" in view.known(0):
            return Orthogonal(operator_of(view), "orthogonal")
        return None

    def product(self, view: View) -> Form | None:
        """Two square groups of operands joined by as many summed indices as there are rows."""
        rows = view.size(view.rows)
        for rank, cut in view.cuts():
            groups = view.components(cut)
            if rank != rows or {g.side for g in groups} - {""} != {"R", "C"}:
                continue
            left = [k for g in groups if g.side != "C" for k in g.atoms]
            right = [k for g in groups if g.side == "C" for k in g.atoms]
            first = replace(cut_view(view, left, view.out, cut), coefficient=view.coefficient)
            return Product(self.form([first]), self.form([cut_view(view, right, cut, view.x)]))
        return None

    # ---------------------------------------------------------------- affine sums

    def circulant(self, found: Sequence[View]) -> Form | None:
        """Every term is a circulant over the one digit, or an identity."""
        if not one_digit(found) or not any(v.affine for v in found):
            return None
        for v in found:
            if not v.rows and not is_touched(v):
                continue
            match = recognise_view(v)
            if match is None or match.kind != "circulant" or v.opaque:
                return None
        return Circulant(first_column(found))

    def banded(self, found: Sequence[View]) -> Form | None:
        """Every term has few diagonals, all of them with the main one in a band that is narrow enough to pay.

        Band LU takes about 2 n w^2 operations for w diagonals, dense LU 2 n^3 / 3.
        """
        if not one_digit(found) or not any(v.affine for v in found):
            return None
        widths = [band_of(v) for v in found]
        if any(w is None for w in widths):
            return None
        lower = max(0, *(w[0] for w in widths if w))
        upper = max(0, *(w[1] for w in widths if w))
        size = found[0].extents[found[0].digits(found[0].out)[0]]
        width = lower + upper + 1
        if 3 * width * width > size * size:
            self.reasons.append(f"a band of {width} diagonals is not narrow for size {size}")
            return None
        return Banded(joined(found), lower, upper)

    # ---------------------------------------------------------------- digits that all terms leave

    def beside_identity(self, found: Sequence[View]) -> Form | None:
        """Digits that no term has an operand on are set aside."""
        places = batch_places(found)
        free = [k for k in places if not any(v.at(v.out[k]) for v in found)]
        if not free or len(free) == len(found[0].out):
            return None
        kept = [k for k in range(len(found[0].out)) if k not in free]
        inner = self.form([on_places(v, kept) for v in found])
        rows, mine = fine_places(found[0], kept)
        others = tuple((k, k) for k in range(len(rows)) if k not in mine)
        if inner.rows != tuple(rows[k] for k in mine) or inner.rows != inner.cols:
            return None
        return Split(rows, rows, (inner,), (mine,), (mine,), others)

    def blocks(self, found: Sequence[View]) -> Form | None:
        """Digits that every term has on both sides: a sum of block diagonal matrices is one."""
        places = batch_places(found)
        kept = [k for k in range(len(found[0].out)) if k not in places]
        if not places or not kept:
            return None
        op: Operator | None = None
        for v in found:
            if v.opaque:
                return None
            out, x = (tuple(side[k] for k in (*places, *kept)) for side in (v.out, v.x))
            part = operator_of(replace(v, out=out, x=x))
            op = part if op is None else op.plus(part)
        assert op is not None
        rows, lead = fine_places(found[0], places)
        _, inner = fine_places(found[0], kept)
        form = Blocks(op, len(lead))
        return Split(rows, rows, (form,), ((*lead, *inner),), ((*lead, *inner),))

    # ---------------------------------------------------------------- sums of Kronecker products

    def shared(self, found: Sequence[View]) -> Form | None:
        """A factor that every term has comes out: kron(A, B) + kron(A, C) with B + C of a form of its own."""
        groups = common_groups(found)
        if groups is None:
            return None
        parts = [[on_group(v, g) for g in groups] for v in found]
        for k in range(len(groups)):
            column = [p[k] for p in parts]
            if any(c is None for c in column) or not all_equal([c for c in column if c is not None]):
                continue
            rest = [without(v, g[k]) for v, g in zip(found, parts, strict=True)]
            first = column[0]
            assert first is not None
            total = factored(rest) if len(rest) > 1 else rest
            if not total:
                return None
            inner = self.form(total)
            extents, mine = fine_places(found[0], groups[k])
            others = [k for k in range(len(extents)) if k not in mine]
            if inner.rows != tuple(extents[k] for k in others) or inner.rows != inner.cols:
                return None
            factor = self.factor(first)
            return Split(extents, extents, (factor, inner), (mine, tuple(others)), (mine, tuple(others)))
        return None

    def spectral(self, found: Sequence[View]) -> Form | None:
        """Every term has the same matrix, or the identity, on each group of digits."""
        groups = common_groups(found)
        if groups is None:
            return None
        parts = [[on_group(v, g) for g in groups] for v in found]
        factors: list[Dense | Diagonal] = []
        for k in range(len(groups)):
            column = [p[k] for p in parts if p[k] is not None]
            if not all_equal([c for c in column if c is not None]):
                self.reasons.append("terms have different matrices on the same digits")
                return None
            first = column[0]
            assert first is not None
            factors.append(self.dense([first]) if first.rows else _diagonal([first]))
        rows = found[0].digits(found[0].out)
        digits = tuple(fine_places(found[0], g)[1] for g in groups)
        terms = []
        for v, part in zip(found, parts, strict=True):
            scalars = [k for k, a in enumerate(v.atoms) if not a.touch]
            coefficient = between(v, scalars, (), ())
            scaled = tuple(t._replace(coefficient=v.coefficient) for t in coefficient.terms)
            numbers = tuple(k for k, p in enumerate(part) if p is not None)
            terms.append((replace(coefficient, terms=scaled), numbers))
        return Spectral(tuple(found[0].extents[d] for d in rows), tuple(factors), digits, tuple(terms))

    # ---------------------------------------------------------------- low rank beside the rest

    def low_rank(self, found: Sequence[View]) -> Form | None:
        """Terms of low rank beside terms that have a cheap form together.

        Up to r = n/2 the 2 n r^2 + 2 r^3 / 3 operations on terms of rank r are fewer than the 2 n^3 / 3 of dense LU.
        """
        thin = [thin_factors(v) for v in found]
        rest = [v for v, t in zip(found, thin, strict=True) if t is None]
        if not rest or len(rest) == len(found):
            return None
        base = self.form(rest)
        size = base.size
        rank = sum(rank_of(t) for t in thin if t is not None)
        if isinstance(base, Dense) or 2 * rank > size:
            reason = f"rank {rank} is not low for size {size}"
            self.reasons.append(reason if 2 * rank > size else "what stands beside the low rank has no structure")
            return None
        form: Form = base
        for t in thin:
            if t is not None:
                form = Woodbury(form, *t)
        return form


def _extents(view: View, side: Sequence[str]) -> tuple[int, ...]:
    return tuple(view.extents[d] for d in view.digits(side))


def _diagonal(found: Sequence[View]) -> Diagonal:
    """Terms without rows and columns as the values over their digits."""
    first = found[0]
    digits = first.digits(first.x)
    terms: list[Term] = []
    extents: dict[str, int] = {d: first.extents[d] for d in digits}
    for number, v in enumerate(found):
        op = between(v, range(len(v.atoms)), (), v.x)
        names = dict(zip(op.cols, digits, strict=True))
        names |= {i: f"{i}.{number}" for i in op.indices if i not in names}
        extents |= {names[i]: op.extents[i] for i in op.indices}
        terms += [t.renamed(names)._replace(coefficient=v.coefficient) for t in op.terms]
    one = len(found) == 1 and not first.atoms and first.coefficient == 1
    return Diagonal(Operator((), digits, tuple(terms), extents, {}), one)
