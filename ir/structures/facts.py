"""Facts: properties of a matrix that follow from how it is composed, whatever its entries are.

`facts_of` reads them off a term of the algebra: what is declared of an operand goes through products, sums, Kronecker
products, transposes, blocks and orders of digits by the rules of `Facts`, each a theorem of linear algebra that is
checked on random matrices. All speak of the matrix as stored row-major, rows by columns. A fact that is absent is not
known, not false.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..semiring import Scalar
from .algebra import Batch, Beside, Defined, Either, Leaf, Ordered, Plus, Structure, Times, Turned
from .operator import Operator
from .words import options

CLOSED = ("orthogonal", "doubly_stochastic", "permutation", "diagonal")  # under products of square matrices
EVEN = ("symmetric", "psd", *CLOSED)  # kept by blocks and by one order of digits on both sides


@dataclass(frozen=True)
class Facts:
    """What is known of a matrix of rows x cols.

    `rank` bounds the rank; `below` and `above` bound how far entries stand off the diagonal; `toeplitz` says that they
    are equal along diagonals. The rest are what they say; `psd` includes symmetric, for real entries.
    """

    rows: int
    cols: int
    rank: int
    below: int
    above: int
    symmetric: bool = False
    psd: bool = False
    orthogonal: bool = False
    doubly_stochastic: bool = False
    permutation: bool = False
    diagonal: bool = False
    toeplitz: bool = False

    @staticmethod
    def of(rows: int, cols: int, **known: bool | int) -> Facts:
        """The facts on a matrix of which `known` is known, with all that these say together.

        >>> Facts.of(3, 3, permutation=True).orthogonal
        True
        """
        start = Facts(rows, cols, min(rows, cols), max(rows - 1, 0), max(cols - 1, 0))
        return replace(start, **known).closed()  # type: ignore[arg-type]

    def closed(self) -> Facts:
        """With what some facts say of others: a permutation is orthogonal, a diagonal matrix is symmetric."""
        f = self
        if f.diagonal:
            f = replace(f, symmetric=f.rows == f.cols, below=0, above=0)
        if f.permutation:
            f = replace(f, orthogonal=True, doubly_stochastic=True)
        if f.psd:
            f = replace(f, symmetric=True)
        if f.symmetric:
            low = min(f.below, f.above)
            f = replace(f, below=low, above=low)
        below, above = min(f.below, max(f.rows - 1, 0)), min(f.above, max(f.cols - 1, 0))
        f = replace(f, below=below, above=above, rank=min(f.rank, f.rows, f.cols))
        return f if below or above or f.rows != f.cols else replace(f, diagonal=True, symmetric=True)

    def turned(self) -> Facts:
        """Of the transpose."""
        return replace(self, rows=self.cols, cols=self.rows, below=self.above, above=self.below)

    def times(self, other: Facts) -> Facts:
        """Of the product with a matrix on the right: ranks take the least, bands add."""
        known = {name: getattr(self, name) and getattr(other, name) for name in CLOSED}
        known["symmetric"] = self.diagonal and other.diagonal
        lower, upper = (all(getattr(f, end) == 0 for f in (self, other)) for end in ("above", "below"))
        square = self.rows == self.cols == other.cols
        known["toeplitz"] = square and self.toeplitz and other.toeplitz and (lower or upper)
        bands = {"below": self.below + other.below, "above": self.above + other.above}
        return Facts.of(self.rows, other.cols, rank=min(self.rank, other.rank), **bands, **known)

    def gram(self) -> Facts:
        """Of the product with the own transpose, F F', where entries are real."""
        return replace(self.times(self.turned()), psd=True).closed()

    def plus(self, other: Facts, coefficient: Scalar = 1) -> Facts:
        """Of the sum with a multiple: ranks add, bands take the greatest."""
        real = not isinstance(coefficient, complex)
        known = {name: getattr(self, name) and getattr(other, name) for name in ("symmetric", "diagonal", "toeplitz")}
        known["psd"] = self.psd and other.psd and real and coefficient >= 0  # type: ignore[operator]
        bands = {"below": max(self.below, other.below), "above": max(self.above, other.above)}
        return Facts.of(self.rows, self.cols, rank=self.rank + other.rank, **bands, **known)

    def scaled(self, coefficient: Scalar) -> Facts:
        """Of a multiple."""
        sign = not isinstance(coefficient, complex) and coefficient >= 0
        kept = {"psd": self.psd and sign, "orthogonal": self.orthogonal and coefficient in (1, -1)}
        kept |= {n: getattr(self, n) and coefficient == 1 for n in ("doubly_stochastic", "permutation")}
        return replace(self, **kept)

    def beside(self, other: Facts) -> Facts:
        """Of the Kronecker product: ranks multiply, a band of the first counts in blocks of the second."""
        rows, cols = self.rows * other.rows, self.cols * other.cols
        known: dict[str, bool | int] = {name: getattr(self, name) and getattr(other, name) for name in EVEN}
        if other.rows == other.cols:
            known |= {"below": self.below * other.rows + other.below, "above": self.above * other.rows + other.above}
        return Facts.of(rows, cols, rank=self.rank * other.rank, **known)

    def blocks(self, count: int) -> Facts:
        """Of a block-diagonal matrix whose blocks all have these facts."""
        known: dict[str, bool | int] = {name: getattr(self, name) for name in EVEN}
        if self.rows == self.cols:
            known |= {"below": self.below, "above": self.above}
        return Facts.of(count * self.rows, count * self.cols, rank=count * self.rank, **known)

    def ordered(self, same: bool) -> Facts:
        """With rows and columns in another order, one and the same on both sides or not."""
        names = EVEN if same else ("orthogonal", "doubly_stochastic", "permutation")
        return Facts.of(self.rows, self.cols, rank=self.rank, **{n: getattr(self, n) for n in names if n != "diagonal"},
                        diagonal=same and self.diagonal)  # fmt: skip

    def inverse(self) -> Facts:
        """Of the inverse, where there is one: triangles and diagonals stay, other bands fill up."""
        names = ("symmetric", "psd", "orthogonal", "permutation", "diagonal")
        known: dict[str, bool | int] = {n: getattr(self, n) for n in names}
        triangle = {end: 0 for end in ("below", "above") if getattr(self, end) == 0}
        lower_or_upper = "above" in triangle or "below" in triangle
        return Facts.of(self.rows, self.cols, toeplitz=self.toeplitz and lower_or_upper, **known, **triangle)

    def leading(self, rows: int, cols: int) -> Facts:
        """Of the first rows and columns."""
        square = rows == cols
        known = {n: getattr(self, n) and square for n in ("symmetric", "psd", "diagonal")}
        bands = {"below": self.below, "above": self.above}
        return Facts.of(rows, cols, rank=self.rank, toeplitz=self.toeplitz, **bands, **known)


def facts_of(structure: Structure) -> Facts:
    """What follows from how a structure is composed.

    >>> from . import Beside, matrix
    >>> facts_of(Beside(matrix("P", 3, 3, "orthogonal"), matrix("Q", 2, 2, "permutation"))).orthogonal
    True
    """
    match structure:
        case Times(first=a, second=b):
            if (isinstance(b, Turned) and b.of == a) or (isinstance(a, Turned) and a.of == b):
                return facts_of(a).gram()
            return facts_of(a).times(facts_of(b))
        case Plus(first=a, second=b, coefficient=c):
            return facts_of(a).plus(facts_of(b), c)
        case Beside(first=a, second=b):
            return facts_of(a).beside(facts_of(b))
        case Turned(of=a):
            return facts_of(a).turned()
        case Batch(of=a, extent=n):
            return facts_of(a).blocks(n)
        case Defined(of=a, coefficient=c):
            return facts_of(a).scaled(c)
        case Either(first=a):
            return facts_of(a)
        case Ordered(of=a, rows=rows, cols=cols):
            inner = a.operator()
            same = rows == cols and inner.shape[0] == inner.shape[1]
            return (
                facts_of(a).ordered(same) if rows != tuple(sorted(rows)) or cols != tuple(sorted(cols)) else facts_of(a)
            )
        case Leaf(of=operator):
            return _of_operator(operator)
    term = getattr(structure, "_term", None)  # a named structure that is a term of others
    return facts_of(term()) if term is not None else _of_operator(structure.operator())


def _of_operator(operator: Operator) -> Facts:
    """Of one operand as it is stored or transposed, of an identity, of one slot i-j; else nothing but the size."""
    rows, cols = operator.size
    plain = Facts.of(rows, cols)
    if len(operator.terms) != 1 or operator.terms[0].guards:
        return plain
    (term,) = operator.terms
    if not term.atoms:
        return Facts.of(rows, cols, permutation=True, diagonal=True, psd=True).scaled(term.coefficient) \
            if _is_unit(operator) else plain  # fmt: skip
    if len(term.atoms) != 1 or term.deltas:
        return plain
    ((name, slots),) = term.atoms
    known = operator.operands[name].facts if name in operator.operands else frozenset[str]()
    reads = [s.bare for s in slots]
    ends = list(operator.rows + operator.cols), list(operator.cols + operator.rows)
    if len(slots) == 2 and reads in ends and len(operator.rows) == 1:
        found = _declared(known, operator.operands[name].shape)
        return (found if reads == ends[0] else found.turned()).scaled(term.coefficient)
    if len(slots) == 1 and len(operator.rows) == len(operator.cols) == 1:
        (q,) = slots
        u, w = q.coefficient(operator.rows[0]), q.coefficient(operator.cols[0])
        if len(q.terms) == 2 and u == -w:
            return Facts.of(rows, cols, toeplitz=True)
        return Facts.of(rows, cols, symmetric=rows == cols and len(q.terms) == 2 and u == w)
    return plain


def _is_unit(operator: Operator) -> bool:
    """Whether the deltas of a term tie each row digit to the column digit at its place, and nothing else."""
    (term,) = operator.terms
    pairs = {frozenset((a.bare, b.bare)) for a, b in term.deltas}
    wanted = {frozenset(p) for p in zip(operator.rows, operator.cols, strict=False)}
    return len(operator.rows) == len(operator.cols) and pairs == wanted and operator.shape[0] == operator.shape[1]


def _declared(words: frozenset[str], shape: tuple[int, ...]) -> Facts:
    """What declarations of a stored matrix say."""
    rows, cols = prod(shape[:1]), prod(shape[1:])
    known: dict[str, bool | int] = {
        n: n in words for n in ("symmetric", "psd", "orthogonal", "doubly_stochastic", "permutation")
    }
    known |= {"toeplitz": bool({"toeplitz", "circulant"} & words), "diagonal": "diag" in words}
    known["symmetric"] = bool({"symmetric", "psd", "hankel"} & words) and rows == cols
    if {"lower", "diag"} & words:
        known["above"] = 0
    if {"upper", "diag"} & words:
        known["below"] = 0
    if "banded" in words:
        band = options(words, "banded")
        known |= {"below": band.get("lo", 0), "above": band.get("hi", 0)}
    if "lowrank" in words and "r" in options(words, "lowrank"):
        known["rank"] = options(words, "lowrank")["r"]
    return Facts.of(rows, cols, **known)
