"""Toeplitz, Hankel and circulant operators of one or several levels: an operand read at i-j or i+j.

The method beyond contraction is the fast Fourier transform, as a program of the IR with no foreign call. The DFT of
N = N1*N2 points is two small dense products and a twiddle,

    X[k1,k2] = F2[p2,k2] Tw[p2,k1] F1[p1,k1] x[p1*N2+p2]

(Cooley and Tukey, 1965), which is a Monarch product. A convolution is three of these and one product; the padded read
and the cropped one are affine slots. Needs complex numbers, so a field of characteristic 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, gcd, log2, pi
from typing import Any

from ..expr import Const, Expr, Map, Position
from ..functions import CAST
from ..index import Affine
from ..types import C128, F64
from .algebra import Defined, Either, Leaf, Structure, product, scaling
from .block_dft import blocked
from .build import Builder, Method, Value
from .convolution import Convolution
from .operator import Atom, Operand, Operator, Term, named_let
from .slot import Slot, slot, var
from .view import DELTA, STEP, Again, Match, View, axes_of, between, leaf, operator_of


@dataclass(frozen=True)
class Level:
    """One level: name[.., step*(i + turn*j) + offset, ..], modulo `modulus` unless 0; turn -1 Toeplitz, +1 Hankel."""

    rows: int
    cols: int
    length: int
    step: int = 1
    turn: int = -1
    offset: int = 0
    modulus: int = 0

    def read(self, i: str, j: str) -> Slot:
        """The slot in the row and the column digit."""
        return slot([(i, self.step), (j, self.step * self.turn)], self.offset, self.modulus)

    def generator(self, d: str) -> Slot:
        """The slot in d, which is i - j + cols - 1 (Toeplitz) or i + j (Hankel)."""
        shift = (self.cols - 1) * self.step if self.turn < 0 else 0
        return slot([(d, self.step)], self.offset - shift, self.modulus)


@dataclass(frozen=True)
class Toeplitz(Structure):
    """One operand read at one affine slot for each level.

    >>> Toeplitz.of(4, 3).operator().operands["t"].shape
    (6,)
    """

    levels: tuple[Level, ...]
    name: str = "t"

    @staticmethod
    def of(rows: int, cols: int, name: str = "t") -> Toeplitz:
        """y[i] = t[i-j+cols-1] x[j]."""
        return Toeplitz((Level(rows, cols, rows + cols - 1, 1, -1, cols - 1),), name)

    @staticmethod
    def hankel(rows: int, cols: int, name: str = "h") -> Toeplitz:
        """y[i] = h[i+j] x[j]."""
        return Toeplitz((Level(rows, cols, rows + cols - 1, 1, 1),), name)

    @staticmethod
    def circulant(size: int, name: str = "c") -> Toeplitz:
        """y[i] = c[(i-j) mod size] x[j]."""
        return Toeplitz((Level(size, size, size, 1, -1, 0, size),), name)

    def operator(self) -> Operator:
        """The one atom."""
        n = range(len(self.levels))
        rows, cols = tuple(f"i{k}" for k in n), tuple(f"j{k}" for k in n)
        read = Atom(self.name, tuple(v.read(rows[k], cols[k]) for k, v in enumerate(self.levels)))
        extents = {rows[k]: v.rows for k, v in enumerate(self.levels)}
        extents |= {cols[k]: v.cols for k, v in enumerate(self.levels)}
        shape = tuple(v.length for v in self.levels)
        return Operator(rows, cols, (Term(1, (read,)),), extents, {self.name: Operand(shape)})

    def extra(self) -> tuple[Method, ...]:
        """The product by Fourier transforms, whole or over blocks only."""
        return Method("fft", self._fft, "complex"), Method("blocked", self._blocked, "complex")

    def _generator(self, b: Builder) -> Value:
        """The operand as a tensor over i-j+cols-1 (i+j) at each level."""
        d = b.indices(v.rows + v.cols - 1 for v in self.levels)
        read = Atom(self.name, tuple(v.generator(k) for v, k in zip(self.levels, d, strict=True)))
        return b.let([b.extents[k] for k in d], map(var, d), [Term(1, (read,))])

    def _blocked(self, b: Builder, x: Value) -> Value:
        rows, cols = [v.rows for v in self.levels], [v.cols for v in self.levels]
        return blocked(b, x, self._generator(b), rows, cols, [v.turn > 0 for v in self.levels])

    def _fft(self, b: Builder, x: Value) -> Value:
        depth = len(self.levels)
        splits = [_split(v.rows + v.cols - 1) for v in self.levels]
        for split in splits:
            b.operands.update(_constants(*split))
        t = self._generator(b)
        batch = x.shape[: len(x.shape) - depth]
        for level, (n1, n2) in enumerate(splits):
            size = self.levels[level].cols if self.levels[level].turn > 0 else 0
            x = _forward(b, x, len(batch) + 2 * level, n1, n2, size)
            t = _forward(b, t, 2 * level, n1, n2, 0)
        i = b.indices(x.shape)
        atoms = Atom(x.name, tuple(map(var, i))), Atom(t.name, tuple(map(var, i[len(batch) :])))
        z = b.let(x.shape, map(var, i), [Term(1, atoms)], True)
        for level, (n1, n2) in enumerate(splits):
            v = self.levels[level]
            z = _backward(b, z, len(batch) + level, n1, n2, v.rows, v.cols - 1, level == depth - 1)
        return z

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """One operand whose affine slots pair a row digit with a column digit each, and cover all digits.

        `band` of the options is how far entries can stand below and above the diagonal.
        """
        if len(view.atoms) != 1 or not view.affine or view.atoms[0].name == DELTA:
            return None
        if len({*view.out}) < len(view.out) or len({*view.x}) < len(view.x):
            return None  # read, or written, on a diagonal
        if view.atoms[0].name == STEP:
            return _step(view)
        found = pair_levels(view)
        if found is None:
            return None
        kinds, levels, used = found
        atom = view.atoms[0]
        dense = {q.bare for q in atom.slots if q.bare is not None}
        if dense & set(used):
            return None  # a band stored by diagonals
        if set(used) | dense != set(view.rows) | set(view.cols) | dense:
            return None
        options: dict[str, Any] = {"levels": tuple(kinds), "lower": False}
        if len(kinds) == 1 and not dense:
            level = levels[0]
            term: Structure | None = _stored(view, levels)
            if kinds[0] == "toeplitz" and not level.modulus:
                below, above = band_of(view, level)
                options |= {"band": (below, above), "lower": above <= 0 < level.rows - 1}
                options["banded"] = below + above + 1 < min(level.rows, level.cols)
                if level.length < min(level.rows, level.cols):
                    term = Either(_stored(view, levels), Convolution(operator_of(view)))
            return Match(kinds[0], {"banded": False} | options, term)
        circular = {"toeplitz", "circulant"} >= set(kinds)
        whole = len(atom.ports) == len(kinds) and len(view.out) == len(kinds) == len(view.x)
        term = _stored(view, levels) if whole and _aligned(view) else None
        if any(not v.modulus and v.length < min(v.rows, v.cols) for v in levels):
            few = Convolution(operator_of(view))
            term = Either(term, few) if term is not None else few
        name = "block_circulant" if set(kinds) == {"circulant"} else "block_toeplitz" if circular else "block_hankel"
        return Match(name, options, term)


@dataclass(frozen=True)
class ScaledToeplitz(Structure):
    """D1 T D2: a Toeplitz operator between two diagonals.

    >>> ScaledToeplitz(Toeplitz.of(4, 3)).operator().size
    (4, 3)
    """

    of: Toeplitz
    names: tuple[str, str] = ("d", "e")

    def _term(self) -> Structure:
        rows, cols = (tuple(getattr(v, end) for v in self.of.levels) for end in ("rows", "cols"))
        return product(scaling(self.names[0], rows), self.of, scaling(self.names[1], cols))

    def operator(self) -> Operator:
        """The product of the three."""
        return self._term().operator()

    def extra(self) -> tuple[Method, ...]:
        """The scalings, and every method of the middle."""
        return self._term().extra()

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """An operand at affine slots beside operands with one digit each."""
        if not view.affine:
            return None
        scales = [k for k, t in enumerate(view.touches) if len(t) == 1 and all(q.bare for q in view.atoms[k].slots)]
        rest = [k for k in range(len(view.atoms)) if k not in scales]
        if not scales or len(rest) != 1:
            return None
        inner = view.only(rest)
        found = Toeplitz.recognise(inner, again)
        if found is None or inner.out != view.out or inner.x != view.x:
            return None
        left = [k for k in scales if view.touches[k] <= set(view.rows)]
        right = [k for k in scales if view.touches[k] <= set(view.cols)]
        if len(left) + len(right) < len(scales):
            return None
        parts: list[Structure] = [found.term or leaf(inner)]
        if left:
            parts.insert(0, Leaf(between(view, left, view.out, view.out)))
        if right:
            parts.append(Leaf(between(view, right, view.x, view.x)))
        return Match(f"{found.kind}_scaled", found.options, product(*parts), (found,))


def _stored(view: View, levels: Sequence[Level]) -> Structure:
    """The term of the one operand; if it has further axes (of extent 1), on the generators that it holds."""
    atom = view.atoms[0]
    reads = axes_of(view, atom)
    axes = [k for k, q in enumerate(reads) if len(q.terms) > 1]
    assert len(axes) == len(levels), "each level is one axis of the operand"
    if len(axes) == len(reads):
        return Toeplitz(tuple(levels), atom.name)
    names = {k: f"d{k}" for k in axes}
    slots = tuple(var(names[k]) if k in names else q for k, q in enumerate(reads))
    extents = {names[k]: v.length for k, v in zip(axes, levels, strict=True)}
    term = Term(1, (Atom(atom.name, slots),))
    shape = tuple(v.length for v in levels)
    let = named_let(f"{atom.name}.generator", shape, tuple(var(names[k]) for k in axes), (term,), extents)
    return Defined(Toeplitz(tuple(levels), let.name), (let,), ((atom.name, Operand(view.shapes[atom.name])),))


def _step(view: View) -> Match | None:
    """A guard alone: sums over all places before (or after) one, a Toeplitz operator of ones."""
    q = view.atoms[0].slots[0]
    if len(view.rows) != 1 or len(view.cols) != 1 or {*view.rows, *view.cols} != set(q.indices):
        return None
    a, b = q.coefficient(view.rows[0]), q.coefficient(view.cols[0])
    if abs(a) != 1 or a != -b:
        return None
    rows, cols = view.dims
    length = rows + cols - 1
    guard = slot([("d", a)], q.offset - a * (cols - 1))
    let = named_let("step.generator", (length,), (var("d"),), (Term(1, (), (), (guard,)),), {"d": length})
    level = Level(rows, cols, length, 1, -1, cols - 1)
    below, above = (rows - 1, q.offset) if a > 0 else (q.offset, cols - 1)
    options = {"levels": ("toeplitz",), "lower": above <= 0, "banded": False, "band": (below, above)}
    return Match("toeplitz", options, Defined(Toeplitz((level,), let.name), (let,), ()))


def band_of(view: View, level: Level) -> tuple[int, int]:
    """How far entries can stand below and above the diagonal: where the generator ends, or a guard in it says so."""
    low, high = 0, level.length - 1
    made = next((x for x in view.lets if x.name == view.atoms[0].name), None)
    for guard in made.terms[0].guards if made is not None and len(made.terms) == 1 else ():
        if len(guard.terms) == 1 and made is not None and guard.indices == made.slots[0].indices:
            ((_, k),) = guard.terms
            if k > 0:
                low = max(low, -(guard.offset // k))
            else:
                high = min(high, guard.offset // -k)
    ends = sorted(((low - level.offset) / level.step, (high - level.offset) / level.step))
    return min(floor(ends[1]), level.rows - 1), min(-ceil(ends[0]), level.cols - 1)


def _aligned(view: View) -> bool:
    """Whether the levels stand in one order in the operand, in the rows and in the columns."""
    slots = sorted(view.atoms[0].ports, key=lambda p: p[0][0])
    pairs = [
        (next(i for i in q.indices if i in view.rows), next(i for i in q.indices if i in view.cols)) for _, q in slots
    ]
    return tuple(i for i, _ in pairs) == view.out and tuple(j for _, j in pairs) == view.x


def pair_levels(view: View) -> tuple[list[str], list[Level], list[str]] | None:
    """Kind, level and digits of each affine slot of the one atom; None where a slot is of another form."""
    kinds, levels, used = [], [], []
    atom = view.atoms[0]
    for keys, q in sorted(atom.ports, key=lambda p: p[0][0]):
        if q.bare is not None:
            continue
        rows, cols = set(q.indices) & set(view.rows), set(q.indices) & set(view.cols)
        if len(q.indices) != 2 or len(rows) != 1 or len(cols) != 1:
            return None
        (i,), (j,) = rows, cols
        u, w, n, m = q.coefficient(i), q.coefficient(j), view.extents[i], view.extents[j]
        length = view.shapes[atom.name][keys[0][0]]
        if q.modulus:
            whole = n == m and n % (q.modulus // gcd(u, q.modulus)) == 0
            if (u + w) % q.modulus == 0:
                kinds.append("circulant" if whole else "toeplitz")
                turn = -1
            elif (u - w) % q.modulus == 0:
                kinds.append("anticirculant" if whole else "hankel")
                turn = 1
            else:
                return None
        elif abs(u) == abs(w):
            kinds.append("toeplitz" if u == -w else "hankel")
            turn = -1 if u == -w else 1
        else:
            return None
        levels.append(Level(n, m, length, u, turn, q.offset, q.modulus))
        used += [i, j]
    return (kinds, levels, used) if levels and len(set(used)) == len(used) else None


# --- Fourier transforms -----------------------------------------------------------------------------------------------


def _split(size: int) -> tuple[int, int]:
    """N1, N2 near the square root with N1*N2 >= size, N1 a power of two."""
    first: int = 1 << (ceil(log2(size)) + 1) // 2 if size > 1 else 1
    return first, -(-size // first)


def root_of_unity(size: int, sign: int, scale: float = 1.0) -> Expr:
    """The formula scale * exp(sign * 2 pi i * (0 * 1) / size) over two axes.

    The exponent is reduced modulo `size` first, so that no digits are lost for large products.
    """
    k, n = (Map(CAST, (Position(Affine.of(a)),), F64) for a in ("0", "1"))
    q = Map("mul", (k, n), F64)
    size_value = Const(float(size), F64)
    turns = Map("floor", (Map("div", (q, size_value), F64),), F64)
    rest = Map("sub", (q, Map("mul", (turns, size_value), F64)), F64)
    phase = Map("mul", (Const(complex(0.0, sign * 2 * pi / size), C128), Map(CAST, (rest,), C128)), C128)
    value: Expr = Map("exp", (phase,), C128)
    return value if scale == 1 else Map("mul", (Const(complex(scale), C128), value), C128)


def _constants(n1: int, n2: int) -> dict[str, Operand]:
    """The small transforms and the twiddles of N1*N2 points, both ways (the way back carries 1/N)."""
    n = n1 * n2
    found = {}
    for way, sign, scale in (("forward", -1, 1.0), ("back", 1, 1.0 / n)):
        found[f"dft.{way}.{n1}.{n}"] = Operand((n1, n1), root_of_unity(n1, sign, scale), True)
        found[f"dft.{way}.{n2}.of.{n}"] = Operand((n2, n2), root_of_unity(n2, sign), True)
        found[f"twiddle.{way}.{n1}.{n}"] = Operand((n2, n1), root_of_unity(n, sign), True)
    return found


def _factors(way: str, n1: int, n2: int, p1: str, p2: str, k1: str, k2: str) -> list[Atom]:
    n = n1 * n2
    return [
        Atom(f"dft.{way}.{n2}.of.{n}", (var(p2), var(k2))),
        Atom(f"twiddle.{way}.{n1}.{n}", (var(p2), var(k1))),
        Atom(f"dft.{way}.{n1}.{n}", (var(p1), var(k1))),
    ]


def _forward(b: Builder, value: Value, axis: int, n1: int, n2: int, reverse: int) -> Value:
    """The transform of one axis, zero-padded, to two axes; with `reverse` > 0 of the reversed axis of that length."""
    p1, k1 = b.indices((n1, n1))
    p2, k2 = b.indices((n2, n2))
    others = b.indices(value.shape[:axis] + value.shape[axis + 1 :])
    flat = slot([(p1, n2), (p2, 1)])
    flat = slot((), reverse - 1).plus(flat, -1) if reverse else flat
    read = [*map(var, others[:axis]), flat, *map(var, others[axis:])]
    terms = [Term(1, (*_factors("forward", n1, n2, p1, p2, k1, k2), Atom(value.name, tuple(read))))]
    out = [*others[:axis], k1, k2, *others[axis:]]
    return b.let([b.extents[i] for i in out], map(var, out), terms, True)


def _backward(b: Builder, value: Value, axis: int, n1: int, n2: int, rows: int, shift: int, last: bool) -> Value:
    """Two axes back to one, of which rows shift .. shift+rows are kept; real at the last level (or complex input)."""
    q1, k1 = b.indices((n1, n1))
    q2, k2 = b.indices((n2, n2))
    others = b.indices(value.shape[:axis] + value.shape[axis + 2 :])
    read = [*map(var, others[:axis]), var(k1), var(k2), *map(var, others[axis:])]
    terms = [Term(1, (*_factors("back", n1, n2, q1, q2, k1, k2), Atom(value.name, tuple(read))))]
    whole = [*map(var, others[:axis]), slot([(q1, n2), (q2, 1)]), *map(var, others[axis:])]
    shape = [*(b.extents[i] for i in others[:axis]), n1 * n2, *(b.extents[i] for i in others[axis:])]
    z = b.let(shape, whole, terms, not last)
    (i,) = b.indices((rows,))
    rest = b.indices(b.extents[k] for k in others)
    crop = Atom(z.name, (*map(var, rest[:axis]), slot([(i, 1)], shift), *map(var, rest[axis:])))
    out = [*rest[:axis], i, *rest[axis:]]
    return b.let([b.extents[k] for k in out], map(var, out), [Term(1, (crop,))], not last)
