"""Writes the equations of a solver: products, elementwise functions, reshapes and leaves over named tensors.

Solvers (`solve_forms`) work at known sizes and speak of `Value`s. An `Emitter` turns what they ask for into equations
with fresh names below the statement's own, each with the statement's span, so that errors and `explain` point there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from ..ir.errors import NOWHERE, Span
from ..ir.expr import Const, Einsum, Equation, Expr, Linalg, Map, Program, Read, Structure
from ..ir.functions import CAST, FUNCTIONS
from ..ir.index import Affine, Index
from ..ir.linalg import FUNCTIONS as LINALG
from ..ir.linalg import PART
from ..ir.semiring import PLUS_TIMES
from ..ir.size import Size
from ..ir.structures.build import close
from ..ir.structures.operator import Let, Operand, Operator, Term
from ..ir.structures.slot import Slot, composite
from ..ir.types import DType, real_type
from .reshaped import reshaped
from .tools import Names


class Unreadable(Exception):
    """A part of the matrix is no operand (the value of a function inside of it): the solver has nothing to work on."""


@dataclass(frozen=True)
class Value:
    """A tensor while a solver is written."""

    name: str
    shape: tuple[int, ...]
    dtype: DType


@dataclass
class Emitter:
    """Collects the equations of one statement. `base` begins their names, `dtype` is the matrix's type."""

    program: Program
    names: Names
    base: str
    dtype: DType
    span: Span = NOWHERE
    equations: list[Equation] = field(default_factory=list)
    part: bool = False  # what is written belongs to a part of the matrix, which may be singular where that is not
    lets: dict[str, Let] = field(default_factory=dict)
    made: dict[str, Value] = field(default_factory=dict)

    # ---------------------------------------------------------------- tensors

    def value(self, name: str) -> Value:
        """A tensor of the program, in the matrix's type; the value of a let, which is written when first asked for."""
        if name not in self.made:
            self.made[name] = self._made(name)
        return self.made[name]

    def _made(self, name: str) -> Value:
        if name in self.lets:
            let = self.lets[name]
            return self.terms(name, let.slots, let.shape, let.terms, let.extents)
        if name not in self.program.tensors:
            raise Unreadable(name)
        tensor = self.program.tensors[name]
        shape = tuple(s.evaluate({}) for s in tensor.shape)
        found = Value(name, shape, tensor.dtype)
        return found if tensor.dtype == self.dtype else self.map("cast", CAST, found, dtype=self.dtype)

    def add(
        self,
        base: str,
        shape: Sequence[int],
        slots: Sequence[Affine],
        extents: Mapping[str, int],
        expr: Expr,
    ) -> Value:
        """One equation, and the value that it defines."""
        name = self.names.fresh(f"{self.base}.{base}")
        indices = tuple(Index(i, Size.of(n)) for i, n in extents.items())
        sizes = tuple(map(Size.of, shape))
        self.equations.append(Equation(name, tuple(slots), sizes, indices, expr, expr.dtype, span=self.span))
        return self._kept(Value(name, tuple(shape), expr.dtype))

    def _kept(self, value: Value) -> Value:
        """The value, which operators may now name."""
        self.made[value.name] = value
        return value

    def read(self, value: Value, indices: Sequence[str]) -> Read:
        """The element of a value at bare indices."""
        return Read(value.name, tuple(map(Affine.of, indices)), value.dtype, None, self.span)

    # ---------------------------------------------------------------- equations

    def einsum(self, base: str, out: Sequence[str], *operands: tuple[Value, Sequence[str]]) -> Value:
        """The product of operands at the given indices, summed over those that are not in `out`."""
        extents = {i: n for v, names in operands for i, n in zip(names, v.shape, strict=True)}
        order = {i: extents[i] for i in (*out, *(i for i in extents if i not in out))}
        dtype = next((v.dtype for v, _ in operands if v.dtype.kind == "c"), operands[0][0].dtype)
        bound = tuple(i for i in order if i not in out)
        factors = tuple(self.read(v, names) for v, names in operands)
        expr = Einsum(bound, factors, dtype, dtype, PLUS_TIMES, self.span)
        return self.add(base, [extents[i] for i in out], tuple(map(Affine.of, out)), order, expr)

    def map(self, base: str, function: str, *values: Value | Const, dtype: DType | None = None) -> Value:
        """An elementwise function of values whose axes begin alike; a shorter one is repeated along the others."""
        lead = max((v for v in values if isinstance(v, Value)), key=lambda v: len(v.shape))
        names = [f"i{k}" for k in range(len(lead.shape))]
        args: tuple[Expr, ...] = tuple(
            v if isinstance(v, Const) else self.read(v, names[: len(v.shape)]) for v in values
        )
        kind = dtype or FUNCTIONS[function].result(tuple(a.dtype for a in args))
        slots = tuple(map(Affine.of, names))
        return self.add(base, lead.shape, slots, dict(zip(names, lead.shape, strict=True)), Map(function, args, kind))

    def linalg(self, function: str, *args: Value | Const, assume: Sequence[str | Structure] = ()) -> Value:
        """A leaf."""
        extents: dict[str, int] = {}
        reads: list[Expr] = []
        for arg in args:
            if isinstance(arg, Const):
                reads.append(arg)
                continue
            names = [f"i{len(extents) + k}" for k in range(len(arg.shape))]
            extents.update(zip(names, arg.shape, strict=True))
            reads.append(self.read(arg, names))
        entry, first = LINALG[function], args[0]
        assert isinstance(first, Value)
        shape = entry.shape([() if isinstance(a, Const) else a.shape for a in args])
        bound = tuple(extents)
        result = tuple(f"i{len(extents) + k}" for k in range(len(shape)))
        known = tuple(s if isinstance(s, Structure) else Structure(s) for s in assume)
        if self.part:
            known += (Structure(PART),)
        expr = Linalg(function, result, bound, tuple(reads), entry.result(first.dtype), known, self.span)
        return self.add(
            function, shape, tuple(map(Affine.of, result)), extents | dict(zip(result, shape, strict=True)), expr
        )

    def number(self, value: complex, dtype: DType | None = None) -> Const:
        """A constant."""
        kind = dtype or self.dtype
        return Const(complex(value) if kind.kind == "c" else float(value.real), kind, self.span)

    def zero(self) -> Value:
        """The real number 0."""
        return self.add("zero", (), (), {}, Const(0.0, real_type(self.dtype)))

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """The value in another shape, row-major."""
        if tuple(shape) == value.shape:
            return value
        name = self.names.fresh(f"{self.base}.view")
        new = reshaped(value.name, value.shape, name, tuple(shape), value.dtype, self.names)
        self.equations += [replace(e, span=self.span) for e in new]
        return self._kept(Value(name, tuple(shape), value.dtype))

    def moved(self, value: Value, order: Sequence[int]) -> Value:
        """The value with its axes in another order."""
        if list(order) == list(range(len(order))):
            return value
        names = [f"i{k}" for k in range(len(order))]
        new = [names[k] for k in order]
        extents = {n: value.shape[k] for n, k in zip(new, order, strict=True)}
        slots = tuple(map(Affine.of, new))
        return self.add("turned", [value.shape[k] for k in order], slots, extents, self.read(value, names))

    def total(self, base: str, value: Value) -> Value:
        """The sum of all entries."""
        return self.einsum(base, (), (value, [f"i{k}" for k in range(len(value.shape))]))

    # ---------------------------------------------------------------- operators

    def terms(
        self, base: str, slots: Sequence[Slot], shape: Sequence[int], terms: Sequence[Term], extents: Mapping[str, int]
    ) -> Value:
        """A tensor given by terms over operands of the matrix: an entry of it, a diagonal, a factor, a scalar."""
        renamed, operands = {}, {}
        for name in dict.fromkeys(n for t in terms for n, _ in t.atoms):
            value = self.value(name)
            renamed[name] = value.name
            operands[value.name] = Operand(value.shape)
        new = [t._replace(atoms=tuple(a._replace(name=renamed[a.name]) for a in t.atoms)) for t in terms]
        used = set[str]().union(*(t.indices for t in new), *(s.indices for s in slots))
        name = self.names.fresh(f"{self.base}.{base}")
        let = Let(name, tuple(shape), tuple(slots), tuple(new), {i: n for i, n in extents.items() if i in used})
        program = close(operands, [let], name, self.dtype, PLUS_TIMES)
        self.equations += [replace(e, span=self.span) for e in program.equations]
        return self._kept(Value(name, tuple(shape), self.dtype))

    def matrix(self, operator: Operator, base: str = "matrix") -> Value:
        """The dense matrix of an operator, with one axis of rows and one of columns."""
        slots = composite(operator.rows, operator.extents), composite(operator.cols, operator.extents)
        return self.terms(base, slots, [prod(s) for s in operator.shape], operator.terms, operator.extents)
