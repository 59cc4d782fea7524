"""Padded and periodic reads as plain strided copies.

A copy equation `P[p, q] = T[p-2, (q+1) mod n]` (one index a slot, an offset, a modulus, a rule for what lies outside)
is cut into boxes in which every source position is affine; each box is one contraction of the ordinary generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from ...ir.bind import check_padding
from ...ir.expr import Read
from ...ir.loops import Axis
from .native_record import Layout


@dataclass(frozen=True)
class Run:
    """Positions `at`, `at`+1, ... of the output, `length` of them, read from `start`, `start`+`step`, ...

    With `periods` > 1 the run is repeated that many times, `length` positions further on in the output each time.
    """

    at: int
    length: int
    start: int
    step: int
    periods: int = 1


def runs_of(length: int, low: int, step: int, modulus: int | None, extent: int, pad: float | str | None) -> list[Run]:
    """The runs of one dimension: output position p reads (low + step p) mod `modulus` of a source of `extent` elements.

    What lies outside 0..extent is left out for a number as `pad`, clipped for "edge", taken modulo `extent` for "wrap".

    >>> [(r.at, r.length, r.start, r.step) for r in runs_of(5, -1, 1, None, 3, "edge")]
    [(0, 1, 0, 0), (1, 3, 0, 1), (4, 1, 2, 0)]
    """
    if length <= 0:
        return []
    if step != 1 or (modulus is not None and pad == "wrap"):
        return list(_run_lengths([_source(low + step * p, modulus, extent, pad) for p in range(length)]))
    period = extent if pad == "wrap" else modulus
    if period is None:
        return _window(0, length, low, extent, pad)
    head = min(-low % period, length)
    whole, tail = divmod(length - head, period)
    out = _window(0, head, low % period, extent, pad)
    one = _window(0, period, 0, extent, pad) if whole else []
    if len(one) == 1 and one[0].length == period:
        out.append(Run(head, period, one[0].start, one[0].step, whole))
    else:
        out += [Run(head + k * period + r.at, r.length, r.start, r.step) for k in range(whole) for r in one]
    return out + _window(head + whole * period, tail, 0, extent, pad)


def _window(at: int, length: int, low: int, extent: int, pad: float | str | None) -> list[Run]:
    """The runs of `length` positions from `at` on that read low, low+1, ..."""
    before = min(max(-low, 0), length)
    inside = max(min(extent - low, length) - before, 0)
    after = length - before - inside
    out = []
    if pad == "edge" and before:
        out.append(Run(at, before, 0, 0))
    if inside:
        out.append(Run(at + before, inside, low + before, 1))
    if pad == "edge" and after:
        out.append(Run(at + before + inside, after, extent - 1, 0))
    return out


def _source(position: int, modulus: int | None, extent: int, pad: float | str | None) -> int | None:
    if modulus is not None:
        position %= modulus
    if pad == "wrap":
        return position % extent
    if pad == "edge":
        return min(max(position, 0), extent - 1)
    return position if 0 <= position < extent else None


def _run_lengths(sources: list[int | None]) -> Iterator[Run]:
    """Maximal runs in which the source position changes by a constant."""
    at = 0
    while at < len(sources):
        start = sources[at]
        if start is None:
            at += 1
            continue
        end, step = at + 1, 0
        second = sources[end] if end < len(sources) else None
        if second is not None:
            step = second - start
            while end < len(sources) and sources[end] == start + (end - at) * step:
                end += 1
        yield Run(at, end - at, start, step)
        at = end


def copy_segments(
    read: Read,
    extents: Mapping[str, int],
    sizes: Mapping[str, int],
    out: Layout,
    source: Layout,
    dims: Mapping[str | None, int],
) -> Iterator[tuple[tuple[Axis, ...], int, int]]:
    """Boxes of a copy: axes with (output, source) strides, and the byte offsets where each tensor begins.

    Every slot of the read holds at most one index, and no index stands in two slots. Raises `ShapeError` if an empty
    source is padded with its own values.
    """
    if all(extents[n] for n in dims if n is not None):
        check_padding(read, source.shape)
    per_slot: list[list[tuple[tuple[Axis, ...], int, int]]] = []
    used = set()
    for slot, extent, stride in zip(read.slots, source.shape, source.strides, strict=True):
        assert len(slot.terms) <= 1, "a copy reads one index a slot"
        modulus = slot.modulus.evaluate(sizes) if slot.modulus is not None else None
        low = slot.offset.evaluate(sizes)
        if slot.terms:
            ((name, coefficient),) = slot.terms
            used.add(name)
            length, step, out_stride = extents[name], coefficient.evaluate(sizes), out.strides[dims[name]]
        else:
            length, step, out_stride = 1, 1, 0
        boxes = []
        for run in runs_of(length, low, step, modulus, extent, read.pad):
            axes: tuple[Axis, ...] = (Axis(run.length, (out_stride, run.step * stride)),)
            if run.periods > 1:
                axes = (Axis(run.periods, (out_stride * run.length, 0)), *axes)
            boxes.append((axes, run.at * out_stride, run.start * stride))
        per_slot.append(boxes)
    free = tuple(Axis(extents[n], (out.strides[d], 0)) for n, d in dims.items() if n is not None and n not in used)
    for box in product(*per_slot):
        joint = free + tuple(a for part in box for a in part[0])
        yield joint, sum(part[1] for part in box), sum(part[2] for part in box)


def inner_range(
    read: Read, extents: Mapping[str, int], sizes: Mapping[str, int], shape: tuple[int, ...]
) -> tuple[str, int, int]:
    """An index with the longest run low..high of its values for which no slot of the read leaves the tensor.

    What is read there is the tensor itself, without padding; only the rest needs care. The run is empty (0..0) where
    a slot has a modulus, or leaves the tensor whatever the index is.

    >>> from ...ir.index import Affine
    >>> from ...ir.types import F32
    >>> i, d = Affine.of("i"), Affine.of("d")
    >>> inner_range(Read("W", (i, i + d - 1), F32, 0), {"i": 6, "d": 3}, {}, (6, 6))
    ('i', 1, 5)
    """
    best = (next(iter(dict.fromkeys(n for s in read.slots for n in s.indices)), ""), 0, 0)
    if any(s.modulus is not None for s in read.slots) or 0 in extents.values():
        return best
    for name in dict.fromkeys(n for s in read.slots for n in s.indices):
        low, high = 0, extents[name]
        for slot, extent in zip(read.slots, shape, strict=True):
            least = most = slot.offset.evaluate(sizes)
            for n, coefficient in slot.terms:
                reach = 0 if n == name else coefficient.evaluate(sizes) * (extents[n] - 1)
                least, most = least + min(reach, 0), most + max(reach, 0)
            step = slot.coefficient(name).evaluate(sizes)
            if step < 0:  # count from the other end: least + step*v >= 0 and most + step*v < extent
                low, high = max(low, -((extent - 1 - most) // -step)), min(high, least // -step + 1)
            elif step > 0:
                low, high = max(low, -(least // step)), min(high, (extent - 1 - most) // step + 1)
            elif least < 0 or most >= extent:
                high = low
        if high - low > best[2] - best[1]:
            best = (name, low, high)
    return best
