"""Orders of a product of several operands: binary trees, their depth, and what each takes.

Leaves are numbered: encrypted operands first, in the order of the step, then the clear factor if there is one. A node
multiplies cell by cell over the ciphertext digits of both sides and sums over the digits that nobody needs any more,
then rescales once: the relinearisation comes after the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from ..lowering.problem import Product
from .context import Context

Array = np.ndarray[Any, Any]
Tree: TypeAlias = "int | tuple[Tree, Tree]"

COUNTED = ("cipher_products", "plain_products", "relinearisations", "rescales", "additions")
MOST_LEAVES = 5  # up to so many operands, all orders are looked at (105 for five)


@dataclass(frozen=True)
class Network:
    """The leaves of a product: their indices, their levels (None for the clear factor), which of them are the same."""

    indices: tuple[frozenset[str], ...]
    levels: tuple[int | None, ...]
    names: tuple[tuple[str, ...], ...]
    output: frozenset[str]

    @staticmethod
    def of(step: Product, levels: tuple[int, ...]) -> Network:
        """The network of a step whose operands are at these levels."""
        indices = [frozenset(i) for i in step.inputs]
        names: list[tuple[str, ...]] = [(o, *i) for o, i in zip(step.operands, step.inputs, strict=True)]
        found: list[int | None] = list(levels)
        if has_clear(step):
            indices.append(frozenset(step.clear_indices))
            names.append(("clear",))
            found.append(None)
        return Network(tuple(indices), tuple(found), tuple(names), frozenset(step.output))

    def kept(self, tree: Tree) -> frozenset[str]:
        """The indices of a tree's value that are still needed (all of the clear factor's)."""
        inside = leaves(tree)
        mine = self.union(inside)
        if isinstance(tree, int) and self.levels[tree] is None:
            return mine
        others = self.union(frozenset(range(len(self.indices))) - inside)
        return mine & (self.output | others)

    def union(self, leaves: frozenset[int]) -> frozenset[str]:
        """All indices of some leaves."""
        return frozenset().union(*(self.indices[n] for n in leaves))

    def level(self, tree: Tree) -> int | None:
        """The level of the value of a tree; None for the clear factor alone."""
        if isinstance(tree, int):
            return self.levels[tree]
        sides = [self.level(t) for t in tree]
        return max(s for s in sides if s is not None) + 1

    def key(self, tree: Tree) -> object:
        """Equal for trees that compute the same."""
        if isinstance(tree, int):
            return self.names[tree]
        return frozenset({self.key(tree[0]), self.key(tree[1])}) if tree[0] != tree[1] else (self.key(tree[0]),)


def has_clear(step: Product) -> bool:
    """Whether a product has a plain factor: a clear tensor, or a number other than 1 and -1."""
    return step.clear is not None or abs(step.factor) != 1.0


def leaves(tree: Tree) -> frozenset[int]:
    """The leaves of a tree.

    >>> sorted(leaves(((0, 2), 1)))
    [0, 1, 2]
    """
    return frozenset({tree}) if isinstance(tree, int) else leaves(tree[0]) | leaves(tree[1])


def orders(network: Network, levels: int) -> tuple[Tree, ...]:
    """The orders that fit into so many levels, those of the least depth first.

    >>> step = Product("y", ("a", "b", "c"), (("i",),) * 3, ("i",), {"i": 4})
    >>> orders(Network.of(step, (0, 0, 0)), 2)
    ((0, (1, 2)), ((0, 1), 2), ((0, 2), 1))
    """
    count = len(network.indices)
    found = list(_all(tuple(range(count)))) if count <= MOST_LEAVES else [_balanced(network)]
    depth = {id(t): network.level(t) or 0 for t in found}
    fits = [t for t in found if depth[id(t)] <= levels]
    return tuple(sorted(fits, key=lambda t: depth[id(t)]))


def _all(items: tuple[int, ...]) -> Iterator[Tree]:
    """Every binary tree over the items, each once."""
    if len(items) == 1:
        yield items[0]
        return
    first, rest = items[0], items[1:]
    for mask in range((1 << len(rest)) - 1, -1, -1):  # what does not go with the first
        apart = tuple(r for n, r in enumerate(rest) if mask >> n & 1)
        if apart:
            together = (first, *(r for n, r in enumerate(rest) if not mask >> n & 1))
            for a in _all(together):
                for b in _all(apart):
                    yield a, b


def _balanced(network: Network) -> Tree:
    """The order of least depth for many operands: the two that are least deep, again and again."""
    waiting: list[tuple[int, int, Tree]] = [(lv or 0, n, n) for n, lv in enumerate(network.levels) if lv is not None]
    clear = [n for n, lv in enumerate(network.levels) if lv is None]
    count = len(waiting)
    if clear:  # with the operand that has most levels to spare
        level, at, tree = min(waiting)
        waiting[waiting.index((level, at, tree))] = (level + 1, at, (tree, clear[0]))
    while len(waiting) > 1:
        waiting.sort(key=lambda w: w[:2])
        (one, _, a), (two, _, b) = waiting[:2]
        waiting[:2] = [(max(one, two) + 1, count, (a, b))]
        count += 1
    return waiting[0][2]


@dataclass(frozen=True)
class Tally:
    """Operations of a tree for many choices of ciphertext counts at once (arrays), and their price."""

    cipher_products: Array
    plain_products: Array
    relinearisations: Array
    rescales: Array
    additions: Array
    milliseconds: Array


def tally(tree: Tree, network: Network, counts: Mapping[str, Array], context: Context) -> Tally:
    """What a tree takes, where `counts` has the ciphertexts along each index; without folds."""
    one = np.ones_like(next(iter(counts.values()), np.ones(1, dtype=np.int64)))
    sums = {f: np.zeros_like(one) for f in COUNTED}
    time = one * 0.0
    seen: set[object] = set()

    def cells(indices: frozenset[str]) -> Array:
        return reduce(lambda a, i: a * counts[i], sorted(indices), one)

    def visit(t: Tree) -> frozenset[str]:
        nonlocal time
        kept = network.kept(t)
        if network.key(t) in seen:
            return kept
        seen.add(network.key(t))
        if isinstance(t, int):
            level, extra = network.level(t), cells(network.indices[t]) - cells(kept)
            sums["additions"] += extra
            time = time + extra * context.prices.add(context.primes(level or 0))
            return kept
        left, right = visit(t[0]), visit(t[1])
        products, results = cells(left | right), cells(kept)
        sides = [s for s in (network.level(t[0]), network.level(t[1])) if s is not None]
        before, after = context.primes(max(sides)), context.primes(max(sides) + 1)
        prices = context.prices
        plain = len(sides) == 1
        sums["plain_products" if plain else "cipher_products"] += products
        sums["additions"] += products - results
        sums["rescales"] += results
        time = time + products * (prices.multiply_plain(before) if plain else prices.multiply(before))
        time = time + (products - results) * prices.add(before) + results * prices.rescale(before)
        if not plain:
            sums["relinearisations"] += results
            time = time + results * prices.relinearise(after)
        return kept

    visit(tree)
    return Tally(milliseconds=time, **sums)
