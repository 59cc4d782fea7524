"""Complex equations as equations of real and imaginary parts: Triton has no complex numbers.

A complex tensor `x` in memory is two real ones, `x.re` and `x.im`, whose elements alternate. A product of sums becomes
a sum of products of parts; each of these is an equation of its own, but for the last, which takes the others into its
epilogue: an equation holds one sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from ...ir.errors import BackendError
from ...ir.expr import Const, Einsum, Equation, Expr, Map, Read, reads, transform, walk
from ...ir.functions import CAST
from ...ir.index import Affine, Index
from ...ir.semiring import PLUS_TIMES
from ...ir.types import BOOL, DType, promote, real_type

PARTS = (".re", ".im")


def is_complex(equation: Equation) -> bool:
    """Whether an equation reads, computes or writes complex numbers."""
    types = (equation.dtype, *(n.dtype for n in walk(equation.expr)), *(r.dtype for r in reads(equation.expr)))
    return any(t.kind == "c" for t in types)


def in_parts(equation: Equation) -> tuple[Equation, ...]:
    """Equations of real numbers that compute the parts of a complex one (or its real value), in order.

    Raises `BackendError` for functions of complex numbers that have no such form here.

    >>> from ...ir.text import parse_ir
    >>> text = "input x: c64[n]\\ninput z: c64[n]\\ny[i]: c64[n] = mul(x[i], conj(z[i])) over i<n\\nreturn y"
    >>> [e.name for e in in_parts(parse_ir(text).equations[0])]
    ['y.re', 'y.im']
    """
    return _Splitter(equation).equations()


Pair = tuple[Expr, "Expr | None"]  # real and imaginary part, None for 0


@dataclass
class _Splitter:
    equation: Equation
    made: list[Equation] = field(default_factory=list)
    known: dict[Einsum, Pair] = field(default_factory=dict)

    def equations(self) -> tuple[Equation, ...]:
        equation, kind = self.equation, real_type(self.equation.dtype)
        real, imaginary = self.pair(equation.expr)
        if equation.dtype.kind != "c":
            self.finish(equation.name, _cast(real, equation.dtype), equation.dtype, equation.update)
            return tuple(self.made)
        for part, value in zip(PARTS, (real, imaginary), strict=True):
            old = None if equation.update is None else equation.update + part
            self.finish(equation.name + part, _cast(value or _zero(kind), kind), kind, old)
        return tuple(self.made)

    def finish(self, name: str, expr: Expr, dtype: DType, update: str | None) -> None:
        """An equation for one part. Of its sums, all but the last stand in equations of their own."""
        sums = [e for e in walk(expr) if isinstance(e, Einsum)]
        for number, einsum in enumerate(sums[:-1]):
            expr = _replaced(expr, einsum, self.stored(einsum, f"{name}.{number}"))
        extents = self.equation.extents
        names = set(self.equation.free) | {n for e in walk(expr) if isinstance(e, Einsum) for n in e.bound}
        indices = tuple(Index(n, extents[n]) for n in extents if n in names)
        self.made.append(replace(self.equation, name=name, expr=expr, dtype=dtype, update=update, indices=indices))

    def stored(self, einsum: Einsum, name: str) -> Read:
        """A read of a new equation that computes one sum."""
        extents, free = self.equation.extents, self.equation.free
        slots = tuple(Affine.of(n) for n in free)
        indices = tuple(Index(n, extents[n]) for n in (*free, *einsum.bound))
        shape = tuple(extents[n] for n in free)
        self.made.append(Equation(name, slots, shape, indices, einsum, einsum.dtype))
        return Read(name, slots, einsum.dtype)

    # --- values -------------------------------------------------------------------------------------------------------

    def pair(self, expr: Expr) -> Pair:
        """The parts of a value."""
        if expr.dtype.kind != "c" and not any(n.dtype.kind == "c" for n in walk(expr)):
            return expr, None
        match expr:
            case Const(value, dtype):
                kind, number = real_type(dtype), complex(value)
                return Const(number.real, kind), Const(number.imag, kind)
            case Read():
                kind = real_type(expr.dtype)
                pad = expr.pad
                other = pad if pad is None or isinstance(pad, str) else 0.0
                real = replace(expr, tensor=expr.tensor + PARTS[0], dtype=kind)
                return real, replace(expr, tensor=expr.tensor + PARTS[1], dtype=kind, pad=other)
            case Map():
                return self.function(expr)
            case Einsum():
                return self.sum(expr)
        raise AssertionError(f"no complex {type(expr).__name__}")

    def sum(self, einsum: Einsum) -> Pair:
        """The sum of the products of one part of each factor, over all choices; i times i is -1."""
        if einsum.semiring != PLUS_TIMES:
            raise BackendError(
                f"the semiring {einsum.semiring.name} has no complex numbers", code="unsupported-semiring"
            )
        kind = real_type(einsum.accumulate)
        pairs = [self.pair(f) for f in einsum.factors]
        totals: list[Expr | None] = [None, None]
        for choice in product((0, 1), repeat=len(pairs)):
            parts = [pair[k] for pair, k in zip(pairs, choice, strict=True)]
            if any(p is None for p in parts):
                continue
            factors = tuple(p if p.dtype == BOOL else _cast(p, kind) for p in parts if p is not None)
            term: Expr = replace(einsum, factors=factors, dtype=kind, accumulate=kind)
            turns = sum(choice)
            old = totals[turns % 2]
            negative = turns % 4 > 1
            if old is None:
                totals[turns % 2] = Map("neg", (term,), kind) if negative else term
            else:
                totals[turns % 2] = Map("sub" if negative else "add", (old, term), kind)
        return totals[0] or _zero(kind), totals[1]

    def function(self, expr: Map) -> Pair:
        """A function of complex numbers by functions of their parts."""
        name, args = expr.function, [self.pair(a) for a in expr.args]
        kind = real_type(expr.dtype)
        if name == CAST:
            real, imaginary = args[0]
            if expr.dtype == BOOL:
                return self.differs(args[0], (_zero(real.dtype), None)), None
            if expr.dtype.kind != "c":
                return _cast(real, expr.dtype), None
            return _cast(real, kind), None if imaginary is None else _cast(imaginary, kind)
        joint = real_type(promote(*(a.dtype for a in expr.args[1 if name == "where" else 0 :])))
        a, b = ([*args, args[0]] if name != "where" else args[1:])[:2]
        (ar, ai), (br, bi) = (tuple(None if v is None else _cast(v, joint) for v in p) for p in (a, b))
        assert ar is not None and br is not None

        def op(function: str, *values: Expr | None) -> Expr:
            return Map(function, tuple(v or _zero(joint) for v in values), joint)

        match name:
            case "add" | "sub":
                return op(name, ar, br), op(name, ai, bi)
            case "neg":
                return op("neg", ar), None if ai is None else op("neg", ai)
            case "conj":
                return ar, None if ai is None else op("neg", ai)
            case "real":
                return ar, None
            case "imag":
                return ai or _zero(joint), None
            case "mul":
                real = (
                    op("mul", ar, br) if ai is None or bi is None else op("sub", op("mul", ar, br), op("mul", ai, bi))
                )
                crossed = [op("mul", x, y) for x, y in ((ar, bi), (ai, br)) if x is not None and y is not None]
                if len(crossed) < 2:
                    return real, crossed[0] if crossed else None
                return real, op("add", *crossed)
            case "div":
                if bi is None:
                    return op("div", ar, br), None if ai is None else op("div", ai, br)
                size = op("add", op("mul", br, br), op("mul", bi, bi))
                real = op("div", op("add", op("mul", ar, br), op("mul", ai, bi)), size)
                return real, op("div", op("sub", op("mul", ai, br), op("mul", ar, bi)), size)
            case "abs":
                low, high = (op(f, op("abs", ar), op("abs", ai)) for f in ("minimum", "maximum"))
                ratio = op("div", low, high)
                scaled = op("mul", high, op("sqrt", op("add", Const(1.0, joint), op("mul", ratio, ratio))))
                special = Map("eq", (low, op("minimum", high, Const(0.0, joint))), BOOL)  # 0, or a part that is 0
                return Map("where", (special, high, scaled), joint), None
            case "exp":
                grown, angle = op("exp", ar), ai or _zero(joint)
                return op("mul", grown, op("cos", angle)), op("mul", grown, op("sin", angle))
            case "where":
                condition = args[0][0]
                real = Map("where", (condition, ar, br), joint)
                return real, Map("where", (condition, ai or _zero(joint), bi or _zero(joint)), joint)
            case "eq" | "ne":
                found = self.differs((ar, ai), (br, bi))
                return (found if name == "ne" else Map("logical_not", (found,), BOOL)), None
        raise BackendError(
            f"the GPU target has no function {name!r} of complex numbers",
            code="unsupported-function",
            help="target='cpu' has it",
        )

    @staticmethod
    def differs(a: Pair, b: Pair) -> Expr:
        """Whether two complex numbers differ."""
        found: Sequence[Expr] = [
            Map("ne", (x or _zero(a[0].dtype), y or _zero(a[0].dtype)), BOOL) for x, y in zip(a, b, strict=True)
        ]
        return Map("logical_or", tuple(found), BOOL)


def _zero(dtype: DType) -> Const:
    return Const(0, dtype) if dtype.kind in "biu" else Const(0.0, dtype)


def _cast(expr: Expr, dtype: DType) -> Expr:
    return expr if expr.dtype == dtype else Map(CAST, (expr,), dtype)


def _replaced(expr: Expr, old: Expr, new: Expr) -> Expr:
    return transform(expr, lambda e: new if e is old or e == old else e)
