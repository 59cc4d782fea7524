"""Sizes: integer polynomials in size names, so that one program serves all extents.

An extent, an offset and a composite stride are `Size` values. Arithmetic keeps a normal form, so that equal polynomials
are equal values; what a polynomial cannot say (floor division, least and greatest) stays as an opaque atom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Opaque:
    """An operation on sizes that is no polynomial: `floordiv`, `min` or `max` of `args`."""

    operation: str
    args: tuple[Size, ...]

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The value when the names have `sizes`."""
        values = [a.evaluate(sizes) for a in self.args]
        return values[0] // values[1] if self.operation == "floordiv" else _FOLD[self.operation](values)

    def __str__(self) -> str:
        if self.operation == "floordiv":
            return f"({self.args[0]})//({self.args[1]})"
        return f"{self.operation}({', '.join(map(str, self.args))})"


Atom = str | Opaque
_FOLD = {"min": min, "max": max}


@dataclass(frozen=True)
class Size:
    """A polynomial: `terms` maps monomials (sorted tuples of atoms) to integer coefficients, sorted.

    >>> n = Size.name("n")
    >>> str(2 * n - 1), (2 * n - 1).evaluate({"n": 4})
    ('2*n-1', 7)
    """

    terms: tuple[tuple[tuple[Atom, ...], int], ...]

    @staticmethod
    def of(value: int | Size) -> Size:
        """A constant as a size; a size as itself."""
        if isinstance(value, Size):
            return value
        return Size((((), int(value)),)) if value else ZERO

    @staticmethod
    def name(text: str) -> Size:
        """The size called `text`."""
        return Size((((text,), 1),))

    @cached_property
    def constant(self) -> int | None:
        """The value if no name occurs, else None."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @cached_property
    def single(self) -> str | None:
        """The name if the size is one bare name, else None."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            atom = self.terms[0][0][0]
            return atom if isinstance(atom, str) else None
        return None

    @cached_property
    def names(self) -> frozenset[str]:
        """Every size name that occurs."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    found.update(*(a.names for a in atom.args))
        return frozenset(found)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The value when the names have `sizes`; `KeyError` names a missing one."""
        if self.constant is not None:
            return self.constant
        if self.single is not None:
            return sizes[self.single]
        total = 0
        for monomial, coefficient in self.terms:
            for atom in monomial:
                coefficient *= sizes[atom] if isinstance(atom, str) else atom.evaluate(sizes)
            total += coefficient
        return total

    def substitute(self, sizes: Mapping[str, Size]) -> Size:
        """The size with names replaced."""
        total = ZERO
        for monomial, coefficient in self.terms:
            product = Size.of(coefficient)
            for atom in monomial:
                if isinstance(atom, str):
                    product = product * sizes.get(atom, Size.name(atom))
                else:
                    product = product * _opaque(atom.operation, [a.substitute(sizes) for a in atom.args])
            total = total + product
        return total

    def solve(self, value: int, sizes: Mapping[str, int]) -> tuple[str, int] | None:
        """The one unknown name and its value that make this size `value`; None if there is not exactly one such.

        >>> (2 * Size.name("n") - 1).solve(7, {})
        ('n', 4)
        """
        unknown = [n for n in self.names if n not in sizes]
        if len(unknown) != 1:
            return None
        name, slope, rest = unknown[0], 0, 0
        for monomial, coefficient in self.terms:
            if monomial.count(name) > 1 or any(isinstance(a, Opaque) and name in a.args[0].names for a in monomial):
                return None
            for atom in monomial:
                if atom != name:
                    coefficient *= sizes[atom] if isinstance(atom, str) else atom.evaluate(sizes)
            if name in monomial:
                slope += coefficient
            else:
                rest += coefficient
        if not slope or (value - rest) % slope:
            return None
        return name, (value - rest) // slope

    def at_least(self, bound: int, lowest: int = 1) -> bool:
        """Whether the size is provably >= `bound` for all names >= `lowest` (False: not known)."""
        shifted = self.substitute({n: Size.name(n) + lowest for n in self.names})
        rest = 0
        for monomial, coefficient in shifted.terms:
            if not monomial:
                rest = coefficient
            elif coefficient < 0 or not all(isinstance(a, str) or _nonnegative(a) for a in monomial):
                return False
        return rest >= bound

    def __add__(self, other: int | Size) -> Size:
        return _collect([*self.terms, *Size.of(other).terms])

    def __mul__(self, other: int | Size) -> Size:
        return _collect((tuple(sorted(a + b, key=str)), x * y) for a, x in self.terms for b, y in Size.of(other).terms)

    def __sub__(self, other: int | Size) -> Size:
        return self + Size.of(other) * -1

    def __rsub__(self, other: int | Size) -> Size:
        return Size.of(other) - self

    def __neg__(self) -> Size:
        return self * -1

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: int | Size) -> Size:
        """Floor division; exact where the polynomials divide term by term."""
        return _opaque("floordiv", [self, Size.of(other)])

    @staticmethod
    def least(sizes: Iterable[Size]) -> Size:
        """The smallest of `sizes`."""
        return _opaque("min", list(sizes))

    @staticmethod
    def greatest(sizes: Iterable[Size]) -> Size:
        """The largest of `sizes`."""
        return _opaque("max", list(sizes))

    def __str__(self) -> str:
        out = ""
        for monomial, coefficient in sorted(self.terms, key=lambda t: -len(t[0])):
            factors = [str(a) for a in monomial]
            if not factors or abs(coefficient) != 1:
                factors.insert(0, str(abs(coefficient)))
            out += ("-" if coefficient < 0 else "+" if out else "") + "*".join(factors)
        return out or "0"


ZERO = Size(())
ONE = Size((((), 1),))


def _collect(terms: Iterable[tuple[tuple[Atom, ...], int]]) -> Size:
    total: dict[tuple[Atom, ...], int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    return Size(tuple(sorted(((m, c) for m, c in total.items() if c), key=lambda t: (len(t[0]), str(t[0])))))


def _nonnegative(atom: Opaque) -> bool:
    return all(a.at_least(1 if atom.operation == "floordiv" and i else 0) for i, a in enumerate(atom.args))


def _opaque(operation: str, args: list[Size]) -> Size:
    constants = [a.constant for a in args]
    if all(c is not None for c in constants):
        values = [c for c in constants if c is not None]
        return Size.of(values[0] // values[1] if operation == "floordiv" else _FOLD[operation](values))
    if operation == "floordiv":
        divisor = args[1].constant
        if divisor == 1:
            return args[0]
        if divisor and all(c % divisor == 0 for _, c in args[0].terms):
            return _collect((m, c // divisor) for m, c in args[0].terms)
        exact = _divide_monomial(args[0], args[1])
        if exact is not None:
            return exact
    else:
        args = list(dict.fromkeys(args))
        sign = 1 if operation == "min" else -1
        args = [
            a
            for a in args
            if not any(b is not a and ((a - b) * sign).at_least(0) and not _wins(a, b, args, sign) for b in args)
        ]
        if len(args) == 1:
            return args[0]
        args.sort(key=str)
    return Size((((Opaque(operation, tuple(args)),), 1),))


def _wins(a: Size, b: Size, args: list[Size], sign: int) -> bool:
    """Whether a stays against an equal b (only the later of two equal ones goes)."""
    return ((b - a) * sign).at_least(0) and args.index(a) < args.index(b)


def _divide_monomial(size: Size, divisor: Size) -> Size | None:
    """size / divisor where divisor is one monomial that divides every term."""
    if len(divisor.terms) != 1:
        return None
    atoms, scale = divisor.terms[0]
    out = []
    for monomial, coefficient in size.terms:
        rest = list(monomial)
        for atom in atoms:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coefficient % scale:
            return None
        out.append((tuple(rest), coefficient // scale))
    return _collect(out)
