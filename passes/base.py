"""What a pass is, what steers it, and how passes are run.

The lists themselves are in `pipeline`. Passes that do not look at sizes run once per expression; those of planning
are steered by size hints and run once per bucket of sizes. Programs stay symbolic throughout: a plan made for one
bucket is right, only maybe not the fastest, for every other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeAlias

from ..ir.expr import Program
from ..ir.rewrite import Step, Trace


@dataclass(frozen=True)
class Context:
    """What steers the passes.

    `sizes` are hints: concrete extents at plan time. `optimize` is opt_einsum's argument of that name: True, False, a
    name such as "auto" or "greedy", "cotengra", an explicit path, or any optimiser object. `memory_limit` bounds the
    elements of an intermediate (a number, "max_input", None). `constants` names the inputs that are known at compile
    time. `strict` keeps one order of summation, whatever the sizes. `target` is the backend's name.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    optimize: object = "auto"
    memory_limit: int | str | None = None
    constants: frozenset[str] = frozenset()
    strict: bool = False
    target: str = "cpu"

    def __post_init__(self) -> None:
        """NumPy's pair of a name and a bound, `("greedy", 1e6)`, is taken apart."""
        given = self.optimize
        pair = isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], str)
        if isinstance(given, tuple | list) and pair and isinstance(given[1], int | float):
            object.__setattr__(self, "optimize", given[0])
            object.__setattr__(self, "memory_limit", int(given[1]))

    @property
    def free_order(self) -> bool:
        """Whether the compiler may choose the order of contraction."""
        return not self.strict and (self.optimize is True or isinstance(self.optimize, str) or callable(self.optimize))


Run: TypeAlias = Callable[[Program, Context, Trace], Program]


@dataclass(frozen=True)
class Pass:
    """One step: `run` maps a program with the properties `needs` to an equal one that also has those of `ensures`."""

    name: str
    run: Run
    needs: frozenset[str] = frozenset()
    ensures: frozenset[str] = frozenset()
    summary: str = ""


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: the program before and after, the rewrite steps, and the seconds that it took."""

    name: str
    before: Program
    after: Program
    steps: tuple[Step, ...]
    seconds: float
    summary: str = ""

    @property
    def changed(self) -> bool:
        """Whether the program is another one."""
        return self.before is not self.after


def run_passes(
    program: Program,
    passes: Sequence[Pass],
    context: Context,
    on_pass: Callable[[PassRecord], None] | None = None,
) -> tuple[Program, tuple[PassRecord, ...]]:
    """Run `passes` in order; `on_pass` sees the record of each as it ends."""
    records: list[PassRecord] = []
    for step in passes:
        trace, start = Trace(), perf_counter()
        after = step.run(program, context, trace)
        if after is not program and after == program:
            after = program
        record = PassRecord(step.name, program, after, tuple(trace.steps), perf_counter() - start, step.summary)
        records.append(record)
        if on_pass is not None:
            on_pass(record)
        program = after
    return program, tuple(records)
