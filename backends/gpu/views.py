"""Views: the reads and the result of one equation at known sizes and strides, as tensors over the equation's indices.

The first half of choosing a kernel. A slot that is affine is no more than strides and an offset (diagonals, windows,
reversed and repeated axes); what is left are pads, moduli and lookups, which become `Slot`s. Axes that every view runs
through in one stretch are then merged, axes of extent 1 vanish.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...ir.expr import Equation, Read
from ...ir.index import Affine
from ...ir.lookup import Lookup
from ...ir.semiring import Scalar
from ...ir.types import DType
from .functions import HELPERS

_RESERVED = frozenset({"tl", "triton", "pid", "step", "kernel", "float", *HELPERS, *keyword.kwlist})


@dataclass(frozen=True)
class Layout:
    """Where the elements of an array lie: shape, strides in elements, their type, and whether the first one is at a
    multiple of 16 bytes (as those of buffers are).

    >>> from ...ir.types import F32
    >>> Layout.dense((2, 3), F32).strides
    (3, 1)
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType
    aligned: bool = True

    @staticmethod
    def dense(shape: tuple[int, ...], dtype: DType) -> Layout:
        """The row-major layout."""
        strides, step = [], 1
        for extent in reversed(shape):
            strides.append(step)
            step *= max(1, extent)
        return Layout(shape, tuple(reversed(strides)), dtype)

    @property
    def span(self) -> int:
        """How far the last element is from the first, in elements."""
        return sum((n - 1) * abs(s) for n, s in zip(self.shape, self.strides, strict=True) if n)


@dataclass(frozen=True)
class Position:
    """A `nodes.Slot` at known sizes: (offset + sum of terms) mod modulus, or the value of the view `table`."""

    stride: int
    terms: tuple[tuple[str, int], ...] = ()
    offset: int = 0
    modulus: int | None = None
    extent: int | None = None
    clamp: bool = False
    table: str = ""


@dataclass(frozen=True)
class View:
    """A tensor of the program as a kernel sees it: `strides` by axis, in elements, all else as in `nodes.Tensor`."""

    name: str
    tensor: str
    dtype: DType
    strides: Mapping[str, int]
    offset: int = 0
    positions: tuple[Position, ...] = ()
    pad: Scalar | None = None

    def without(self, axes: Iterable[str]) -> View:
        """The view with some axes at position 0."""
        gone = set(axes)
        kept = {a: s for a, s in self.strides.items() if a not in gone}
        positions = tuple(replace(p, terms=tuple(t for t in p.terms if t[0] not in gone)) for p in self.positions)
        return replace(self, strides=kept, positions=positions)


class Names:
    """Names that Triton's text can bear, each given once.

    >>> names = Names()
    >>> names.of("y.1"), names.of("y_1"), names.of("lambda"), names.of("α")
    ('y_1', 'y_1_2', 'lambda_', 'x945')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set(_RESERVED)

    def of(self, wanted: str) -> str:
        """A name like `wanted`."""
        ascii_only = "".join(c if c.isascii() else f"x{ord(c)}" for c in wanted)
        text = re.sub(r"\W", "_", ascii_only) or "t"
        text = f"t{text}" if text[0].isdigit() else text
        if text in _RESERVED:
            text += "_"
        stem, number = text, 2
        while text in self._taken:
            text = f"{stem}_{number}"
            number += 1
        self._taken |= {text, f"{text}0"}
        return text


@dataclass
class Views:
    """The views of one equation. `axes` gives each index its axis, `extents` each axis its extent."""

    equation: Equation
    sizes: Mapping[str, int]
    layouts: Mapping[str, Layout]
    names: Names = field(default_factory=Names)
    axes: dict[str, str] = field(default_factory=dict)
    extents: dict[str, int] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    lookups: dict[str, Lookup] = field(default_factory=dict)
    _known: dict[object, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index in self.equation.indices:
            self.axes[index.name] = self.names.of(index.name)
            self.extents[self.axes[index.name]] = index.extent.evaluate(self.sizes)

    def terms(self, slot: Affine) -> tuple[tuple[str, int], ...]:
        """The axes of a slot with their factors at these sizes."""
        found = ((self.axes[n], c.evaluate(self.sizes)) for n, c in slot.terms)
        return tuple((a, c) for a, c in found if c)

    def offset(self, slot: Affine) -> int:
        """The constant part of a slot."""
        return slot.offset.evaluate(self.sizes)

    def modulus(self, slot: Affine) -> int | None:
        """The modulus of a slot."""
        return None if slot.modulus is None else slot.modulus.evaluate(self.sizes)

    def read(self, read: Read) -> str:
        """The name of the view of a read; equal reads share one."""
        pad = read.pad
        key = (read.tensor, tuple(self._resolved(s) for s in read.slots), pad)
        if key not in self._known:
            name = self.names.of(read.tensor)
            self._known[key] = name
            self.views[name] = self._view(name, read.tensor, read.slots, pad)
        return self._known[key]

    def result(self, tensor: str, slots: tuple[Affine, ...]) -> View:
        """The view of the result (under a name of its own: it is written, not read)."""
        name = self.names.of(tensor)
        self.views[name] = view = self._view(name, tensor, slots, None)
        return view

    def _resolved(self, slot: Affine) -> object:
        return self.terms(slot), self.offset(slot), self.modulus(slot)

    def _view(self, name: str, tensor: str, slots: tuple[Affine, ...], pad: float | str | None) -> View:
        layout = self.layouts[tensor]
        strides: dict[str, int] = {}
        start, positions = 0, list[Position]()
        for slot, extent, stride in zip(slots, layout.shape, layout.strides, strict=True):
            terms, offset, modulus = self.terms(slot), self.offset(slot), self.modulus(slot)
            special = self._special(terms, offset, modulus, pad, extent, stride)
            if special is not None:
                positions.append(special)
                for axis, _ in terms:
                    strides.setdefault(axis, 0)
                continue
            start += offset * stride
            for axis, factor in terms:
                strides[axis] = strides.get(axis, 0) + factor * stride
        view = View(
            name, tensor, layout.dtype, strides, start, tuple(positions), pad if isinstance(pad, float | int) else None
        )
        return self._looked_up(view)

    def _special(
        self,
        terms: tuple[tuple[str, int], ...],
        offset: int,
        modulus: int | None,
        pad: float | str | None,
        extent: int,
        stride: int,
    ) -> Position | None:
        """The position of a slot that is more than strides; None where strides say it all."""
        low = offset + sum(min(0, c * (self.extents[a] - 1)) for a, c in terms)
        high = offset + sum(max(0, c * (self.extents[a] - 1)) for a, c in terms)
        if modulus is not None:
            if low >= 0 and high < modulus:
                modulus = None
            else:
                low, high = 0, modulus - 1
        if pad is None or (low >= 0 and high < extent):
            return None if modulus is None else Position(stride, terms, offset, modulus)
        if pad == "wrap" and modulus is None:
            return Position(stride, terms, offset, extent)
        assert pad != "wrap", "a wrapped slot with a modulus of its own is a copy of a copy"
        return Position(stride, terms, offset, modulus, extent, pad == "edge")

    def _looked_up(self, view: View) -> View:
        """The view in which looked-up axes stand where their tables say."""
        for index, lookup in self.lookups.items():
            axis = self.axes[index]
            if axis not in view.strides:
                continue
            assert isinstance(lookup.value, Read)
            table = self.read(lookup.value)
            stride = view.strides[axis]
            strides = {a: s for a, s in view.strides.items() if a != axis}
            for other in self.views[table].strides:
                strides.setdefault(other, 0)
            position = Position(stride, extent=self.extents[axis], table=table)
            view = replace(view, strides=strides, positions=(*view.positions, position))
        return view

    # --- simpler axes -------------------------------------------------------------------------------------------------

    def simplify(self, classes: Iterable[tuple[str, ...]], fixed: frozenset[str]) -> list[tuple[str, ...]]:
        """Drop axes of extent 1 and merge neighbours within each of the `classes` of axes; axes that are `fixed` are
        used as numbers and stay. Returns the classes of what is left.
        """
        lone = {a for a, n in self.extents.items() if n == 1}
        self.views = {n: v.without(lone) for n, v in self.views.items()}
        moved = {a for v in self.views.values() for p in v.positions for a, _ in p.terms}
        for view in self.views.values():
            for p in view.positions:
                if p.table:
                    moved |= set(self.views[p.table].strides)
        kept = fixed | moved
        return [self._merged([a for a in group if a not in lone], kept) for group in classes]

    def _merged(self, axes: list[str], fixed: frozenset[str]) -> tuple[str, ...]:
        merged = True
        while merged:
            merged = False
            for outer in axes:
                for inner in axes:
                    if outer != inner and not {outer, inner} & fixed and self._run_on(outer, inner):
                        axes = self._join(axes, outer, inner)
                        merged = True
                        break
                if merged:
                    break
        return tuple(axes)

    def _run_on(self, outer: str, inner: str) -> bool:
        """Whether in every view a step along `outer` is the whole of `inner`."""
        n = self.extents[inner]
        return all(v.strides.get(outer, 0) == v.strides.get(inner, 0) * n for v in self.views.values())

    def _join(self, axes: list[str], outer: str, inner: str) -> list[str]:
        name = self.names.of(f"{outer}_{inner}")
        self.extents[name] = self.extents[outer] * self.extents[inner]
        for key, view in self.views.items():
            strides = {a: s for a, s in view.strides.items() if a not in (outer, inner)}
            if inner in view.strides:
                strides[name] = view.strides[inner]
            self.views[key] = replace(view, strides=strides)
        return [name if a == outer else a for a in axes if a != inner]
