"""N2 to N4 and N7: the canonical form of a network, and labels that equal networks share.

`views` turns the terms of a network into `View`s: deltas carried out, composite slots split into digits (one digit
system for all terms of a sum), unit extents gone, the argument read at bare digits, and neighbouring digits that
behave alike merged. Two labels stand on this form: `canonical_label` is equal for programs that differ in names,
in the order of factors and terms, in the storage order of operands and in nesting (a cache key, once types and layout
are added); `pinned_label` in addition keeps operands under their names (equal values, symmetry).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

from ..ir.expr import Program
from ..ir.structures.operator import Term
from ..ir.structures.slot import Slot, slot, var
from ..ir.structures.view import DELTA, STEP, Factor, Port, View
from .canonical_label import Certificate, Graph, certificate, digest
from .digits import merged, refined
from .network import Network, networks

_ALL = ((0, 0),)  # the key of a port that holds all of its slot


class NotLinear(Exception):
    """The value is no linear function of the argument; the text says why."""


def views(network: Network, argument: str | None, merge: bool = True) -> tuple[View, ...]:
    """N2 to N4: a view for each term that has the argument, with one system of digits for all.

    Terms without it are an offset, no part of the operator. Without an argument every term is taken, and all operands
    are atoms. Raises `NotLinear` where a term has the argument twice or inside of a function.
    """
    found = []
    for slots, term in network.terms:
        names = [n for n, _ in term.atoms]
        hidden = [n for n in names if n in network.opaques and argument in network.opaques[n].operands]
        if hidden:
            raise NotLinear(f"{argument} stands inside of a function")
        if argument is not None and argument not in names:
            continue
        if argument is not None and names.count(argument) > 1:
            raise NotLinear(f"{argument} occurs {names.count(argument)} times in one term")
        found.append(_Solver(network, term, slots, argument).view())
    if merge and found:
        found = merged(refined(found))
    return tuple(found)


class _Solver:
    """N2 and N3 on one term."""

    def __init__(self, network: Network, term: Term, slots: Sequence[Slot], argument: str | None) -> None:
        self.network, self.term, self.argument = network, term, argument
        used = sorted(term.indices.union(*(s.indices for s in slots)))  # in an order that no hash decides
        self.ext: dict[str, int] = {i: network.extents[i] for i in used}
        self.shapes = network.shapes
        self.out: list[str] = []
        self.x: list[str] = []
        self.count = 0
        for s in slots:
            digits = s.digits(self.ext, prod(self.ext[i] for i in s.indices)) if s.indices else []
            if digits is None or any(i in self.out for i, _ in digits):
                raise NotLinear("the result is written at positions that meet or leave gaps")
            self.out += [i for i, _ in digits]

    def fresh(self, base: str, extent: int) -> str:
        """A new index; names from different terms need not differ."""
        self.count += 1
        name = f"{base.split('~')[0]}~{base.split('~')[-1]}.{self.count}"
        self.ext[name] = extent
        return name

    def put(self, index: str, value: Slot) -> None:
        self.term = self.term.put(index, value)

    def drop_delta(self, delta: tuple[Slot, Slot], guards: Iterable[Slot] = ()) -> None:
        rest = list(self.term.deltas)
        rest.remove(delta)
        self.term = self.term._replace(deltas=tuple(rest), guards=(*self.term.guards, *guards))

    def split(self, index: str, low: int) -> None:
        """index -> high*low + low everywhere, also in the result."""
        a, b = self.fresh(index, self.ext[index] // low), self.fresh(index, low)
        self.put(index, slot([(a, low), (b, 1)]))
        self.out = [q for o in self.out for q in ((a, b) if o == index else (o,))]

    def view(self) -> View:
        stuck: set[tuple[Slot, Slot]] = set()
        while True:
            todo = next((d for d in self.term.deltas if d not in stuck), None)
            if todo is None:
                break
            if todo[0] == todo[1]:
                self.drop_delta(todo)
            elif not self.eliminated(todo) and not self.digitwise(todo):
                stuck.add(todo)
        self.drop_units()
        if self.argument is not None:
            self.read_argument()
        self.look_behind()
        return self.finished()

    def drop_units(self) -> None:
        for i in sorted(i for i in self.term.indices.union(self.out) if self.ext[i] == 1):
            self.put(i, Slot())
            self.out = [o for o in self.out if o != i]
        kept = tuple(d for d in self.term.deltas if d[0] != d[1])
        self.term = self.term._replace(deltas=kept)

    def eliminated(self, delta: tuple[Slot, Slot]) -> bool:
        """N3: a delta that fixes an index removes it."""
        for f, e in (delta, delta[::-1]):
            i = f.bare
            if i is None or i in e.indices or e.modulus:
                continue
            low, high = e.bounds(self.ext)
            if i not in self.out:
                inside = low >= 0 and high < self.ext[i]
                self.drop_delta(delta, () if inside else (e, slot((), self.ext[i] - 1).plus(e, -1)))
                self.put(i, e)
                return True
            j, digits = e.bare, e.digits(self.ext, self.ext[i])
            if j is not None and self.ext[j] == self.ext[i] and j not in self.out:
                self.drop_delta(delta)
                self.out = [j if o == i else o for o in self.out]
                self.put(i, e)
                return True
            if digits and len(digits) > 1 and not any(k in self.out for k, _ in digits):
                self.drop_delta(delta)
                self.out = [q for o in self.out for q in ([k for k, _ in digits] if o == i else [o])]
                self.put(i, e)
                return True
        return False

    def digitwise(self, delta: tuple[Slot, Slot]) -> bool:
        """N2: two mixed-radix numbers are equal digit by digit, in the coarsest common system where the cuts nest."""
        a, b = delta
        size = a.bounds(self.ext)[1] + 1
        da, db = a.digits(self.ext, size), b.digits(self.ext, size)
        if not da or not db:
            return False
        cuts = sorted({w for _, w in da} | {w for _, w in db})
        if all(v % u == 0 for u, v in itertools.pairwise(cuts)) and len(cuts) > min(len(da), len(db)):
            for i, w in da + db:
                for c in sorted(cuts, reverse=True):
                    if w < c < w * self.ext[i] and (c // w) * (self.ext[i] * w // c) == self.ext[i]:
                        self.split(i, c // w)
                        return True
        if [w for _, w in da] == [w for _, w in db] and len(da) > 0 and (len(da) > 1 or da != db):
            pairs = tuple((var(i), var(j)) for (i, _), (j, _) in zip(da, db, strict=True))
            if pairs == (delta,):
                return False
            rest = list(self.term.deltas)
            rest.remove(delta)
            self.term = self.term._replace(deltas=(*rest, *pairs))
            return True
        return False

    def read_argument(self) -> None:
        """N5: the argument is read at bare digits; what cannot be solved for stays a delta."""
        name = self.argument
        for k, extent in enumerate(self.shapes[name or ""]):
            read = next(slots for n, slots in self.term.atoms if n == name)[k]
            if extent == 1 and not read.terms:
                continue
            digits = read.digits(self.ext, extent)
            if digits and not any(i in self.x for i, _ in digits):
                self.x += [i for i, _ in digits]
                continue
            if read.bare is not None and self.ext[read.bare] == extent:
                self.x.append(read.bare)
                continue
            self.x.append(self.solved(read, extent))

    def solved(self, read: Slot, extent: int) -> str:
        """A new digit for a slot: a summed index with coefficient +-1 is expressed by it."""
        j = self.fresh("x~x", extent)
        pivot = next(
            (i for i, c in read.terms if abs(c) == 1 and not read.modulus and i not in (*self.out, *self.x)), None
        )
        if pivot is None:
            self.term = self.term._replace(deltas=(*self.term.deltas, (var(j), read)))
            return j
        c = read.coefficient(pivot)
        value = slot([(i, -c * q) for i, q in read.terms if i != pivot] + [(j, c)], -c * read.offset)
        whole = any(
            s == var(pivot) and self.shapes[n][q] == self.ext[pivot]
            for n, slots in self.term.atoms
            if n != self.argument
            for q, s in enumerate(slots)
        )
        self.put(pivot, value)
        low, high = value.bounds(self.ext)
        if not whole and not (low >= 0 and high < self.ext[pivot]):
            guards = (value, slot((), self.ext[pivot] - 1).plus(value, -1))
            self.term = self.term._replace(guards=(*self.term.guards, *guards))
        return j

    def look_behind(self) -> None:
        """A reshape at the edge, where one side is nothing but the result or nothing but the argument, is a view."""
        for delta in self.term.deltas:
            others = {i for n, slots in self.term.atoms if n != self.argument for s in slots for i in s.indices}
            others.update(i for d in self.term.deltas if d != delta for s in d for i in s.indices)
            others.update(i for g in self.term.guards for i in g.indices)
            for a, b in (delta, delta[::-1]):
                size = a.bounds(self.ext)[1] + 1
                da, db = a.digits(self.ext, size), b.digits(self.ext, size)
                if not da or not db or len(da) + len(db) <= 2:
                    continue
                mine = [i for i, _ in da]
                for here, there in ((self.out, self.x), (self.x, self.out)):
                    k = here.index(mine[0]) if mine[0] in here else -1
                    if k >= 0 and here[k : k + len(mine)] == mine and not set(mine) & others.union(there):
                        here[k : k + len(mine)] = [i for i, _ in db]
                        self.drop_delta(delta)
                        return self.look_behind()
        return None

    def finished(self) -> View:
        term = self.term
        atoms = []
        for name, slots in term.atoms:
            if name == self.argument:
                continue
            ports: list[Port] = []
            for k, s in enumerate(slots):
                extent = self.shapes[name][k]
                if extent == 1 and not s.terms and not s.offset:
                    continue
                digits = s.digits(self.ext, extent)
                if digits:
                    ports += [(((k, w),), var(i)) for i, w in digits]
                else:
                    ports.append((((k, 0 if s.bare is None else 1),), s))
            atoms.append(Factor(name, tuple(ports)))
        atoms += [Factor(DELTA, ((_ALL, a), (_ALL, b))) for a, b in term.deltas]
        guards = sorted({g for g in term.guards if g.bounds(self.ext)[0] < 0})
        atoms += [Factor(STEP, ((_ALL, g),)) for g in guards]
        return View(
            term.coefficient,
            tuple(self.out),
            tuple(self.x),
            tuple(atoms),
            self.ext,
            self.shapes,
            self.network.facts,
            lets=self.network.lets,
        )


# --- N7: labels -------------------------------------------------------------------------------------------------------


def _add_view(
    graph: Graph, v: View, number: int, owner: int | None, pinned: bool, network: Network | None, once: frozenset[str]
) -> None:
    """The nodes of one term: the term, its indices, atoms, slots, and the operands and ports that terms share.

    An operand of `once`, which stands nowhere else, needs no nodes for itself, its ports and its bare slots.
    """
    top = graph.node(("t", number), ("term", v.coefficient))
    if owner is not None:
        graph.edge(owner, top, "term")

    # Nodes in an order that no hash decides: the label does not depend on it, but the time that its search takes does.
    met = dict.fromkeys((*v.out, *v.x, *(i for a in v.atoms for _, q in a.ports for i, _ in q.terms)))
    index = {i: graph.node(("i", number, i), ("index", v.extents[i])) for i in met}
    for k, i in enumerate(v.out):
        graph.edge(top, index[i], ("out", k))
    for k, i in enumerate(v.x):
        graph.edge(top, index[i], ("x", k))
    for i in v.bound:
        graph.edge(top, index[i], "sum")
    for k, atom in enumerate(v.atoms):
        symmetric = "symmetric" in v.known(atom) and len(v.shapes.get(atom.name, ())) == 2
        bare = [q.bare for _, q in atom.ports]
        if atom.name in once and None not in bare and len(set(bare)) == len(bare):
            node = graph.node(("a", number, k), ("once", _colour(atom.name, v, pinned)))
            graph.edge(top, node, "in")
            for key, q in atom.ports:
                graph.edge(node, index[q.terms[0][0]], ("reads", key if pinned and not symmetric else ()))
            continue
        operand = _operand(graph, atom.name, v, pinned, network)
        node = graph.node(("a", number, k), "atom")
        graph.edge(top, node, "in")
        graph.edge(node, operand, "is")
        for p, (key, q) in enumerate(atom.ports):
            s = graph.node(("s", number, k, p), ("slot", q.offset, q.modulus))
            graph.edge(node, s, "has")
            for i, c in q.terms:
                graph.edge(s, index[i], ("times", c))
            fixed = pinned and not symmetric and atom.name not in (DELTA, STEP)
            name = "any" if symmetric else (p if atom.name == DELTA else key)
            port = graph.node(("p", atom.name, name), ("port", key if fixed else ()))
            graph.edge(port, operand, "of")
            graph.edge(s, port, "at")


def _colour(name: str, v: View, pinned: bool) -> Any:
    return ("operand", name) if pinned else ("operand", tuple(sorted(v.facts.get(name, ()))))


def _operand(graph: Graph, name: str, v: View, pinned: bool, network: Network | None) -> int:
    opaque = network.opaques.get(name) if network is not None else None
    if opaque is not None:
        node = graph.node(("o", name), ("opaque", opaque.text))
        for k, inner in enumerate(opaque.operands):
            graph.edge(node, _operand(graph, inner, v, pinned, network), ("operand", k))
        return node
    if name in (DELTA, STEP):
        return graph.node(("o", name), ("fixed", name))
    return graph.node(("o", name), _colour(name, v, pinned))


def _once(found: Iterable[View]) -> frozenset[str]:
    """Operands that stand in one atom only."""
    names = Counter([a.name for v in found for a in v.atoms])
    return frozenset([n for n, k in names.items() if k == 1 and n not in (DELTA, STEP) and n[0] != "?"])


def label_of(found: Sequence[View], pinned: bool = False) -> Certificate:
    """The label of a sum of views: equal up to index names, order, storage order and (unless pinned) operand names."""
    return certificate(graph_of(found, pinned))


def graph_of(found: Sequence[View], pinned: bool = False) -> Graph:
    """The coloured graph of a sum of views; index i of term k is the node ("i", k, i)."""
    graph = Graph()
    once = _once(found)
    for number, v in enumerate(found):
        _add_view(graph, v, number, None, pinned, None, once)
    return graph


def canonical_label(program: Program, sizes: Mapping[str, int] | None = None) -> str:
    """A text that programs share if they are equal up to renaming, reordering, storage order of operands and nesting.

    Sizes count, element types, layout and the argument's role do not: add what a cache key needs of these. What is no
    sum of products (`relu`) is compared by its text.

    >>> from ..ir.text import parse_ir
    >>> head = "input A: f64[4, 3]\\ninput x: f64[3]\\ny[i]: f64[4] = einsum[plustimes, f64]"
    >>> tail = "over i<4, j<3\\nreturn y"
    >>> first, second = (f"{head}(j; {f}) {tail}" for f in ("A[i, j], x[j]", "x[j], A[i, j]"))
    >>> canonical_label(parse_ir(first)) == canonical_label(parse_ir(second))
    True
    """
    return _label(program, sizes, False)


def pinned_label(program: Program, sizes: Mapping[str, int] | None = None) -> str:
    """The same where operands keep their names: programs that share it have equal values."""
    return _label(program, sizes, True)


def _label(program: Program, sizes: Mapping[str, int] | None, pinned: bool) -> str:
    graph = Graph()
    number = 0
    parts = [(n, *_value_views(n)) for n in networks(program, sizes)]
    shared = {n for network, _, _ in parts for o in network.opaques.values() for n in o.operands}
    inputs = {i.name for i in program.inputs} - shared - set(program.outputs)
    once = _once(v for _, found, _ in parts for v in found) & inputs
    for place, name in enumerate(program.outputs):
        node = graph.node(("o", name), ("operand", name if pinned else ()))
        graph.edge(node, graph.node("outputs", "outputs"), ("output", place))
    for network, found, text in parts:
        own = graph.node(("o", network.name), ("operand", network.name if pinned else ()))
        kind = graph.node(("kind", network.name), ("value", network.semiring, text))
        graph.edge(own, kind, "is")
        for v in found:
            _add_view(graph, v, number, kind, pinned, network, once)
            number += 1
    return digest(certificate(graph))


def _value_views(network: Network) -> tuple[tuple[View, ...], str]:
    """The views of a whole value, or its text where it is written at positions that meet."""
    try:
        return views(network, None), ""
    except NotLinear:
        return (), repr(network.terms)
