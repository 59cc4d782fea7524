"""Circuits: what an encrypted program is once every layout is decided, before any key exists.

A `Circuit` is a list of homomorphic operations on ciphertexts, in order of evaluation. It knows levels and sizes of
ciphertexts, but no primes and no values: `scales` binds it to a modulus chain, `simulator` runs it on exact slots,
`seal` on ciphertexts. Operations are counted here, once, for `explain`, for keys, and to check what was executed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ....ir.errors import NOWHERE, Span
from .layout import Packing

Array = np.ndarray[Any, Any]

INPUT, ROTATE, MULTIPLY_PLAIN, ADD_PLAIN = "input", "rotate", "multiply plain", "add plain"
MULTIPLY, ADD, SUBTRACT, NEGATE = "multiply", "add", "subtract", "negate"
RELINEARISE, RESCALE, SWITCH = "relinearise", "rescale", "switch"
KINDS = (
    INPUT, ROTATE, MULTIPLY_PLAIN, ADD_PLAIN, MULTIPLY, ADD, SUBTRACT, NEGATE, RELINEARISE, RESCALE, SWITCH,
)  # fmt: skip


class Plain(Protocol):
    """A vector of slots that is known in clear when the program runs: a function of the clear tensors, never a value.

    Plans hold `Plain`s, so that one plan (and one client bundle) serves every value of the constants.
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """The clear tensors that the vector is made of."""
        ...

    def vector(self, tensors: Mapping[str, Array]) -> Array:
        """The vector: one number per slot (complex for `coefficients` packings)."""
        ...


@dataclass(frozen=True)
class Node:
    """One operation. `args` are numbers of earlier nodes.

    `level` counts the primes dropped so far, `size` the polynomials of the ciphertext (3 for a product that was not
    relinearised), `pending` the products since the last rescale (0 or 1). `step` is the number of slots that a rotation
    moves to the left, 0 < step < slots; `plain` the number of a plain vector; `upload` (tensor, ciphertext).
    """

    kind: str
    args: tuple[int, ...] = ()
    step: int = 0
    plain: int = -1
    upload: tuple[str, int] | None = None
    level: int = 0
    size: int = 2
    pending: int = 0
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Circuit:
    """An encrypted program. `slots` is half of the ring's degree, `levels` what it consumes on its longest path.

    `uploads` says how the client packs each encrypted input, `downloads` how it reads each output from its ciphertexts
    (numbers of nodes, one for each row of the packing). `claims` bound the magnitude of values better than intervals
    can, which do not see that terms cancel (Chebyshev polynomials of an argument in their range).
    """

    slots: int
    levels: int
    uploads: Mapping[str, Packing]
    plains: tuple[Plain, ...]
    nodes: tuple[Node, ...]
    downloads: Mapping[str, tuple[Packing, tuple[int, ...]]]
    claims: Mapping[int, float] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        """The rotations that need a Galois key, each once."""
        return tuple(sorted({n.step for n in self.nodes if n.kind == ROTATE}))

    def counts(self) -> dict[str, int]:
        """How often each kind of operation runs.

        >>> from .layout import Packing
        >>> b = Builder(8)
        >>> x = b.input("x", 0)
        >>> b.circuit({"x": Packing.vector(8)}, {"y": (Packing.vector(8), (b.add(x, b.rotate(x, 1)),))}).counts()
        {'input': 1, 'rotate': 1, 'add': 1}
        """
        return dict(Counter(n.kind for n in self.nodes))

    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the values that nobody reads after it: an executor may forget them then."""
        kept = {v for _, values in self.downloads.values() for v in values}
        last: dict[int, int] = {}
        for number, node in enumerate(self.nodes):
            for a in node.args:
                last[a] = number
        freed: list[list[int]] = [[] for _ in self.nodes]
        for value, number in last.items():
            if value not in kept:
                freed[number].append(value)
        return tuple(map(tuple, freed))

    def spans(self, number: int) -> tuple[Span, ...]:
        """The place of an operation's expression, or of the nearest that it reads and that has one: for messages."""
        seen, todo = {number}, [number]
        for near in todo:
            node = self.nodes[near]
            if node.span != NOWHERE:
                return (node.span,)
            todo += [a for a in node.args if a not in seen]
            seen.update(node.args)
        return ()

    def text(self) -> str:
        """One line per operation, for people.

        >>> from .layout import Packing
        >>> b = Builder(8)
        >>> x = b.input("x", 0)
        >>> y = b.rotate(x, 3)
        >>> print(b.circuit({"x": Packing.vector(8)}, {"y": (Packing.vector(8), (y,))}).text())
        8 slots, 0 levels
        %0 = input x[0]
        %1 = rotate %0 by 3
        return y = %1
        """
        lines = [f"{self.slots} slots, {self.levels} levels"]
        for number, node in enumerate(self.nodes):
            words = [node.kind, *(f"%{a}" for a in node.args)]
            if node.upload is not None:
                words.append(f"{node.upload[0]}[{node.upload[1]}]")
            if node.kind == ROTATE:
                words.append(f"by {node.step}")
            if node.plain >= 0:
                words.append(f"plain {node.plain}")
            level = f"  ; level {node.level}" if node.level else ""
            lines.append(f"%{number} = {' '.join(words)}{level}")
        for name, (_, values) in self.downloads.items():
            lines.append(f"return {name} = {' '.join(f'%{v}' for v in values)}")
        return "\n".join(lines)


class Builder:
    """Makes circuits. Equal operations on equal values are one; levels are aligned, products rescaled by its caller.

    Each method gives the number of its result. Rotation by 0 and switching by 0 levels give their argument back.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.nodes: list[Node] = []
        self.plains: list[Plain] = []
        self.claims: dict[int, float] = {}
        self._known: dict[Node, int] = {}
        self._plain_numbers: dict[int, int] = {}

    def input(self, tensor: str, ciphertext: int, span: Span = NOWHERE) -> int:
        """A fresh ciphertext: number `ciphertext` of an encrypted input."""
        return self._put(Node(INPUT, upload=(tensor, ciphertext), span=span))

    def rotate(self, value: int, step: int, span: Span = NOWHERE) -> int:
        """Slots moved to the left by `step` (slot s of the result holds slot s + step), cyclically."""
        node = self.nodes[value]
        step %= self.slots
        assert node.size == 2, "rotation of a product that was not relinearised"
        if step == 0:
            return value
        return self._put(Node(ROTATE, (value,), step=step, level=node.level, pending=node.pending, span=span))

    def multiply_plain(self, value: int, plain: Plain, span: Span = NOWHERE) -> int:
        """The product, slot by slot, with a plain vector; to be rescaled later. The vector must not be all zero."""
        node = self.nodes[value]
        assert node.pending == 0, "a product of a product that was not rescaled"
        return self._put(
            Node(
                MULTIPLY_PLAIN,
                (value,),
                plain=self._plain(plain),
                level=node.level,
                size=node.size,
                pending=1,
                span=span,
            )
        )

    def add_plain(self, value: int, plain: Plain, span: Span = NOWHERE) -> int:
        """The sum with a plain vector."""
        node = self.nodes[value]
        return self._put(
            Node(
                ADD_PLAIN, (value,), plain=self._plain(plain), level=node.level, size=node.size, pending=node.pending,
                span=span,
            )
        )  # fmt: skip

    def multiply(self, a: int, b: int, span: Span = NOWHERE) -> int:
        """The product of two ciphertexts, of size 3; to be relinearised and rescaled later."""
        a, b = self.aligned(a, b)
        one, two = self.nodes[a], self.nodes[b]
        assert one.pending == two.pending == 0 and one.size == two.size == 2, "operands of a product are not settled"
        return self._put(Node(MULTIPLY, (min(a, b), max(a, b)), level=one.level, size=3, pending=1, span=span))

    def add(self, a: int, b: int, span: Span = NOWHERE) -> int:
        """The sum of two ciphertexts (both or neither with a product pending)."""
        return self._sum(ADD, a, b, span)

    def subtract(self, a: int, b: int, span: Span = NOWHERE) -> int:
        """The difference. `x - x` is refused: SEAL has no encryption of a structural zero."""
        assert a != b, "a structural zero"
        return self._sum(SUBTRACT, a, b, span)

    def negate(self, value: int, span: Span = NOWHERE) -> int:
        """The value with the other sign."""
        node = self.nodes[value]
        return self._put(Node(NEGATE, (value,), level=node.level, size=node.size, pending=node.pending, span=span))

    def relinearise(self, value: int, span: Span = NOWHERE) -> int:
        """A product of size 3 brought back to size 2."""
        node = self.nodes[value]
        if node.size == 2:
            return value
        return self._put(Node(RELINEARISE, (value,), level=node.level, pending=node.pending, span=span))

    def rescale(self, value: int, span: Span = NOWHERE) -> int:
        """A pending product divided by the last prime, one level lower."""
        node = self.nodes[value]
        assert node.pending == 1, "nothing to rescale"
        return self._put(Node(RESCALE, (value,), level=node.level + 1, size=node.size, span=span))

    def switch(self, value: int, level: int, span: Span = NOWHERE) -> int:
        """The same value at a lower level (a greater number), by dropping primes."""
        node = self.nodes[value]
        assert node.level <= level, "levels only fall"
        while node.level < level:
            made = Node(SWITCH, (value,), level=node.level + 1, size=node.size, pending=node.pending, span=span)
            value = self._put(made)
            node = self.nodes[value]
        return value

    def aligned(self, *values: int) -> tuple[int, ...]:
        """The values at the lowest level among them."""
        level = max(self.nodes[v].level for v in values)
        return tuple(self.switch(v, level) for v in values)

    def total(self, values: Sequence[int]) -> int:
        """The sum of one or more values."""
        result = values[0]
        for v in values[1:]:
            result = self.add(result, v)
        return result

    def claim(self, value: int, largest: float) -> int:
        """The value, of which the caller knows that no slot exceeds `largest` in magnitude."""
        self.claims[value] = min(largest, self.claims.get(value, largest))
        return value

    def circuit(
        self, uploads: Mapping[str, Packing], downloads: Mapping[str, tuple[Packing, tuple[int, ...]]]
    ) -> Circuit:
        """The circuit of what the downloads need, numbered anew."""
        need = {v for _, values in downloads.values() for v in values}
        for number in range(len(self.nodes) - 1, -1, -1):
            if number in need:
                need.update(self.nodes[number].args)
        place: dict[int, int] = {}
        plains: dict[int, int] = {}
        nodes: list[Node] = []
        for number, node in enumerate(self.nodes):
            if number in need:
                place[number] = len(nodes)
                plain = plains.setdefault(node.plain, len(plains)) if node.plain >= 0 else -1
                nodes.append(
                    Node(
                        node.kind, tuple(place[a] for a in node.args), node.step, plain, node.upload, node.level,
                        node.size, node.pending, node.span,
                    )
                )  # fmt: skip
        levels = max((n.level for n in nodes), default=0)
        ends = {name: (packing, tuple(place[v] for v in values)) for name, (packing, values) in downloads.items()}
        claims = {place[v]: largest for v, largest in self.claims.items() if v in place}
        return Circuit(
            self.slots, levels, dict(uploads), tuple(self.plains[p] for p in plains), tuple(nodes), ends, claims
        )

    def _sum(self, kind: str, a: int, b: int, span: Span) -> int:
        a, b = self.aligned(a, b)
        one, two = self.nodes[a], self.nodes[b]
        assert one.pending == two.pending, "a sum of values of different scales: rescale first"
        return self._put(
            Node(kind, (a, b), level=one.level, size=max(one.size, two.size), pending=one.pending, span=span)
        )

    def _plain(self, plain: Plain) -> int:
        number = self._plain_numbers.get(id(plain))
        if number is None:
            number = self._plain_numbers[id(plain)] = len(self.plains)
            self.plains.append(plain)  # which also keeps the id taken
        return number

    def _put(self, node: Node) -> int:
        number = self._known.get(node)
        if number is None:
            number = self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return number
