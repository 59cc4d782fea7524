"""Expressions over encrypted values as sums of monomials: the first half of lowering.

A monomial is a number, clear factors, reads of encrypted tensors, and the indices that are summed. Its number of reads
decides what becomes of it: none is a bias, one a term of a linear map, several a product of ciphertexts. What is no
sum of monomials (the square of a sum, an approximated function of one) is given a name first, through `Definer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import product
from typing import NoReturn, Protocol

from ....ir.errors import NOWHERE, EncryptionError, Source, Span
from ....ir.expr import Approx, Const, Einsum, Expr, Linalg, Map, Read, SizeValue, Softmax, reads
from ....ir.functions import CAST
from ....ir.index import Affine
from ....ir.size import Size
from ....ir.types import F64


@dataclass(frozen=True)
class Monomial:
    """factor * the sum over `bound` of the product of the clear expressions and the encrypted reads."""

    factor: float = 1.0
    clear: tuple[Expr, ...] = ()
    reads: tuple[Read, ...] = ()
    bound: tuple[str, ...] = ()

    def __mul__(self, other: Monomial) -> Monomial:
        return Monomial(
            self.factor * other.factor,
            self.clear + other.clear,
            self.reads + other.reads,
            self.bound + other.bound,
        )

    @property
    def plain(self) -> Read | None:
        """The read, where the monomial is one encrypted read and nothing else."""
        alone = len(self.reads) == 1 and not self.clear and not self.bound and self.factor == 1.0
        return self.reads[0] if alone else None


class Definer(Protocol):
    """What gives names to encrypted values on the way."""

    def define(self, expr: Expr) -> Read:
        """A read of a new value that is computed as `expr`."""
        ...

    def polynomial(self, function: str, argument: Read, approx: Approx, span: Span) -> Read:
        """A read of a new value: the function, approximated, of a whole encrypted tensor."""
        ...


class Expansion:
    """Expands the expressions of one equation. `encrypted` names the encrypted tensors (it may grow meanwhile)."""

    def __init__(self, encrypted: Set[str], extents: Mapping[str, Size], source: Source, definer: Definer) -> None:
        self.encrypted, self.extents, self.source, self.definer = encrypted, extents, source, definer

    def touches(self, expr: Expr) -> bool:
        """Whether the value of an expression is encrypted."""
        return any(r.tensor in self.encrypted for r in reads(expr))

    def expand(self, expr: Expr) -> list[Monomial]:
        """The monomials whose sum is the expression. Raises `EncryptionError` for what cannot be evaluated."""
        if not self.touches(expr):
            return [self._clear(expr)]
        match expr:
            case Read():
                return [Monomial(reads=(self._read(expr),))]
            case Map():
                return self._map(expr)
            case Einsum():
                return self._einsum(expr)
            case Softmax():
                self.fail("softmax of an encrypted value cannot be evaluated under CKKS", expr.span)
            case Linalg():
                self.fail(f"{expr.function} of an encrypted value cannot be evaluated under CKKS", expr.span)
        raise AssertionError(f"no encrypted expression: {expr!r}")

    def fail(self, sentence: str, span: Span, help: str = "decrypt first") -> NoReturn:
        """`EncryptionError` at a place."""
        spans = () if span == NOWHERE else (span,)
        raise EncryptionError(sentence, code="encrypted", source=self.source, spans=spans, help=help)

    # --- leaves

    def _read(self, read: Read) -> Read:
        if read.dtype.kind == "c":
            self.fail(
                f"{read.tensor} is complex, and encrypted values are real",
                read.span,
                "give the real and the imaginary part as two tensors",
            )
        if isinstance(read.pad, str):
            self.fail(
                f"{read.tensor} is encrypted and read with pad={read.pad}, which is not evaluated under CKKS",
                read.span,
                "pad=0, or pad the values before they are encrypted",
            )
        return read

    def _clear(self, expr: Expr) -> Monomial:
        """A clear expression with the numbers taken out of its products."""
        if expr.dtype.kind == "c":
            self.fail(
                "a complex factor of an encrypted value makes a complex result, and encrypted values are real",
                expr.span,
                "multiply by its real and its imaginary part apart",
            )
        match expr:
            case Const(value=value) if not isinstance(value, complex):
                return Monomial(float(value))
            case SizeValue(size=size) if size.constant is not None:
                return Monomial(float(size.constant))
            case Map(function="mul", args=(a, b)):
                return self._clear(a) * self._clear(b)
            case Map(function="neg", args=(a,)):
                return Monomial(-1.0) * self._clear(a)
            case Map(function="cast", args=(a,)) if expr.dtype.kind == "f" and a.dtype.kind in "biuf":
                return self._clear(a)
        return Monomial(clear=(expr,))

    # --- sums and products

    def _map(self, expr: Map) -> list[Monomial]:
        name, args = expr.function, expr.args
        if expr.approx is not None:
            return [Monomial(reads=(self._approximated(expr, expr.approx),))]
        if name == "add":
            return self.expand(args[0]) + self.expand(args[1])
        if name == "sub":
            return self.expand(args[0]) + _times(-1.0, self.expand(args[1]))
        if name == "neg":
            return _times(-1.0, self.expand(args[0]))
        if name == "mul":
            return self._product(args)
        if name == "div" and not self.touches(args[1]):
            return self._product((args[0], inverse(args[1])))
        if name == "pow" and isinstance(args[1], Const):
            return self._power(args[0], args[1], expr)
        if name == CAST:
            return self._cast(expr)
        if name in ("conj", "real"):
            return self.expand(args[0])
        self.fail(f"{name} of an encrypted value cannot be evaluated under CKKS", expr.span)

    def _cast(self, expr: Map) -> list[Monomial]:
        (argument,) = expr.args
        if expr.dtype.kind == "c":
            self.fail("encrypted values are real, and this one becomes complex", expr.span, "keep to real types")
        if expr.dtype.kind in "biu" and argument.dtype.kind == "f":
            self.fail(f"rounding an encrypted value to {expr.dtype} cannot be evaluated under CKKS", expr.span)
        return self.expand(argument)

    def _power(self, base: Expr, exponent: Const, expr: Expr) -> list[Monomial]:
        value = exponent.value
        if isinstance(value, complex) or value != int(value) or value < 1:
            self.fail("an encrypted value has whole positive powers only", expr.span, "x^2, x^3, ..., or approx")
        found = self.expand(base)
        if len(found) == 1 and not found[0].bound and not found[0].clear:
            power = found[0]
            for _ in range(int(value) - 1):
                power = power * found[0]
            return [power]
        read = self.definer.define(base)
        return [Monomial(reads=(read,) * int(value))]

    def _einsum(self, expr: Einsum) -> list[Monomial]:
        if (expr.semiring.add, expr.semiring.mul) != ("add", "mul") and not self._trivial(expr):
            self.fail(f"a sum over {expr.semiring.name} of encrypted values cannot be evaluated under CKKS", expr.span)
        return [m * Monomial(bound=expr.bound) for m in self._product(expr.factors)]

    def _trivial(self, expr: Einsum) -> bool:
        """Whether an Einsum is one factor that nothing is done with."""
        return len(expr.factors) == 1 and not expr.bound

    def _product(self, factors: Sequence[Expr]) -> list[Monomial]:
        parts = [self.expand(f) for f in factors]
        encrypted = [k for k, part in enumerate(parts) if any(m.reads for m in part)]
        if len(encrypted) > 1:
            for k in encrypted:
                if len(parts[k]) > 1 or parts[k][0].bound:
                    parts[k] = [Monomial(reads=(self.definer.define(factors[k]),))]
        out = []
        for chosen in product(*parts):
            total = Monomial()
            for m in chosen:
                total = total * m
            out.append(total)
        return out

    def _approximated(self, expr: Map, approx: Approx) -> Read:
        (argument,) = expr.args
        found = self.expand(argument)
        read = found[0].plain if len(found) == 1 else None
        if read is None or not bare(read.slots) or read.pad is not None:
            read = self.definer.define(argument)
        return self.definer.polynomial(expr.function, read, approx, expr.span)


def bare(slots: Sequence[Affine]) -> bool:
    """Whether every slot is one index, each a different one."""
    names = [s.bare for s in slots]
    return None not in names and len(set(names)) == len(names)


def inverse(expr: Expr) -> Expr:
    """1 / expr in f64, for a clear expression."""
    if isinstance(expr, Const) and not isinstance(expr.value, complex) and expr.value:
        return Const(1.0 / expr.value, F64, expr.span)
    return Map("div", (Const(1.0, F64), expr), F64, span=expr.span)


def _times(factor: float, monomials: list[Monomial]) -> list[Monomial]:
    return [replace(m, factor=factor * m.factor) for m in monomials]
