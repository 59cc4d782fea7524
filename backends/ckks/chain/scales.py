"""Binds a circuit to a modulus chain: the scale of every value, and of every encoding of a plain vector.

A rescale divides by a prime that is nearly, not exactly, the nominal scale; so scales drift apart along different
routes, by a millionth or so, and sums of such values are wrong by that much. Here the scales of all values are unknowns
(their logarithms satisfy linear equations: a sum has one scale, a product the sum of two, a rescale a known difference)
and are chosen so that every sum is exact. Plain factors and inputs are what is free to choose. Where that does not
suffice, a switch to a lower level becomes a product with ones at the right scale (Kim, Papadimitriou and Polyakov
2020, "Approximate homomorphic encryption with reduced approximation error", section 4); what is left after that is
recorded as a relative error, which `noise` counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import exp2, log2
from typing import Any

import numpy as np

from ..core import circuit as c
from .parameters import Parameters

Array = np.ndarray[Any, Any]

EXACT = 2.0**-40  # relative: scales closer than this count as one


@dataclass(frozen=True)
class Ones:
    """The plain vector that changes a scale and no value."""

    slots: int

    @property
    def reads(self) -> tuple[str, ...]:
        """No tensor."""
        return ()

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """Ones.

        >>> Ones(2).vector({})
        array([1., 1.])
        """
        return np.ones(self.slots)


@dataclass(frozen=True)
class Scales:
    """`values` are the scales of the results of all nodes, `factors` those at which the plain vector of a node is
    encoded (0 where there is none). `drift` has the relative error of sums whose operands do not meet at one scale.
    """

    parameters: Parameters
    values: tuple[float, ...]
    factors: tuple[float, ...]
    drift: Mapping[int, float] = field(default_factory=dict)


def bind(circuit: c.Circuit, parameters: Parameters) -> Scales:
    """The scales of a circuit on a chain.

    >>> from ..core.layout import Packing
    >>> b = c.Builder(4096)
    >>> x = b.input("x", 0)
    >>> y = b.rescale(b.multiply_plain(x, Ones(4096)))
    >>> packing = Packing.vector(4096)
    >>> found = bind(b.circuit({"x": packing}, {"y": (packing, (y,))}), Parameters(8192, (60, 40, 60)))
    >>> [round(log2(s), 6) for s in found.values]
    [40.0, 80.0, 40.0]
    """
    assert circuit.levels <= parameters.levels and circuit.slots == parameters.slots, "another chain was planned"
    logs = _System(circuit, parameters, frozenset()).solve()
    known: dict[int, float] = {}
    values: list[float] = []
    factors: list[float] = []
    drift: dict[int, float] = {}
    for number, node in enumerate(circuit.nodes):
        args = [values[a] for a in node.args]
        value, factor = _one(exp2(logs[number]), known), 0.0
        if node.kind == c.MULTIPLY_PLAIN:
            factor = value / args[0]
        elif node.kind != c.INPUT:
            exact = args[0]
            if node.kind == c.MULTIPLY:
                exact = args[0] * args[1]
            elif node.kind == c.RESCALE:
                exact = args[0] / parameters.dropped(node.level - 1)
            elif node.kind == c.ADD_PLAIN:
                factor = args[0]
            elif node.kind in (c.ADD, c.SUBTRACT) and args[0] != args[1]:
                drift[number] = abs(args[1] / args[0] - 1)
            if abs(value / exact - 1) > EXACT:  # the equations cannot all hold
                value = _one(exact, known)
        values.append(value)
        factors.append(factor)
    return Scales(parameters, tuple(values), tuple(factors), drift)


def _one(scale: float, known: dict[int, float]) -> float:
    """The scale, or a known one that differs by rounding alone: SEAL wants scales of a sum equal to the last bit."""
    key = round(log2(scale) / EXACT)
    for near in (key, key - 1, key + 1):
        if near in known:
            return known[near]
    return known.setdefault(key, scale)


def settle(circuit: c.Circuit, parameters: Parameters) -> c.Circuit:
    """The circuit with as few switches as it takes replaced by products with ones, so that every sum is exact where
    that is possible. A circuit that needs none comes back as it is.
    """
    if _System(circuit, parameters, frozenset()).consistent():
        return circuit
    free = [n for n, node in enumerate(circuit.nodes) if node.kind == c.SWITCH and not node.pending]
    replaced = set(free)
    if not _System(circuit, parameters, frozenset(replaced)).consistent():
        return circuit
    system = _System(circuit, parameters, frozenset(replaced))
    tried: set[tuple[int, int]] = set()
    for number in free:  # put back what does no harm; switches between the same two classes of values go together
        pair = (system.root(circuit.nodes[number].args[0]), system.root(number))
        if pair in tried:
            continue
        less = _System(circuit, parameters, frozenset(replaced - {number}))
        if less.consistent():
            replaced.discard(number)
            system = less
        else:
            tried.add(pair)
    return _replaced(circuit, replaced)


def _replaced(circuit: c.Circuit, switches: set[int]) -> c.Circuit:
    """The circuit in which these switches are a product with ones and a rescale."""
    ones = len(circuit.plains)
    place: dict[int, int] = {}
    nodes: list[c.Node] = []
    for number, node in enumerate(circuit.nodes):
        args = tuple(place[a] for a in node.args)
        if number in switches:
            nodes.append(
                c.Node(
                    c.MULTIPLY_PLAIN, args, plain=ones, level=node.level - 1, size=node.size, pending=1, span=node.span
                )
            )
            node, args = replace(node, kind=c.RESCALE), (len(nodes) - 1,)
        place[number] = len(nodes)
        nodes.append(replace(node, args=args))
    ends = {name: (packing, tuple(place[v] for v in values)) for name, (packing, values) in circuit.downloads.items()}
    claims = {place[v]: largest for v, largest in circuit.claims.items()}
    plains = (*circuit.plains, Ones(circuit.slots))
    return replace(circuit, plains=plains, nodes=tuple(nodes), downloads=ends, claims=claims)


class _System:
    """The equations of the logarithms of scales.

    Values whose scales differ by a known amount are one class (a union-find with offsets); products of ciphertexts are
    equations among classes.
    """

    def __init__(self, circuit: c.Circuit, parameters: Parameters, free: frozenset[int]) -> None:
        self.circuit, self.parameters = circuit, parameters
        self.parent = list(range(len(circuit.nodes)))
        self.offset = [0.0] * len(circuit.nodes)  # of a value's scale to its parent's
        self.clash = 0.0
        inputs: dict[str, int] = {}
        for number, node in enumerate(circuit.nodes):
            if node.kind == c.INPUT:
                assert node.upload is not None
                self.unite(number, inputs.setdefault(node.upload[0], number), 0.0)
            elif node.kind == c.RESCALE:
                self.unite(number, node.args[0], -log2(parameters.dropped(node.level - 1)))
            elif node.kind not in (c.MULTIPLY, c.MULTIPLY_PLAIN) and number not in free:
                for a in node.args:
                    self.unite(number, a, 0.0)

    def find(self, value: int) -> tuple[int, float]:
        """The class of a value, and its offset there."""
        path = []
        while self.parent[value] != value:
            path.append(value)
            value = self.parent[value]
        total = 0.0
        for v in reversed(path):
            total += self.offset[v]
            self.parent[v], self.offset[v] = value, total
        return value, total

    def root(self, value: int) -> int:
        """The class of a value."""
        return self.find(value)[0]

    def unite(self, a: int, b: int, difference: float) -> None:
        """State that log scale of a = log scale of b + difference."""
        (one, mine), (two, theirs) = self.find(a), self.find(b)
        if one == two:
            self.clash = max(self.clash, abs(mine - theirs - difference))
        else:
            self.parent[one], self.offset[one] = two, theirs + difference - mine

    def equations(self) -> tuple[dict[int, int], Array, Array, Array]:
        """Number of each class, nominal value of each, and matrix and right-hand side of the products' equations."""
        nominal: dict[int, float] = {}
        scale = float(self.parameters.scale_bits)
        for number, node in enumerate(self.circuit.nodes):
            root, offset = self.find(number)
            if root not in nominal or not node.pending:  # what is settled says what is nominal
                nominal[root] = scale * (1 + node.pending) - offset
        classes = {root: k for k, root in enumerate(nominal)}
        rows: dict[tuple[tuple[int, int], ...], float] = {}
        for number, node in enumerate(self.circuit.nodes):
            if node.kind == c.MULTIPLY:
                coefficients: dict[int, int] = {}
                constant = 0.0
                for v, sign in ((number, 1), (node.args[0], -1), (node.args[1], -1)):
                    root, offset = self.find(v)
                    coefficients[classes[root]] = coefficients.get(classes[root], 0) + sign
                    constant -= sign * offset
                key = tuple(sorted((k, s) for k, s in coefficients.items() if s))
                if key in rows:
                    self.clash = max(self.clash, abs(rows[key] - constant))
                rows.setdefault(key, constant)
        matrix = np.zeros((len(rows), len(classes)))
        for r, key in enumerate(rows):
            for k, s in key:
                matrix[r, k] = s
        return classes, np.array(list(nominal.values())), matrix, np.array(list(rows.values()))

    def solution(self) -> tuple[dict[int, int], Array, float]:
        """The log scale of each class, as near to nominal as the equations let it be, and how far they are missed."""
        classes, nominal, matrix, right = self.equations()
        if not len(right):
            return classes, nominal, self.clash
        found = nominal + np.linalg.lstsq(matrix, right - matrix @ nominal, rcond=None)[0]
        return classes, found, max(self.clash, float(np.abs(matrix @ found - right).max()))

    def consistent(self) -> bool:
        """Whether all equations can hold."""
        return self.solution()[2] <= EXACT * 16

    def solve(self) -> list[float]:
        """The log scale of each value."""
        classes, found, _ = self.solution()
        return [float(found[classes[root]]) + offset for root, offset in map(self.find, range(len(self.parent)))]
