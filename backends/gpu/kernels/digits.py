"""Tensors with an axis in digits, y[b, 64*i + a], as tensors with an axis a digit: y[b, i, a] of the same memory.

Matchers want to see bare indices. What one equation writes in digits another may read whole, so that the digits of an
axis spread: from tensor to tensor, through the indices that stand at them, until every equation agrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ....ir.expr import Einsum, Equation, Expr, Position, Read, reads, transform
from ....ir.index import Affine, Index
from ....ir.size import Size
from ..views import Layout

Digits = tuple[int, ...]  # the extents of the digits of an axis, the slowest first


def in_digits(
    equations: Iterable[Equation], layouts: Mapping[str, Layout], sizes: Mapping[str, int]
) -> tuple[tuple[Equation, ...], dict[str, Layout]] | None:
    """The equations with bare indices only, and the layouts with an axis for each digit; None where digits disagree,
    leave out positions, or where a slot is of another kind.

    >>> from ....ir.text import parse_ir
    >>> from ....ir.types import F32
    >>> text = "input x: f32[6]\\ny[2*i+a]: f32[6] = exp(x[2*i+a]) over i<3, a<2\\n"
    >>> program = parse_ir(text + "z[j]: f32[6] = y[j] over j<6\\nreturn z")
    >>> found, layouts = in_digits(program.equations, {n: Layout.dense((6,), F32) for n in "xyz"}, {})
    >>> [i.name for i in found[1].indices], layouts["z"].shape, layouts["z"].strides
    (['j', 'j_1'], (3, 2), (2, 1))
    """
    work = _Digits(tuple(equations), layouts, sizes)
    return (work.rewritten(), work.viewed()) if work.agrees() else None


@dataclass
class _Digits:
    equations: tuple[Equation, ...]
    layouts: Mapping[str, Layout]
    sizes: Mapping[str, int]
    axes: dict[tuple[str, int], Digits] = field(default_factory=dict)
    indices: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)

    def agrees(self) -> bool:
        """Find the digits of every axis; False where there are none that suit all."""
        known = -1
        while known < len(self.axes) + len(self.indices):
            known = len(self.axes) + len(self.indices)
            for k, equation in enumerate(self.equations):
                extents = _evaluated(equation, self.sizes)
                places = [(equation.name, equation.slots), *((r.tensor, r.slots) for r in reads(equation.expr))]
                for tensor, slots in places:
                    for place, slot in enumerate(slots):
                        if not self._slot(k, extents, (tensor, place), slot):
                            return False
        return True

    def _slot(self, k: int, extents: Mapping[str, int], axis: tuple[str, int], slot: Affine) -> bool:
        shape = self.layouts[axis[0]].shape[axis[1]]
        bare = slot.bare
        if bare is None:
            names = _digits_of(slot, extents, self.sizes)
            if names is None or prod(extents[n] for n in names) != shape:
                return False
            return self.axes.setdefault(axis, found := tuple(extents[n] for n in names)) == found
        if (k, bare) in self.indices and axis not in self.axes:
            other = next(d for a, d in self.axes.items() if self._stands(k, bare, a))
            self.axes[axis] = other
        if axis not in self.axes:
            return True
        digits = self.axes[axis]
        if extents[bare] != shape:
            return False
        taken = {*extents, *(n for (e, _), names in self.indices.items() if e == k for n in names)}
        if (k, bare) not in self.indices:
            own = [bare]
            for number in range(1, len(digits)):
                name = f"{bare}_{number}"
                while name in taken:
                    name += "_"
                own.append(name)
            self.indices[k, bare] = tuple(own)
        return all(d == digits for a, d in self.axes.items() if self._stands(k, bare, a))

    def _stands(self, k: int, index: str, axis: tuple[str, int]) -> bool:
        """Whether an index is the bare slot of an axis in an equation."""
        equation = self.equations[k]
        places = [(equation.name, equation.slots), *((r.tensor, r.slots) for r in reads(equation.expr))]
        return any(t == axis[0] and slots[axis[1]].bare == index for t, slots in places)

    def viewed(self) -> dict[str, Layout]:
        """The layouts, with an axis for each digit."""
        found = dict(self.layouts)
        for name in {tensor for tensor, _ in self.axes}:
            layout = self.layouts[name]
            shape: list[int] = []
            strides: list[int] = []
            for place, (extent, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
                digits = self.axes.get((name, place), (extent,))
                shape += digits
                strides += [stride * prod(digits[n + 1 :]) for n in range(len(digits))]
            found[name] = Layout(tuple(shape), tuple(strides), layout.dtype)
        return found

    def rewritten(self) -> tuple[Equation, ...]:
        """The equations, each slot of digits as several slots."""
        return tuple(self._equation(k, e) for k, e in enumerate(self.equations))

    def _equation(self, k: int, equation: Equation) -> Equation:
        split = {n: names for (e, n), names in self.indices.items() if e == k}
        values: dict[str, Affine] = {}
        extents: dict[str, Size] = dict(equation.extents)
        for index, names in split.items():
            place = next(a for a in self.axes if self._stands(k, index, a))
            digits = self.axes[place]
            terms = [Affine.of(n) * prod(digits[m + 1 :]) for m, n in enumerate(names)]
            values[index] = sum(terms[1:], terms[0])
            extents |= {n: Size.of(d) for n, d in zip(names, digits, strict=True)}
        order = [n for i in equation.indices for n in split.get(i.name, (i.name,))]

        def slots_of(tensor: str, slots: tuple[Affine, ...]) -> tuple[Affine, ...]:
            found: list[Affine] = []
            known = _evaluated(equation, self.sizes)
            for place, slot in enumerate(slots):
                if (tensor, place) not in self.axes:
                    found.append(slot)
                elif slot.bare is not None:
                    found += [Affine.of(n) for n in split[slot.bare]]
                else:
                    found += [Affine.of(n) for n in _digits_of(slot, known, self.sizes) or ()]
            return tuple(found)

        def rule(e: Expr) -> Expr:
            match e:
                case Read():
                    return replace(e, slots=slots_of(e.tensor, e.slots))
                case Position():
                    return replace(e, affine=e.affine.substitute(values))
                case Einsum():
                    return replace(e, bound=tuple(n for b in e.bound for n in split.get(b, (b,))))
            return e

        shape = tuple(
            size
            for place, whole in enumerate(equation.shape)
            for size in map(Size.of, self.axes.get((equation.name, place), (whole.evaluate(self.sizes),)))
        )
        indices = tuple(Index(n, extents[n]) for n in order)
        slots = slots_of(equation.name, equation.slots)
        return replace(equation, slots=slots, shape=shape, indices=indices, expr=transform(equation.expr, rule))


def _evaluated(equation: Equation, sizes: Mapping[str, int]) -> dict[str, int]:
    return {i.name: i.extent.evaluate(sizes) for i in equation.indices}


def _digits_of(slot: Affine, extents: Mapping[str, int], sizes: Mapping[str, int]) -> tuple[str, ...] | None:
    """The indices of a slot, the slowest first, where it numbers positions by their digits without a gap."""
    if slot.modulus is not None or slot.offset.evaluate(sizes) != 0:
        return None
    factors = sorted(((c.evaluate(sizes), n) for n, c in slot.terms), reverse=True)
    step = 1
    for factor, name in reversed(factors):
        if factor != step:
            return None
        step *= extents[name]
    return tuple(n for _, n in factors) or None
