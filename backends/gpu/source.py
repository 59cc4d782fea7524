"""From a loop tree to the text of a Triton kernel: `source`, its `arguments` in order, and the `grid` to launch.

The last step of the GPU backend that can be done without a GPU. The text is meant to be read: it uses the names of the
user's tensors and indices, begins with a comment on what it computes, and runs as it is in any file that imports
Triton. `launch.function` makes a callable kernel of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from ...ir.types import F32
from .emit import Code, times
from .frame import Frame, Place
from .functions import HELPERS
from .nodes import (
    Coordinate,
    Index,
    Kernel,
    Leaf,
    Load,
    Local,
    Loop,
    Map,
    Nest,
    Number,
    Outer,
    Seq,
    Slot,
    Stream,
    Tile,
    leaves,
    walk,
)
from .scope import Scope
from .stream import LEAST, emit_stream
from .tile import accumulation, emit_map, emit_tile, finish
from .values import Value, number_text, type_text

NAME = "kernel"  # of the function that a source defines
HEAD = "import triton\nimport triton.language as tl\n"


def arguments(kernel: Kernel) -> tuple[str, ...]:
    """The names of the parameters in order: tensors, tables, then sizes, strides and offsets of run time.

    >>> from ...ir.types import F32
    >>> from .nodes import Tensor
    >>> x, y = (Tensor(n, ("i",), F32, ("s_" + n,)) for n in "xy")
    >>> arguments(Kernel((x, y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x"))))
    ('x', 'y', 'n_i', 's_x', 's_y')
    """
    found: list[Number] = [t.argument for t in kernel.tensors]
    found += kernel.tables
    found += [size for _, size in kernel.sizes]
    for tensor in kernel.tensors:
        found += [*tensor.strides, tensor.offset]
        for slot in tensor.slots:
            found += _numbers(slot)
    for node in walk(kernel.nest):
        found += _leaf_numbers(node)
        if isinstance(node, Loop) and node.chunk is not None:
            found.append(node.chunk[1])
    return tuple(dict.fromkeys(n for n in found if isinstance(n, str)))


def _numbers(slot: Slot) -> list[Number]:
    known = [slot.stride, slot.offset, slot.modulus, slot.extent, *(f for _, f in slot.terms)]
    return [n for n in known if n is not None]


def _leaf_numbers(node: Nest) -> list[Number]:
    """The numbers in the index expressions of a statement."""
    roots: tuple[Leaf, ...] = ()
    match node:
        case Tile():
            roots = node.factors
        case Map():
            roots = (node.leaf,)
        case Stream():
            roots = (node.scores,)
    found: list[Number] = []
    for leaf in (part for root in roots for part in leaves(root)):
        if isinstance(leaf, Coordinate):
            found += [*(f for _, f in leaf.terms), leaf.offset]
            found += [] if leaf.modulus is None else [leaf.modulus]
    return found


def grid(kernel: Kernel, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The number of programs, for sizes by axis (or by argument name); sizes that the kernel fixes need not be there.

    >>> from ...ir.types import F32
    >>> from .nodes import Tensor
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> grid(Kernel((x, y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x"))), {"i": 1000})
    (16,)
    """
    outer = next((n for n in walk(kernel.nest) if isinstance(n, Outer)), None)
    if outer is None:
        return (1,)
    known = dict(kernel.sizes)
    blocks = []
    for axis, block in outer.axes:
        size = known[axis]
        if isinstance(size, str):
            size = sizes[axis] if axis in sizes else sizes[size]
        blocks.append(-(-size // block))
    return (min(outer.share, prod(blocks)) if outer.share else prod(blocks),)


def source(kernel: Kernel, name: str = NAME) -> str:
    """The text of a module that defines the kernel as a function `name`.

    >>> from ...ir.types import F32
    >>> from .nodes import Tensor
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> print(source(Kernel((x, y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x")), title="y[i] = x[i]")))
    import triton
    import triton.language as tl
    <BLANKLINE>
    <BLANKLINE>
    # y[i] = x[i]
    # programs: i in blocks of 64
    @triton.jit
    def kernel(x, y, n_i):
        r64 = tl.arange(0, 64)
        pid = tl.program_id(0)
        i0 = pid * 64
        i_in = r64 < n_i - i0
        x_tile = tl.load(x + tl.cast(i0, tl.int64) + r64, mask=i_in, other=0.0)
        y_out = x_tile
        tl.store(y + tl.cast(i0, tl.int64) + r64, y_out, mask=i_in)
    <BLANKLINE>
    """
    printer = _Printer(kernel)
    printer.nest(kernel.nest)
    body = printer.scope.code.text
    helpers = "".join(f"\n\n{text}" for word, text in HELPERS.items() if re.search(rf"\b{word}\b", body))
    head = "".join(f"# {line}\n" for line in describe(kernel))
    return f"{HEAD}{helpers}\n\n{head}@triton.jit\ndef {name}({', '.join(arguments(kernel))}):\n{body}\n"


def describe(kernel: Kernel) -> list[str]:
    """The comment of a kernel, line by line: what it computes, and what becomes of each axis."""
    lines = kernel.title.splitlines()
    outer = [n for n in walk(kernel.nest) if isinstance(n, Outer)]
    loops = [n for n in walk(kernel.nest) if isinstance(n, Loop)]
    for node in outer:
        axes = ", ".join(_blocks(a, b) for a, b in node.axes)
        lines.append(f"programs: {axes or 'one'}" + (f"; {node.share} persistent" if node.share else ""))
    if loops:
        lines.append("loops: " + ", ".join(_blocks(n.axis, n.block) for n in loops))
    return lines


def _blocks(axis: str, block: int) -> str:
    return axis if block == 1 else f"{axis} in blocks of {block}"


class _Printer:
    """Walks the tree and writes."""

    def __init__(self, kernel: Kernel) -> None:
        taken = {*arguments(kernel), "tl", "triton", "pid", "step", NAME, *HELPERS, *(f"{a}0" for a, _ in kernel.sizes)}
        for word in taken | {t.name for t in kernel.tensors}:
            assert word.isidentifier(), f"{word!r} is no name in Triton"
        self.scope = Scope(kernel, Code(taken), Frame.of(kernel), {t.name: t for t in kernel.tensors})

    def nest(self, node: Nest) -> None:
        """Write one node."""
        scope = self.scope
        match node:
            case Tile():
                emit_tile(scope, node)
            case Map():
                emit_map(scope, node)
            case Stream():
                emit_stream(scope, node)
            case Seq(bodies):
                for body in bodies:
                    self.nest(body)
            case Local(name, dtype, body):
                scope.rounded[name] = dtype
                self.nest(body)
            case Load(tensor, groups, body):
                scope.loaded[tensor] = scope.load(tensor, groups, 0)
                self.nest(body)
            case Index():
                self.index(node)
            case Outer():
                self.outer(node)
            case Loop():
                self.loop(node)

    def index(self, node: Index) -> None:
        """An axis at the position that a table holds."""
        by = self.scope.frame.place(node.by).origin or "0"
        name = self.scope.code.let(f"{node.axis}0", f"tl.load({node.table} + {by})")
        self.scope.frame.places[node.axis] = Place(name, 1, scalar=True)
        self.nest(node.body)

    def outer(self, node: Outer) -> None:
        """Program ids."""
        code, frame = self.scope.code, self.scope.frame
        counts = [str(frame.sizes[a]) if block == 1 else self._count(frame.sizes[a], block) for a, block in node.axes]
        code.do("pid = tl.program_id(0)" + (".to(tl.int64)" if frame.wide else ""))
        body = node.body
        if not node.share:
            self._place(node, counts)
            self.nest(body)
            return
        while isinstance(body, Load):  # made once by each program
            self.scope.loaded[body.tensor] = self.scope.load(body.tensor, body.groups, 0)
            body = body.body
        stages = f", num_stages={node.stages}" if node.stages else ""
        every = " * ".join(counts) or "1"
        with code.scope(f"for step in tl.range(pid, {every}, {node.share}{stages}):"):
            code.do("pid = step")
            self._place(node, counts)
            self.nest(body)

    @staticmethod
    def _count(size: Number, block: int) -> str:
        return str(-(-size // block)) if isinstance(size, int) else f"tl.cdiv({size}, {block})"

    def _place(self, node: Outer, counts: list[str]) -> None:
        """The origin of each axis from the number of the program; the last axis varies fastest."""
        code, frame = self.scope.code, self.scope.frame
        pairs = list(zip(node.axes, counts, strict=True))
        if node.grouped and len(pairs) > 1 and "1" not in counts[-2:]:
            self._grouped(node, pairs)
            pairs = pairs[:-2]
        for (axis, block), count in reversed(pairs):
            first = axis == pairs[0][0][0]
            if count == "1":
                frame.places[axis] = Place("", block, scalar=block == 1)
                continue
            code.do(f"{axis}0 = {times('pid' if first else f'pid % {count}', block)}")
            frame.places[axis] = Place(f"{axis}0", block, scalar=block == 1)
            if not first:
                code.do(f"pid = pid // {count}")

    def _grouped(self, node: Outer, pairs: list[tuple[tuple[str, int], str]]) -> None:
        """The last two axes, in groups of rows of blocks."""
        code, frame = self.scope.code, self.scope.frame
        ((row, rows), row_count), ((column, columns), column_count) = pairs[-2:]
        tile, first, held = code.fresh("tile"), code.fresh("first"), code.fresh("held")
        if len(pairs) > 2:
            code.do(f"{tile} = pid % ({row_count} * {column_count})")
            code.do(f"pid = pid // ({row_count} * {column_count})")
        else:
            code.do(f"{tile} = pid")
        code.do(f"{first} = {tile} // ({node.grouped} * {column_count}) * {node.grouped}")
        code.do(f"{held} = tl.minimum({row_count} - {first}, {node.grouped})")
        code.do(f"{tile} = {tile} % ({node.grouped} * {column_count})")
        code.do(f"{row}0 = {times(f'({first} + {tile} % {held})', rows)}")
        code.do(f"{column}0 = {times(f'({tile} // {held})', columns)}")
        for axis, block in ((row, rows), (column, columns)):
            frame.places[axis] = Place(f"{axis}0", block, scalar=block == 1)

    def loop(self, node: Loop) -> None:
        """A loop over blocks, with the accumulators of what is summed along its axis."""
        scope, origin = self.scope, f"{node.axis}0"
        code, frame = scope.code, scope.frame
        tiles = [n for n in walk(node.body) if isinstance(n, Tile) and node.reduced and node.axis in n.reduced]
        fresh = [t for t in {t.out: t for t in tiles}.values() if t.out not in scope.values]
        streams = [n for n in walk(node.body) if isinstance(n, Stream) and node.reduced and node.axis in n.along]
        held = scope.carried
        scope.carried |= {t.out for t in tiles}
        place = Place(origin, node.block, scalar=node.block == 1)
        before = dict(frame.places)
        if fresh or streams:
            self._accumulators(node, fresh, streams, place)
        stages = f", num_stages={node.stages}" if node.stages else ""
        known = dict(scope.values), dict(scope.loaded)
        with code.scope(f"for {origin} in tl.range({self._range(node)}{stages}):"):
            frame.places[node.axis] = place
            self.nest(node.body)
        frame.places = before
        scope.loaded = known[1]
        scope.values = {n: scope.values[n] for n in known[0]}
        scope.carried = held
        for tile in fresh:
            finish(scope, tile.out, tile)

    def _range(self, node: Loop) -> str:
        if node.chunk is not None:
            axis, length = node.chunk
            first = times(self.scope.frame.place(axis).origin or "0", length)
            return f"{first}, tl.minimum({first} + {length}, {self.scope.frame.sizes[node.axis]}), {node.block}"
        if node.rows is None:
            return f"0, {self.scope.frame.sizes[node.axis]}, {node.block}"
        table, axis = node.rows
        by = self.scope.frame.place(axis).origin or "0"
        return f"tl.load({table} + {by}), tl.load({table} + {by} + 1)"

    def _accumulators(self, node: Loop, fresh: list[Tile], streams: list[Stream], place: Place) -> None:
        """Name and fill the accumulators; a rehearsal of the body finds their dimensions and types."""
        scope = self.scope
        state = dict(scope.values), dict(scope.loaded), dict(scope.frame.places), dict(scope.rounded)
        with scope.code.rehearsal():
            scope.frame.places[node.axis] = place
            self.nest(node.body)
            found = {t.out: (scope.values[t.out].groups, accumulation(scope, t)) for t in fresh}
            rows = {s.greatest: scope.values[s.greatest].groups for s in streams}
        scope.values, scope.loaded, scope.frame.places, scope.rounded = state
        for tile in fresh:
            groups, dtype = found[tile.out]
            name = scope.code.fresh(f"sum_{tile.out}")
            zero = tile.semiring.zero_of(dtype)
            shape = scope.frame.shape(groups)
            scope.code.do(f"{name} = tl.full({shape}, {number_text(zero)}, {type_text(dtype)})")
            scope.values[tile.out] = Value(name, groups, dtype)
        for stream in streams:
            for name, start in ((stream.greatest, LEAST), (stream.total, "0.0")):
                held = scope.code.fresh(name)
                shape = scope.frame.shape(rows[stream.greatest])
                scope.code.do(f"{held} = tl.full({shape}, {start}, tl.float32)")
                scope.values[name] = Value(held, rows[stream.greatest], F32)
