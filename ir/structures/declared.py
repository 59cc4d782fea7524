"""Declared structure as terms of the algebra: `W: toeplitz`, `diag`, `banded(lo=1, hi=2)`, ... for one stored matrix.

`W: S(...)` says W[..] = S.dense(), where the factors of S are read from the stored array itself: the diagonal W[i,i],
the band W[i,i+d], the blocks W[g*b+a,g*b+c], the first row and column of a Toeplitz matrix. `stated` gives that term;
the recogniser puts it in the place of W before it looks at anything else, so that products, sums and transposes of
declared matrices are no special case. Structure that other reads of W cannot express better than W itself stays a
fact with a rule here: Hadamard and Vandermonde matrices have a method, low rank and Monarch need a factorisation.
A declaration is trusted: for an array that has not the structure a term is another matrix than W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod

from .algebra import Batch, Defined, Leaf, Structure, matrix, scaling
from .banded import Banded
from .build import Builder, Method, Value
from .hadamard import Hadamard
from .operator import Atom, Operand, Operator, Term, dense, named_let
from .reshaped import Reshaped
from .slot import composite, slot, var
from .toeplitz import Level, Toeplitz
from .triangular import Triangular
from .view import Again, Match, Near, View, axes_of

Options = Mapping[str, Sequence[int]]  # the values of each option; a block per axis is two values

# What the zeros of the structure are depends on them being the semiring's zero as well; equal entries do not.
EQUALITIES = frozenset({"toeplitz", "hankel", "circulant", "symmetric", "mask", "selection"})
SUPPORTS = frozenset({"diag", "banded", "blockdiag", "lower", "upper", "bsr", "permutation"})


def stated(kinds: Mapping[str, Options], shape: tuple[int, int], name: str) -> Structure | None:
    """The term of the first declared kind that has one, over the operand `name` of this shape; None if none has.

    None also where the sizes do not fit the structure (a circulant matrix that is not square) or nothing would be
    saved (a band as wide as the matrix).

    >>> term = stated({"banded": {"lo": (1,), "hi": (0,)}}, (6, 6), "W")
    >>> [m.name for m in term.methods()][:2]
    ['contraction', 'diagonals']
    """
    if 0 in shape:
        return None
    for kind, form in _FORMS.items():
        if kind in kinds:
            options = dict(kinds[kind])
            if kind == "banded":  # the two sides that other declarations rule out
                options |= {side: (0,) for side, other in (("hi", "lower"), ("lo", "upper")) if other in kinds}
            found = form(shape[0], shape[1], name, options)
            if found is not None:
                return found
    return None


def _diagonal(rows: int, cols: int, name: str, options: Options) -> Structure | None:
    if rows != cols:
        return None
    op = scaling(name, rows).operator()
    (term,) = op.terms
    j = var(op.cols[0])
    read = term._replace(atoms=(Atom(name, (j, j)),))
    return Leaf(Operator(op.rows, op.cols, (read,), op.extents, {name: Operand((rows, cols))}))


def _toeplitz(rows: int, cols: int, name: str, options: Options) -> Structure | None:
    d = rows + cols - 1
    first = Term(1, (Atom(name, (slot([("d", 1)], 1 - cols), slot())),))
    last = Term(1, (Atom(name, (slot(), slot([("d", -1)], cols - 1))),), (), (slot([("d", -1)], cols - 2),))
    level = Level(rows, cols, d, 1, -1, cols - 1)
    return _generated(level, name, (rows, cols), (first, last))


def _hankel(rows: int, cols: int, name: str, options: Options) -> Structure | None:
    d = rows + cols - 1
    first = Term(1, (Atom(name, (var("d"), slot())),))
    last = Term(1, (Atom(name, (slot((), rows - 1), slot([("d", 1)], 1 - rows))),), (), (slot([("d", 1)], -rows),))
    return _generated(Level(rows, cols, d, 1, 1), name, (rows, cols), (first, last))


def _circulant(rows: int, cols: int, name: str, options: Options) -> Structure | None:
    if rows != cols:
        return None
    column = Term(1, (Atom(name, (var("d"), slot())),))
    return _generated(Level(rows, rows, rows, 1, -1, 0, rows), name, (rows, cols), (column,))


def _generated(level: Level, name: str, shape: tuple[int, int], terms: tuple[Term, ...]) -> Structure:
    """The term over the vector of diagonals, which is read along the first column and the first (last) row."""
    let = named_let(f"{name}.generator", (level.length,), (var("d"),), terms, {"d": level.length})
    return Defined(Toeplitz((level,), let.name), (let,), ((name, Operand(shape)),))


def _banded(rows: int, cols: int, name: str, options: Options) -> Structure | None:
    lo, hi = (min(options.get(side, (0,))[0], n - 1) for side, n in (("lo", rows), ("hi", cols)))
    width = lo + hi + 1
    if lo < 0 or hi < 0 or width >= min(rows, cols):
        return None
    if width == 1 and rows == cols:
        return _diagonal(rows, cols, name, options)
    read = Atom(name, (var("i"), slot([("i", 1), ("d", 1)], -lo)))
    extents = {"d": width, "i": rows}
    let = named_let(f"{name}.band", (rows, width), (var("i"), var("d")), (Term(1, (read,)),), extents)
    return Defined(Banded(rows, cols, lo, hi, let.name, True), (let,), ((name, Operand((rows, cols))),))


def _blocks(rows: int, cols: int, name: str, options: Options) -> Structure | None:
    block = options.get("block", (1,))
    p, q = block[0], block[-1]
    if p < 1 or q < 1 or rows % p or cols % q or rows // p != cols // q or rows == p:
        return None
    count = rows // p
    extents = {"g": count, "a": p, "c": q}
    read = Atom(name, (composite(("g", "a"), extents), composite(("g", "c"), extents)))
    slots = tuple(map(var, extents))
    let = named_let(f"{name}.blocks", (count, p, q), slots, (Term(1, (read,)),), extents)
    # Batch gives the operand its leading digit by name, so that the let must bear the inner operand's name.
    inner = Batch(matrix(let.name, p, q), count)
    return Reshaped(Defined(inner, (let,), ((name, Operand((rows, cols))),)), (rows,), (cols,))


_FORMS: dict[str, Callable[[int, int, str, Options], Structure | None]] = {
    "diag": _diagonal,
    "circulant": _circulant,
    "toeplitz": _toeplitz,
    "hankel": _hankel,
    "banded": _banded,
    "blockdiag": _blocks,
    "lower": lambda rows, cols, name, options: Triangular(rows, cols, False, name),
    "upper": lambda rows, cols, name, options: Triangular(rows, cols, True, name),
}


# --- facts with a rule ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredVandermonde(Structure):
    """A stored Vandermonde matrix, V[i, q*b + r] = V[i, q*b] V[i, r] with b about the root of its columns.

    The method reads those 2 b columns of it only; `turned` is the transpose.

    >>> [m.name for m in StoredVandermonde(5, 9).methods()]
    ['contraction', 'powers of powers']
    """

    rows: int
    cols: int
    name: str = "V"
    turned: bool = False

    def operator(self) -> Operator:
        """The operand as it is."""
        op = dense(self.name, (self.rows,), (self.cols,), ("vandermonde",))
        return op.turned() if self.turned else op

    def extra(self) -> tuple[Method, ...]:
        """Groups of b columns: a product with the first b, then one with every b-th."""
        return (Method("powers of powers", self._grouped, "ring"),) if self.cols > 3 else ()

    def _grouped(self, b: Builder, x: Value) -> Value:
        low = isqrt(self.cols - 1) + 1
        high = -(-self.cols // low)
        batch = b.indices(x.shape[:-1])
        i, q, r = b.indices((self.rows, high, low))
        lead = tuple(map(var, batch))
        column = slot([(q, low), (r, 1)])
        small, large = Atom(self.name, (var(i), var(r))), Atom(self.name, (var(i), slot([(q, low)])))
        if self.turned:
            read = Atom(x.name, (*lead, var(i)))
            shape = (*x.shape[:-1], self.rows, high)
            scaled = b.let(shape, (*lead, var(i), var(q)), [Term(1, (large, read))], x.complex)
            atom = Atom(scaled.name, (*lead, var(i), var(q)))
            whole = b.let((*x.shape[:-1], high * low), (*lead, column), [Term(1, (small, atom))], x.complex)
            (j,) = b.indices((self.cols,))
            crop = Atom(whole.name, (*lead, var(j)))
            return b.let((*x.shape[:-1], self.cols), (*lead, var(j)), [Term(1, (crop,))], x.complex)
        read = Atom(x.name, (*lead, column))  # zero beyond the last column
        shape = (*x.shape[:-1], self.rows, high)
        inner = b.let(shape, (*lead, var(i), var(q)), [Term(1, (small, read))], x.complex)
        atom = Atom(inner.name, (*lead, var(i), var(q)))
        return b.let((*x.shape[:-1], self.rows), (*lead, var(i)), [Term(1, (large, atom))], x.complex)


METHOD_FACTS = frozenset({"hadamard", "vandermonde", "permutation"})


def is_part(name: str) -> bool:
    """Whether an operand was read from a declared one (or made of such a part): a band, blocks or a generator.

    >>> is_part("W.band.0a1b"), is_part("W")
    (True, False)
    """
    return any(f".{part}." in name for part in ("generator", "band", "blocks"))


_FROM_VALUES = "are found in the values of a constant only, if they have them"
_WHY_NOT = {
    "lowrank": ("low_rank", f"its factors {_FROM_VALUES}; at run time that costs more than a product"),
    "monarch": ("monarch", f"its factors {_FROM_VALUES}; at run time that costs more than a product"),
    "bsr": ("block_sparse", f"its blocks {_FROM_VALUES}"),
}


class Declared:
    """The rule for one dense operand with a declared structure that is a fact."""

    @staticmethod
    def recognise(view: View, again: Again) -> Match | Near | None:
        """One matrix, read as it is stored or transposed."""
        if len(view.atoms) != 1 or view.affine or view.opaque or not view.rows or not view.cols or view.batch:
            return None
        atom, known = view.atoms[0], view.known(0)
        ends = view.digits(view.out), view.digits(view.x)
        whole = tuple(composite(e, view.extents) for e in ends)
        reads = axes_of(view, atom)
        if len(reads) != 2 or reads not in (whole, whole[::-1]):
            return None
        turned = reads != whole
        extents = tuple(tuple(view.extents[d] for d in e) for e in ends)
        rows, cols = prod(extents[turned]), prod(extents[not turned])
        found = _with_method(known, rows, cols, atom.name, turned)
        if found is not None:
            kind, term = found
            same = extents == ((prod(extents[0]),), (prod(extents[1]),))
            return Match(kind, {"declared": True, "operand": atom.name}, term if same else Reshaped(term, *extents))
        for fact, (kind, reason) in _WHY_NOT.items():
            if fact in known:
                return Near(kind, f"{atom.name} is declared {fact}, but {reason}")
        return None


def _with_method(known: frozenset[str], rows: int, cols: int, name: str, turned: bool) -> tuple[str, Structure] | None:
    """Kind and term of a matrix of rows x cols as it is stored; `turned` says that its transpose is wanted."""
    if "hadamard" in known and rows == cols and rows & (rows - 1) == 0 and rows > 1:
        return "hadamard", Reshaped(Hadamard(rows.bit_length() - 1), (rows,), (rows,))  # its own transpose
    if "vandermonde" in known:
        return "vandermonde", StoredVandermonde(rows, cols, name, turned)
    return None
