"""Divides a circuit among processes, each operation to one of them, and says what they hand to each other.

SEAL's bindings hold the interpreter's lock, so a second core takes a second process, and a ciphertext that both need
has to be written by one and read by the other, for about the price of a rotation. What leads to one ciphertext of the
results, or to one term of the last sum, stays together, and these are shared out. What several of them read is placed
in the order of the circuit, each operation where it is done first (list scheduling by earliest finish, as of
Topcuoglu, Hariri and Wu, 2002, section 4). Sums are not placed: every process adds up the terms that it has, and the
partial sums meet where the whole is read. Additions of residues are exact in any order, so results are the same to the
last bit, and no operation is done twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from ..chain.scales import Scales
from ..core import circuit as c
from ..planning.cost import Prices

# Milliseconds of writing and reading a ciphertext, in butterflies for each of its words, as measured: SEAL compresses
# what it writes. Half of an upload is a seed, from which reading makes numbers.
SAVE, READ, EXPAND = 10.5, 7.5, 13.5
START = 25.0  # milliseconds until another process runs: the pages of keys and encodings are shared, their tables copied

LOAD, RUN, JOIN, SEND, RECEIVE, ANSWER = "load", "run", "join", "send", "receive", "answer"


@dataclass(frozen=True)
class Task:
    """One thing that one process does. Values are numbers of their own within a process.

    LOAD reads the upload of a node, RUN does a node's operation on `args`, JOIN adds two parts of the sum that a node
    is. SEND hands args[0] to the process `peer`, RECEIVE takes its value args[0]; ANSWER hands in a
    result. `freed` are the values that are not read again, `milliseconds` what the task is predicted to take. `counted`
    is false for an upload that another process reads, too.
    """

    kind: str
    node: int
    value: int = -1
    args: tuple[int, ...] = ()
    peer: int = -1
    milliseconds: float = 0.0
    freed: tuple[int, ...] = ()
    counted: bool = True


@dataclass(frozen=True)
class Partition:
    """The tasks of each process, in order; the milliseconds that they take together and one process would take, with
    reading the request and writing the answer; and the ciphertexts that are handed over.
    """

    tasks: tuple[tuple[Task, ...], ...]
    milliseconds: float
    alone: float

    @property
    def processes(self) -> int:
        """How many there are."""
        return len(self.tasks)

    @cached_property
    def transfers(self) -> int:
        """Ciphertexts that one process writes for another."""
        return sum(task.kind == SEND for row in self.tasks for task in row)


def partition(circuit: c.Circuit, scales: Scales, prices: Prices, processes: int) -> Partition:
    """The circuit divided among so many processes.

    >>> from ..chain.parameters import Parameters
    >>> from ..chain.scales import bind
    >>> from ..core.layout import Packing
    >>> b = c.Builder(4096)
    >>> x = b.input("x", 0)
    >>> y = b.total([b.rotate(x, k) for k in range(1, 41)])
    >>> circuit = b.circuit({"x": Packing.vector(4096)}, {"y": (Packing.vector(4096), (y,))})
    >>> found = partition(circuit, bind(circuit, Parameters(8192, (60, 40, 60))), Prices(8192), 2)
    >>> [sum(t.node >= 0 and circuit.nodes[t.node].kind == c.ROTATE for t in row) for row in found.tasks]
    [20, 20]
    >>> found.transfers, found.milliseconds < 0.6 * found.alone
    (1, True)
    """
    assert processes >= 1
    schedule = _Schedule(circuit, scales, prices, processes)
    schedule.homes = _homes(schedule)
    for number in range(len(circuit.nodes)):
        schedule.place(number)
    schedule.finish()
    tasks = tuple(map(_in_time, schedule.tasks))
    return Partition(tuple(map(_freed, tasks)), max(_clocks(tasks)), schedule.alone)


def best(circuit: c.Circuit, scales: Scales, prices: Prices, most: int) -> Partition:
    """The division that is predicted to be done first, among up to `most` processes; each costs its start."""
    found = (partition(circuit, scales, prices, count) for count in range(1, max(1, most) + 1))
    return min(found, key=lambda p: p.milliseconds + START * (p.processes - 1))


Held: TypeAlias = "dict[int, int]"  # the number of a value in each process that has it


@dataclass
class _Schedule:
    """What is placed so far. `clock` says until when each process is busy, `ready` when values are there; `homes` has
    the process of nodes that are not placed by the clock.
    """

    circuit: c.Circuit
    scales: Scales
    prices: Prices
    processes: int
    homes: Mapping[int, int] = field(default_factory=dict)
    tasks: list[list[Task]] = field(init=False)
    clock: list[float] = field(init=False)
    alone: float = 0.0
    whole: dict[int, Held] = field(default_factory=dict)
    parts: dict[int, Held] = field(default_factory=dict)  # of sums whose parts have not met
    ready: dict[tuple[int, int], float] = field(default_factory=dict)  # when (process, value) is there
    values: int = 0

    def __post_init__(self) -> None:
        self.tasks = [[] for _ in range(self.processes)]
        self.clock = [0.0] * self.processes

    # --- placing

    def place(self, number: int) -> None:
        """The next node of the circuit."""
        node = self.circuit.nodes[number]
        cost = self.cost(number)
        self.alone += cost
        if node.kind == c.INPUT:
            return  # read where it is wanted
        if self.splits(number):
            self.add(number, cost)
            return
        wanted = tuple(dict.fromkeys(node.args))
        p = self.homes.get(number, -1)
        if p < 0:
            p = min(range(self.processes), key=lambda k: self.finished(wanted, k, cost))
        args = {a: self.fetch(a, p) for a in wanted}
        self.whole[number] = {p: self.do(RUN, number, p, cost, tuple(args[a] for a in node.args))}

    def finish(self) -> None:
        """Hand in the results: each where that is done first."""
        for _, numbers in self.circuit.downloads.values():
            for number in numbers:
                cost = self.words(number) * SAVE
                self.alone += cost
                p = min(range(self.processes), key=lambda k: self.finished((number,), k, cost))
                value = self.fetch(number, p)
                self.clock[p] += cost
                self.tasks[p].append(Task(ANSWER, number, args=(value,), milliseconds=cost))

    def splits(self, number: int) -> bool:
        """Whether a node is a sum whose terms may be added in any order: all of one scale, to the last bit."""
        node, scale = self.circuit.nodes[number], self.scales.values
        exact = len({scale[number], *(scale[a] for a in node.args)}) == 1
        return node.kind == c.ADD and exact and number not in self.scales.drift and node.args[0] != node.args[1]

    def add(self, number: int, cost: float) -> None:
        """Add up what each process has of both operands; what only one has is a part of the sum as it is."""
        first, second = self.circuit.nodes[number].args
        a = self.terms(first, self.known(second))
        b = self.terms(second, a)
        found: Held = {}
        for p in range(self.processes):
            if p in a and p in b:
                found[p] = self.do(RUN, number, p, cost, (a[p], b[p]))
            elif p in a or p in b:
                found[p] = a[p] if p in a else b[p]
        held = self.whole if len(found) == 1 else self.parts
        held[number] = found

    def known(self, number: int) -> Held:
        """Where a value, or any part of it, is."""
        return self.parts.get(number) or self.whole.get(number, {})

    def terms(self, number: int, near: Held) -> Held:
        """The parts that a sum takes of an operand: of one that is whole in several places, that next to the other
        operand, or where there is time.
        """
        if number in self.parts:
            return self.parts[number]
        held = self.whole.get(number) or range(self.processes)  # anywhere, for an input that nobody has read
        p = min(held, key=lambda k: (k not in near, self.clock[k]))
        return {p: self.fetch(number, p)}

    # --- moving values

    def fetch(self, number: int, p: int) -> int:
        """The value in process p: read there, received, or put together there."""
        held = self.whole.setdefault(number, {})
        if p in held:
            return held[p]
        if self.circuit.nodes[number].kind == c.INPUT:
            first = not held
            held[p] = self.do(LOAD, number, p, self.words(number) * EXPAND, counted=first)
        elif number in self.parts:
            held[p] = self.joined(number, p)
            del self.parts[number]
        else:
            q = min(held, key=lambda k: max(self.clock[k], self.ready[k, held[k]]))
            held[p] = self.sent(number, held[q], q, p)
        return held[p]

    def joined(self, number: int, p: int) -> int:
        """The parts of a sum, added up in one process."""
        parts = dict(self.parts[number])
        total = parts.pop(p, None)
        for q, value in parts.items():
            arrived = self.sent(number, value, q, p)
            if total is None:
                total = arrived
            else:
                total = self.do(JOIN, number, p, self.cost(number), (total, arrived))
        assert total is not None
        return total

    def sent(self, number: int, value: int, q: int, p: int) -> int:
        """A value of process q, in process p."""
        cost = self.words(number) * SAVE
        self.clock[q] += cost
        self.clock[p] = max(self.clock[p], self.ready[q, value] + cost)
        self.tasks[q].append(Task(SEND, number, args=(value,), peer=p, milliseconds=cost))
        return self.do(RECEIVE, number, p, self.words(number) * READ, (value,), q)

    def do(
        self,
        kind: str,
        number: int,
        p: int,
        cost: float,
        args: tuple[int, ...] = (),
        peer: int = -1,
        counted: bool = True,
    ) -> int:
        """A task that makes a value: its number."""
        self.values += 1
        self.clock[p] += cost
        self.ready[p, self.values] = self.clock[p]
        self.tasks[p].append(Task(kind, number, self.values, args, peer, cost, counted=counted))
        return self.values

    # --- prices

    def finished(self, wanted: Iterable[int], p: int, cost: float) -> float:
        """When process p would be done with something that reads these values, and for how long others would have to
        write for it.
        """
        clock, extra = list(self.clock), 0.0
        for number in wanted:
            held = self.whole.get(number, {})
            words = self.words(number)
            if p in held:
                continue
            if self.circuit.nodes[number].kind == c.INPUT:
                clock[p] += words * EXPAND
                continue
            parts = self.parts.get(number)
            source = held if parts is None else parts
            for q in [min(held, key=lambda k: clock[k])] if parts is None else [q for q in parts if q != p]:
                clock[p] = max(clock[p], self.ready[q, source[q]] + words * SAVE) + words * READ
                extra += words * SAVE
        return clock[p] + cost + extra

    def cost(self, number: int) -> float:
        """Milliseconds of a node; of an input, reading it."""
        node = self.circuit.nodes[number]
        if node.kind == c.INPUT:
            return self.words(number) * EXPAND
        return self.prices.operation(node, self.scales.parameters.levels)

    def words(self, number: int) -> float:
        """The words of a ciphertext, in milliseconds of a butterfly each."""
        node = self.circuit.nodes[number]
        primes = self.scales.parameters.levels - node.level + 1
        return node.size * primes * self.prices.ring * self.prices.rates.butterfly / 1e6


def _homes(schedule: _Schedule) -> dict[int, int]:
    """Processes for the nodes that lead to one share of the results alone: ciphertexts of results, or terms of the last
    sum, are shared out in order, as many as take the same time.
    """
    circuit = schedule.circuit
    ends = list(dict.fromkeys(v for _, values in circuit.downloads.values() for v in values))
    while len(ends) < schedule.processes and ends:
        widest = max(ends)
        args = dict.fromkeys(circuit.nodes[widest].args)
        if not args or len(ends) + len(args) < 2:
            return {}
        ends = [e for e in ends if e != widest] + [a for a in args if a not in ends]
    terms: list[int] = []
    for end in ends:  # sums are what their terms are
        todo = [end]
        while todo:
            number = todo.pop()
            if schedule.splits(number):
                todo += reversed(circuit.nodes[number].args)
            else:
                terms.append(number)
    leads = [0] * len(circuit.nodes)  # a bit for each term that a node leads to
    for bit, number in enumerate(dict.fromkeys(terms)):
        leads[number] |= 1 << bit
    for number in range(len(circuit.nodes) - 1, -1, -1):
        for a in circuit.nodes[number].args:
            leads[a] |= leads[number]
    own: dict[int, float] = defaultdict(float)
    for number, bits in enumerate(leads):
        if bits and not bits & (bits - 1):
            own[bits] += schedule.cost(number)
    total, passed = sum(own.values()), 0.0
    shares = [0] * schedule.processes
    for bit in range(len(dict.fromkeys(terms))):
        middle = passed + own[1 << bit] / 2
        passed += own[1 << bit]
        shares[min(int(schedule.processes * middle / total), schedule.processes - 1) if total else 0] |= 1 << bit
    return {n: p for n, bits in enumerate(leads) for p, share in enumerate(shares) if bits and not bits & ~share}


def _in_time(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with everything handed over as soon as it is there, not when the other process comes to want it."""
    sends: dict[int, list[Task]] = {}
    for task in tasks:
        if task.kind == SEND:
            sends.setdefault(task.args[0], []).append(task)
    found = []
    for task in tasks:
        if task.kind != SEND:
            found.append(task)
            found += sends.get(task.value, ()) if task.value >= 0 else ()
    return found


def _clocks(tasks: Sequence[Sequence[Task]]) -> list[float]:
    """When each process is done with its tasks, waiting for what others hand over."""
    clock, place = [0.0] * len(tasks), [0] * len(tasks)
    sent: dict[tuple[int, int], float] = {}  # (value, receiver)
    while any(at < len(row) for at, row in zip(place, tasks, strict=True)):
        before = list(place)
        for p, row in enumerate(tasks):
            while place[p] < len(row):
                task = row[place[p]]
                if task.kind == RECEIVE:
                    if (task.args[0], p) not in sent:
                        break
                    clock[p] = max(clock[p], sent[task.args[0], p])
                clock[p] += task.milliseconds
                if task.kind == SEND:
                    sent[task.args[0], task.peer] = clock[p]
                place[p] += 1
        assert place != before, "processes that wait for each other"
    return clock


def _freed(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks with what may be forgotten after each."""
    seen: set[int] = set()
    found = []
    for task in reversed(tasks):
        own = () if task.kind == RECEIVE else task.args
        freed = tuple(v for v in dict.fromkeys(own) if v not in seen)
        seen.update(freed)
        found.append(replace(task, freed=freed))
    return tuple(reversed(found))
