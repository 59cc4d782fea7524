"""Matrix products of two encrypted operands with baby and giant steps in all three indices: O(d^(2/3)) key switches.

Slots are seen as a grid (x, y). In frame "xy" the left operand holds A[x, x + y], the right one B[x + y, y], the result
C[x, y], all modulo d: one product of ciphertexts gives d^2 terms. With rho, mu, chi the offsets of row, contracted
index and column, the left operand rotated for (rho, mu) times the right one rotated for (mu, chi) holds terms of C at
(row + rho, column + chi); sums over mu stay in place, and one rotation brings them home. If mu - rho - chi takes every
value modulo d once for mu in T, rho in P, chi in Q, each product is met once: tp + tq + pq - 3 rotations, tpq = d
products and pq relinearisations, in one level, where (t, p, q) = (d, 1, 1) is the classical 2 (d - 1). The other frames
give the three indices other places in the grid, so that results of one product are operands of the next.

Rotations wrap round in x alone (it is the top digit), and only if the grid fills the ciphertext; whatever else is
read beyond the grid is stored twice. Larger matrices are cut into blocks; blocks, batches and what is left of a
ciphertext are lanes and ciphertexts as in `lanes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product as cross
from math import prod
from typing import Any

import numpy as np

from ..core import fold
from ..core.circuit import Builder
from ..core.layout import NOTHING, SLOTS, Packing
from ..lowering.problem import Product
from ..steps.context import Argument, Context
from ..steps.digits import positions
from ..steps.option import Placed, Work
from ..steps.placements import level_of, packed_for_this
from .lanes import Folds
from .matmul3_plan import COLUMN, FRAMES, INNER, LEFT, RESULT, RIGHT, ROW, Frame, Plan, Vector, figures

Array = np.ndarray[Any, Any]

SAMPLE = 61  # of so many slots one is looked at before all are


@dataclass(frozen=True)
class Matmul3:
    """A product of two operands by a plan."""

    step: Product
    context: Context
    arguments: tuple[Argument, ...]
    plan: Plan

    @property
    def frame(self) -> Frame:
        """Where the indices lie in the grid."""
        return FRAMES[self.plan.frame]

    @cached_property
    def extents(self) -> dict[str, int]:
        """How many blocks there are of row, inner and column; the extents of the other indices."""
        d = self.plan.size
        return {i: -(-n // d) if i in self.plan.core else n for i, n in self.step.extents.items()}

    @cached_property
    def offsets(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The offsets of inner, row and column: their signed sum at a place of the result takes every value once."""
        t, p, q = self.plan.parts
        row = 1 if self.frame.sum == COLUMN else -1
        column = 1 if self.frame.sum == ROW else -1
        return (
            tuple(range(t)),
            tuple(row * t * u for u in range(p)),
            tuple(column * t * p * u for u in range(q)),
        )

    @cached_property
    def begins(self) -> int:
        """The level of the operands when they are multiplied."""
        return max(map(level_of, self.arguments))

    @property
    def level(self) -> int:
        """The level of the result."""
        return self.begins + 1

    @property
    def uploads(self) -> int:
        """Ciphertexts that the client packs for this product."""
        return sum(
            prod(n for _, n in self.plan.blocks.along(indices))
            for argument, indices in zip(self.arguments, self.step.inputs, strict=True)
            if packed_for_this(argument)
        )

    @cached_property
    def takes(self) -> tuple[Placed, ...]:
        """The operands: placed ones as they are, inputs in their windows of the grid."""
        found = []
        for argument, indices, pair in zip(self.arguments, self.step.inputs, (LEFT, RIGHT), strict=True):
            if isinstance(argument, Placed):
                found.append(argument)
            else:
                packing = Packing(self.at(indices, pair))
                found.append(Placed(packing, level_of(argument), self._text(indices, pair)))
        return tuple(found)

    @property
    def may_fit(self) -> bool:
        """Whether placed operands look right in a few slots, with rows stored twice or not."""
        return all(self._held(k, exactly=False, glance=True) for k in (0, 1))

    @property
    def fits(self) -> bool:
        """Whether placed operands have what is read of them, in its place."""
        return all(self._held(k, exactly=bool(self.folds.parts)) for k in (0, 1))

    def _held(self, k: int, exactly: bool, glance: bool = False) -> bool:
        """Whether operand k has in its window what it should (`exactly`: and 0 elsewhere; `glance`: see `may_fit`)."""
        argument = self.arguments[k]
        if not isinstance(argument, Placed):
            return True
        twice = self.plan.doubled[k]
        key = ("matmul3 held", k, exactly, glance, twice, argument.packing.key, self._geometry)
        if key not in self.context.memory:
            indices, pair = self.step.inputs[k], (LEFT, RIGHT)[k]
            if glance:
                held = _looks(argument.packing, self.at(indices, pair, SAMPLE))
            else:
                move = twice * self.plan.size * self.plan.lanes
                held = _holds(argument.packing, self.at(indices, pair), move, exactly)
            self.context.memory[key] = held
        return bool(self.context.memory[key])

    @property
    def _geometry(self) -> tuple[Any, ...]:
        """What packings depend on: not on how offsets are grouped."""
        plan = self.plan
        return (
            self.step.name,
            plan.core,
            plan.frame,
            plan.size,
            plan.height,
            plan.width,
            plan.lanes,
            plan.blocks,
        )

    @cached_property
    def folds(self) -> Folds:
        """Sums over lanes of the inner index's blocks, and of other contracted indices."""
        contracted = tuple(i for i, _ in self.plan.blocks.forms if i not in self.step.output)
        return Folds.of(self.plan.blocks, contracted, self.extents, 0)

    @cached_property
    def gives(self) -> Placed:
        """The result in the window of the grid."""
        fixed_y = any(moves == (0, 0) for _, moves in self.spread)
        fixed_x = self.plan.wraps or any(moves == (0, 0) for moves, _ in self.spread)
        clean = fixed_x and fixed_y and not self.folds.only and all(self._held(k, exactly=True) for k in (0, 1))
        packing = Packing(self.at(self.step.output, RESULT), clean=clean)
        return Placed(packing, self.level, self._text(self.step.output, RESULT))

    @cached_property
    def spread(self) -> tuple[tuple[Vector, Vector], tuple[Vector, Vector]]:
        """For each operand, the least and the greatest move in x and in y from a place of the result to what is
        read for it.
        """
        found = []
        for pair in (LEFT, RIGHT):
            low, high = [0, 0], [0, 0]
            for k, offsets in zip((INNER, ROW, COLUMN), self.offsets, strict=True):
                there = self._unit(k, pair)
                home = self._unit(k, RESULT)
                for axis in (0, 1):  # moves are linear, so each kind of offset counts by itself
                    ends = [(there[axis] - home[axis]) * u for u in (offsets[0], offsets[-1])]
                    low[axis] += min(ends)
                    high[axis] += max(ends)
            found.append(((low[0], high[0]), (low[1], high[1])))
        return found[0], found[1]

    def _unit(self, index: int, pair: tuple[int, int]) -> Vector:
        """The move of a tensor with a pair of indices when one index changes by 1."""
        return self.frame.vector({k: int(k == index) for k in pair}) if index in pair else (0, 0)

    def at(self, indices: tuple[str, ...], pair: tuple[int, int], apart: int = 1) -> Array:
        """The element numbers of an operand (pair LEFT or RIGHT) or of the result, by ciphertext and slot (in every
        slot, or in those that are so far `apart`).
        """
        key = ("matmul3", indices, pair, apart, self._geometry)
        if key not in self.context.memory:
            self.context.memory[key] = self._at(indices, pair, np.arange(0, self.context.slots, apart))
        found: Array = self.context.memory[key]
        return found

    def _at(self, indices: tuple[str, ...], pair: tuple[int, int], slots: Array) -> Array:
        """The element numbers in some slots."""
        plan, d = self.plan, self.plan.size
        place, lane = np.divmod(slots, plan.lanes)
        x, y = np.divmod(place, plan.width)
        (low_x, high_x), (low_y, high_y) = ((0, 0), (0, 0)) if pair == RESULT else self.spread[pair == RIGHT]
        if plan.wraps:  # what lies before a row is at the end of the row above
            moved = (y - low_y) % plan.width + low_y
            x, y = (x + (y - moved) // plan.width) % plan.height, moved
            low_x, high_x = 0, plan.height
        else:
            x, y = (v - max(0, *(-moves[k][0] for moves in self.spread)) for k, v in enumerate((x, y)))
        inside = (x >= low_x) & (x < d + high_x) & (y >= low_y) & (y < d + high_y) & (place < plan.height * plan.width)
        only = self.folds.only if pair == RESULT else None
        blocks = plan.blocks.layout(indices, self.extents, only).packing(plan.lanes).at
        valid = inside & (blocks >= 0)[:, lane]
        flat = np.zeros(valid.shape, dtype=np.int64)
        for i, block in zip(indices, positions(blocks, tuple(self.extents[i] for i in indices)), strict=True):
            position = block[:, lane]
            if i in plan.core:
                position = position * d + self.frame.position(plan.core.index(i), x, y) % d
                valid &= position < self.step.extents[i]
            flat = flat * self.step.extents[i] + position
        return np.where(valid, flat, NOTHING).astype(np.int32)

    def step_of(self, move: Vector) -> int:
        """The rotation that reads at a move in the grid."""
        return (move[0] * self.plan.width + move[1]) * self.plan.lanes % self.context.slots

    @cached_property
    def steps(self) -> frozenset[int]:
        """The rotations."""
        inner, row, column = self.offsets
        found = set(self.folds.steps)
        for one, many, pair in ((INNER, inner, LEFT), (ROW, row, LEFT), (INNER, inner, RIGHT), (COLUMN, column, RIGHT)):
            other = pair[0] if pair[1] == one else pair[1]
            found.update(self.step_of(self.frame.vector({one: u, other: 0})) for u in self._used(many))
        for one, many, other in ((ROW, row, COLUMN), (COLUMN, column, ROW)):
            found.update(self.step_of(self.frame.vector({one: -u, other: 0})) for u in self._used(many))
        found.update(self._twice(k) for k in (0, 1))
        return frozenset(found - {0})

    def _twice(self, k: int) -> int:
        """The rotation that stores the rows of operand k once more."""
        return -self.plan.doubled[k] * self.plan.size * self.plan.lanes % self.context.slots

    def _used(self, many: tuple[int, ...]) -> tuple[int, ...]:
        """The offsets that are rotated by at once."""
        return many[1:2] if self.plan.chained else many[1:]

    @cached_property
    def work(self) -> Work:
        """Babies, products, giants and folds."""
        grid, step = self.plan.blocks, self.step
        sides = [grid.along(i) for i in (*step.inputs, step.output)]
        left, right, results = (prod(n for _, n in digits) for digits in sides)
        cells = prod(n for _, n in dict.fromkeys((*sides[0], *sides[1])))
        found = figures(self.plan.parts, (left, right, results, cells), self.folds.rotations, self.context, self.begins)
        time = found.pop("milliseconds")
        twice = sum(n for n, d in zip((left, right), self.plan.doubled, strict=True) if d)
        prices, primes = self.context.prices, self.context.primes(self.begins)
        again = Work(
            rotations=twice, additions=twice, milliseconds=twice * (prices.rotate(primes) + prices.add(primes))
        )
        return Work(milliseconds=float(time), **{name: int(value) for name, value in found.items()}) + again

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """Babies of both operands, products summed over the inner index, giants of the results, folds."""
        step, plan, span = self.step, self.plan, self.step.span
        inner, row, column = self.offsets
        first, second = (self._prepared(builder, k, nodes) for k, nodes in enumerate(operands))
        left = self._babies(builder, first, (ROW, row), (INNER, inner))
        right = self._babies(builder, second, (COLUMN, column), (INNER, inner))
        size = dict(plan.blocks.ciphertexts)
        sides = [[d for d, _ in plan.blocks.along(i)] for i in step.inputs]
        results = [d for d, _ in plan.blocks.along(step.output)]
        digits = list(dict.fromkeys([*results, *sides[0], *sides[1]]))
        summed = [d for d in digits if d not in results]
        number = [{c: n for n, c in enumerate(cross(*(range(size[d]) for d in side)))} for side in sides]
        found = []
        for cell in cross(*(range(size[d]) for d in results)):
            value = dict(zip(results, cell, strict=True))
            pairs = []
            for rest in cross(*(range(size[d]) for d in summed)):
                value.update(zip(summed, rest, strict=True))
                pairs.append(tuple(number[k][tuple(value[d] for d in sides[k])] for k in (0, 1)))
            columns = []
            for chi in column:
                sums = []
                for rho in row:
                    terms = [
                        builder.multiply(left[rho, mu][a], right[chi, mu][b], span) for a, b in pairs for mu in inner
                    ]
                    settled = builder.rescale(builder.total(terms), span)  # key switches are cheaper one level lower
                    sums.append(builder.relinearise(settled, span))
                columns.append(self._giants(builder, sums, ROW, COLUMN, row))
            node = self._giants(builder, columns, COLUMN, ROW, column)
            for extent, stride in self.folds.parts:
                node = fold.emit(builder, node, extent, stride)
            found.append(builder.negate(node, span) if step.factor < 0 else node)
        return tuple(found)

    def decision(self) -> Mapping[str, Any]:
        """The plan."""
        return {"method": "matmul3", "plan": self.plan.encoded()}

    def describe(self) -> str:
        """The blocks and the offsets."""
        d, (t, p, q) = self.plan.size, self.plan.parts
        keys = ", chained keys" if self.plan.chained else ""
        return f"three-way baby and giant steps: blocks of {d} x {d} x {d}, {t} x {p} x {q} offsets{keys}"

    def _prepared(self, builder: Builder, k: int, nodes: tuple[int, ...]) -> list[int]:
        """An operand at the level of the product, its rows stored twice where the plan says so."""
        settled = [builder.switch(n, self.begins) for n in nodes]
        if not self.plan.doubled[k]:
            return settled
        return [builder.add(n, builder.rotate(n, self._twice(k), self.step.span), self.step.span) for n in settled]

    def _babies(
        self,
        builder: Builder,
        nodes: list[int],
        outer: tuple[int, tuple[int, ...]],
        inner: tuple[int, tuple[int, ...]],
    ) -> dict[tuple[int, int], list[int]]:
        """All ciphertexts of an operand, rotated for every pair of offsets of its two indices."""
        (one, many), (other, few) = outer, inner
        found = {(many[0], few[0]): nodes}
        for k, u in enumerate(many):
            if k:
                found[u, few[0]] = self._moved(builder, found, many, k, few[0], one, other, False)
            for j in range(1, len(few)):
                found[u, few[j]] = self._moved(builder, found, few, j, u, other, one, True)
        return found

    def _moved(
        self,
        builder: Builder,
        found: Mapping[tuple[int, int], list[int]],
        offsets: tuple[int, ...],
        k: int,
        fixed: int,
        one: int,
        other: int,
        last: bool,
    ) -> list[int]:
        """The ciphertexts for offset k of index `one`, from those for the first offset, or the one before."""
        start = offsets[k - 1] if self.plan.chained else offsets[0]
        nodes = found[(fixed, start) if last else (start, fixed)]
        step = self.step_of(self.frame.vector({one: offsets[k] - start, other: 0}))
        return [builder.rotate(n, step, self.step.span) for n in nodes]

    def _giants(self, builder: Builder, sums: list[int], one: int, other: int, offsets: tuple[int, ...]) -> int:
        """Partial sums brought home along one index, and added."""
        span = self.step.span
        if self.plan.chained:
            total = sums[-1]
            for k in range(len(sums) - 2, -1, -1):
                step = self.step_of(self.frame.vector({one: -(offsets[k + 1] - offsets[k]), other: 0}))
                total = builder.add(sums[k], builder.rotate(total, step, span), span)
            return total
        moved = [
            builder.rotate(s, self.step_of(self.frame.vector({one: -u, other: 0})), span)
            for s, u in zip(sums, offsets, strict=True)
        ]
        return builder.total(moved)

    def _text(self, indices: tuple[str, ...], pair: tuple[int, int]) -> str:
        """The layout for people."""
        plan = self.plan
        names = {self.frame.x: "x", self.frame.y: "y", self.frame.sum: "x+y"}
        forms = [f"{plan.core[k]} = {names[k]} mod {plan.size}" for k in pair]
        count = prod(n for _, n in plan.blocks.along(indices))
        head = f"{count} | " if count > 1 else ""
        tail = f" lanes{self.plan.lanes}" if self.plan.lanes > 1 else ""
        return f"[{head}x{plan.height} y{plan.width}{tail}; {'; '.join(forms)}]"


def _holds(packing: Packing, wanted: Array, move: int, exactly: bool) -> bool:
    """Whether a packing, added to itself moved by so many slots, has all elements that are wanted in their slots."""
    at = packing.at
    if at.shape != wanted.shape or packing.kind != SLOTS or (move and not packing.clean):
        return False
    if move:
        again = np.roll(at, move, axis=1)
        if ((at >= 0) & (again >= 0)).any():
            return False
        at = np.maximum(at, again)
    if exactly:
        return packing.clean and np.array_equal(at, wanted)
    return bool((at == wanted)[wanted >= 0].all())


def _looks(packing: Packing, wanted: Array) -> bool:
    """Whether nothing in a few slots speaks against a packing."""
    if len(packing.at) != len(wanted) or packing.kind != SLOTS:
        return False
    at = packing.at[:, ::SAMPLE]
    return bool(((at == wanted) | (wanted < 0) | (at < 0)).all())
