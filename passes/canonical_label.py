"""N7: the label of a coloured graph, equal for two graphs exactly if one is the other with nodes renamed.

Colour refinement; where it stalls, one node after the other of the smallest cell is made special and the least
certificate wins. Two cuts keep symmetric graphs cheap: nodes with a cell of their own are taken out, and the connected
parts that remain are labelled apart (ten equal vectors are ten small graphs); and a choice whose first leaf equals a
leaf already seen is an automorphic image, whose subtree is not searched again, nor are those of nodes that the
automorphisms found so far lead to it (McKay, "Practical graph isomorphism", 1981). No colouring depends on the
order in which nodes were made.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

Certificate: TypeAlias = "tuple[Any, ...]"


@dataclass
class Graph:
    """A graph with coloured nodes and labelled, directed edges. Nodes are made on first mention of their key."""

    colours: list[Hashable] = field(default_factory=list)
    numbers: dict[Hashable, int] = field(default_factory=dict)
    edges: dict[tuple[int, int, Hashable], None] = field(default_factory=dict)

    def node(self, key: Hashable, colour: Hashable) -> int:
        """The number of a node."""
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.colours)
            self.colours.append(colour)
        return number

    def edge(self, a: int, b: int, label: Hashable) -> None:
        """An edge from a to b."""
        self.edges[a, b, label] = None


def certificate(graph: Graph) -> Certificate:
    """A value that two graphs share exactly if they are isomorphic."""
    return _Search(graph).run()


def isomorphism(first: Graph, second: Graph) -> dict[Hashable, Hashable] | None:
    """The keys of the second graph for those of the first, if one is the other renamed; else None."""
    one, two = _Search(first), _Search(second)
    if one.run() != two.run():
        return None
    keys = [{n: key for key, n in g.numbers.items()} for g in (first, second)]
    return {keys[0][a]: keys[1][b] for a, b in zip(one.order, two.order, strict=True)}


def digest(value: Certificate) -> str:
    """A short text of a certificate."""
    return blake2b(repr(value).encode(), digest_size=16).hexdigest()


def _ranked(values: Iterable[Hashable]) -> dict[Hashable, int]:
    return {v: k for k, v in enumerate(sorted(set(values), key=repr))}


def _root(parent: dict[int, int], u: int) -> int:
    while parent[u] != u:
        u = parent[u]
    return u


Cells: TypeAlias = "dict[int, list[int]]"


class _Search:
    """Holds the graph as lists. A colour is the first place of its cell in the ordered partition."""

    def __init__(self, graph: Graph) -> None:
        self.count = len(graph.colours)
        self.order: list[int] = []
        self.names = _ranked(graph.colours)
        self.base = [self.names[c] for c in graph.colours]
        self.labels = _ranked(e[2] for e in graph.edges)
        self.scale = 2 * len(self.labels) + 1
        near: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        labels, back = self.labels, len(self.labels)
        for a, b, label in graph.edges:
            k = labels[label]
            near[a].append((b, k))
            near[b].append((a, k + back))
        self.near = near
        self.beside = [[b for b, _ in n] for n in near]

    def run(self) -> Certificate:
        cells: dict[int, list[int]] = {}
        for u, c in enumerate(self.base):
            cells.setdefault(c, []).append(u)
        start, first = 0, {}
        for c in sorted(cells):
            first[start] = cells[c]
            start += len(cells[c])
        colour = [0] * self.count
        for c, members in first.items():
            for u in members:
                colour[u] = c
        self.refine(colour, first, set(range(self.count)))
        if len(first) == self.count:  # refinement alone tells all nodes apart: no search
            self.order = sorted(range(self.count), key=colour.__getitem__)
        else:
            _, self.order = self.canonical(list(range(self.count)), colour, first)
        place = [0] * self.count
        for k, u in enumerate(self.order):
            place[u] = k
        count, scale, forward = self.count, self.scale, len(self.labels)
        edges = [
            (place[u] * count + place[w]) * scale + k
            for u, near in enumerate(self.near)
            for w, k in near
            if k < forward
        ]
        edges.sort()
        nodes = tuple(self.base[u] for u in self.order)
        return tuple(self.names), tuple(self.labels), nodes, tuple(edges)

    def canonical(self, nodes: list[int], colour: list[int], cells: Cells) -> tuple[Certificate, list[int]]:
        """The certificate of the subgraph of some nodes and their order; all other nodes are told by colour."""
        open_nodes = [u for u in nodes if len(cells[colour[u]]) > 1]
        if not open_nodes:
            order = sorted(nodes, key=colour.__getitem__)
            return (0, self.leaf(order, colour)), order
        parts = self.parts(open_nodes)
        if len(parts) == 1 and len(parts[0]) == len(open_nodes):
            return self.individualised(nodes, open_nodes, colour, cells)
        found = []
        for part in parts:
            # The part alone: cells keep only its members, so that a cell of one is settled in it.
            own: dict[int, list[int]] = {}
            for u in part:
                own.setdefault(colour[u], []).append(u)
            found.append(self.canonical_part(part, colour, own))
        found.sort(key=lambda f: f[0])
        settled = sorted((u for u in nodes if len(cells[colour[u]]) == 1), key=colour.__getitem__)
        order = settled + [u for f in found for u in f[1]]
        return (1, self.leaf(settled, colour), *(f[0] for f in found)), order

    def canonical_part(self, part: list[int], colour: list[int], own: Cells) -> tuple[Certificate, list[int]]:
        """The same for a part by itself, whose cells are smaller than the whole's."""
        if all(len(m) == 1 for m in own.values()):
            order = sorted(part, key=colour.__getitem__)
            return (0, self.leaf(order, colour)), order
        if any(len(m) == 1 for m in own.values()):
            return self.canonical(part, colour, own)
        return self.individualised(part, part, colour, own)

    def parts(self, nodes: list[int]) -> list[list[int]]:
        """The connected parts of the subgraph of some nodes."""
        inside, seen, found = set(nodes), set[int](), []
        for start in nodes:
            if start in seen:
                continue
            part, todo = [start], [start]
            seen.add(start)
            while todo:
                for w in self.beside[todo.pop()]:
                    if w in inside and w not in seen:
                        seen.add(w)
                        part.append(w)
                        todo.append(w)
            found.append(part)
        return found

    def individualised(
        self, nodes: list[int], open_nodes: list[int], colour: list[int], cells: Cells
    ) -> tuple[Certificate, list[int]]:
        """Each member of the smallest cell made special in turn; the least certificate."""
        cell = min((cells[c] for c in {colour[u] for u in open_nodes}), key=lambda m: (len(m), colour[m[0]]))
        best: tuple[Certificate, list[int]] | None = None
        seen: dict[Certificate, list[int]] = {}
        orbit = {u: u for u in cell}  # union-find over the automorphisms that were met
        tried: list[int] = []
        for u in cell:
            if any(_root(orbit, u) == _root(orbit, t) for t in tried):
                continue
            fixed, split = self.special(u, colour, cells)
            leaf, order = self.first_leaf(nodes, fixed, split)
            known = seen.get(leaf)
            if known is not None:  # an automorphism leads there: the same subtree
                for a, b in zip(known, order, strict=True):
                    if a in orbit:
                        orbit[_root(orbit, a)] = _root(orbit, b)
                continue
            found = self.canonical(nodes, fixed, split)
            seen[leaf] = order
            tried.append(u)
            if best is None or found[0] < best[0]:
                best = found
        assert best is not None
        return best

    def special(self, u: int, colour: list[int], cells: Cells) -> tuple[list[int], Cells]:
        """The partition with u before the rest of its cell, refined."""
        fixed, split = list(colour), dict(cells)
        c = colour[u]
        rest = [w for w in cells[c] if w != u]
        split[c], split[c + 1] = [u], rest
        for w in rest:
            fixed[w] = c + 1
        self.refine(fixed, split, {u})
        return fixed, split

    def refine(self, colour: list[int], cells: Cells, dirty: set[int]) -> None:
        """Split cells until all members of one see the same colours; only neighbours of `dirty` nodes can change.

        The cells may hold a part of the graph: colours outside of it are final.
        """
        inside = {u for m in cells.values() for u in m}
        near, beside, scale = self.near, self.beside, self.scale
        while dirty:
            asked = {colour[w] for w in {w for u in dirty for w in beside[u]} & inside}
            splits = []
            for c in sorted(asked):
                members = cells[c]
                if len(members) == 1:
                    continue
                groups: dict[tuple[int, ...], list[int]] = {}
                for u in members:
                    sign = tuple(sorted([colour[w] * scale + k for w, k in near[u]]))
                    groups.setdefault(sign, []).append(u)
                if len(groups) > 1:
                    splits.append((c, groups))
            dirty = set()
            for c, groups in splits:
                start = c
                for sign in sorted(groups):
                    part = groups[sign]
                    cells[start] = part
                    if start != c:
                        for u in part:
                            colour[u] = start
                        dirty.update(part)
                    start += len(part)

    def first_leaf(self, nodes: list[int], colour: list[int], cells: Cells) -> tuple[Certificate, list[int]]:
        """The leaf that is reached by taking the first node every time, and its order of the nodes."""
        while True:
            open_cells = {c for c in (colour[u] for u in nodes) if len(cells[c]) > 1}
            if not open_cells:
                order = sorted(nodes, key=colour.__getitem__)
                return self.leaf(order, colour), order
            cell = min((cells[c] for c in open_cells), key=lambda m: (len(m), colour[m[0]]))
            colour, cells = self.special(cell[0], colour, cells)

    def leaf(self, order: Sequence[int], colour: list[int]) -> Certificate:
        """What settled nodes are and see, in order: colours tell nodes apart."""
        scale = self.scale
        return tuple([(self.base[u], *sorted([colour[w] * scale + k for w, k in self.near[u]])) for u in order])
