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
from ...ir.lookup import Lookup, split_lookups
from ...ir.loops import Apply, Axis, Contraction, Leaf, Literal, Load, Total
from ...ir.semiring import PLUS_TIMES
from ...ir.size import ONE, Size
from ...ir.types import I64, accumulation_type
from .copies import copy_segments, inner_range
from .native_record import Layout
from .steps import Counting, Filled, Operand, Step, fill_step, sources_of

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
        self.lookups: tuple[Lookup, ...] = ()
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
            self.lookups, factors = split_lookups(einsum.factors)
            self.factors = tuple(self._factor(f) for f in factors) or (
                Literal(self.semiring.one_of(self.accumulate), self.accumulate),
            )
            self.epilogue = self._leaf(equation.expr)
        values = [found.value for found in self.lookups]
        self._listed = tuple(self._operand(v) for v in values if isinstance(v, Read))
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
        if self.copies:
            return self._copy_steps(sizes, layouts)
        filled = self.filled(sizes, layouts)
        if self.lookups:
            return self._lookup_steps(filled, sizes, layouts)
        return self.finished(filled, self.factors, sizes, layouts)

    def filled(self, sizes: Mapping[str, int], layouts: Mapping[str, Layout]) -> Filled:
        """Extents, strides and operands at these sizes."""
        equation, out = self.equation, layouts[self.equation.name]
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
        return Filled(extents, rows, operands, dtypes)

    def finished(
        self,
        filled: Filled,
        factors: tuple[Leaf, ...],
        sizes: Mapping[str, int],
        layouts: Mapping[str, Layout],
        lookups: tuple[tuple[int, int], ...] = (),
        kept: Sequence[int] | None = None,
    ) -> list[Step]:
        """The steps that write the result: one contraction, after the first value of an output that it does not cover.

        `kept` are the axes that take part (all of them where it is None).
        """
        equation, out = self.equation, layouts[self.equation.name]
        extents, rows, operands, dtypes = filled
        epilogue, update, collides, before = self.epilogue, False, False, list[Step]()
        covered = self.whole or self._covers(sizes, extents, out.shape)
        if equation.update is not None and covered:
            rows.append(_row(self.out_forms, sizes, layouts[equation.update].strides))
            operands.append(
                Operand(equation.update, _address(self.out_offset, sizes, layouts[equation.update].strides))
            )
            dtypes.append(layouts[equation.update].dtype)
            epilogue = Apply(equation.semiring.add, (Load(len(rows) - 2), epilogue), accumulation_type(out.dtype))
        elif not covered:
            collides = self.meets(filled, sizes, out)
            update = collides or equation.update is not None
            before = [self.start(layouts)]
        columns = list(zip(*rows, strict=True))
        axes = [Axis(n, column, r) for n, column, r in zip(extents, columns, self.summed, strict=True)]
        if not covered and 0 in [n for n, i in zip(extents, self.axes, strict=True) if i.name not in self.bound]:
            return before
        semiring = self.semiring if not update or self.einsum is not None else equation.semiring
        problem = Contraction(
            tuple(axes if kept is None else [axes[k] for k in kept]), tuple(dtypes), factors, self.accumulate,
            semiring, epilogue, update, collides, lookups, sources_of(operands),
        )  # fmt: skip
        return [*before, Step(problem, tuple(operands))]

    def _lookup_steps(
        self, filled: Filled, sizes: Mapping[str, int], layouts: MutableMapping[str, Layout]
    ) -> list[Step]:
        """The steps of an equation with lookups.

        A gather whose lists are not summed writes every element once, like any contraction. Else each point adds to
        the result, which must begin as the sum of nothing; what follows the sum comes in a step of its own.
        """
        equation, out = self.equation, layouts[self.equation.name]
        extents, rows, operands, dtypes = filled
        names = [i.name for i in self.axes]
        lookups = tuple((names.index(f.index), o) for f, o in zip(self.lookups, self._listed, strict=True))
        looked = {a for a, _ in lookups}
        summed = [k for k, s in enumerate(self.summed) if s and k not in looked]
        if not any(rows[0][a] for a in looked) and not any(rows[o + 1][k] for _, o in lookups for k in summed):
            return self.finished(filled, self.factors, sizes, layouts, lookups)
        free = [k for k, s in enumerate(self.summed) if not s]
        direct = self.epilogue == Total() and out.dtype == self.accumulate and self.semiring == equation.semiring
        if direct:
            row, target, collides, before = rows[0], operands[0], self.meets(filled, sizes, out), self.start(layouts)
        else:
            name = f"{equation.name}.sums"
            sums = layouts[name] = Layout.dense(self.accumulate, tuple(extents[k] for k in free))
            strides = dict(zip(free, sums.strides, strict=True))
            row, target, collides = tuple(strides.get(k, 0) for k in range(len(names))), Operand(name), False
            zero = Literal(self.semiring.zero_of(self.accumulate), self.accumulate)
            before = fill_step(name, sums, zero)
        columns = zip(row, *rows[1:], strict=True)
        axes = tuple(Axis(n, column, r) for n, column, r in zip(extents, columns, self.summed, strict=True))
        types = (self.accumulate, *dtypes[1:])
        problem = Contraction(
            axes, types, self.factors, self.accumulate, self.semiring, Total(), True, collides, lookups
        )
        steps = [before, Step(problem, (target, *operands[1:]))]
        if direct:
            return steps
        done = Filled(extents, [*rows, row], [*operands, target], [*dtypes, self.accumulate])
        return [*steps, *self.finished(done, (Load(len(rows) - 1),), sizes, layouts, (), free)]

    def meets(self, filled: Filled, sizes: Mapping[str, int], out: Layout) -> bool:
        """Whether different values of the free indices may reach one element of the output."""
        row = _row(self.out_forms, sizes, Layout.dense(out.dtype, out.shape).strides)
        return not _injective(filled.extents, row, self.bound, [i.name for i in self.axes], out.dtype.itemsize)

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

    def start(self, layouts: Mapping[str, Layout]) -> Step:
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
        name, low, high = inner_range(read, extents, sizes, layouts[read.tensor].shape)
        steps: list[Step] = []
        for start, stop in ((0, low), (low, high), (high, extents[name])):
            if start < stop:
                slots = tuple(s.substitute({name: Affine.of(name) + start}) for s in read.slots)
                part, within = replace(read, slots=slots), {**extents, name: stop - start}
                at = start * layouts[equation.name].strides[equation.free.index(name)]
                if (start, stop) == (low, high):
                    steps.append(self._affine_step(part, within, sizes, layouts, read.tensor, at))
                else:
                    steps += self._windowed_steps(part, within, sizes, layouts, f".window{start or ''}", at)
        return steps

    def _windowed_steps(
        self,
        read: Read,
        extents: Mapping[str, int],
        sizes: Mapping[str, int],
        layouts: MutableMapping[str, Layout],
        tag: str,
        at: int,
    ) -> list[Step]:
        """A copy whose slots share indices or hold several: first all that the slots can reach, then an affine read."""
        equation, source = self.equation, layouts[read.tensor]
        lows, shape = [], []
        for slot in read.slots:
            reach = [c.evaluate(sizes) * max(extents[n] - 1, 0) for n, c in slot.terms]
            start = slot.offset.evaluate(sizes)
            lows.append(start + sum(r for r in reach if r < 0))
            shape.append(1 + sum(map(abs, reach)))
        window = f"{equation.name}{tag}"
        layouts[window] = Layout.dense(source.dtype, tuple(shape))
        names = tuple(f"w{d}" for d in range(len(shape)))
        slots = tuple(
            replace(Affine.of(n) + low, modulus=slot.modulus)
            for n, low, slot in zip(names, lows, read.slots, strict=True)
        )
        steps = _boxes(window, names, replace(read, slots=slots), dict(zip(names, shape, strict=True)), sizes, layouts)
        plain = tuple(Affine(s.terms, s.offset - low) for s, low in zip(read.slots, lows, strict=True))
        return [*steps, self._affine_step(replace(read, slots=plain), extents, sizes, layouts, window, at)]

    def _affine_step(
        self,
        read: Read,
        extents: Mapping[str, int],
        sizes: Mapping[str, int],
        layouts: Mapping[str, Layout],
        name: str,
        at: int,
    ) -> Step:
        """The step that reads tensor `name` at the slots, all inside of it, into the output from byte `at` on."""
        strides, out, source = layouts[name].strides, layouts[self.equation.name], layouts[name]
        axes = tuple(
            Axis(
                extents[n],
                (
                    out.strides[d],
                    sum(s.coefficient(n).evaluate(sizes) * w for s, w in zip(read.slots, strides, strict=True)),
                ),
            )
            for d, n in enumerate(self.equation.free)
        )
        offset = sum(s.offset.evaluate(sizes) * w for s, w in zip(read.slots, strides, strict=True))
        problem = Contraction(axes, (out.dtype, source.dtype), (Load(0),), out.dtype)
        return Step(problem, (Operand(self.equation.name, at), Operand(name, offset)))


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


__all__ = ["Counting", "EquationTemplate", "Operand", "Step", "fill_step"]
