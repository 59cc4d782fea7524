"""Where lowering stands in a loop nest: the extent of each axis, and the address and strides of each tensor, at this
point.

A loop makes a new `Scope` for its body, with the axis shortened and the pointers moved; `Pack` and `Local` rebind a
tensor. Extents and strides are ints where they are known, which is how register tiles, tails and specialised kernels
come about.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...ir.types import DType
from .emit import Code, Number


@dataclass(frozen=True)
class Scope:
    """`extents` are exact, `caps` are upper bounds (ints where a block may be short). `panels` are packed tensors whose
    panel has not been entered: (axis, inner axes). `tables` holds addresses of offset tables by (axis, tensor).
    `blocks` are the reduction blocks around this point: (start, end, extent). `via` says how a tensor moves along an
    axis whose steps are looked up: to the positions that these (index tensor, axis) hold.
    """

    extents: dict[str, Number]
    caps: dict[str, Number]
    pointers: dict[int, str]
    strides: dict[int, dict[str, Number]]
    dtypes: dict[int, DType]
    panels: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    tables: dict[tuple[str, int], str] = field(default_factory=dict)
    blocks: tuple[tuple[Number, Number, Number], ...] = ()
    via: dict[tuple[str, int], tuple[tuple[int, str], ...]] = field(default_factory=dict)

    def at(self, code: Code, axis: str, start: Number, extent: Number, cap: Number) -> Scope:
        """The same from `start` on along an axis, `extent` long (at most `cap`)."""
        pointers = {
            t: p if (axis, t) in self.via else code.offset(p, code.mul(start, self.strides[t].get(axis, 0)))
            for t, p in self.pointers.items()
        }
        strides, panels = dict(self.strides), dict(self.panels)
        for tensor, (along, inner) in self.panels.items():
            if along == axis:  # one panel: dense, as wide as the block may be
                strides[tensor] = self.dense(code, (*inner, axis), self.dtypes[tensor], {axis: cap})
                del panels[tensor]
        extents, caps = {**self.extents, axis: extent}, {**self.caps, axis: cap}
        return replace(self, extents=extents, caps=caps, pointers=pointers, strides=strides, panels=panels)

    def dense(self, code: Code, axes: tuple[str, ...], dtype: DType, widths: dict[str, Number]) -> dict[str, Number]:
        """Strides of a dense tensor over `axes`, the last one contiguous; `widths` replace extents."""
        strides: dict[str, Number] = {}
        step: Number = dtype.itemsize
        for axis in reversed(axes):
            strides[axis] = step
            step = code.mul(step, widths.get(axis, self.extents[axis]))
        return strides

    def bind(self, tensor: int, pointer: str, strides: dict[str, Number], dtype: DType) -> Scope:
        """With one more tensor, or another address for it."""
        return replace(
            self,
            pointers={**self.pointers, tensor: pointer},
            strides={**self.strides, tensor: strides},
            dtypes={**self.dtypes, tensor: dtype},
        )
