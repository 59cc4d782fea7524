"""Contraction: a product of many factors becomes a tree of kernels.

`contraction_tree` looks at index sets and extents only: sums of one factor first (R12), a path over the rest,
constants among themselves where that makes each call cheaper, and then kernels that are cheaper together than apart
are joined again: a kernel multiplies three or more factors at once where that costs at most 1.3 times the operations
of the steps (cpu.md), because it saves the intermediate. `split` turns the tree into equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..ir.expr import Einsum, Expr, free_indices
from .base import Context
from .paths import Path, explicit_path, find_path, left_to_right
from .rules import components
from .tools import points

JOIN = 1.3  # one kernel may cost this many times the operations of two (cpu.md, "From einsum to Kernel")
SMALL = 1 << 27  # operations up to which a kernel of three or more factors keeps pace with two that can be packed
TINY = 4096  # operations below which only the number of kernels counts
REGISTER_TILE = 8  # a product that lacks an axis of the register tile is made once for about so many points
PRECOMPUTED = 1 << 26  # elements of the largest tensor that is computed ahead from constants


@dataclass
class Node:
    """One kernel: `parts` are factor numbers and kernels below, `kept` the indices of its result.

    The factors `after` are multiplied to the finished sum, in the epilogue.
    """

    parts: list[int | Node]
    kept: frozenset[str]
    constant: bool = False
    after: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Network:
    """A product as index sets: of every factor, of the result, with extents; which factors are known ahead."""

    inputs: tuple[frozenset[str], ...]
    output: frozenset[str]
    sizes: Mapping[str, int]
    constant: tuple[bool, ...] = field(default=())

    @staticmethod
    def of(einsum: Einsum, sizes: Mapping[str, int], constant: Sequence[bool] = ()) -> Network:
        """The network of an Einsum."""
        inputs = tuple(frozenset(free_indices(f)) for f in einsum.factors)
        output = frozenset(n for s in inputs for n in s).difference(einsum.bound)
        return Network(inputs, output, sizes, tuple(constant) or (False,) * len(inputs))

    def set_of(self, part: int | Node) -> frozenset[str]:
        """The indices of a factor or of a kernel's result."""
        return self.inputs[part] if isinstance(part, int) else part.kept


def kernel_flops(terms: Sequence[frozenset[str]], kept: frozenset[str], sizes: Mapping[str, int]) -> int:
    """Operations of one kernel that multiplies `terms` and sums what is not in `kept`.

    Factors are multiplied from the smallest up, as the code generator does; a partial product that lacks an axis of the
    register tile is shared by the points along it.
    """
    everything = frozenset().union(*terms) if terms else frozenset()
    total = points(everything, sizes)
    cost = total if everything - kept else 0
    left = sorted(terms, key=lambda t: points(t, sizes))
    current = left.pop(0) if left else everything
    while left:
        term = min(left, key=lambda t: points(current | t, sizes))
        left.remove(term)
        current = current | term
        shared = min(REGISTER_TILE, total // points(current, sizes)) if left else 1
        cost += total // max(1, shared)
    return cost


def contraction_tree(network: Network, context: Context) -> Node:
    """The tree of kernels for a network, the root being the one that gives its result."""
    count = len(network.inputs)
    whole = Node(list(range(count)), network.output)
    if count <= 1 or context.optimize is False:
        return whole
    if context.strict:
        return _from_path(network, list(range(count)), left_to_right(count))
    if not context.free_order:
        return _from_path(network, list(range(count)), explicit_path(context.optimize, count))
    # one kernel for everything, where it is no dearer than a bare pass over the points: nothing to be searched for
    single = kernel_flops(network.inputs, network.output, network.sizes)
    if (count <= 4 and single <= TINY) or (count == 2 and not _alone(network)):
        return whole
    best = _planned(network, context, None)
    if any(network.constant) and not all(network.constant):
        ahead = _planned(network, context, _constant_groups(network))
        if ahead is not None and best is not None and _call_flops(network, ahead) < _call_flops(network, best):
            best = ahead
    assert best is not None, "a plan without constants always exists"
    return _with_epilogues(network, _joined(network, best))


def _alone(network: Network) -> bool:
    """Whether some index is summed in one factor only."""
    return any(s - network.output - _others(network, k) for k, s in enumerate(network.inputs))


def _others(network: Network, position: int) -> frozenset[str]:
    return frozenset().union(*(s for k, s in enumerate(network.inputs) if k != position))


def _planned(network: Network, context: Context, groups: list[list[int]] | None) -> Node | None:
    """R12, then the path over what is left; `groups` of factors are contracted among themselves first."""
    parts: list[int | Node] = []
    grouped = {k for g in groups or () for k in g}
    for group in groups or ():
        rest = frozenset().union(*(s for k, s in enumerate(network.inputs) if k not in group), network.output)
        kept = frozenset().union(*(network.inputs[k] for k in group)) & rest
        if points(kept, network.sizes) > PRECOMPUTED:
            return None
        inner = Network(tuple(network.inputs[k] for k in group), kept, network.sizes, (True,) * len(group))
        path = find_path(inner.inputs, kept, network.sizes, context.optimize, context.memory_limit)
        node = _from_path(inner, list(range(len(group))), path)
        parts.append(_numbered(node, group))
    for k, own in enumerate(network.inputs):
        if k in grouped:
            continue
        kept = own & (_others(network, k) | network.output)
        parts.append(k if kept == own or len(network.inputs) == 1 else Node([k], kept, network.constant[k]))
    for part in parts:
        if isinstance(part, Node):
            part.constant = _is_constant(network, part)
    sets = [network.set_of(p) for p in parts]
    path = find_path(sets, network.output, network.sizes, context.optimize, context.memory_limit)
    return _from_path(network, parts, path)


def _constant_groups(network: Network) -> list[list[int]] | None:
    """Constant factors that share an index: candidates for being multiplied out ahead."""
    numbers = [k for k, c in enumerate(network.constant) if c]
    found = components([set(network.inputs[k]) for k in numbers])
    groups = [[numbers[k] for k in g] for g in found if len(g) > 1]
    return groups or None


def _numbered(node: Node, numbers: list[int]) -> Node:
    parts: list[int | Node] = [numbers[p] if isinstance(p, int) else _numbered(p, numbers) for p in node.parts]
    return Node(parts, node.kept, True)


def _is_constant(network: Network, part: int | Node) -> bool:
    if isinstance(part, int):
        return network.constant[part]
    return all(_is_constant(network, p) for p in part.parts)


def _from_path(network: Network, parts: Sequence[int | Node], path: Path) -> Node:
    left: list[int | Node] = list(parts)
    for step in path:
        chosen = [left[k] for k in step]
        left = [p for k, p in enumerate(left) if k not in step]
        outside = network.output.union(*(network.set_of(p) for p in left))
        joint = frozenset().union(*(network.set_of(p) for p in chosen))
        if len(chosen) == 1 and left and joint <= outside:
            left.append(chosen[0])  # a step of one operand that sums nothing
        else:
            node = Node(chosen, joint & outside)
            node.constant = _is_constant(network, node)
            left.append(node)
    if len(left) == 1 and isinstance(left[0], Node) and left[0].kept <= network.output:
        return left[0]
    return Node(left, network.output)


def _call_flops(network: Network, node: Node) -> int:
    """Operations of a tree at every call: what depends on constants only is done ahead."""
    if node.constant:
        return 0
    below = sum(_call_flops(network, p) for p in node.parts if isinstance(p, Node))
    return below + kernel_flops([network.set_of(p) for p in node.parts], node.kept, network.sizes)


def _joined(network: Network, node: Node) -> Node:
    """The tree with kernels taken into the one above where both together cost little more than apart."""
    for part in [p for p in node.parts if isinstance(p, Node)]:
        _joined(network, part)
    for part in [p for p in node.parts if isinstance(p, Node)]:
        if part.constant and not node.constant:
            continue
        together = [q for p in node.parts for q in (part.parts if p is part else [p])]
        joint = kernel_flops([network.set_of(p) for p in together], node.kept, network.sizes)
        apart = kernel_flops([network.set_of(p) for p in node.parts], node.kept, network.sizes)
        apart += kernel_flops([network.set_of(p) for p in part.parts], part.kept, network.sizes)
        if (joint <= TINY and len(together) <= 6) or (joint <= JOIN * apart and joint <= SMALL and len(together) <= 4):
            node.parts = together
    return node


def _with_epilogues(network: Network, node: Node) -> Node:
    """The tree with factors taken out of sums that do not run over them, into the epilogue of that sum (R10)."""
    for part in node.parts:
        if not isinstance(part, Node):
            continue
        for factor in [p for p in node.parts if isinstance(p, int)]:
            fits = network.inputs[factor] <= part.kept and (network.constant[factor] or not part.constant)
            if fits and _sums(network, part):
                node.parts.remove(factor)
                part.after.append(factor)
    for factor in [p for p in node.parts if isinstance(p, int)]:
        rest = [p for p in node.parts if p is not factor]
        covered = frozenset[str]().union(*(network.set_of(p) for p in rest))
        if network.inputs[factor] <= node.kept <= covered and _sums(network, node):
            node.parts.remove(factor)
            node.after.append(factor)
    for position, part in enumerate(node.parts):
        if isinstance(part, Node):
            node.parts[position] = _with_epilogues(network, part)
    only = node.parts[0]
    if len(node.parts) == 1 and isinstance(only, Node) and only.kept == node.kept:
        only.after.extend(node.after)
        return only
    return node


def _sums(network: Network, node: Node) -> bool:
    return not frozenset[str]().union(*(network.set_of(p) for p in node.parts)) <= node.kept


def axes_of(kept: frozenset[str], factors: Sequence[Expr], output: Sequence[str]) -> tuple[str, ...]:
    """The order of an intermediate's axes.

    Those with which the final result begins stand first, those with which it ends last, so that vectors run along one
    axis in both; the others in order of appearance.

    >>> axes_of(frozenset("bcd"), (), "ab")
    ('c', 'd', 'b')
    """
    names = [n for f in factors for n in free_indices(f) if n in kept]
    names += sorted(kept.difference(names))
    head: list[str] = []
    for n in output:
        if n not in kept:
            break
        head.append(n)
    tail: list[str] = []
    for n in reversed(output):
        if n not in kept or n in head:
            break
        tail.insert(0, n)
    middle = [n for n in dict.fromkeys(names) if n not in head and n not in tail]
    return (*head, *middle, *tail)


def kernel_of(einsum: Einsum, factors: Sequence[Expr], kept: frozenset[str]) -> Einsum:
    """One kernel of the tree, in the accumulation type: so mixed types are promoted before the first product."""
    used = {n for f in factors for n in free_indices(f)}
    bound = tuple(b for b in einsum.bound if b in used and b not in kept)
    return replace(einsum, bound=bound, factors=tuple(factors), dtype=einsum.accumulate)
