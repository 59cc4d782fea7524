"""From a `Kernel` to the text of an LLVM module: walks the loop tree with a `Scope`.

The function is `void name(i64 *args, i64 lo, i64 hi)`. `args` holds, in this order: the address of each tensor; of each
scratch area; the extents that are not fixed; for each tensor its run-time strides, then its offset tables; and where
the nest has an `Outer`, the number of outer axes, the product of their extents, the extents, and the strides of each
tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...ir.loops import (
    RUN_TIME,
    TABLE,
    Follow,
    Guard,
    Kernel,
    Load,
    Local,
    Loop,
    Nest,
    Outer,
    Pack,
    Runs,
    Seq,
    Share,
    Tile,
    Triangle,
)  # fmt: skip
from .emit import Code, Number
from .machine import Machine
from .runs import emit_guard, emit_runs, load_position, owned_by_call
from .scope import Scope
from .tile import emit_tile
from .values import register_type

MAX_OUTER = 64


def emit_kernel(kernel: Kernel, name: str, machine: Machine) -> str:
    """The module of one kernel as LLVM text."""
    lowering = _Lowering(machine)
    lowering.kernel(kernel)
    width = f'"prefer-vector-width"="{8 * machine.vector_bytes}"'
    return lowering.code.module(name, f"nounwind {width}")


def panel_lanes(machine: Machine, itemsize: int, kind: str, steps: tuple[int, ...]) -> int:
    """Lanes of the copy into panels: they must divide every step but the last."""
    whole = machine.vector_bytes // (itemsize // 2 if kind == "c" else itemsize)
    return max(1, min(16, whole, steps[0] & -steps[0]))


class _Lowering:
    def __init__(self, machine: Machine) -> None:
        self.code, self.machine = Code(), machine
        self.scratch: list[str] = []
        self.outer: tuple[int, list[int]] = (0, [])

    def kernel(self, kernel: Kernel) -> None:
        """Read the arguments, then walk the nest."""
        code, word = self.code, 0

        def argument(type_: str) -> str:
            nonlocal word
            word += 1
            return code.op(f"load {type_}, ptr {code.offset('%args', 8 * (word - 1))}, align 8")

        tensors = range(len(kernel.dtypes))
        pointers = {t: argument("ptr") for t in tensors}
        self.scratch = [argument("ptr") for _ in range(kernel.slots)]
        extents: dict[str, Number] = {
            a: argument("i64") if n is None else n for a, n in zip(kernel.axes, kernel.extents, strict=True)
        }
        strides: dict[int, dict[str, Number]] = {t: {} for t in tensors}
        tables: dict[tuple[str, int], str] = {}
        for t in tensors:
            for axis, stride in zip(kernel.axes, kernel.strides[t], strict=True):
                if stride == RUN_TIME:
                    strides[t][axis] = argument("i64")
                elif stride == TABLE:
                    tables[axis, t] = argument("ptr")
                else:
                    assert isinstance(stride, int)
                    strides[t][axis] = stride
        self.outer = (word, list(tensors))
        scope = Scope(extents, dict(extents), pointers, strides, dict(enumerate(kernel.dtypes)), tables=tables)
        self.nest(kernel.nest, scope)

    def nest(self, nest: Nest, scope: Scope) -> None:
        """Write one node."""
        match nest:
            case Tile():
                emit_tile(self.code, self.machine, nest, scope)
            case Loop():
                self.loop(nest, scope)
            case Outer(body, shared):
                self.odometer(body, shared, scope)
            case Share():
                self.share(nest, scope)
            case Pack():
                self.pack(nest, scope)
            case Local(tensor, axes, dtype, slot, body):
                strides = scope.dense(self.code, axes, dtype, {})
                self.nest(body, scope.bind(tensor, self.scratch[slot], strides, dtype))
            case Seq(bodies):
                for body in bodies:
                    self.nest(body, scope)
            case Follow():
                self.follow(nest, scope)
            case Triangle():
                self.triangle(nest, scope)
            case Guard(body=body):
                emit_guard(self.code, nest, scope, lambda: self.nest(body, scope))
            case Runs(body=body):
                emit_runs(self.code, nest, scope, lambda inner: self.nest(body, inner))

    # --- loops --------------------------------------------------------------------------------------------------------

    def loop(self, node: Loop, scope: Scope) -> None:
        """A cascade: each step takes as many whole blocks as are left; the last one may be cut short."""
        code, extent = self.code, scope.extents[node.axis]
        at: Number = 0

        def enter(start: Number, length: Number, step: Number) -> None:
            inner = scope.at(code, node.axis, start, length, step)
            if node.reduced:
                inner = replace(inner, blocks=(*scope.blocks, (start, code.add(start, step), extent)))
            self.nest(node.body, inner)

        for number, named in enumerate(node.steps):
            step = scope.extents[named] if isinstance(named, str) else named
            last = number == len(node.steps) - 1
            if last and node.cut and not (isinstance(extent, int) and isinstance(step, int)):

                def short(start: Number, _: list[str], step: Number = step) -> list[str]:
                    enter(start, code.minimum(code.sub(extent, start), step), step)
                    return []

                code.loop(at, extent, step, [], short)
                return

            def whole(start: Number, _: list[str], step: Number = step) -> list[str]:
                enter(start, step, step)
                return []

            end = code.add(at, code.floor(code.sub(extent, at), step))
            code.loop(at, end, step, [], whole)
            at = end
            if last and node.cut:
                assert isinstance(at, int) and isinstance(extent, int)
                if at < extent:
                    enter(at, extent - at, step)

    def share(self, node: Share, scope: Scope) -> None:
        """The blocks lo..hi of an axis."""
        code, extent = self.code, scope.extents[node.axis]
        start = code.mul("%lo", node.grain)
        end = code.minimum(code.mul("%hi", node.grain), extent)
        length = code.sub(end, start)
        self.nest(node.body, scope.at(code, node.axis, start, length, length))

    def triangle(self, node: Triangle, scope: Scope) -> None:
        """Row by row, the columns of the row's own block that lie before it."""
        code, block = self.code, scope.extents[node.block]
        end = code.minimum(code.mul("%hi", block), scope.extents[node.row])

        def each(row: Number, _: list[str]) -> list[str]:
            first = code.floor(row, block)
            length = code.sub(row, first)
            here = scope.at(code, node.row, row, 1, 1).at(code, node.column, first, length, length)
            self.nest(node.body, here)
            return []

        code.loop(code.mul("%lo", block), end, 1, [], each)

    def follow(self, node: Follow, scope: Scope) -> None:
        """Read the position and go there, if it is one of the axis (and of this call's share).

        Positions are compared as unsigned numbers: negative ones are very large.
        """
        code, pointer = self.code, scope.pointers[node.index]
        at = load_position(code, pointer, scope.dtypes[node.index])
        inside = code.op(f"icmp ult i64 {at}, {scope.extents[node.axis]}")
        if node.owned:
            inside = code.op(f"and i1 {inside}, {owned_by_call(code, at)}")

        def absent() -> None:
            if node.absent is not None:
                self.nest(node.absent, scope)

        code.branch(inside, lambda: self.nest(node.body, scope.at(code, node.axis, at, 1, 1)), absent)

    def odometer(self, body: Nest, shared: bool, scope: Scope) -> None:
        """Positions lo..hi (or all) of a run-time number of axes: rows of the last axis, an odometer over the
        others.
        """
        code, (word, tensors) = self.code, self.outer

        def argument(at: Number) -> str:
            return code.op(f"load i64, ptr {code.offset('%args', code.mul(at, 8))}, align 8")

        count, total = argument(word), argument(word + 1)
        low, high = ("%lo", "%hi") if shared else ("0", total)
        lead = code.sub(count, 1)

        def row(table: int, digit: Number) -> str:
            return argument(code.add(code.add(word + 2, code.mul(table, count)), digit))

        length = row(0, lead)
        steps = {t: row(t + 1, lead) for t in tensors}
        first_row = code.op(f"sdiv i64 {low}, {length}")
        end_row = code.op(f"sdiv i64 {code.add(high, code.sub(length, 1))}, {length}")
        digits = _Digits(code, lead, row)
        start = digits.start(first_row, {t: scope.pointers[t] for t in tensors})

        def each_row(index: Number, values: list[str]) -> list[str]:
            rows = dict(zip(tensors, values, strict=True))
            before = code.mul(index, length)
            begin = code.call("i64", "llvm.smax.i64", f"i64 {code.sub(low, before)}", "i64 0")
            end = code.minimum(code.sub(high, before), length)

            def each(_: Number, pointers: list[str]) -> list[str]:
                here = dict(zip(tensors, pointers, strict=True))
                self.nest(body, replace(scope, pointers={**scope.pointers, **here}))
                return [code.offset(p, steps[t]) for t, p in here.items()]

            code.loop(
                begin, end, 1, [("ptr", code.offset(p, code.mul(begin, steps[t]))) for t, p in rows.items()], each
            )
            return digits.advance(rows)

        code.loop(first_row, end_row, 1, [("ptr", p) for p in start], each_row)

    # --- packing ------------------------------------------------------------------------------------------------------

    def pack(self, node: Pack, scope: Scope) -> None:
        """Copy the block into panels by a tile of its own, then go on with the panels bound."""
        code, pointer = self.code, self.scratch[node.slot]
        lanes = panel_lanes(self.machine, node.dtype.itemsize, node.dtype.kind, node.steps)
        run: Number = node.dtype.itemsize
        for axis in node.inner:
            run = code.mul(run, scope.extents[axis])
        bound = scope.bind(node.panel, pointer, {node.axis: run}, node.dtype)
        bound = replace(bound, panels={**scope.panels, node.panel: (node.axis, node.inner)}, blocks=())
        flip = self._unit_axis(node, scope)
        copy: Nest = Tile(
            (node.source,), (node.axis, *node.inner), (), node.axis, lanes, node.dtype, out=node.panel, flip=flip
        )
        wide = flip or node.inner[-1]  # one inner axis in registers is enough; cascades within cascades multiply code
        for axis in reversed(node.inner):
            copy = Loop(axis, (1,) if axis != wide else (lanes, 1) if flip and lanes > 1 else (4, 1), copy)
        self.nest(Loop(node.axis, node.steps, copy, cut=node.steps[-1] > 1), bound)
        self.nest(node.body, replace(bound, blocks=scope.blocks))

    @staticmethod
    def _unit_axis(node: Pack, scope: Scope) -> str:
        """An inner axis along which a packed operand is contiguous while it is not along the panel."""
        if isinstance(node.source, Load):
            tensor = node.source.operand + 1
            unit = scope.dtypes[tensor].itemsize
            if scope.strides[tensor].get(node.axis) != unit:
                return next((a for a in node.inner if scope.strides[tensor].get(a) == unit), "")
        return ""


class _Digits:
    """The digits of the leading outer axes, in an array on the stack, and the addresses that go with them."""

    def __init__(self, code: Code, count: Number, row: Callable[[int, Number], str]) -> None:
        self.code, self.count, self.row = code, count, row
        code.lines.insert(0, f"  %digits = alloca [{MAX_OUTER} x i64], align 8")

    def _digit(self, i: Number) -> tuple[Number, str]:
        digit = self.code.sub(self.code.sub(self.count, 1), i)
        return digit, self.code.offset("%digits", self.code.mul(digit, 8))

    def start(self, position: str, pointers: dict[int, str]) -> list[str]:
        """The addresses at a position; sets the digits."""
        code = self.code

        def split(i: Number, values: list[str]) -> list[str]:
            digit, cell = self._digit(i)
            extent = self.row(0, digit)
            quotient = code.op(f"sdiv i64 {values[0]}, {extent}")
            rest = code.op(f"srem i64 {values[0]}, {extent}")
            code.do(f"store i64 {rest}, ptr {cell}, align 8")
            moved = zip(pointers, values[1:], strict=True)
            return [quotient, *(code.offset(p, code.mul(rest, self.row(t + 1, digit))) for t, p in moved)]

        return code.loop(0, self.count, 1, [("i64", position), *(("ptr", p) for p in pointers.values())], split)[1:]

    def advance(self, pointers: dict[int, str]) -> list[str]:
        """The addresses one position further: add one to the last digit and carry."""
        code = self.code

        def roll(i: Number, values: list[str]) -> list[str]:
            digit, cell = self._digit(i)
            extent = self.row(0, digit)
            value = code.op(f"add i64 {code.op(f'load i64, ptr {cell}, align 8')}, {values[0]}")
            full = code.op(f"icmp eq i64 {value}, {extent}")
            code.do(f"store i64 {code.op(f'select i1 {full}, i64 0, i64 {value}')}, ptr {cell}, align 8")
            back = code.op(f"select i1 {full}, i64 {extent}, i64 0")
            move = code.sub(values[0], back)
            moved = zip(pointers, values[1:], strict=True)
            carry = code.op(f"zext i1 {full} to i64")
            return [carry, *(code.offset(p, code.mul(move, self.row(t + 1, digit))) for t, p in moved)]

        return code.loop(0, self.count, 1, [("i64", "1"), *(("ptr", p) for p in pointers.values())], roll)[1:]


__all__ = ["MAX_OUTER", "emit_kernel", "panel_lanes", "register_type"]
