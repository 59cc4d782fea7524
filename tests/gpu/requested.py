"""Bytes that the programs of a kernel ask for, tensor by tensor: a count of its own, to hold `work` and plans to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from stein.backends.gpu.kernels.plan import _known, _reach
from stein.backends.gpu.nodes import (
    Index,
    Kernel,
    Load,
    Local,
    Loop,
    Map,
    Nest,
    Outer,
    Seq,
    Stream,
    Tensor,
    Tile,
    inputs_of,
    names_of,
)


def requested(kernel: Kernel, sizes: Mapping[str, int], pairs: int = 0) -> dict[str, int]:
    """Bytes of each argument that the programs of a kernel load and store, all together.

    An operand that is asked for once only costs its size in traffic at every level of the memory; what is asked for
    more often comes from a cache. `pairs` is the length of the block list, where there is one.

    >>> from stein.ir.types import F32
    >>> x, y = Tensor("x", ("b", "i"), F32), Tensor("y", ("b",), F32)
    >>> nest = Outer((("b", 16),), Tile("y", ("x",), ("b",), ("i",)))
    >>> requested(Kernel((x, y), (("b", 64), ("i", 8)), nest), {})
    {'x': 2048, 'y': 256}
    """
    counter = _Counter({t.name: t for t in kernel.tensors}, {a: _known(n, sizes) for a, n in kernel.sizes}, pairs)
    counter.visit(kernel.nest, {}, frozenset())
    return counter.found


@dataclass
class _Counter:
    tensors: dict[str, Tensor]
    sizes: dict[str, int]
    pairs: int
    found: dict[str, int] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    looked: list[tuple[str, str]] = field(default_factory=list)

    def visit(self, nest: Nest, loops: dict[str, int], loaded: frozenset[str]) -> frozenset[str]:
        """Count below `nest`; `loops` has the number of blocks of each axis that is cut. Returns what is loaded now."""
        match nest:
            case Outer(axes, body, share):
                inner = loops | {a: -(-self.sizes[a] // b) for a, b in axes}
                while share and isinstance(body, Load):  # made once by each persistent program
                    self.add(body.tensor, {"": share})
                    loaded |= {body.tensor}
                    body = body.body
                self.visit(body, inner, loaded)
            case Loop(axis, block, body, _, rows):
                if rows is None:
                    inner = loops | {axis: -(-self.sizes[axis] // block)}
                else:  # the rows of all positions of the other axis make up the list
                    inner = {a: n for a, n in loops.items() if a != rows[1]} | {axis: self.pairs}
                self.visit(body, inner, loaded)
            case Index(axis, table, _, body):
                self.looked.append((axis, table))
                self.visit(body, loops, loaded)
                self.looked.pop()
            case Local(_, _, body):
                return self.visit(body, loops, loaded)
            case Load(tensor, _, body):
                self.add(tensor, loops)
                self.visit(body, loops, loaded | {tensor})
            case Seq(bodies):
                for body in bodies:
                    loaded = self.visit(body, loops, loaded)
            case Tile() | Map() | Stream():
                leaves = inputs_of(nest)
                out = nest.out
                for name in dict.fromkeys(n for leaf in leaves for n in names_of(leaf)):
                    if name in self.tensors and name not in loaded and name not in self.values:
                        self.add(name, loops)
                        loaded |= {name}
                self.values.add(out)
                if out in self.tensors:
                    reduced = nest.reduced if isinstance(nest, Tile) else ()
                    self.add(out, {a: n for a, n in loops.items() if a not in reduced})
        return loaded

    def add(self, name: str, loops: Mapping[str, int]) -> None:
        tensor = self.tensors[name]
        strides = tensor.strides or (1,) * len(tensor.axes)
        own = {a for a, s in zip(tensor.axes, strides, strict=True) if s != 0}
        own |= {a for slot in tensor.slots for a, _ in slot.terms}
        # A block list stands in for all columns of the matrix: of those, each block meets one.
        looked = {axis for axis, _ in self.looked if axis in own}
        repeats = prod(n for a, n in loops.items() if a not in own)
        size = _reach(tensor, {a: 1 if a in looked else n for a, n in self.sizes.items()}, self.sizes)
        self.found[tensor.argument] = self.found.get(tensor.argument, 0) + size * repeats
