"""Runs a circuit in several processes, each doing its part of a `Partition`.

The others are forked: they start with keys, encodings and the request as this process has them, and nothing is copied
or pickled. Ciphertexts go between them through files in memory that have no name, and a byte through a pipe says that
one is there. When anything ends early (an error, an interrupt, a process that was killed) the pipes close, and
everybody ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ....ir.errors import EMPTY, BackendError, EncryptionError, EnvelopeError, Source, Span
from ..chain.scales import Scales
from ..core import circuit as c
from . import partition as p
from .encodings import Encodings
from .execute import Progress, operation, placed
from .seal import Ciphertext, EvaluationKeys, Evaluator, Scheme, dump

LENGTH = NUMBER = struct.Struct("<Q")
ERRORS = {kind.__name__: kind for kind in (EncryptionError, EnvelopeError)}  # that another process may report


@dataclass(frozen=True)
class Work:
    """What is to be evaluated: a circuit, with what its operations need. `upload` reads the ciphertext of an input."""

    circuit: c.Circuit
    scales: Scales
    scheme: Scheme
    keys: EvaluationKeys
    encodings: Encodings
    upload: Callable[[int], Ciphertext]
    source: Source = EMPTY


@dataclass
class Outcome:
    """The bytes of the results' ciphertexts by node, how often each kind of operation ran, the level of the lowest
    result, and the CPU seconds of other processes.
    """

    answers: dict[int, bytes] = field(default_factory=dict)
    executed: Counter[str] = field(default_factory=Counter)
    lowest: int = 0
    seconds: float = 0.0


def available() -> bool:
    """Whether this system can share a run among processes: Linux can."""
    return hasattr(os, "fork") and hasattr(os, "memfd_create")


def run(work: Work, parts: p.Partition, progress: Progress | None = None) -> Outcome:
    """Evaluate in as many processes as there are parts; this one does the first.

    `progress` is told how many of this process's tasks are done. Raises `EncryptionError` as `execute.run` does,
    whichever process it comes up in, and `BackendError` where processes cannot be had or one of them is killed.
    """
    if not available():
        raise BackendError(
            "several processes need a system with fork and files in memory, such as Linux",
            code="no-processes",
            help="server.processes = 1",
        )
    post = _Post(parts.processes)
    children: list[int] = []
    try:
        for number in range(1, parts.processes):
            with work.encodings.lock:  # which no other thread holds at the moment of the fork, then
                child = os.fork()
            if child == 0:
                _other(work, parts, post, number)
            children.append(child)
        post.keep(0)
        try:
            found = _Worker(work, post, 0).run(parts.tasks[0], progress)
            for number in range(1, parts.processes):
                post.wait(number, 0)
        except _Lost:
            _failed(work, post)
        for number in range(1, parts.processes):
            _collect(found, post, number, parts.tasks[number])
        return found
    finally:
        post.close()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # of one that has ended, nothing comes of it
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


class _Lost(Exception):
    """Another process has ended before it handed over what was waited for."""


class _Post:
    """What processes hand each other: from each to each a file and a pipe, and of each its answers and how it ended."""

    def __init__(self, count: int) -> None:
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        self.files = {pair: os.memfd_create("stein") for pair in pairs}
        self.pipes = {pair: os.pipe() for pair in pairs}
        self.answers = {k: os.memfd_create("stein") for k in range(1, count)}
        self.states = {k: os.memfd_create("stein") for k in range(1, count)}
        ends = (end for two in self.pipes.values() for end in two)
        self.open = {*self.files.values(), *self.answers.values(), *self.states.values(), *ends}
        self.places: Counter[tuple[int, int]] = Counter()  # in the files: bytes written, or read
        self.taken: dict[tuple[int, int], bytes] = {}  # what came before it was wanted
        self.written = 0  # bytes of this process's answers

    def keep(self, own: int) -> None:
        """Close the ends of pipes that process `own` has no business with: pipes of processes that end must close."""
        for (sender, receiver), (reading, writing) in self.pipes.items():
            self._close(*(end for end, who in ((reading, receiver), (writing, sender)) if who != own))

    def send(self, own: int, other: int, value: int, data: bytes) -> None:
        """Hand a value's bytes to another process; it need not be waiting."""
        pair = own, other
        self.places[pair] = _append(self.files[pair], NUMBER.pack(value) + data, self.places[pair])
        self.tell(own, other)

    def tell(self, own: int, other: int) -> None:
        """Say that something is there."""
        try:
            os.write(self.pipes[own, other][1], b".")
        except BrokenPipeError:
            raise _Lost from None

    def take(self, other: int, own: int, value: int) -> bytes:
        """The bytes of a value of another process, once they are there."""
        pair = other, own
        while (other, value) not in self.taken:
            self.wait(other, own)
            data, self.places[pair] = _next(self.files[pair], self.places[pair])
            self.taken[other, NUMBER.unpack_from(data)[0]] = data[NUMBER.size :]
        return self.taken.pop((other, value))

    def wait(self, other: int, own: int) -> None:
        """Wait until another process says something."""
        if not os.read(self.pipes[other, own][0], 1):
            raise _Lost

    def answer(self, own: int, data: bytes) -> None:
        """Hand in a ciphertext of a result."""
        self.written = _append(self.answers[own], data, self.written)

    def answered(self, other: int) -> list[bytes]:
        """The ciphertexts of results that another process has handed in, once it has ended."""
        file, place, found = self.answers[other], 0, []
        size = os.fstat(file).st_size
        while place < size:
            data, place = _next(file, place)
            found.append(data)
        return found

    def end(self, own: int, state: dict[str, Any]) -> None:
        """Say how this process has ended; where all is well, the first one waits for it."""
        os.pwrite(self.states[own], json.dumps(state).encode(), 0)
        if "executed" in state:
            self.tell(own, 0)

    def state(self, other: int) -> dict[str, Any]:
        """How another process has ended; nothing where that is not known."""
        data = os.pread(self.states[other], os.fstat(self.states[other]).st_size, 0)
        found: dict[str, Any] = json.loads(data or b"{}")
        return found

    def close(self) -> None:
        """Close everything."""
        self._close(*self.open)

    def _close(self, *numbers: int) -> None:
        for number in self.open.intersection(numbers):
            os.close(number)
            self.open.discard(number)


def _append(file: int, data: bytes, place: int) -> int:
    """Write a length and as many bytes; the place behind them."""
    rest = memoryview(LENGTH.pack(len(data)) + data)
    while rest:
        count = os.pwrite(file, rest, place)
        rest, place = rest[count:], place + count
    return place


def _next(file: int, place: int) -> tuple[bytes, int]:
    """The bytes whose length stands at a place, and the place behind them."""
    (length,) = LENGTH.unpack(os.pread(file, LENGTH.size, place))
    place += LENGTH.size
    data = os.pread(file, length, place)
    assert len(data) == length, "a file in memory that was cut"
    return data, place + length


@dataclass
class _Worker:
    """One process's part of a run."""

    work: Work
    post: _Post
    own: int
    found: Outcome = field(default_factory=Outcome)

    def run(self, tasks: tuple[p.Task, ...], progress: Progress | None = None) -> Outcome:
        """Do the tasks in order."""
        evaluator = Evaluator(self.work.scheme, self.work.keys)
        values: dict[int, Ciphertext] = {}
        for done, task in enumerate(tasks, 1):
            args = [values[a] for a in task.args] if task.kind != p.RECEIVE else []
            try:
                value = self.one(evaluator, task, args)
            except EncryptionError as error:
                raise placed(error, self.work.circuit, task.node, self.work.source) from None
            for v in task.freed:
                del values[v]
            if value is not None:
                values[task.value] = value
            if progress is not None:
                progress(done, len(tasks))
        return self.found

    def one(self, evaluator: Evaluator, task: p.Task, args: list[Ciphertext]) -> Ciphertext | None:
        """One task: the value that it makes, if any."""
        work, node = self.work, self.work.circuit.nodes[task.node]
        scale = work.scales.values[task.node]
        if task.kind == p.SEND:
            self.post.send(self.own, task.peer, task.args[0], dump(args[0]))
            return None
        if task.kind == p.ANSWER:
            self.found.lowest = max(self.found.lowest, work.scheme.level(args[0]))
            self.found.answers[task.node] = dump(args[0])
            return None
        if task.kind == p.RECEIVE:
            data = self.post.take(task.peer, self.own, task.args[0])
            return work.scheme.load_ciphertext(data, node.level, scale, sizes=(2, 3))
        if task.counted:
            self.found.executed[node.kind] += 1
        if task.kind == p.LOAD:
            return work.upload(task.node)
        free = tuple(a in task.freed for a in task.args)
        if task.kind == p.JOIN:
            return evaluator.add(args[0], args[1], reuse=free[0])
        return operation(evaluator, task.node, node, args, free, work.scales, work.encodings)


def _other(work: Work, parts: p.Partition, post: _Post, own: int) -> NoReturn:
    """The life of another process. It ends here: what belongs to this one must not be tidied up twice."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        gc.freeze()  # nor may anything be collected that this process has
        post.keep(own)
        started = time.process_time()
        state: dict[str, Any] = {}
        try:
            found = _Worker(work, post, own).run(parts.tasks[own])
            for data in found.answers.values():
                post.answer(own, data)
            state = {"executed": found.executed, "lowest": found.lowest, "seconds": time.process_time() - started}
        except EncryptionError as error:
            spans = [[s.start, s.end] for s in error.spans]
            kept = {"sentence": error.sentence, "code": error.code, "help": error.help}
            state = {"error": type(error).__name__, "spans": spans, **kept}
        except _Lost:
            pass  # whoever was lost has said why
        except Exception:
            state = {"unexpected": traceback.format_exc()}
        post.end(own, state)
    finally:
        os._exit(0)


def _collect(found: Outcome, post: _Post, own: int, tasks: tuple[p.Task, ...]) -> None:
    """Add what another process has done."""
    state = post.state(own)
    numbers = dict.fromkeys(task.node for task in tasks if task.kind == p.ANSWER)
    found.answers |= zip(numbers, post.answered(own), strict=True)
    found.executed.update(state["executed"])
    found.lowest = max(found.lowest, state["lowest"])
    found.seconds += state["seconds"]


def _failed(work: Work, post: _Post) -> NoReturn:
    """Raises what went wrong in another process."""
    for state in map(post.state, post.states):
        if "unexpected" in state:
            raise RuntimeError(f"in another process:\n{state['unexpected']}")
        if "error" in state:
            spans = tuple(Span(*each) for each in state["spans"])
            kind, sentence = ERRORS[state["error"]], state["sentence"]
            raise kind(sentence, code=state["code"], source=work.source, spans=spans, help=state["help"])
    raise BackendError(
        "a process of the evaluation was killed",
        code="process-killed",
        help="perhaps memory ran out: server.processes = 1 takes less",
    )
