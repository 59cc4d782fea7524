"""Random texts of the named language, with arguments for them and a bound on what rounding may do.

Each expression carries an upper bound of its magnitude, the number of binary digits behind the point that its exact
value has, and how many roundings it takes. Values are halves from -2 to 2, so that sums and products are exact as long
as magnitude and digits fit the type: only then may something that jumps (a comparison, floor, a maximum of integers)
stand above it. Functions with a slope of more than 1 do not occur, so an error below is no larger above, and
`roundings * 4 eps * magnitude` bounds the distance of two correct evaluations.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stein.ir.types import DType, parse_dtype

SIZES = {"n": 3, "m": 2, "p": 4, "q": 1}
FAMILIES = {
    "float": ("f64", "f32"),
    "half": ("f16", "bf16", "f32"),
    "integer": ("i64", "i32", "i8", "u8", "u16"),
    "complex": ("c128", "c64", "f64"),
    "bool": ("bool", "bool", "i64"),
    "mixed": ("f64", "f32", "i32", "bool", "f16", "c64", "u8"),
}
SEMIRINGS = ("maxplus", "minplus", "maxmin", "maxtimes", "boolean", "logsumexp")
SMOOTH = ("sin", "cos", "tanh", "sigmoid", "erf", "relu", "abs")
JUMPS = ("floor", "ceil", "round", "sign")


@dataclass(frozen=True)
class Term:
    """A piece of text: the indices free in it, and what bounds its value and the roundings in it."""

    text: str
    names: frozenset[str]
    magnitude: float = 2.0
    digits: int = 1
    roundings: int = 1
    exact: bool = True


@dataclass
class Drawn:
    """A program, its arguments, and by how many roundings of what magnitude two evaluations may differ."""

    text: str
    arguments: dict[str, np.ndarray[Any, Any]]
    roundings: int
    magnitude: float
    exact: bool


@dataclass
class Author:
    """Writes one program. `symbolic` declares sizes by name, else by number."""

    choose: random.Random
    family: str
    symbolic: bool
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = field(default_factory=dict)  # type, extents, pad
    declarations: list[str] = field(default_factory=list)
    extents: dict[str, str] = field(default_factory=dict)  # index -> size name
    results: list[str] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)

    def chance(self, percent: int) -> bool:
        return self.choose.randrange(100) < percent

    def size(self, name: str) -> str:
        return name if self.symbolic else str(SIZES[name])

    def index(self) -> str:
        name = f"{self.choose.choice('ijkl')}{len(self.extents)}"
        self.extents[name] = self.choose.choice("nnmpq")
        return name

    # reads

    def slot(self, names: list[str], padded: bool) -> tuple[str, str, int, str]:
        """A slot, and the size, extent and origin of an axis that it stays on."""
        i, j = self.choose.choice(names), self.choose.choice(names)
        a, b = self.extents[i], self.extents[j]
        na, nb, sa, sb = SIZES[a], SIZES[b], self.size(a), self.size(b)
        if padded and self.chance(60):
            shift = self.choose.randrange(-2, 3)
            return f"{self.choose.choice((i, f'{i}+{j}', f'2*{i}-{j}', f'{j}-{i}'))}{shift:+d}", sa, na, ""
        kind = self.choose.randrange(9)
        if kind == 0 and i != j:
            return f"{i}+{j}", f"{sa}+{sb}-1", na + nb - 1, ""
        if kind == 1 and i != j:
            return f"{i}-{j}+{sb}-1", f"{sa}+{sb}-1", na + nb - 1, ""
        if kind == 2 and i != j:
            return f"({i} {j})", f"{sa}*{sb}", na * nb, ""
        if kind == 3:
            return f"({i}-{j}+1) mod {sa}", sa, na, ""
        if kind == 4:
            return f"2*{i}+1", f"2*{sa}", 2 * na, ""
        if kind == 5 and i != j:
            return f"{i}-{j}", f"-({sb}-1)..{sa}", na + nb - 1, "origin"
        if kind == 6:
            return f"{sa}-1-{i}", sa, na, ""
        return i, sa, na, ""

    def read(self, names: list[str], bare: bool = False) -> Term:
        """A read of a new or an old tensor at some of `names`."""
        old = [t for t, (_, extents, _) in self.tensors.items() if all(self.fitting(n, names) for n in extents)]
        if old and self.chance(30):
            name = self.choose.choice(old)
            found = [self.choose.choice(self.fitting(n, names)) for n in self.tensors[name][1]]
            text = f"{name}[{','.join(found)}]" if found else name
            known = next((t for t in self.terms if t.text == name), Term(name, frozenset()))
            return Term(text, frozenset(found), known.magnitude, known.digits, known.roundings, known.exact)
        dtype = self.choose.choice(FAMILIES[self.family])
        pads = ["0", "1", "edge", "wrap", *(["-1.5"] if self.family in ("float", "half") else [])]
        pad = self.choose.choice(pads) if self.chance(20) and not bare else ""
        slots, axes, extents = [], [], []
        used: set[str] = set()
        for _ in range(self.choose.randrange(1, 4) if names else 0):
            if bare:
                i = self.choose.choice(names)
                slot, axis, extent, _ = i, self.size(self.extents[i]), SIZES[self.extents[i]], ""
            else:
                slot, axis, extent, _ = self.slot(names, bool(pad))
            slots.append(slot)
            axes.append(axis)
            extents.append(extent)
            used |= {n for n in names if n in slot}
        name = f"{self.choose.choice('ABCx')}{len(self.tensors)}"
        origin = any(".." in a for a in axes)
        self.tensors[name] = (dtype, tuple(extents), "skip" if pad or origin else "")
        self.declarations.append(
            f"{name}: {dtype}" + (f"[{', '.join(axes)}]" if axes else "") + (f" pad={pad}" if pad else "")
        )
        return Term(f"{name}[{','.join(slots)}]" if slots else name, frozenset(used))

    def fitting(self, extent: int, names: list[str]) -> list[str]:
        return [n for n in names if SIZES[self.extents[n]] == extent and not self.symbolic] or (["0"] if extent else [])

    # expressions

    def joined(self, a: Term, sign: str, b: Term) -> Term:
        names, roundings = a.names | b.names, a.roundings + b.roundings + 1
        if sign == "*":
            magnitude, digits = a.magnitude * b.magnitude, a.digits + b.digits
        else:
            magnitude, digits = a.magnitude + b.magnitude, max(a.digits, b.digits)
        return Term(f"({a.text} {sign} {b.text})", names, magnitude, digits, roundings, a.exact and b.exact)

    def fits(self, term: Term) -> bool:
        """Whether the values of a term are exact in every type of the family."""
        if self.family in ("integer", "mixed"):
            return term.exact and term.magnitude < 100 and self.family == "integer"
        return term.exact and term.magnitude * 2.0**term.digits < 2**23 and self.family != "half"

    def expression(self, names: list[str], depth: int) -> Term:
        kind = self.choose.randrange(12)
        if depth == 0 or kind < 2:
            return self.read(names)
        if kind < 6:
            sign = (
                "*" if self.family == "bool" else self.choose.choice("**+" if "u8" in FAMILIES[self.family] else "*+-")
            )
            return self.joined(self.expression(names, depth - 1), sign, self.expression(names, depth - 1))
        if kind == 6 and self.family != "complex":
            return self.compared(names, depth)
        if kind == 7 and self.family in ("float", "half"):
            return self.function(names, depth)
        if kind == 8 and names:
            i = self.choose.choice(names)
            return self.joined(Term(i, frozenset((i,)), 4, 0), "*", self.read(names))
        return self.reduction(names, depth)

    def compared(self, names: list[str], depth: int) -> Term:
        a, b = self.expression(names, depth - 1), self.read(names)
        if not self.fits(a):
            return a
        sign = self.choose.choice(("<", "<=", ">", ">=", "==", "!="))
        text, both = f"({a.text} {sign} {b.text})", a.names | b.names
        if self.chance(50):
            c = self.read(names)
            return Term(f"where({text}, {c.text}, {b.text})", both | c.names, 2, 1, 1)
        return self.joined(Term(text, both, 1, 0, 1), "*", self.read(names))

    def function(self, names: list[str], depth: int) -> Term:
        a = self.expression(names, depth - 1)
        if self.fits(a) and self.chance(40):
            return Term(f"{self.choose.choice(JUMPS)}({a.text})", a.names, a.magnitude + 1, 0, a.roundings)
        name = self.choose.choice(SMOOTH)
        return Term(f"{name}({a.text})", a.names, max(a.magnitude, 1.0), 60, a.roundings + 2, exact=False)

    def reduction(self, names: list[str], depth: int) -> Term:
        k = self.index()
        body = self.expression([*names, k], depth - 1)
        if k not in body.names:
            body = self.joined(body, "*", self.read([k], bare=True))
        count, rest = SIZES[self.extents[k]], body.names - {k}
        fold = f"sum[{k}] {body.text}"
        ordered = self.family == "float" or (self.family == "integer" and self.fits(body))
        if ordered and self.chance(50):
            fold = f"{self.choose.choice(('max', 'min'))}[{k}]({body.text})"
            return replace(body, text=fold, names=rest)
        if self.family == "float" and self.chance(20):
            fold = f"logsumexp[{k}]({body.text})"
            return Term(fold, rest, body.magnitude + 3, 60, body.roundings + 2 * count + 2, False)
        roundings = body.roundings * count + count
        return Term(f"({fold})", rest, body.magnitude * count, body.digits, roundings, body.exact)

    # statements

    def left(self, name: str, names: list[str]) -> str:
        kind = self.choose.randrange(10)
        if kind == 0 and len(names) >= 2:
            return f"{name}[({names[0]} {names[1]}){''.join(',' + n for n in names[2:])}]"
        if kind == 1 and names:
            return f"{name}[2*{names[0]}+1{''.join(',' + n for n in names[1:])}]"
        if kind == 2 and len(names) >= 2:
            return f"{name}[{names[0]}+{names[1]}{''.join(',' + n for n in names[2:])}]"
        if kind == 3 and names:
            return f"{name}[{names[0]},{','.join(names)}]"
        if kind == 4 and names:
            return f"{name}[{','.join(names)},0]"
        return f"{name}[{','.join(names)}]" if names else name

    def statement(self, name: str) -> str:
        self.extents = {}
        names = [self.index() for _ in range(self.choose.randrange(4))]
        over = self.choose.choice(SEMIRINGS) if self.family in ("float", "bool") and self.chance(25) else ""
        if self.family == "bool" and over:
            over = "boolean"
        term = self.product(names) if over or self.chance(35) else self.expression(names, 3)
        if over == "maxtimes":
            over = "maxplus"  # maxtimes is a semiring of the numbers from 0 up
        ranges = [f"{n} in 0..{self.size(e)}" for n, e in self.extents.items() if n in term.text or n in names]
        if over == "logsumexp":
            term = Term(term.text, term.names, term.magnitude * 4 + 8, 60, term.roundings + 30, False)
        collide = 4 * 2  # how often a position of the left side may be reached
        self.terms.append(
            Term(name, frozenset(), term.magnitude * collide, term.digits, term.roundings + collide, term.exact)
        )
        self.results.append(name)
        head = self.left(name, names)
        return (
            f"{head} = {term.text}"
            + (f" for {', '.join(ranges)}" if ranges else "")
            + (f" over {over}" if over else "")
        )

    def product(self, names: list[str]) -> Term:
        """A product of reads whose other indices are summed without saying so: each stands there twice."""
        bound = [self.index() for _ in range(self.choose.randrange(3))]
        total = self.read([*names, *bound])
        for k in bound:
            total = self.joined(total, "*", self.joined(self.read([k], True), "*", self.read([k, *names], True)))
            if total.text.count(k) < 2:
                total = self.joined(total, "*", self.read([k], True))
        count = 1
        for k in bound:
            count *= SIZES[self.extents[k]]
        return Term(
            total.text, total.names, total.magnitude * count, total.digits, total.roundings + count, total.exact
        )

    def program(self) -> Drawn:
        statements = [self.statement(f"y{k}") for k in range(self.choose.randrange(1, 4))]
        if self.symbolic:
            self.tensors["Z"] = ("f64", tuple(SIZES.values()), "")
            self.declarations.append(f"Z: f64[{', '.join(SIZES)}]")
            statements.append("z = sum[a,b,c,d] Z[a,b,c,d]")
        values = np.random.default_rng(self.choose.randrange(1 << 30))
        arguments = {}
        for name, (word, extents, _) in self.tensors.items():
            dtype = parse_dtype(word)
            assert dtype is not None
            arguments[name] = drawn_array(values, dtype, extents)
        worst = max((t.roundings for t in self.terms), default=1), max((t.magnitude for t in self.terms), default=1.0)
        exact = all(t.exact for t in self.terms) and self.family != "half"
        body = "; ".join([*self.declarations, *statements])
        return Drawn(f"{body}\nreturn {', '.join(self.results)}", arguments, *worst, exact)


def drawn_array(values: np.random.Generator, dtype: DType, extents: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Halves (of integers: whole numbers) from -2 to 2 of a type."""
    halves = np.asarray(values.integers(-4, 5, extents) / 2)
    if dtype.kind == "c":
        halves = halves + 0.5j * values.integers(-4, 5, extents)
    if dtype.kind in "ub":
        halves = np.abs(halves) if dtype.kind == "u" else halves > 0
    return np.asarray(halves).astype(dtype.numpy)


def random_text(seed: int) -> Drawn:
    """The program of a seed."""
    choose = random.Random(seed)
    return Author(choose, choose.choice(tuple(FAMILIES)), choose.random() < 0.4).program()
