"""Linear maps as options: babies, plain products, giants, a fold, a bias; and relabelling, which is no operation.

`linear` decides between which packings a map goes; here its operations are counted, priced and written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..core.circuit import Builder
from ..core.layout import Layout, Packing
from ..lowering.problem import Linear
from ..steps.candidates import Result
from ..steps.context import Context
from ..steps.option import Placed, Work
from .babysteps import Split
from .cover import Cover
from .matrix import Matrix

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The plain vector of one diagonal, moved back by the giant step that follows."""

    map: Map
    number: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The clear tensors of the coefficients."""
        return self.map.matrix.reads

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """The coefficients in the slots that the diagonal serves, 0 elsewhere."""
        m = self.map
        d, c, k = m.cover.places[self.number].tolist()
        at = m.cover.served(self.number)
        rows = m.target.at[d][at]
        elements = m.takes[0].packing.at[c][(at + k) % m.period]
        values = m.matrix.values(rows, elements, tensors)
        _, giant = m.split.parts(k, m.period)
        made = np.zeros(m.period, dtype=values.dtype)
        made[(at + giant) % m.period] = values
        return np.tile(made, m.slots // m.period)


@dataclass(frozen=True, eq=False)
class Bias:
    """A clear tensor in the slots of a packing."""

    tensor: str
    row: Array

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensor."""
        return (self.tensor,)

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """Its elements, 0 where the packing has none."""
        flat = np.append(np.asarray(tensors[self.tensor]).ravel(), 0.0)
        vector: Array = flat[self.row]
        return vector


@dataclass(frozen=True, eq=False)
class Map:
    """One way to apply a matrix: diagonals, how their offsets are split, and the fold.

    `target` is where partial sums lie (`result` says it in digits), `packed` how the client packs a free input, `folds`
    the rotations that add partial sums up, `period` what offsets are modulo, and `bare` says that no plain product is
    needed. With `chained` rotations are made one from the other, so that few
    different steps (and keys) occur.
    """

    matrix: Matrix
    context: Context
    source: Placed
    result: Result | None
    target: Packing
    placed: Placed
    period: int
    cover: Cover
    split: Split
    folds: tuple[int, ...]
    bare: bool
    packed: Layout | None = None
    method: str = "map"
    chained: bool = False

    @property
    def slots(self) -> int:
        """Slots of a ciphertext."""
        return self.context.slots

    @property
    def takes(self) -> tuple[Placed, ...]:
        """The operand as it lies."""
        return (self.source,)

    @property
    def gives(self) -> Placed:
        """The result."""
        return self.placed

    @cached_property
    def groups(self) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
        """(result ciphertext, giant step) -> (operand ciphertext, baby step, number of the diagonal)."""
        found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for number, (d, c, k) in enumerate(self.cover.places.tolist()):
            a, b = self.split.parts(k, self.period)
            found.setdefault((d, b), []).append((c, a, number))
        return found

    @cached_property
    def babies(self) -> tuple[tuple[int, int, int, int], ...]:
        """Rotations of operands in order: (ciphertext, step reached, step it is made from, rotation)."""
        wanted: dict[int, set[int]] = {}
        for members in self.groups.values():
            for c, a, _ in members:
                wanted.setdefault(c, set()).add(a)
        made = []
        for c in sorted(wanted):
            last = 0
            for a in sorted(wanted[c] - {0}):
                made.append((c, a, last, a - last) if self.chained else (c, a, 0, a))
                last = a
        return tuple(made)

    @cached_property
    def work(self) -> Work:
        """Counts, and the time that they take."""
        prices, before = self.context.prices, self.context.primes(self.source.level)
        after = before if self.bare else before - 1
        outputs = len(self.target.at)
        diagonals, folds = len(self.cover), len(self.folds) * outputs
        babies, giants = self.split.babies, self.split.giants
        parts = 0 if self.bare else len(self.groups)
        time = babies * prices.rotate(before) + (giants + folds) * prices.rotate(after)
        time += parts * prices.rescale(before)
        if not self.bare:
            time += diagonals * prices.multiply_plain(before)
        time += (diagonals - len(self.groups)) * prices.add(before)
        time += (len(self.groups) - outputs + folds) * prices.add(after)
        return Work(
            rotations=babies + giants + folds,
            plain_products=0 if self.bare else diagonals,
            rescales=parts,
            additions=diagonals - outputs + folds,
            milliseconds=time,
        )

    @cached_property
    def steps(self) -> frozenset[int]:
        """Rotations that need keys."""
        found = {step % self.slots for _, _, _, step in self.babies} | set(self.folds)
        for d in range(len(self.target.at)):
            for run in self._runs([b for e, b in self.groups if e == d]):
                found |= {step % self.slots for _, step in run}
        return frozenset(found - {0})

    def _runs(self, giants: list[int]) -> list[list[tuple[int, int]]]:
        """Partial sums in order of rotation, (giant step, rotation): those of a run are added up on the way."""
        if not self.chained:
            return [[(b, b)] for b in sorted(giants)]
        near = {b - self.period if b > self.period // 2 else b: b for b in giants}
        runs = [[0]] if 0 in near else []
        runs += [r for r in (sorted((b for b in near if b > 0), reverse=True), sorted(b for b in near if b < 0)) if r]
        return [[(near[b], b - to) for b, to in zip(run, [*run[1:], 0], strict=True)] for run in runs]

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """Babies, products and sums, giants, folds, bias."""
        span = self.matrix.step.span
        baby = {(c, 0): node for c, node in enumerate(operands[0])}
        for c, a, made_from, step in self.babies:
            baby[c, a] = builder.rotate(baby[c, made_from], step, span)
        parts: dict[int, dict[int, int]] = {}
        for (d, b), members in sorted(self.groups.items()):
            if self.bare:
                total = builder.total([baby[c, a] for c, a, _ in members])
            else:
                terms = [builder.multiply_plain(baby[c, a], Diagonal(self, n), span) for c, a, n in members]
                total = builder.rescale(builder.total(terms), span)
            parts.setdefault(d, {})[b] = total
        results = []
        for d in range(len(self.target.at)):
            value = self._gathered(builder, parts[d])
            for step in self.folds:
                value = builder.add(value, builder.rotate(value, step, span))
            results.append(value)
        return with_bias(builder, self.matrix.step, self.placed.packing, tuple(results))

    def _gathered(self, builder: Builder, parts: Mapping[int, int]) -> int:
        """The sum of partial sums, each moved by its giant step."""
        ends = []
        for run in self._runs(list(parts)):
            carried: int | None = None
            for b, step in run:
                value = parts[b] if carried is None else builder.add(parts[b], carried)
                carried = builder.rotate(value, step, self.matrix.step.span)
            assert carried is not None
            ends.append(carried)
        return builder.total(ends)

    def decision(self) -> Mapping[str, Any]:
        """The layouts of result and input, as far as they are not given."""
        return {
            "method": self.method,
            "result": None if self.result is None else self.result.to_json(),
            "packed": None if self.packed is None else self.packed.to_json(),
            "chained": self.chained,
        }

    def describe(self) -> str:
        """What moves where."""
        w = self.work
        where = f"{self.source.text} -> {self.placed.text}"
        head = "" if self.method == "lanes" else f"{self.method} "  # the source says that it is lanes
        return f"{head}{where}: {w.rotations} rotations, {w.plain_products} products"


@dataclass(frozen=True, eq=False)
class Relabel:
    """Every element goes to one row as it is: the same ciphertexts, read otherwise."""

    matrix: Matrix
    source: Placed
    placed: Placed
    work: Work = Work()
    steps: frozenset[int] = frozenset()

    @property
    def takes(self) -> tuple[Placed, ...]:
        """The operand as it lies."""
        return (self.source,)

    @property
    def gives(self) -> Placed:
        """The same slots under other numbers."""
        return self.placed

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The operand itself, and the bias."""
        return with_bias(builder, self.matrix.step, self.placed.packing, operands[0])

    def decision(self) -> Mapping[str, Any]:
        """Nothing but the method."""
        return {"method": "relabel"}

    def describe(self) -> str:
        """One line."""
        return f"relabel {self.source.text}"


def with_bias(builder: Builder, step: Linear, packing: Packing, values: tuple[int, ...]) -> tuple[int, ...]:
    """The values with the step's bias added."""
    if step.bias is None:
        return values
    return tuple(
        builder.add_plain(v, Bias(step.bias, row), step.span) for v, row in zip(values, packing.at, strict=True)
    )
