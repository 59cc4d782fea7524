"""The search for layouts and methods: shortest paths over the steps of an encrypted program.

A state is a program whose first steps have their options; it knows where the values are that later steps read. Steps
give transitions (`options`); the cheapest prefix for each set of layouts is kept, and prefixes are tried in order of
what they and the rest of the program take at least (A*), after a few greedy dives have found a time to beat. Where an
input's first reader only moves its elements, the input is packed for what is read from it, and the step costs nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, product
from typing import Any

import numpy as np

from ..core.layout import NOTHING, Packing
from ..linear.diagonals import axes_of, matrix_of
from ..lowering.problem import EncryptedProgram, Linear, Polynomial, Product, Step, arguments
from ..steps.candidates import results
from ..steps.context import Argument, Context, Free
from ..steps.option import Option, Placed
from .kinds import options

Array = np.ndarray[Any, Any]

DIVES = 3  # prefixes that are first followed greedily to the end
MOST_EXPANDED = 40  # prefixes that are continued before the best program found so far is taken
MOST_CHILDREN = 32  # continuations of one prefix, best first


@dataclass(frozen=True, eq=False)
class State:
    """The first steps of a program with their options.

    `values` are results so far, `packed` the packings of inputs (and of what is merely read from them); `time` counts
    milliseconds, `cost` the same with what uploads are worth; `keys` are rotations. `choice` is the last option with
    its arguments, `before` the state that it continues.
    """

    number: int = 0
    values: dict[str, Placed] = field(default_factory=dict)
    packed: dict[str, tuple[Placed, ...]] = field(default_factory=dict)
    time: float = 0.0
    cost: float = 0.0
    uploads: int = 0
    keys: frozenset[int] = frozenset()
    choice: tuple[Option, tuple[Argument, ...]] | None = None
    before: State | None = None

    def trail(self) -> list[tuple[Option, tuple[Argument, ...]]]:
        """The options from the first step on."""
        found = [] if self.choice is None else [self.choice]
        return (self.before.trail() if self.before is not None else []) + found


@dataclass(frozen=True, eq=False)
class Problem:
    """A program with its views: values that are inputs read otherwise, name -> (input, element of each position)."""

    program: EncryptedProgram
    steps: tuple[Step, ...]
    views: dict[str, tuple[str, Array]]
    last: dict[str, int]

    def free(self, name: str) -> bool:
        """Whether the client packs this value."""
        return name in self.views


def problem(program: EncryptedProgram, context: Context) -> Problem:
    """The steps that take work, and what the client can do by packing."""
    views: dict[str, tuple[str, Array]] = {
        n: (n, np.arange(np.prod(program.shapes[n], dtype=int))) for n in program.inputs
    }
    steps: list[Step] = []
    for step in program.steps:
        seen = _view(step, views, context)
        if seen is not None:
            views[step.name] = seen
        else:
            steps.append(step)
    last = {n: i for i, s in enumerate(steps) for n in arguments(s)}
    return Problem(program, tuple(steps), views, last)


def _view(step: Step, views: dict[str, tuple[str, Array]], context: Context) -> tuple[str, Array] | None:
    """What a step reads from an input, where that is all that it does."""
    if not isinstance(step, Linear) or step.bias is not None or step.argument not in views:
        return None
    matrix = matrix_of(step, context)
    if not matrix.ones or (matrix.row_counts != 1).any():
        return None
    name, elements = views[step.argument]
    return name, elements[matrix.pair(np.arange(matrix.count))[1]]


def search(task: Problem, context: Context, notice: Callable[[int], None] = lambda _: None) -> State | None:
    """The cheapest program found; None if the levels do not suffice, or `context.limit`.

    `notice` hears how many prefixes were tried.
    """
    rest = _rest(task, context)
    steps = len(task.steps)
    known: dict[Any, float] = {}
    order = count()
    heap: list[tuple[float, int, State]] = []
    best: State | None = None

    def offer(states: Iterator[State]) -> list[State]:
        """Keeps what is not beaten by a prefix with the same layouts."""
        kept = []
        for state in states:
            key = _layouts(task, state)
            bar = best.cost if best is not None else context.limit
            if state.cost + rest[state.number] < bar and state.cost < known.get(key, float("inf")) - 1e-9:
                known[key] = state.cost
                kept.append(state)
        kept.sort(key=lambda s: s.cost + rest[s.number])
        return kept

    def expand(state: State) -> list[State]:
        bar = best.cost if best is not None else context.limit
        return offer(_continued(task, replace(context, limit=bar - state.cost - rest[state.number + 1]), state))

    first = State()
    if not steps:
        return first
    children = expand(first)
    for child in children:
        heapq.heappush(heap, (child.cost + rest[child.number], next(order), child))
    expanded = 1
    for dive in children[:DIVES]:
        state: State | None = dive
        while state is not None and state.number < steps:
            followed = expand(state)
            expanded += 1
            for child in followed:
                heapq.heappush(heap, (child.cost + rest[child.number], next(order), child))
            state = followed[0] if followed else None
        if state is not None and (best is None or state.cost < best.cost):
            best = state
        notice(expanded)
    while heap:
        least, _, state = heapq.heappop(heap)
        if best is not None and (least >= best.cost or expanded >= MOST_EXPANDED):
            break
        if state.number == steps:
            best = state
            continue
        for child in expand(state):
            heapq.heappush(heap, (child.cost + rest[child.number], next(order), child))
        expanded += 1
        notice(expanded)
    return best


def _continued(task: Problem, context: Context, state: State) -> Iterator[State]:
    """The state with each option of its next step."""
    step = task.steps[state.number]
    names = arguments(step)
    unique = tuple(dict.fromkeys(names))
    for choice in product(*(_arguments(task, context, state, n) for n in unique)):
        chosen = dict(zip(unique, choice, strict=True))
        given = tuple(chosen[n] for n in names)
        for _, option in zip(range(MOST_CHILDREN), options(step, context, given), strict=False):
            yield _after(task, context, state, step, option, given)


def _arguments(task: Problem, context: Context, state: State, name: str) -> list[Argument]:
    """Where a value is; an input also anew."""
    if not task.free(name):
        return [state.values[name]]
    return [*state.packed.get(name, ()), Free(name, context.shapes[name])]


def _after(
    task: Problem, context: Context, state: State, step: Step, option: Option, given: tuple[Argument, ...]
) -> State:
    """The state once a step has its option."""
    packed, uploads = dict(state.packed), state.uploads
    for argument, taken in zip(given, option.takes, strict=True):
        if isinstance(argument, Free):
            known = packed.get(argument.name, ())
            if taken.packing.key not in {k.packing.key for k in known}:
                packed[argument.name] = (*known, taken)
                uploads += taken.packing.ciphertexts
    number = state.number + 1
    values = {n: v for n, v in state.values.items() if task.last.get(n, -1) >= number or n in task.program.outputs}
    values[step.name] = option.gives
    new = uploads - state.uploads
    time = option.work.milliseconds
    cost = state.cost + time + new * context.prices.upload(context.primes(0))
    keys = state.keys | option.steps
    return State(number, values, packed, state.time + time, cost, uploads, keys, (option, given), state)


def _layouts(task: Problem, state: State) -> tuple[Any, ...]:
    """What later steps depend on."""
    live = [(n, v.packing.key, v.level) for n, v in state.values.items() if task.last.get(n, -1) >= state.number]
    again = [(n, p.packing.key) for n, ps in state.packed.items() if task.last.get(n, -1) >= state.number for p in ps]
    return state.number, tuple(sorted(live)), tuple(sorted(again))


def _rest(task: Problem, context: Context) -> list[float]:
    """At least how long the steps from each number on take."""
    total = [0.0]
    for step in reversed(task.steps):
        total.append(total[-1] + _least(step, context))
    return total[::-1]


def _least(step: Step, context: Context) -> float:
    """At least how long a step takes, at the lowest level."""
    if not isinstance(step, Linear):
        return 0.0
    matrix = matrix_of(step, context)
    if matrix.ones:
        return 0.0
    diagonals = -(-matrix.count // context.slots)
    return diagonals * context.prices.multiply_plain(2) + context.prices.rescale(2)


def depth(program: EncryptedProgram, context: Context) -> int:
    """A lower bound of the levels that the program takes."""
    height = dict.fromkeys(program.inputs, 0)
    for step in program.steps:
        below = max(height[n] for n in arguments(step))
        match step:
            case Linear():
                taken = 0 if matrix_of(step, context).ones else 1
            case Product():
                taken = (len(step.operands) - 1).bit_length()
            case Polynomial():
                taken = (len(step.coefficients) - 1).bit_length()
            case _:
                taken = 0
        height[step.name] = below + taken
    return max((height[n] for n in program.outputs), default=0)


def usual(name: str, context: Context) -> Placed:
    """Where the client packs an input that nobody computes on."""
    result = next(iter(results(axes_of(name, context), context.slots, 1)))
    return Placed(result.layout.packing(context.slots), 0, result.layout.text())


def through(view: Array, packing: Packing) -> Packing:
    """The packing of an input by that of what is read from it."""
    at = np.where(packing.at >= 0, np.append(view, 0)[packing.at], NOTHING).astype(np.int32)
    return Packing(at, packing.clean, packing.kind)
