"""Planned equations become contractions: the step between the IR and the code generator.

An `EquationTemplate` is made once per planned equation: leaves with operand numbers, and for each operand the affine
form of its slots. `contractions` then fills in sizes and strides, which is all that a call with new sizes pays for.
Affine slots are nothing but strides here: `t[i-j+n-1]` has the stride s along i, -s along j, and begins n-1 elements
in.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...ir.expr import Const, Einsum, Equation, Expr, Map, Position, Read, SizeValue, free_indices, walk
from ...ir.index import Affine
from ...ir.loops import Apply, Axis, Contraction, Leaf, Literal, Load, Total
from ...ir.semiring import PLUS_TIMES
from ...ir.size import ONE, Size
from ...ir.types import I64, accumulation_type
from .copies import copy_segments
from .native_record import Layout


@dataclass(frozen=True)
class Counting:
    """A table of the integers low..high (inclusive), modulo `modulus` if that is not 0: the values of an index
    expression.
    """

    low: int
    high: int
    modulus: int = 0


Tensor: TypeAlias = "str | Counting"


@dataclass(frozen=True)
class Operand:
    """A tensor, from a byte offset on. A size used as a number is a one-element `Counting`."""

    tensor: Tensor
    offset: int = 0


@dataclass(frozen=True)
class Step:
    """One contraction and the tensors that it works on, the output first."""

    problem: Contraction
    operands: tuple[Operand, ...]


# What one index adds to an address: nothing, the stride of one dimension, or (dimension, coefficient) pairs.
_Form: TypeAlias = "int | tuple[tuple[int, Size], ...] | None"


@dataclass(frozen=True)
class _Access:
    """A read in linear form: its tensor, what each axis adds, and the constant slot of each dimension."""

    tensor: str
    axes: tuple[_Form, ...]
    offset: tuple[tuple[int, Size], ...]


class EquationTemplate:
    """What of an equation does not depend on sizes and strides. The equation must be in planned form."""

    def __init__(self, equation: Equation) -> None:
        self.equation = equation
        self.copies = isinstance(equation.expr, Read) and (
            equation.expr.pad is not None or any(s.modulus is not None for s in equation.expr.slots)
        )
        einsums = [e for e in walk(equation.expr) if isinstance(e, Einsum)]
        assert len(einsums) <= 1, f"{equation.name}: {len(einsums)} einsums in one planned equation"
        self.einsum = einsums[0] if einsums else None
        self._reads: dict[tuple[str, tuple[Affine, ...]], int] = {}
        self._values: dict[Affine | Size, int] = {}
        self._order: list[Read | Affine | Size] = []
        self.bound = self.einsum.bound if self.einsum else ()
        self._build()

    def _build(self) -> None:
        equation, einsum = self.equation, self.einsum
        if self.copies:
            return
        if einsum is None:
            self.semiring, self.accumulate = PLUS_TIMES, equation.expr.dtype
            self.factors: tuple[Leaf, ...] = (self._leaf(equation.expr),)
            self.epilogue: Leaf = Total()
        else:
            self.semiring, self.accumulate = einsum.semiring, einsum.accumulate
            self.factors = tuple(self._factor(f) for f in einsum.factors) or (
                Literal(self.semiring.one_of(self.accumulate), self.accumulate),
            )
            self.epilogue = self._leaf(equation.expr)
        used = set(free_indices(equation.expr)) | set(self.bound) | set(equation.free)
        self.axes = tuple(i for i in equation.indices if i.name in used)
        self.summed = tuple(i.name in self.bound for i in self.axes)
        extents = equation.extents
        bare = [slot.bare for slot in equation.slots]
        # Most equations write each position once, whatever the sizes are: bare indices over whole axes.
        self.whole = len(set(bare)) == len(bare) and all(
            n is not None and extents[n] == size for n, size in zip(bare, equation.shape, strict=True)
        )
        self.out_forms = tuple(_form(equation.slots, i.name) for i in self.axes)
        self.out_offset = _offsets(equation.slots)
        self.accesses = tuple(
            _Access(o.tensor, tuple(_form(o.slots, i.name) for i in self.axes), _offsets(o.slots))
            if isinstance(o, Read)
            else o
            for o in self._order
        )

    def _operand(self, what: Read | Affine | Size) -> int:
        if isinstance(what, Read):
            key = (what.tensor, what.slots)
            if key not in self._reads:
                self._reads[key] = len(self._order)
                self._order.append(what)
            return self._reads[key]
        if what not in self._values:
            self._values[what] = len(self._order)
            self._order.append(what)
        return self._values[what]

    def _leaf(self, expr: Expr) -> Leaf:
        match expr:
            case Const(value, dtype):
                return Literal(value, dtype)
            case SizeValue(size):
                constant = size.constant
                return Literal(constant, I64) if constant is not None else Load(self._operand(size))
            case Position(affine):
                return Load(self._operand(affine))
            case Read():
                return Load(self._operand(expr))
            case Map(function, args, dtype):
                return Apply(function, tuple(self._leaf(a) for a in args), dtype)
            case Einsum(dtype=dtype, accumulate=accumulate):
                total: Leaf = Total()
                outermost = expr is self.equation.expr
                return total if dtype == accumulate or outermost else Apply("cast", (total,), dtype)
        raise AssertionError(f"{type(expr).__name__} in a planned equation")

    def _factor(self, expr: Expr) -> Leaf:
        leaf = self._leaf(expr)
        if expr.dtype.kind == "b" and self.accumulate.kind != "b" and self.semiring.mul != "mul":
            one, zero = (
                Literal(v(self.accumulate), self.accumulate) for v in (self.semiring.one_of, self.semiring.zero_of)
            )
            return Apply("where", (leaf, one, zero), self.accumulate)
        return leaf

    def contractions(self, sizes: Mapping[str, int], layouts: MutableMapping[str, Layout]) -> list[Step]:
        """The steps that compute the equation, in order, for these sizes and the layouts of all tensors that it
        names.
        """
        equation = self.equation
        out = layouts[equation.name]
        if self.copies:
            return self._copy_steps(sizes, layouts)
        extents = [i.extent.evaluate(sizes) for i in self.axes]
        rows = [_row(self.out_forms, sizes, out.strides)]
        operands = [Operand(equation.name, _address(self.out_offset, sizes, out.strides))]
        dtypes = [out.dtype]
        for access in self.accesses:
            if isinstance(access, _Access):
                layout = layouts[access.tensor]
                rows.append(_row(access.axes, sizes, layout.strides))
                operands.append(Operand(access.tensor, _address(access.offset, sizes, layout.strides)))
                dtypes.append(layout.dtype)
            else:
                row, operand = self._counting(access, sizes, extents)
                rows.append(row)
                operands.append(operand)
                dtypes.append(I64)
        epilogue, update, collides, before = self.epilogue, False, False, []
        covered = self.whole or self._covers(sizes, extents, out.shape)
        if equation.update is not None and covered:
            rows.append(_row(self.out_forms, sizes, layouts[equation.update].strides))
            operands.append(
                Operand(equation.update, _address(self.out_offset, sizes, layouts[equation.update].strides))
            )
            dtypes.append(layouts[equation.update].dtype)
            epilogue = Apply(equation.semiring.add, (Load(len(rows) - 2), epilogue), accumulation_type(out.dtype))
        elif not covered:
            collides = not _injective(
                extents,
                _row(self.out_forms, sizes, Layout.dense(out.dtype, out.shape).strides),
                self.bound,
                [i.name for i in self.axes],
                out.dtype.itemsize,
            )
            update = collides or equation.update is not None
            before = [self._start(layouts)]
        columns = list(zip(*rows, strict=True))
        axes = tuple([Axis(n, column, r) for n, column, r in zip(extents, columns, self.summed, strict=True)])
        if not covered and 0 in [n for n, i in zip(extents, self.axes, strict=True) if i.name not in self.bound]:
            return before
        semiring = self.semiring if not update or self.einsum is not None else equation.semiring
        problem = Contraction(axes, tuple(dtypes), self.factors, self.accumulate, semiring, epilogue, update, collides)
        return [*before, Step(problem, tuple(operands))]

    def _counting(
        self, what: Affine | Size, sizes: Mapping[str, int], extents: Sequence[int]
    ) -> tuple[tuple[int, ...], Operand]:
        if isinstance(what, Size):
            value = what.evaluate(sizes)
            return (0,) * len(extents), Operand(Counting(value, value))
        coefficients = [what.coefficient(i.name).evaluate(sizes) for i in self.axes]
        start = what.offset.evaluate(sizes)
        reach = [c * max(n - 1, 0) for c, n in zip(coefficients, extents, strict=True)]
        low, high = start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0)
        modulus = what.modulus.evaluate(sizes) if what.modulus is not None else 0
        return tuple(8 * c for c in coefficients), Operand(Counting(low, high, modulus), 8 * (start - low))

    def _covers(self, sizes: Mapping[str, int], extents: Sequence[int], shape: tuple[int, ...]) -> bool:
        """Whether every output position is reached exactly once."""
        by_name = dict(zip((i.name for i in self.axes), extents, strict=True))
        seen: set[str] = set()
        for slot, extent in zip(self.equation.slots, shape, strict=True):
            if slot.bare is not None:
                if slot.bare in seen or by_name[slot.bare] != extent:
                    return False
                seen.add(slot.bare)
                continue
            if slot.modulus is not None or slot.offset.evaluate(sizes):
                return False
            span = 1
            for step, name in sorted((c.evaluate(sizes), n) for n, c in slot.terms):
                if name in seen or (step != span and by_name[name] > 1):
                    return False
                seen.add(name)
                span *= by_name[name]
            if span != extent:
                return False
        return True

    def _start(self, layouts: Mapping[str, Layout]) -> Step:
        """The step that gives the whole output its first value: the semiring's zero, or what it is added to."""
        equation, out = self.equation, layouts[self.equation.name]
        if equation.update is None:
            zero = equation.semiring.zero_of(out.dtype)
            return fill_step(equation.name, out, Literal(zero, out.dtype))
        source = layouts[equation.update]
        axes = tuple(Axis(n, s) for n, s in zip(out.shape, zip(out.strides, source.strides, strict=True), strict=True))
        problem = Contraction(axes, (out.dtype, source.dtype), (Load(0),), out.dtype)
        return Step(problem, (Operand(equation.name), Operand(equation.update)))

    def _copy_steps(self, sizes: Mapping[str, int], layouts: MutableMapping[str, Layout]) -> list[Step]:
        equation, read = self.equation, self.equation.expr
        assert isinstance(read, Read)
        assert all(s.bare is not None for s in equation.slots), "a copy equation writes bare indices"
        extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
        indices = [n for s in read.slots for n, _ in s.terms]
        if len(set(indices)) == len(indices) and all(len(s.terms) <= 1 for s in read.slots):
            names = tuple(s.bare for s in equation.slots)
            return _boxes(equation.name, names, read, extents, sizes, layouts)
        return self._windowed_steps(read, extents, sizes, layouts)

    def _windowed_steps(
        self, read: Read, extents: Mapping[str, int], sizes: Mapping[str, int], layouts: MutableMapping[str, Layout]
    ) -> list[Step]:
        """A copy whose slots share indices or hold several: first all that the slots can reach, then an affine read."""
        equation, source = self.equation, layouts[read.tensor]
        lows, shape = [], []
        for slot in read.slots:
            reach = [c.evaluate(sizes) * max(extents[n] - 1, 0) for n, c in slot.terms]
            start = slot.offset.evaluate(sizes)
            lows.append(start + sum(r for r in reach if r < 0))
            shape.append(1 + sum(map(abs, reach)))
        window = f"{equation.name}.window"
        layouts[window] = Layout.dense(source.dtype, tuple(shape))
        names = tuple(f"w{d}" for d in range(len(shape)))
        slots = tuple(
            replace(Affine.of(n) + low, modulus=slot.modulus)
            for n, low, slot in zip(names, lows, read.slots, strict=True)
        )
        steps = _boxes(window, names, replace(read, slots=slots), dict(zip(names, shape, strict=True)), sizes, layouts)
        strides, out = layouts[window].strides, layouts[equation.name]
        axes = tuple(
            Axis(
                extents[n],
                (
                    out.strides[d],
                    sum(s.coefficient(n).evaluate(sizes) * w for s, w in zip(read.slots, strides, strict=True)),
                ),
            )
            for d, n in enumerate(equation.free)
        )
        offset = sum((s.offset.evaluate(sizes) - low) * w for s, low, w in zip(read.slots, lows, strides, strict=True))
        problem = Contraction(axes, (out.dtype, source.dtype), (Load(0),), out.dtype)
        return [*steps, Step(problem, (Operand(equation.name), Operand(window, offset)))]


def _boxes(
    name: str,
    names: tuple[str | None, ...],
    read: Read,
    extents: Mapping[str, int],
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
) -> list[Step]:
    """The steps of a copy into `name`, whose axes are `names`, of a read with one index a slot."""
    out, source = layouts[name], layouts[read.tensor]
    steps = []
    if isinstance(read.pad, (int, float)):
        steps.append(fill_step(name, out, Literal(read.pad, out.dtype)))
    dims = {n: d for d, n in enumerate(names)}
    for axes, out_offset, source_offset in copy_segments(read, extents, sizes, out, source, dims):
        problem = Contraction(axes, (out.dtype, source.dtype), (Load(0),), out.dtype)
        steps.append(Step(problem, (Operand(name, out_offset), Operand(read.tensor, source_offset))))
    return steps


def fill_step(name: str, out: Layout, value: Literal) -> Step:
    """The step that sets every element of a tensor to a constant."""
    axes = tuple(Axis(n, (s,)) for n, s in zip(out.shape, out.strides, strict=True))
    return Step(Contraction(axes, (out.dtype,), (value,), out.dtype), (Operand(name),))


def _form(slots: tuple[Affine, ...], index: str) -> _Form:
    pairs = tuple((d, c) for d, slot in enumerate(slots) for n, c in slot.terms if n == index)
    if len(pairs) == 1 and pairs[0][1] == ONE:
        return pairs[0][0]
    return pairs or None


def _offsets(slots: tuple[Affine, ...]) -> tuple[tuple[int, Size], ...]:
    return tuple((d, slot.offset) for d, slot in enumerate(slots) if slot.offset.terms)


def _row(forms: Sequence[_Form], sizes: Mapping[str, int], strides: Sequence[int]) -> tuple[int, ...]:
    row = []
    for form in forms:
        if form is None:
            row.append(0)
        elif isinstance(form, int):
            row.append(strides[form])
        else:
            row.append(_step(form, sizes, strides))
    return tuple(row)


def _step(form: tuple[tuple[int, Size], ...], sizes: Mapping[str, int], strides: Sequence[int]) -> int:
    return sum([c.evaluate(sizes) * strides[d] for d, c in form])


def _address(offset: tuple[tuple[int, Size], ...], sizes: Mapping[str, int], strides: Sequence[int]) -> int:
    return sum([o.evaluate(sizes) * strides[d] for d, o in offset]) if offset else 0


def _injective(
    extents: Sequence[int], strides: Sequence[int], bound: tuple[str, ...], names: Sequence[str], itemsize: int
) -> bool:
    """Whether different index values surely reach different elements: each stride exceeds the span of all smaller
    ones.
    """
    span = 0
    for stride, extent in sorted(
        (abs(s), n) for s, n, name in zip(strides, extents, names, strict=True) if name not in bound
    ):
        if extent > 1:
            if stride < span + itemsize:
                return False
            span += stride * (extent - 1)
    return True
