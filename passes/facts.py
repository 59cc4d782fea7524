"""Facts that hold of a network whatever its structure: rank bounds by minimal cuts, symmetry, orthogonality.

The rank of the matrix between two groups of digits is at most the least product of extents over all cuts of the index
graph (each index is a wire of capacity log extent; an index in three operands or more counts once). It is found as a
maximal flow and is the exact rank for generic operands, up to exceptional extents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, inf, log
from typing import Any

from ..ir.structures.algebra import Structure
from ..ir.structures.facts import facts_of as structure_facts
from ..ir.structures.view import View
from .canonical import label_of
from .simplify import simplify


@dataclass(frozen=True)
class Fact:
    """A property of an operator, the rule that proves it, and its figures."""

    kind: str
    rule: str
    options: Mapping[str, Any] = field(default_factory=dict)


def facts_of(found: Sequence[View]) -> tuple[Fact, ...]:
    """The facts on a sum of views as one operator."""
    facts = []
    rank = sum(rank_bound(v, v.rows, v.cols) for v in found)
    rows, cols = found[0].dims
    if rank < min(rows, cols) and rows > 1 and cols > 1 and not any(v.batch for v in found):
        facts.append(Fact("rank", "minimal cut", {"rank": rank}))
    if len(found) == 1:
        facts += [Fact(f, "product of factors that are") for f in _inherited(found[0])]
    if _square(found) and label_of(found, True) == label_of([_exchanged(v) for v in found], True):
        facts.append(Fact("symmetric_operator", "exchange of rows and columns leaves the label"))
        if len(found) == 1 and found[0].coefficient == 1 and _is_gram(found[0]):
            facts.append(Fact("psd", "a factor times its own transpose (for real operands)"))
    return tuple(facts)


_SAID = ("orthogonal", "doubly_stochastic", "permutation", "diagonal", "toeplitz", "psd")


def composed(term: Structure, known: Iterable[str]) -> tuple[Fact, ...]:
    """The facts that follow from how a term is composed, but for those of the kinds `known`."""
    f = structure_facts(term)
    if min(f.rows, f.cols) < 2:
        return ()
    found = [Fact(name, "composition of operands that are") for name in _SAID if getattr(f, name)]
    if f.symmetric:
        found.append(Fact("symmetric_operator", "composition of operands that are"))
    if f.rank < min(f.rows, f.cols):
        found.append(Fact("rank", "ranks of the parts", {"rank": f.rank}))
    if f.below + f.above + 1 < min(f.rows, f.cols) and not f.diagonal:
        found.append(Fact("bandwidth", "bands of the parts", {"below": f.below, "above": f.above}))
    elif f.rows == f.cols and 0 in (f.below, f.above) and not f.diagonal:
        found.append(Fact("lower_triangular" if f.above == 0 else "upper_triangular", "bands of the parts"))
    known = set(known)
    return tuple(x for x in found if x.kind not in known)


def _square(found: Sequence[View]) -> bool:
    return all(
        len(v.out) == len(v.x) and [v.extents[i] for i in v.out] == [v.extents[i] for i in v.x] and v.rows
        for v in found
    )


def _exchanged(v: View) -> View:
    return replace(v, out=v.x, x=v.out)


def _is_gram(view: View) -> bool:
    """Whether the term is F F' for one group of operands F, read once by the rows and once by the columns."""
    groups = view.components(view.bound)
    names = [sorted(view.atoms[k].name for k in g.atoms) for g in groups]
    sides = sorted(g.side for g in groups)
    return sides == ["C", "R"] and names[0] == names[1] and not view.opaque


def symmetric_results(found: Sequence[View]) -> list[tuple[int, int]]:
    """R17: pairs of digits of the result whose exchange provably leaves the value."""
    if not found or any(len(v.out) < 2 for v in found) or len({len(v.out) for v in found}) > 1:
        return []
    own = None
    pairs = []
    for a in range(len(found[0].out)):
        for b in range(a + 1, len(found[0].out)):
            if any(v.extents[v.out[a]] != v.extents[v.out[b]] for v in found):
                continue
            own = label_of(found, True) if own is None else own
            if label_of([_swapped(v, a, b) for v in found], True) == own:
                pairs.append((a, b))
    return pairs


def _swapped(v: View, a: int, b: int) -> View:
    out = list(v.out)
    out[a], out[b] = out[b], out[a]
    return replace(v, out=tuple(out))


_CLOSED = ("orthogonal", "doubly_stochastic", "permutation")  # under products and Kronecker products of square factors


def _inherited(given: View) -> list[str]:
    """Facts that a Kronecker product or a chain of square operands has if each operand has them."""
    view = simplify(given)
    if view.opaque or view.affine or view.coefficient != 1 or not view.atoms or not view.rows:
        return []
    facts = [
        view.known(k) | ({"orthogonal", "doubly_stochastic"} if "permutation" in view.known(k) else frozenset())
        for k in range(len(view.atoms))
    ]
    common = [f for f in _CLOSED if all(f in known for known in facts)]
    if not common or not all(_links(view, k) for k in range(len(view.atoms))):
        return []
    return common


def _links(view: View, k: int) -> bool:
    """Whether an operand is square with two digits, each of which joins it to one neighbour or to one end."""
    ports = view.atoms[k].ports
    if len(ports) != 2 or len(view.shapes[view.atoms[k].name]) != 2:
        return False
    i, j = (q.bare for _, q in ports)
    if i is None or j is None or i == j or view.extents[i] != view.extents[j]:
        return False
    return all(
        (len(view.at(d)) == 2) if d in view.bound else (len(view.at(d)) == 1 and d not in view.batch) for d in (i, j)
    )


def rank_bound(view: View, left: Iterable[str], right: Iterable[str]) -> int:
    """An upper bound on the rank of the matrix between two groups of digits; other digits of the ends are fixed."""
    left, right = frozenset(left), frozenset(right)
    fixed = frozenset((*view.out, *view.x)) - left - right
    flow = _Flow()
    for i in view.indices - fixed:
        flow.edge(("in", i), ("out", i), log(view.extents[i]))
        if i in left:
            flow.edge("source", ("in", i), inf)
        if i in right:
            flow.edge(("out", i), "sink", inf)
            flow.edge(("in", i), "sink", inf) if i in left else None
    for k, atom in enumerate(view.atoms):
        for i in atom.touch - fixed:
            flow.edge(("out", i), ("atom", k), inf)
            flow.edge(("atom", k), ("in", i), inf)
    most = min(sum(log(view.extents[i]) for i in side) for side in (left, right))
    return max(1, round(exp(min(flow.most(), most))))


class _Flow:
    """Maximal flow by shortest augmenting paths (Edmonds and Karp, 1972)."""

    def __init__(self) -> None:
        self.room: dict[Any, dict[Any, float]] = {"source": {}, "sink": {}}

    def edge(self, a: Any, b: Any, capacity: float) -> None:
        self.room.setdefault(a, {})
        self.room.setdefault(b, {}).setdefault(a, 0.0)
        self.room[a][b] = self.room[a].get(b, 0.0) + capacity

    def most(self) -> float:
        total = 0.0
        while True:
            before: dict[Any, Any] = {"source": None}
            todo = deque(["source"])
            while todo and "sink" not in before:
                u = todo.popleft()
                for v, room in self.room[u].items():
                    if room > 1e-9 and v not in before:
                        before[v] = u
                        todo.append(v)
            if "sink" not in before:
                return total
            path, v = [], "sink"
            while before[v] is not None:
                path.append((before[v], v))
                v = before[v]
            step = min(self.room[a][b] for a, b in path)
            if step == inf:
                return inf
            for a, b in path:
                self.room[a][b] -= step
                self.room[b][a] += step
            total += step
