"""Register tiles: the leaf of every loop nest, where all arithmetic is written.

A `Tile` unrolls the free axes that have become constant, keeps one accumulator for each point in registers, runs its
reductions, and stores. An operand that lacks an axis is reused along it; one that lacks the vector axis is spread;
one that is contiguous along it is loaded as a vector; else it is gathered, or transposed in registers (`flip`). Equal
fragments and equal partial products are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from ...ir.loops import Leaf, Load, Tile, Total, loads_of
from ...ir.types import I64, DType, accumulation_type, promote
from . import elementwise
from .algebra import Algebra, State
from .emit import Carried, Code, Number
from .machine import Machine
from .runs import load_position
from .scope import Scope
from .values import Registers, Value

Point = tuple[int, ...]
Pointers = dict[int, str]
Masks = Sequence["str | None"]
Step = Callable[[Pointers, list[State]], list[State]]


@dataclass(frozen=True)
class _Factor:
    """A factor with the tensors that it loads, the positions of its axes in a point, and whether it varies by lane."""

    leaf: Leaf
    tensors: tuple[int, ...]
    places: frozenset[int]
    lanes: bool


class TileCode:
    """Lowers one tile at one point of the nest."""

    def __init__(self, code: Code, machine: Machine, tile: Tile, scope: Scope) -> None:
        self.code, self.tile, self.scope = code, tile, scope
        self.registers = Registers(code, tile.lanes, machine)
        self.algebra = Algebra(self.registers, tile.accumulate, tile.semiring)
        self.across = tile.vector in tile.reduced
        loaded = [o + 1 for leaf in tile.factors for o in loads_of(leaf)]
        self.inputs = tuple(dict.fromkeys(loaded))
        self.extra = tuple(o + 1 for o in loads_of(tile.epilogue))
        self.via = scope.via
        lists = [index for (_, t), pairs in scope.via.items() if t in self.inputs for index, _ in pairs]
        self.walked = tuple(dict.fromkeys((*self.inputs, *lists)))
        tensors = dict.fromkeys((tile.out, *self.walked, *self.extra))
        self.strides = {t: {a: s for a, s in scope.strides[t].items() if s != 0} for t in tensors}
        self.axes = (*(a for a in tile.free if a != tile.vector), tile.vector)
        ranges = [range(self._constant(a)) for a in self.axes[:-1]]
        self.ranges = [*ranges, range(tile.vectors if self.across else -(-self._cap(tile.vector) // tile.lanes))]
        self.points: list[Point] = list(product(*self.ranges))
        self.factors = self._order([self._factor(leaf) for leaf in tile.factors])
        self.lane_offsets = {t: self._lane_offsets(t) for t in tensors}
        self.offsets = {t: self._point_offsets(t) for t in tensors}
        bound = scope.extents[tile.vector]
        self.masks: list[str | None] = (
            [None] * len(self.ranges[-1])
            if self.across
            else [self.registers.below(bound, j * tile.lanes) for j in self.ranges[-1]]
        )

    def _constant(self, axis: str) -> int:
        extent = self.scope.extents[axis]
        assert isinstance(extent, int), f"axis {axis} of a tile must be blocked by a loop"
        return extent

    def _cap(self, axis: str) -> int:
        cap = self.scope.caps[axis]
        assert isinstance(cap, int), f"vector axis {axis} of a tile must be blocked by a loop"
        return cap

    # --- what is loaded where -----------------------------------------------------------------------------------------

    def _factor(self, leaf: Leaf) -> _Factor:
        tensors = tuple(o + 1 for o in loads_of(leaf))
        axes = {a for t in tensors for a in self.strides[t]}
        places = frozenset(i for i, a in enumerate(self.axes) if a in axes)
        return _Factor(leaf, tensors, places, self.tile.vector in axes)

    def _order(self, factors: list[_Factor]) -> list[_Factor]:
        """Few fragments first: their partial products are shared, and the last factor is fused with the sum."""

        def fragments(factor: _Factor) -> int:
            return len({self._project(factor.places, p) for p in self.points}) + factor.lanes

        return sorted(factors, key=fragments)

    @staticmethod
    def _project(places: frozenset[int], point: Point) -> Point:
        return tuple(q if i in places else 0 for i, q in enumerate(point))

    def _places(self, tensor: int) -> frozenset[int]:
        return frozenset(i for i, a in enumerate(self.axes) if a in self.strides[tensor])

    def _lane_offsets(self, tensor: int) -> str:
        stride = self.strides[tensor].get(self.tile.vector, 0)
        looked_up = (self.tile.vector, tensor) in self.via
        if self.tile.lanes == 1 or looked_up or stride in (0, self.scope.dtypes[tensor].itemsize):
            return ""
        return self.registers.steps(stride)

    def _point_offsets(self, tensor: int) -> dict[Point, Number]:
        """Byte offset of each point of the tile, shared by the points that project on the same one."""
        offsets: dict[Point, Number] = {}
        places = self._places(tensor)
        for point in self.points:
            at = self._project(places, point)
            if at not in offsets:
                total: Number = 0
                for axis, q in zip(self.axes, at, strict=True):
                    if q and (axis, tensor) not in self.via:
                        count = q * (self.tile.lanes if axis == self.tile.vector else 1)
                        total = self.code.add(total, self.code.mul(count, self.strides[tensor][axis]))
                offsets[at] = total
        return offsets

    # --- one step: the product at every point
    # ---------------------------------------------------------------------------

    def _load(self, registers: Registers, tensor: int, point: Point, pointers: Pointers, masks: Masks) -> Value:
        at = self._project(self._places(tensor), point)
        address = self.code.offset(pointers[tensor], self.offsets[tensor][at])
        stride = self.strides[tensor].get(self.tile.vector, 0)
        dtype = self.scope.dtypes[tensor]
        if registers.lanes != self.tile.lanes or stride == 0:
            return registers.load(address, dtype, 0, None)
        if (self.tile.vector, tensor) in self.via:
            return self._load_looked_up(tensor, address, point, pointers, masks)
        return registers.load(address, dtype, stride, masks[at[-1]], self.lane_offsets[tensor])

    def _load_looked_up(self, tensor: int, address: str, point: Point, pointers: Pointers, masks: Masks) -> Value:
        """The lanes at the positions that lookups hold."""
        registers, offsets = self.registers, ""
        for index, axis in self.via[self.tile.vector, tensor]:
            (at,) = registers.convert(
                self._load(registers, index, point, pointers, masks), self.scope.dtypes[index], I64
            )
            stride = self.scope.strides[tensor].get(axis, 0)
            step = registers.binary("mul", "i64", at, registers.numbers(stride))
            offsets = registers.binary("add", "i64", offsets, step) if offsets else step
        if registers.lanes == 1:
            single = self.code.op(f"extractelement <1 x i64> {offsets}, i64 0")
            return registers.load(self.code.offset(address, single), self.scope.dtypes[tensor], 0, masks[point[-1]])
        return registers.load(address, self.scope.dtypes[tensor], -1, masks[point[-1]], offsets)

    def _followed(self, axis: str, pointers: Pointers) -> Pointers:
        """The addresses at the positions that lookups hold at this step along a reduced axis."""
        if axis == self.tile.vector or not any((axis, t) in self.via for t in self.inputs):
            return pointers
        moved, known = dict(pointers), dict[int, str]()
        for tensor in self.inputs:
            for index, looked in self.via.get((axis, tensor), ()):
                if index not in known:
                    known[index] = load_position(self.code, pointers[index], self.scope.dtypes[index])
                step = self.code.mul(known[index], self.scope.strides[tensor].get(looked, 0))
                moved[tensor] = self.code.offset(moved[tensor], step)
        return moved

    def _moving(self, axis: str) -> list[int]:
        """The tensors that go along an axis in equal steps."""
        return [t for t in self.walked if axis in self.strides[t] and (axis, t) not in self.via]

    def _can_flip(self, tensor: int, mask: str | None) -> bool:
        flip, strides = self.tile.flip, self.strides[tensor]
        return (
            bool(flip) and mask is None and self.tile.vector in strides
            and strides.get(flip) == self.scope.dtypes[tensor].itemsize
            and self.scope.extents[flip] == self.tile.lanes
        )  # fmt: skip

    def _flipped(self, tensor: int, point: Point, pointers: Pointers) -> dict[Point, Value]:
        """The fragments of a whole run along `flip`: loaded along it, transposed."""
        place, lanes = self.axes.index(self.tile.flip), self.tile.lanes
        base = (*point[:place], 0, *point[place + 1 :])
        start = self.code.offset(pointers[tensor], self.offsets[tensor][base])
        dtype, stride = self.scope.dtypes[tensor], self.strides[tensor][self.tile.vector]
        rows = [
            self.registers.load(self.code.offset(start, self.code.mul(lane, stride)), dtype, dtype.itemsize, None)
            for lane in range(lanes)
        ]
        columns = self.registers.transpose(rows, dtype)
        return {(*base[:place], i, *base[place + 1 :]): column for i, column in enumerate(columns)}

    def _fragment(
        self,
        factor: _Factor,
        point: Point,
        pointers: Pointers,
        masks: Masks,
        loaded: dict[tuple[int, Point, int], Value],
    ) -> Value:
        """One factor at one point, in the accumulation type, in all lanes."""
        registers = self.registers if factor.lanes else self.registers.single

        def load(operand: int) -> tuple[Value, DType]:
            tensor = operand + 1
            at = self._project(self._places(tensor), point)
            key = (tensor, at, registers.lanes)
            if key not in loaded:
                if self._can_flip(tensor, masks[at[-1]]) and factor.lanes:
                    for place, value in self._flipped(tensor, at, pointers).items():
                        loaded[tensor, place, registers.lanes] = value
                else:
                    loaded[key] = self._load(registers, tensor, at, pointers, masks)
            return loaded[key], self.scope.dtypes[tensor]

        value, dtype = elementwise.evaluate(factor.leaf, registers, load)
        value = registers.convert(value, dtype, self.tile.accumulate)
        return value if factor.lanes else self.registers.spread(value, self.tile.accumulate)

    def _step(self, pointers: Pointers, sums: list[State], masks: Masks, vectors: range, choose: bool) -> list[State]:
        """Add the product at every point; with `choose`, only in the lanes of the mask."""
        loaded: dict[tuple[int, Point, int], Value] = {}
        fragments: dict[tuple[int, Point], Value] = {}
        partial: dict[tuple[Point, ...], Value] = {}
        new = list(sums)
        for number, point in enumerate(self.points):
            if point[-1] not in vectors:
                continue
            value: Value | None = None
            key: tuple[Point, ...] = ()
            for i, factor in enumerate(self.factors):
                at = self._project(factor.places, point)
                if (i, at) not in fragments:
                    fragments[i, at] = self._fragment(factor, at, pointers, masks, loaded)
                fragment = fragments[i, at]
                if i == len(self.factors) - 1:
                    break
                key = (*key, at)
                if value is not None and key not in partial:
                    partial[key] = self.algebra.product(value, fragment)
                value = fragment if value is None else partial[key]
            new[number] = self._accumulate(sums[number], value, fragment)
            mask = masks[point[-1]]
            if choose and mask is not None:
                new[number] = self.algebra.pick(mask, new[number], sums[number])
        return new

    def _accumulate(self, state: State, value: Value | None, last: Value) -> State:
        if not self.tile.reduced:
            return self.algebra.lift(last if value is None else self.algebra.product(value, last))
        if value is None:
            return self.algebra.add(state, self.algebra.lift(last))
        return self.algebra.multiply_add(state, value, last)

    # --- reductions ---------------------------------------------------------------------------------------------------

    def _flat(self, sums: list[State]) -> list[str]:
        return [part for state in sums for part in state]

    def _grouped(self, parts: Sequence[str]) -> list[State]:
        width = len(self.algebra.types)
        return [tuple(parts[i : i + width]) for i in range(0, len(parts), width)]

    def _carried(self, sums: list[State]) -> list[Carried]:
        return [(t, p) for state in sums for t, p in zip(self.algebra.types, state, strict=True)]

    def _zeros(self) -> list[State]:
        return [self.algebra.zero()] * len(self.points)

    def _reduce(self, left: tuple[str, ...], pointers: Pointers, sums: list[State]) -> list[State]:
        """Run the reductions that are left, outermost first."""
        if not left:
            return self._step(pointers, sums, self.masks, self.ranges[-1], choose=False)
        axis, rest = left[0], left[1:]
        extent = self.scope.extents[axis]
        if axis in self.tile.blocked:
            return self._in_blocks(axis, rest, extent, pointers, sums)
        return self._along(axis, rest, 0, extent, pointers, sums)

    def _in_blocks(
        self, axis: str, rest: tuple[str, ...], extent: Number, pointers: Pointers, sums: list[State]
    ) -> list[State]:
        """One reduction in blocks with accumulators of their own: errors grow with the block, not with the sum."""
        lanes = self.tile.lanes * len(self.ranges[-1]) if axis == self.tile.vector else 1
        block = self.tile.block * lanes

        def body(start: Number, values: list[str]) -> list[str]:
            end = self.code.minimum(self.code.add(start, block), extent)
            inner = self._along(axis, rest, start, end, pointers, self._zeros())
            totals = zip(self._grouped(values), inner, strict=True)
            return self._flat([self.algebra.add(total, part) for total, part in totals])

        return self._grouped(self.code.loop(0, extent, block, self._carried(sums), body))

    def _along(
        self, axis: str, rest: tuple[str, ...], low: Number, high: Number, pointers: Pointers, sums: list[State]
    ) -> list[State]:
        """One reduction from `low` to `high`: by a table, across lanes, or in single steps with unrolling."""
        if any((axis, t) in self.scope.tables for t in self.inputs):
            return self._by_table(axis, rest, low, high, pointers, sums)
        if low != 0:
            moved = {t: self.code.mul(low, self.strides[t][axis]) for t in self._moving(axis)}
            pointers = {t: self.code.offset(p, moved.get(t, 0)) for t, p in pointers.items()}
        extent = self.code.sub(high, low)
        if axis == self.tile.vector:
            return self._across_lanes(axis, extent, pointers, sums)

        def one(inner: Pointers, states: list[State]) -> list[State]:
            return self._reduce(rest, inner, states)

        unroll = 1 if rest else self.tile.unroll
        if isinstance(extent, int) and extent <= 8 and not rest:
            unroll = max(1, extent)
        whole = self.code.floor(extent, unroll)
        sums, pointers = self._run(axis, 0, whole, 1, unroll, one, pointers, sums)
        if unroll == 1 or whole == extent:
            return sums
        return self._run(axis, whole, extent, 1, 1, one, pointers, sums)[0]

    def _by_table(
        self, axis: str, rest: tuple[str, ...], low: Number, high: Number, pointers: Pointers, sums: list[State]
    ) -> list[State]:
        """Several axes in one: their offsets stand in a table for each operand."""

        def body(i: Number, values: list[str]) -> list[str]:
            moved = dict(pointers)
            for tensor in self.inputs:
                table = self.scope.tables.get((axis, tensor))
                if table is not None:
                    entry = self.code.offset(table, self.code.mul(i, 8))
                    moved[tensor] = self.code.offset(pointers[tensor], self.code.op(f"load i64, ptr {entry}, align 8"))
            return self._flat(self._reduce(rest, moved, self._grouped(values)))

        return self._grouped(self.code.loop(low, high, 1, self._carried(sums), body))

    def _across_lanes(self, axis: str, extent: Number, pointers: Pointers, sums: list[State]) -> list[State]:
        vectors = self.ranges[-1]
        lanes = self.tile.lanes
        step = lanes * len(vectors)
        none = [None] * len(vectors)
        whole = self.code.floor(extent, step)

        def full(inner: Pointers, states: list[State]) -> list[State]:
            return self._step(inner, states, none, vectors, choose=False)

        sums, pointers = self._run(axis, 0, whole, step, 1, full, pointers, sums)
        if whole == extent:
            return sums

        def short(inner: Pointers, states: list[State]) -> list[State]:
            return self._step(inner, states, [mask, *none[1:]], range(1), choose=True)

        # Whole vectors that fill no group, then one masked vector.
        vector_end = self.code.floor(extent, lanes)
        if len(vectors) > 1:

            def alone(inner: Pointers, states: list[State]) -> list[State]:
                return self._step(inner, states, none, range(1), choose=False)

            sums, pointers = self._run(axis, whole, vector_end, lanes, 1, alone, pointers, sums)
        if vector_end == extent:
            return sums
        mask = self.registers.below(self.code.sub(extent, vector_end), 0)
        return self._run(axis, vector_end, extent, lanes, 1, short, pointers, sums)[0]

    def _run(
        self,
        axis: str,
        low: Number,
        high: Number,
        by: int,
        unroll: int,
        one: Step,
        pointers: Pointers,
        sums: list[State],
    ) -> tuple[list[State], Pointers]:
        """A loop that carries the accumulators and the addresses that move along the axis."""
        moving = self._moving(axis)
        carried = self._carried(sums) + [("ptr", pointers[t]) for t in moving]
        split = len(carried) - len(moving)

        def body(_: Number, values: list[str]) -> list[str]:
            states, inner = (
                self._grouped(values[:split]),
                {**pointers, **dict(zip(moving, values[split:], strict=True))},
            )
            for _copy in range(unroll):
                states = one(self._followed(axis, inner), states)
                for t in moving:
                    inner[t] = self.code.offset(inner[t], self.code.mul(by, self.strides[t][axis]))
            return self._flat(states) + [inner[t] for t in moving]

        result = self.code.loop(low, high, by * unroll, carried, body)
        return self._grouped(result[:split]), {**pointers, **dict(zip(moving, result[split:], strict=True))}

    # --- results ------------------------------------------------------------------------------------------------------

    def emit(self) -> None:
        """Write the whole tile."""
        pointers = {t: self.scope.pointers[t] for t in self.strides}
        sums = self._reduce(self.tile.reduced, pointers, self._zeros())
        if self.across:
            sums = self._fold_lanes(sums)
        _Results(self, sums).store()

    def _fold_lanes(self, sums: list[State]) -> list[State]:
        """One single-lane sum for each point without its lane group; the points and registers shrink accordingly."""
        groups: dict[Point, State] = {}
        for point, state in zip(self.points, sums, strict=True):
            at = (*point[:-1], 0)
            groups[at] = self.algebra.add(groups[at], state) if at in groups else state
        element = self.algebra.element
        folded = [self.algebra.across(state) for state in groups.values()]
        self.points, self.masks = list(groups), [None]
        return [tuple(self.registers.first_lane(element, part) for part in state) for state in folded]


class _Results:
    """Stores the sums of a tile: adds what earlier blocks left, applies the epilogue, converts."""

    def __init__(self, tile: TileCode, sums: list[State]) -> None:
        self.tile, self.sums, self.code = tile, sums, tile.code
        self.registers = tile.registers.single if tile.across else tile.registers
        self.algebra = tile.algebra.with_lanes(self.registers)
        self.out = tile.tile.out
        self.dtype = tile.scope.dtypes[self.out]

    def store(self) -> None:
        plan, blocks = self.tile.tile, self.tile.scope.blocks
        plain = plan.epilogue == Total()
        if not blocks:
            self._store_results(plan.update)
            return
        assert self.dtype == plan.accumulate and not self.algebra.streaming, "partial sums must fit the output"
        if plan.update:
            assert plain, "an update in blocks cannot have an epilogue"
            self._store_results(update=True)
            return
        first = self._all([self.code.op(f"icmp eq i64 {start}, 0") for start, _, _ in blocks if start != 0])
        if first is not None:
            self.sums = [self._add_partial(p, s, first) for p, s in zip(self.tile.points, self.sums, strict=True)]
        ends = [(end, extent) for _, end, extent in blocks if end != extent]
        if plain or not ends:
            self._store_results(update=False)
            return
        last = self._all([self.code.op(f"icmp sge i64 {end}, {extent}") for end, extent in ends])
        assert last is not None
        self.code.branch(last, lambda: self._store_results(update=False), self._store_partial)

    def _all(self, conditions: list[str]) -> str | None:
        joint = None
        for condition in conditions:
            joint = condition if joint is None else self.code.op(f"and i1 {joint}, {condition}")
        return joint

    def _address(self, tensor: int, point: Point) -> tuple[str, Number, str | None, str]:
        """Address, lane stride, mask and lane offsets of a tensor at a point."""
        tile = self.tile
        at = tile._project(tile._places(tensor), point)
        address = self.code.offset(tile.scope.pointers[tensor], tile.offsets[tensor][at])
        stride = 0 if tile.across else tile.strides[tensor].get(tile.tile.vector, 0)
        return address, stride, tile.masks[point[-1]], tile.lane_offsets[tensor]

    def _load(self, tensor: int, point: Point) -> Value:
        address, stride, mask, offsets = self._address(tensor, point)
        return self.registers.load(
            address, self.tile.scope.dtypes[tensor], stride, mask if stride != 0 else None, offsets
        )

    def _store(self, value: Value, point: Point) -> None:
        address, stride, mask, offsets = self._address(self.out, point)
        self.registers.store(value, address, self.dtype, stride, mask, offsets)

    def _add_partial(self, point: Point, state: State, first: str) -> State:
        """The sum with what the block before left; in the first block, what is read there does not count."""
        total = self.algebra.add(self.algebra.lift(self._load(self.out, point)), state)
        types = self.algebra.types
        return tuple(
            self.code.op(f"select i1 {first}, {t} {x}, {t} {y}")
            for t, x, y in zip((self.registers.of(self.algebra.element),) * len(types), state, total, strict=True)
        )

    def _store_partial(self) -> None:
        for point, state in zip(self.tile.points, self.sums, strict=True):
            self._store(self.algebra.finish(state), point)

    def _store_results(self, update: bool) -> None:
        plan = self.tile.tile
        for point, state in zip(self.tile.points, self.sums, strict=True):
            total = (self.algebra.finish(state), plan.accumulate)

            def load(operand: int, point: Point = point) -> tuple[Value, DType]:
                return self._load(operand + 1, point), self.tile.scope.dtypes[operand + 1]

            value, dtype = elementwise.evaluate(plan.epilogue, self.registers, load, total)
            if update:
                value, dtype = self._updated(value, dtype, point)
            self._store(self.registers.convert(value, dtype, self.dtype), point)

    def _updated(self, value: Value, dtype: DType, point: Point) -> tuple[Value, DType]:
        """What the output holds, added to a value, in a type that holds both."""
        joint = accumulation_type(promote(dtype, self.dtype))
        algebra = Algebra(self.registers, joint, self.tile.tile.semiring)
        old = self.registers.convert(self._load(self.out, point), self.dtype, joint)
        new = algebra.add(algebra.lift(old), algebra.lift(self.registers.convert(value, dtype, joint)))
        return algebra.finish(new), joint


def emit_tile(code: Code, machine: Machine, tile: Tile, scope: Scope) -> None:
    """Write a tile at one point of the nest."""
    TileCode(code, machine, tile, scope).emit()


__all__ = ["Load", "TileCode", "emit_tile"]
