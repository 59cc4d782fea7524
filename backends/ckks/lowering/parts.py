"""The monomials of one value, sorted into steps: maps, products, polynomials, equal values, and a bias."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ....ir import expr as e
from ....ir.errors import Span
from ....ir.index import Affine
from ....ir.types import F64
from .indices import free_of, indices_of, shape_of
from .problem import Linear, Polynomial, Product, Slot, Step, Sum, Term
from .terms import Monomial, bare

if TYPE_CHECKING:
    from .placing import Placing


class Parts:
    """The sorted monomials of one value."""

    def __init__(
        self, placing: Placing, name: str, slots: tuple[Affine, ...], shape: tuple[int, ...], span: Span
    ) -> None:
        self.placing, self.whole = placing, placing.whole
        self.name, self.slots, self.shape, self.span = name, slots, shape, span
        self.linear: dict[str, list[Term]] = {}
        self.equal: dict[str, float] = {}  # operands that stand in the result as they are, with their factors
        self.products: list[Monomial] = []
        self.powers: dict[str, dict[int, float]] = {}
        self.bias: list[Monomial] = []
        self.start: str | None = None  # a clear tensor that the result begins with

    # --- sorting

    def add_value(self, name: str) -> None:
        """Adds the whole value of a tensor of the result's shape."""
        if name in self.whole.encrypted:
            self._equal(name, 1.0)
        else:
            self.start = name

    def add(self, monomial: Monomial) -> None:
        """Adds one monomial."""
        if not monomial.reads:
            self.bias.append(monomial)
        elif len(monomial.reads) == 1:
            read = monomial.reads[0]
            if self._is_power(monomial):
                self._equal(read.tensor, monomial.factor)
            else:
                self.linear.setdefault(read.tensor, []).extend(self.placing.linear_terms(monomial, self.slots))
        elif self._is_power(monomial):
            self.powers.setdefault(monomial.reads[0].tensor, defaultdict(float))[len(monomial.reads)] += monomial.factor
        else:
            self.products.append(monomial)

    def _equal(self, name: str, factor: float) -> None:
        self.equal[name] = self.equal.get(name, 0.0) + factor

    def _is_power(self, monomial: Monomial) -> bool:
        """Whether a monomial is a number times a power of one tensor, position by position."""
        read = monomial.reads[0]
        return (
            all(r.tensor == read.tensor and r.slots == self.slots for r in monomial.reads)
            and read.pad in (None, 0)
            and not monomial.clear
            and not monomial.bound
            and self.whole.shapes[read.tensor] == self.shape
            and self._covers()
        )

    def _covers(self) -> bool:
        """Whether the slots are bare indices that run over the whole shape."""
        extents = self.placing.extents
        return bare(self.slots) and all(extents[s.indices[0]] == n for s, n in zip(self.slots, self.shape, strict=True))

    # --- steps

    def finish(self) -> None:
        """Appends the steps: one if there is one part only, else the parts and their sum."""
        self._cancel()
        for operand in [o for o in self.equal if o in self.linear]:
            self.linear[operand].append(_identity(self.shape, self.equal.pop(operand)))
        parts: list[Step] = []
        for tensor, powers in self.powers.items():
            ((power, factor),) = [*powers.items()][:1]
            if len(powers) == 1 and power & (power - 1) == 0 and tensor not in self.equal:  # squares of squares
                self.products.append(Monomial(float(factor), (), (self._whole_read(tensor),) * power))
            else:
                parts.append(self._polynomial(tensor, powers, alone=len(self.powers) == 1))
        for operand, terms in self.linear.items():
            parts.append(Linear("", operand, tuple(terms), span=self.span))
        for monomial in self.products:
            parts.append(self._product(monomial))
        bias = self._bias()
        if len(parts) == 1 and not self.equal and (bias is None or isinstance(parts[0], Linear)):
            only = replace(parts[0], name=self.name)
            self.whole.steps.append(replace(only, bias=bias) if isinstance(only, Linear) else only)
            return
        operands = list(self.equal.items())
        for part in parts:
            name = self.whole.value(self.name, self.shape)
            self.whole.steps.append(replace(part, name=name))
            operands.append((name, 1))
        total = tuple((n, float(f)) for n, f in operands)
        self.whole.steps.append(Sum(self.name, total, bias, self.span))

    def _cancel(self) -> None:
        """Leaves out what has the factor zero, and what cancels. A value of which nothing else is left still has to be
        an encryption: zero times something encrypted, which products with plain vectors know how to do.
        """
        products: dict[Monomial, Monomial] = {}
        for m in self.products:
            alike = replace(m, factor=1.0, reads=tuple(sorted(m.reads, key=repr)))
            first = products.get(alike)
            products[alike] = m if first is None else replace(first, factor=first.factor + m.factor)
        linear = {operand: _added(terms) for operand, terms in self.linear.items()}
        reads = [self._whole_read(t) for t in (*self.equal, *self.powers)]
        reads += [m.reads[0] for m in self.products]
        self.products = [m for m in products.values() if m.factor]
        self.equal = {operand: factor for operand, factor in self.equal.items() if factor}
        powers = {t: {k: f for k, f in row.items() if f} for t, row in self.powers.items()}
        self.powers = {t: row for t, row in powers.items() if row}
        kept = {operand: [t for t in terms if t.factor] for operand, terms in linear.items()}
        kept = {operand: terms for operand, terms in kept.items() if terms}
        if not (self.products or self.equal or self.powers or kept):
            kept = {operand: terms[:1] for operand, terms in [*linear.items()][:1]}
            kept = kept or {reads[0].tensor: [self._zero(reads[0])]}
        self.linear = kept

    def _zero(self, read: e.Read) -> Term:
        """Zero times an encrypted read, in every element of the value."""
        free = indices_of(self.slots)
        slots = tuple(s if set(s.indices) <= free and not s.modulus else Affine.constant(0) for s in read.slots)
        return self.placing.linear_term(Monomial(0.0, (), (replace(read, slots=slots),)), self.slots)

    def _whole_read(self, tensor: str) -> e.Read:
        return e.Read(tensor, self.slots, F64)

    def _polynomial(self, tensor: str, powers: dict[int, float], alone: bool) -> Polynomial:
        """The powers of one tensor; with its multiple, and a number, where these are all that there is beside it."""
        coefficients = [0.0] * (max(powers) + 1)
        for power, factor in powers.items():
            coefficients[power] = float(factor)
        if tensor in self.equal:
            coefficients[1] = float(self.equal.pop(tensor))
        if alone and not self.linear and not self.products and not self.equal:
            numbers = [m for m in self.bias if not m.clear and not m.bound]
            coefficients[0] = sum(m.factor for m in numbers)
            self.bias = [m for m in self.bias if m not in numbers]
        return Polynomial("", tensor, tuple(coefficients), span=self.span)

    def _bias(self) -> str | None:
        """The name of the clear tensor that is added, None where there is none."""
        if not self.bias:
            return self.start
        placing = self.placing
        total: e.Expr | None = None
        for m in self.bias:
            factor = m.factor * prod(placing.extents[b] for b in m.bound if b not in free_of(m.clear))
            bound = tuple(b for b in m.bound if b in free_of(m.clear))
            value: e.Expr = e.Einsum(bound, (e.Const(factor, F64), *m.clear), F64, F64)
            total = value if total is None else e.Map("add", (total, value), F64)
        assert total is not None
        name = self.whole.fresh(f"{self.name}.bias")
        placing.clear_equation(name, self.slots, self.shape, total, self.start)
        return name

    def _product(self, monomial: Monomial) -> Product | Linear:
        """A product of several reads; as a map of one where it has to be put in its place first."""
        placing, extents = self.placing, self.placing.extents
        monomial = self._reduced(monomial)
        reads = tuple(self._bare(r) for r in monomial.reads)
        inside = {n for r in reads for n in indices_of(r.slots)}
        free = indices_of(self.slots)
        clear, kept = free_of(monomial.clear), inside | free
        factor, name, at = placing.coefficients(monomial, kept)
        if any(s.bare is None for s in at) or (name is not None and not self._whole(name, at)):
            value = e.Einsum((), monomial.clear, F64, F64)
            axes = [n for n in placing.ordered(clear) if n in kept]
            name, at = placing.clear_tensor("coefficients", axes, value), tuple(Slot(((a, 1),)) for a in axes)
        output = [n for n in placing.ordered(inside | (clear & kept)) if n in free]
        direct = self._covers() and set(output) == free
        if direct:
            output = [str(s.bare) for s in self.slots]
        used = inside | {str(s.bare) for s in at}
        made = Product(
            "",
            tuple(r.tensor for r in reads),
            tuple(tuple(str(s.bare) for s in r.slots) for r in reads),
            tuple(output),
            {n: extents[n] for n in placing.ordered(used)},
            name,
            tuple(str(s.bare) for s in at),
            factor,
            self.span,
        )
        if direct:
            return made
        inner = self.whole.value(self.name, tuple(extents[n] for n in output))
        self.whole.steps.append(replace(made, name=inner))
        places = tuple(Affine.of(n) for n in output)
        moved = placing.linear_term(Monomial(reads=(e.Read(inner, places, F64),)), self.slots)
        return Linear("", inner, (moved,), span=self.span)

    def _reduced(self, monomial: Monomial) -> Monomial:
        """The monomial whose reads are summed over what no other read and not the result has, before the product."""
        free = indices_of(self.slots)
        reads, clear, bound = list(monomial.reads), list(monomial.clear), list(monomial.bound)
        for k, read in enumerate(reads):
            others = {n for j, r in enumerate(reads) if j != k for n in indices_of(r.slots)}
            own = [b for b in bound if b in indices_of(read.slots) and b not in others and b not in free]
            mine = [f for f in clear if any(b in free_of((f,)) for b in own)]
            if not own:
                continue
            axes = self.placing.ordered((indices_of(read.slots) | free_of(mine)).difference(own))
            inner = Monomial(1.0, tuple(mine), (read,), tuple(own))
            name = self.whole.value(self.name, tuple(self.placing.extents[a] for a in axes))
            places = tuple(Affine.of(a) for a in axes)
            self.placing.place(name, places, self.whole.shapes[name], [inner], None, self.span)
            reads[k] = e.Read(name, places, read.dtype)
            bound = [b for b in bound if b not in own]
            clear = [f for f in clear if f not in mine]
        return Monomial(monomial.factor, tuple(clear), tuple(reads), tuple(bound))

    def _bare(self, read: e.Read) -> e.Read:
        """The read, at bare indices that run over whole axes: of the tensor itself, or of a value gathered from it."""
        extents, shape = self.placing.extents, self.whole.shapes[read.tensor]
        whole = [s.bare is not None and extents[s.bare] == n for s, n in zip(read.slots, shape, strict=True)]
        if all(whole) and read.pad in (None, 0):
            return read
        axes = self.placing.ordered(indices_of(read.slots))
        places = tuple(Affine.of(a) for a in axes)
        name = self.whole.value(self.name, tuple(extents[a] for a in axes))
        self.placing.place(name, places, self.whole.shapes[name], [Monomial(reads=(read,))], None, self.span)
        return e.Read(name, places, read.dtype)

    def _whole(self, clear: str, at: tuple[Slot, ...]) -> bool:
        """Whether bare slots run over the whole of a clear tensor, each once."""
        shape = shape_of(self.whole.clear_tensor(clear).shape)
        names = [str(s.bare) for s in at]
        return len(set(names)) == len(names) and all(
            self.placing.extents[n] == k for n, k in zip(names, shape, strict=True)
        )


def _added(terms: list[Term]) -> list[Term]:
    """The terms, each once, with the sum of its factors."""
    found: dict[Term, float] = {}
    for term in terms:
        alike = replace(term, factor=1.0)
        found[alike] = found.get(alike, 0.0) + term.factor
    return [replace(term, factor=factor) for term, factor in found.items()]


def _identity(shape: tuple[int, ...], factor: float) -> Term:
    axes = tuple((f"u{k}", n) for k, n in enumerate(shape))
    slots = tuple(Slot(((a, 1),)) for a, _ in axes)
    return Term(axes, slots, slots, factor=float(factor))
