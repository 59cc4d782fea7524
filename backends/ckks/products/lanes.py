"""Products of encrypted operands in lanes: every index of the einsum is split into slots and ciphertexts.

All operands are laid out on one grid of slot digits, each repeated along the digits of the indices that it lacks, so
that the products are slot by slot and nothing has to be aligned. Contracted ciphertext digits are summed by additions
(and relinearised after the sum); contracted slot digits by folds, after the last rescaling. Operands that the client
packs come for nothing; the grid of operands that the program computed is read from their packings.
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
from ..core.circuit import Builder, Plain
from ..core.layout import Form, Layout, Packing
from ..lowering.problem import Product
from ..steps.context import Argument, Context
from ..steps.option import Placed, Work
from ..steps.placements import level_of, packed_for_this
from ..steps.trees import Network, Tree, has_clear, tally
from ..steps.vectors import Constant, Entries

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Grid:
    """The digits that all operands of a product share, high to low, and the position on each index that they give.

    Digits that no index uses are replicas. `only` names digits of which value 0 alone holds data.
    """

    digits: tuple[tuple[str, int], ...]
    ciphertexts: tuple[tuple[str, int], ...]
    forms: tuple[tuple[str, Form], ...]
    only: tuple[str, ...] = ()

    @cached_property
    def form(self) -> dict[str, Form]:
        """The position on each index."""
        return dict(self.forms)

    def along(self, indices: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """The ciphertext digits of a tensor with these indices."""
        used = {d for i in indices for d, _ in self.form[i].terms}
        return tuple((d, n) for d, n in self.ciphertexts if d in used)

    def layout(
        self, indices: tuple[str, ...], extents: Mapping[str, int], only: tuple[str, ...] | None = None
    ) -> Layout:
        """The layout of a tensor with these indices; its axes are called "0", "1", ..."""
        return Layout(
            axes=tuple((str(axis), extents[i]) for axis, i in enumerate(indices)),
            digits=self.digits,
            ciphertexts=self.along(indices),
            forms=tuple((str(axis), self.form[i]) for axis, i in enumerate(indices)),
            only=self.only if only is None else only,
        )

    def count(self, index: str) -> int:
        """How many ciphertexts lie along an index."""
        return prod(n for _, n in self.along((index,)))

    def encoded(self) -> dict[str, Any]:
        """The grid as JSON."""
        return {
            "digits": [list(d) for d in self.digits],
            "ciphertexts": [list(d) for d in self.ciphertexts],
            "forms": {i: [[list(t) for t in f.terms], f.offset, f.modulus] for i, f in self.forms},
            "only": list(self.only),
        }

    @staticmethod
    def decoded(data: Mapping[str, Any]) -> Grid:
        """The grid of `encoded`."""
        return Grid(
            tuple((d, n) for d, n in data["digits"]),
            tuple((d, n) for d, n in data["ciphertexts"]),
            tuple((i, Form(tuple((d, c) for d, c in t), o, m)) for i, (t, o, m) in data["forms"].items()),
            tuple(data["only"]),
        )


@dataclass(frozen=True)
class Folds:
    """The folds of a grid: (extent, stride) of each, and the digits whose value 0 alone holds the sums."""

    parts: tuple[tuple[int, int], ...]
    only: tuple[str, ...]

    @staticmethod
    def of(grid: Grid, contracted: tuple[str, ...], extents: Mapping[str, int], slots: int) -> Folds:
        """The folds over the slot digits of the contracted indices."""
        owner = {d: i for i in contracted for d, _ in grid.form[i].terms}
        used = {d for _, form in grid.forms for d, _ in form.terms}
        parts, only, stride = [], list(grid.only), prod(n for _, n in grid.digits)
        cyclic = stride == slots  # so far: all digits above are replicas, or are folded wholly
        for digit, size in grid.digits:
            stride //= size
            if digit in used and digit not in owner:
                cyclic = False
            elif digit in owner:
                needed = size
                if len(grid.form[owner[digit]].terms) == 1:
                    needed = min(size, extents[owner[digit]])
                extent = needed if fold.rotations(needed) < fold.rotations(size) else size
                parts.append((extent, stride))
                cyclic = cyclic and extent == size
                if not cyclic and size > 1:
                    only.append(digit)
            elif digit in grid.only:
                cyclic = False
        return Folds(tuple(p for p in parts if p[0] > 1), tuple(only))

    @property
    def rotations(self) -> int:
        """Rotations for each ciphertext of the result."""
        return sum(fold.rotations(e) for e, _ in self.parts)

    @property
    def steps(self) -> frozenset[int]:
        """The rotations."""
        return frozenset(s for extent, stride in self.parts for s in fold.steps(extent, stride))


@dataclass(frozen=True)
class Cells:
    """The ciphertexts of a value by its ciphertext digits; plain vectors for the clear factor."""

    digits: tuple[str, ...]
    nodes: Mapping[tuple[int, ...], int]
    plain: Mapping[tuple[int, ...], Plain] | None = None


@dataclass(frozen=True)
class Lanes:
    """One way to compute a product in lanes: a grid and an order of the operands."""

    step: Product
    context: Context
    arguments: tuple[Argument, ...]
    grid: Grid
    tree: Tree

    @cached_property
    def network(self) -> Network:
        """The operands, with their levels."""
        return Network.of(self.step, tuple(map(level_of, self.arguments)))

    @cached_property
    def level(self) -> int:
        """The level of the result."""
        return self.network.level(self.tree) or 0

    @property
    def uploads(self) -> int:
        """Ciphertexts that the client packs for this product."""
        return sum(
            {
                (a.name, indices): prod(n for _, n in self.grid.along(indices))
                for a, indices in zip(self.arguments, self.step.inputs, strict=True)
                if packed_for_this(a)
            }.values()
        )

    @cached_property
    def contracted(self) -> tuple[str, ...]:
        """The indices that are summed."""
        return tuple(i for i, _ in self.grid.forms if i not in self.step.output)

    @cached_property
    def folds(self) -> Folds:
        """The sums over slots."""
        return Folds.of(self.grid, self.contracted, self.step.extents, self.context.slots)

    @cached_property
    def takes(self) -> tuple[Placed, ...]:
        """The packing of each operand."""
        found = []
        for argument, indices in zip(self.arguments, self.step.inputs, strict=True):
            if isinstance(argument, Placed):
                found.append(argument)
            else:
                layout = self.grid.layout(indices, self.step.extents)
                packing = layout.packing(self.context.slots)
                found.append(Placed(Packing(packing.at), level_of(argument), layout.text()))
        return tuple(found)

    @cached_property
    def gives(self) -> Placed:
        """Where the sums lie."""
        layout = self.grid.layout(self.step.output, self.step.extents, self.folds.only)
        packing = layout.packing(self.context.slots)
        return Placed(Packing(packing.at, clean=self._clean()), self.level, layout.text())

    @cached_property
    def work(self) -> Work:
        """Products, sums and folds."""
        counts = {i: np.array([self.grid.count(i)]) for i, _ in self.grid.forms}
        found = tally(self.tree, self.network, counts, self.context)
        results = prod(n for _, n in self.grid.along(self.step.output))
        primes = self.context.primes(self.level)
        rotations = results * self.folds.rotations
        prices = self.context.prices
        return Work(
            rotations=rotations,
            plain_products=int(found.plain_products[0]),
            cipher_products=int(found.cipher_products[0]),
            relinearisations=int(found.relinearisations[0]),
            rescales=int(found.rescales[0]),
            additions=int(found.additions[0]) + rotations,
            milliseconds=float(found.milliseconds[0]) + rotations * (prices.rotate(primes) + prices.add(primes)),
        )

    @property
    def steps(self) -> frozenset[int]:
        """The rotations of the folds."""
        return self.folds.steps

    def emit(self, builder: Builder, operands: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """Products cell by cell, in the order of the tree; then the folds."""
        result = self._emit_tree(builder, self.tree, operands)
        digits = self.grid.along(self.step.output)
        order = [result.digits.index(d) for d, _ in digits]
        found = []
        for cell in cross(*(range(n) for _, n in digits)):
            at = [0] * len(order)
            for place, value in zip(order, cell, strict=True):
                at[place] = value
            node = result.nodes[tuple(at)]
            for extent, stride in self.folds.parts:
                node = fold.emit(builder, node, extent, stride)
            if self.step.factor < 0 and not has_clear(self.step):
                node = builder.negate(node, self.step.span)
            found.append(node)
        return tuple(found)

    def decision(self) -> Mapping[str, Any]:
        """The grid and the order."""
        return {"method": "lanes", "grid": self.grid.encoded(), "tree": self.tree}

    def describe(self) -> str:
        """The grid, and how indices lie in it."""
        return f"lanes {self.grid.layout(self.step.output, self.step.extents, self.folds.only).text()}"

    def _clean(self) -> bool:
        """Whether the slots without a result hold 0: a factor that is 0 there sees to it, and no fold spoils it."""
        masks = [
            frozenset(indices)
            for indices, argument in zip(self.step.inputs, self.arguments, strict=True)
            if not isinstance(argument, Placed) or argument.packing.clean
        ]
        if self.step.clear is not None:
            masks.append(frozenset(self.step.clear_indices))
        masked = frozenset().union(*masks) >= frozenset(self.step.output)
        return bool(masks) and masked and self.folds.only == self.grid.only

    def _emit_tree(self, builder: Builder, tree: Tree, operands: tuple[tuple[int, ...], ...]) -> Cells:
        if isinstance(tree, int):
            cells = self._leaf(tree, operands)
            return cells if cells.plain is not None else self._summed(builder, cells, tree, settle=False)
        left, right = (self._emit_tree(builder, t, operands) for t in tree)
        if left.plain is not None:
            left, right = right, left
        digits = (*left.digits, *(d for d in right.digits if d not in left.digits))
        size = dict(self.grid.ciphertexts)
        nodes = {}
        for cell in cross(*(range(size[d]) for d in digits)):
            value = dict(zip(digits, cell, strict=True))
            a = left.nodes[tuple(value[d] for d in left.digits)]
            there = tuple(value[d] for d in right.digits)
            if right.plain is not None:
                nodes[cell] = builder.multiply_plain(a, right.plain[there], self.step.span)
            else:
                nodes[cell] = builder.multiply(a, right.nodes[there], self.step.span)
        return self._summed(builder, Cells(digits, nodes), tree, settle=True)

    def _summed(self, builder: Builder, cells: Cells, tree: Tree, settle: bool) -> Cells:
        """Sums over the digits that nobody needs any more; products are rescaled and relinearised then."""
        kept = {d for i in self.network.kept(tree) for d, _ in self.grid.form[i].terms}
        digits = tuple(d for d in cells.digits if d in kept)
        groups: dict[tuple[int, ...], list[int]] = {}
        for cell, node in cells.nodes.items():
            key = tuple(v for d, v in zip(cells.digits, cell, strict=True) if d in kept)
            groups.setdefault(key, []).append(node)
        nodes = {}
        for key, members in groups.items():
            node = builder.total(members)
            if settle:  # a key switch is cheaper one level lower
                node = builder.relinearise(builder.rescale(node, self.step.span), self.step.span)
            nodes[key] = node
        return Cells(digits, nodes)

    def _leaf(self, leaf: int, operands: tuple[tuple[int, ...], ...]) -> Cells:
        step = self.step
        if leaf == len(operands):
            return self._clear()
        digits = self.grid.along(step.inputs[leaf])
        cells = tuple(cross(*(range(n) for _, n in digits)))
        layout = self.grid.layout(step.inputs[leaf], step.extents)
        numbers = rows(layout, self.takes[leaf].packing, self.context.slots)
        assert numbers is not None, "an operand that is not on the grid"
        return Cells(tuple(d for d, _ in digits), {c: operands[leaf][n] for c, n in zip(cells, numbers, strict=True)})

    def _clear(self) -> Cells:
        """The plain vectors of the clear factor."""
        step, slots = self.step, self.context.slots
        if step.clear is None:
            return Cells((), {}, {(): Constant(step.factor, slots)})
        digits = self.grid.along(step.clear_indices)
        at = self.grid.layout(step.clear_indices, step.extents).packing(slots).at
        cells = cross(*(range(n) for _, n in digits))
        plain = {c: Entries(step.clear, row, step.factor) for c, row in zip(cells, at, strict=True)}
        return Cells(tuple(d for d, _ in digits), {}, plain)


def rows(layout: Layout, packing: Packing, slots: int) -> tuple[int, ...] | None:
    """Which ciphertext of a packing is each ciphertext of a layout; None where they differ."""
    known = {row.astype(np.int32).tobytes(): n for n, row in reversed(list(enumerate(packing.at)))}
    found = [known.get(row.tobytes(), -1) for row in layout.packing(slots).at]
    return None if -1 in found else tuple(found)
