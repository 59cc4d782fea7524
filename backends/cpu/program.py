"""The CPU backend proper: a planned program, bound to sizes and layouts, becomes an executable.

A `CpuProgram` is made once per planned program. `bind` turns each equation into contractions, lets the scheduler choose
and the code generator supply kernels, and gives every tensor a buffer: operands, outputs, temporaries (those whose
lives do not overlap share one), constants (tables, and the values of constant inputs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ...ir.errors import ShapeError
from ...ir.expr import Equation, Program, reads
from .calibration import rates
from .equations import Counting, EquationTemplate, Operand, Step
from .launch import Call
from .machine import host
from .native_record import Executable, Layout
from .orders import Orders
from .pool import get_threads
from .schedule import Plan, launch, schedule
from .slices import Slices, chains, cut, shrunk, slices

Array = np.ndarray[Any, Any]


MOST_AXES = 64  # of a NumPy array; intermediates may have more
TOO_LARGE = 1 << 58  # elements of an array whose bytes (16 for each at most) can still be counted
SMALL_SHARE = 1_500.0  # predicted nanoseconds of one share below which a kernel for exactly these sizes is faster
WORTH = 3e7  # nanoseconds spent in such a kernel after which the other one is worth its compilation
SLOWER = 5.0  # times that a kernel made for other sizes may be slower than predicted


@dataclass(frozen=True)
class BoundStep:
    """What `explain` says about one kernel: the equation that it computes, and the plan that was chosen for it; where
    the equation is computed in slices, the plan for one of them, how many there are, and a text that says so.
    """

    equation: str
    plan: Plan
    times: int = 1
    slices: str = ""


@dataclass(frozen=True)
class Bound:
    """A program at given sizes and layouts: ready to run, and able to say how."""

    executable: Executable
    steps: tuple[BoundStep, ...]
    recheck: int = 0  # calls after which kernels for exactly these sizes pay; 0 if never


class CpuProgram:
    """A planned program for the CPU. `constants` holds the arrays of inputs (and of equations computed ahead) by
    name.
    """

    def __init__(self, program: Program, constants: Mapping[str, Array] | None = None) -> None:
        self.program = program
        self.constants = dict(constants or {})
        self.arguments = tuple(i.name for i in program.inputs if i.name not in self.constants)
        self.templates = tuple(EquationTemplate(e) for e in program.equations if e.name not in self.constants)
        names = (*self.arguments, *program.outputs)
        self.fixed = {name: number for number, name in reversed(list(enumerate(names)))}
        self.orders = Orders(program, self.templates)
        self.last_use = _last_uses([t.equation for t in self.templates])
        self.chains = chains(program, self.templates)

    def bind(
        self,
        sizes: Mapping[str, int],
        operands: Mapping[str, Layout],
        outputs: Mapping[str, Layout] | None = None,
        *,
        specialise: bool = False,
    ) -> Bound:
        """The executable for these sizes, for operands that lie so, and results that are to lie as `outputs` says.

        An output that is not named lies row-major. With `specialise`, kernels are compiled for exactly these sizes.
        Raises `ShapeError` for a result or intermediate that no memory could hold.
        """
        layouts = dict(operands)
        for name, array in self.constants.items():
            layouts[name] = Layout.of(array)
        for template in self.templates:
            equation = template.equation
            layout = outputs.get(equation.name) if outputs else None
            shape = tuple([s.evaluate(sizes) for s in equation.shape])
            if len(shape) > MOST_AXES and equation.name in self.program.outputs:
                raise ShapeError(
                    f"{equation.name} would have {len(shape)} axes; NumPy has {MOST_AXES}", code="too-large"
                )
            if prod(shape) >= TOO_LARGE:
                raise ShapeError(f"{equation.name} would have the shape {shape}: no memory holds it", code="too-large")
            layouts[equation.name] = layout or Layout.dense(equation.dtype, shape)
        layouts |= self.orders.choose(sizes, layouts)
        found = slices(self.chains, self.templates, sizes, layouts, host(), rates, get_threads())
        for one in found:
            layouts |= shrunk(one, self.templates, layouts)
        buffers = _Buffers(self, layouts, found)
        placed: list[tuple[Call, list[tuple[int, int]]]] = []
        notes: list[BoundStep] = []
        gains = stands_in = False
        for position, work in _in_order(self.templates, found):
            buffers.release(position)
            for template, step in _steps(work, self.templates, sizes, layouts):
                if any(a.extent == 0 and not a.reduced for a in step.problem.axes):
                    continue
                if any(a.extent >= TOO_LARGE for a in step.problem.axes):
                    raise ShapeError(
                        f"an index of {template.equation.name} takes more values than there is time for",
                        code="too-large",
                    )
                plan = schedule(step.problem, prefer_known=not specialise)
                stands_in = stands_in or plan.stand_in
                gains = gains or _gains(plan)
                if specialise and _gains(plan):
                    plan = schedule(step.problem, constants=True)
                spaces = buffers.place(step, plan)
                placed += [(call, spaces) for call in launch(plan)]
                notes.append(BoundStep(template.equation.name, plan))
            if isinstance(work, Slices):
                notes[-work.count * len(work.chain.positions) :] = _notes(work, self.templates, notes)
        executable = Executable(
            calls=tuple(_renumbered(call, spaces, buffers) for call, spaces in placed),
            operands=tuple(layouts[n] for n in self.arguments),
            outputs=tuple(layouts[n] for n in self.program.outputs),
            temporaries=tuple(buffers.temporaries),
            constants=tuple(buffers.constants.values()),
        )
        recheck = 0
        if (gains or stands_in) and not specialise:
            spent = max(executable.work, 1.0) * (SLOWER if stands_in else 1.0)
            recheck = int(min(max(WORTH / spent, 200), 1 << 30))
        return Bound(executable, tuple(notes), recheck)


def _in_order(
    templates: Sequence[EquationTemplate], found: Sequence[Slices]
) -> Iterator[tuple[int, EquationTemplate | Slices]]:
    """What is done at each position: an equation, or at the last one of a chain all slices of the chain."""
    last = {one.chain.positions[-1]: one for one in found}
    inner = {k for one in found for k in one.chain.positions[:-1]}
    for position, template in enumerate(templates):
        if position not in inner:
            yield position, last.get(position, template)


def _steps(
    work: EquationTemplate | Slices,
    templates: Sequence[EquationTemplate],
    sizes: Mapping[str, int],
    layouts: MutableMapping[str, Layout],
) -> Iterator[tuple[EquationTemplate, Step]]:
    """The steps of an equation, or of a chain slice by slice."""
    if isinstance(work, EquationTemplate):
        for step in work.contractions(sizes, layouts):
            yield work, step
        return
    chain = work.chain
    inner = frozenset(templates[k].equation.name for k in chain.positions[:-1])
    whole = [templates[k].contractions(sizes, layouts)[0] for k in chain.positions]
    for start, length in work.bounds:
        for k, index, step in zip(chain.positions, chain.indices, whole, strict=True):
            yield templates[k], cut(step, templates[k], index, inner, start, length)


def _notes(work: Slices, templates: Sequence[EquationTemplate], notes: Sequence[BoundStep]) -> list[BoundStep]:
    """One note for each equation of a chain, in place of those for all slices, which stand last."""
    chain = work.chain
    turns = " and ".join(templates[k].equation.name for k in chain.positions) + " in turn for each"
    first = notes[-work.count * len(chain.positions) :][: len(chain.positions)]
    texts = (f"{work.count} slices of {work.length} of {index}, {turns}" for index in chain.indices)
    return [replace(note, times=work.count, slices=text) for note, text in zip(first, texts, strict=True)]


def _gains(plan: Plan) -> bool:
    """Whether a kernel with constant sizes would be noticeably faster: where the loops of a share are short.

    A plan of several stages (a copy first, a sum in parts) keeps them: with constant sizes there is one kernel only.
    """
    return len(plan.stages) == 1 and plan.stages[0].nanoseconds < SMALL_SHARE * max(plan.stages[0].count, 1)


def _renumbered(call: Call, spaces: list[tuple[int, int]], buffers: _Buffers) -> Call:
    """The call with its buffers numbered as the executable numbers them."""
    pointers = []
    for word, buffer, offset in call.pointers:
        place, start = spaces[buffer]
        pointers.append((word, buffers.number(place), start + offset))
    c = call
    return Call(c.address, c.args, tuple(pointers), c.scratch, c.count, c.work, c.name, c.family, c.keep)


def _last_uses(equations: Sequence[Equation]) -> dict[str, int]:
    """The position of the last equation that reads each tensor."""
    last: dict[str, int] = {}
    for position, equation in enumerate(equations):
        last[equation.name] = position
        for read in reads(equation.expr):
            last[read.tensor] = position
        if equation.update is not None:
            last[equation.update] = position
    return last


# A buffer has a number at once if it is an operand or an output; temporaries and constants follow these, counted from:
_TEMPORARY, _CONSTANT = 1 << 24, 1 << 28


class _Buffers:
    """Which buffer each tensor is in. `number` is right once all steps are placed: operands, outputs, temporaries,
    constants.
    """

    def __init__(self, program: CpuProgram, layouts: Mapping[str, Layout], found: Sequence[Slices] = ()) -> None:
        self.layouts = layouts
        self.last_use = dict(program.last_use)
        for one in found:  # all of a chain is done at the position of its last equation
            for k in one.chain.positions:
                for read in reads(program.templates[k].equation.expr):
                    self.last_use[read.tensor] = max(self.last_use[read.tensor], one.chain.positions[-1])
        self.values = program.constants
        self.fixed = program.fixed
        self.count = len(program.arguments) + len(program.program.outputs)
        self.temporaries: list[int] = []
        self.free: list[int] = []
        self.live: dict[str, int] = {}
        self.constants: dict[object, Array] = {}

    def release(self, position: int) -> None:
        """Free the temporaries that no equation from `position` on reads."""
        for name in [n for n in self.live if self.last_use.get(n, -1) < position]:
            self.free.append(self.live.pop(name))

    def temporary(self, size: int) -> int:
        """A temporary of at least `size` bytes: the best fitting free one, else a new one."""
        if not self.free:
            self.temporaries.append(size)
            return len(self.temporaries) - 1
        sizes = self.temporaries
        fitting = [t for t in self.free if sizes[t] >= size]
        best = min(fitting, key=sizes.__getitem__) if fitting else max(self.free, key=sizes.__getitem__)
        self.free.remove(best)
        sizes[best] = max(sizes[best], size)
        return best

    def _constant(self, key: object, array: Array) -> int:
        self.constants.setdefault(key, array)
        return _CONSTANT + list(self.constants).index(key)

    def place_of(self, operand: Operand) -> int:
        """The buffer of an operand; an intermediate gets one when it is first named."""
        tensor = operand.tensor
        if isinstance(tensor, Counting):
            return self._constant(tensor, counting_table(tensor.low, tensor.high, tensor.modulus))
        if tensor in self.fixed:
            return self.fixed[tensor]
        if tensor in self.values:
            return self._constant(tensor, self.values[tensor])
        if tensor not in self.live:
            self.live[tensor] = self.temporary(max(1, self.layouts[tensor].nbytes))
        return _TEMPORARY + self.live[tensor]

    def place(self, step: Step, plan: Plan) -> list[tuple[int, int]]:
        """Buffer and offset of each tensor of a step: output, operands, then the plan's own temporaries."""
        spaces = [(self.place_of(o), o.offset) for o in step.operands]
        if plan.temporaries:
            own = [self.temporary(size) for size in plan.temporaries]
            self.free += own
            spaces += [(_TEMPORARY + t, 0) for t in own]
        return spaces

    def number(self, place: int) -> int:
        """The number of a buffer, once every step has been placed."""
        if place < _TEMPORARY:
            return place
        return self.count + (place - _TEMPORARY if place < _CONSTANT else len(self.temporaries) + place - _CONSTANT)


@lru_cache(maxsize=256)
def counting_table(low: int, high: int, modulus: int = 0) -> Array:
    """The integers low..high (inclusive), modulo `modulus` if that is not 0, as a read-only array."""
    table = np.arange(low, high + 1, dtype=np.int64)
    if modulus:
        table %= modulus
    table.flags.writeable = False
    return table
