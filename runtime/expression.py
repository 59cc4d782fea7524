"""An expression at work: a typed program, its plans by size, and its executables by layout.

This is where the layers meet. Elaboration gave a symbolic `Program`; here the passes run on it (once, and then once per
coarse bucket of sizes), the CPU backend binds the planned program to sizes and strides, and what was bound is kept, so
that a known call costs a look-up, new sizes cost a binding, and only a new kind of kernel costs a compilation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.bind import Binder
from ..ir.expr import Equation, Input, Program, Read
from ..ir.index import Affine, Index
from ..ir.target import Target
from ..passes.pipeline import NORMAL_PASSES, Context, PassRecord, run_passes
from .cache import Cache

if TYPE_CHECKING:
    from ..backends.cpu.native_record import Layout, Record
    from ..backends.cpu.program import Bound, CpuProgram
    from ..passes.candidates import Candidate
    from ..passes.choice import Choice
    from .autograd import Recording

Array = np.ndarray[Any, Any]
COPY = ".copy"  # ends the name of the copy of an argument that is returned


@dataclass(frozen=True)
class Options:
    """How a program is planned: `optimize` as opt_einsum's, a limit on the elements of an intermediate, `strict`
    order, and on a GPU the `precision` of products of f32. Without `explore` the best order of contraction is taken,
    and no other algorithm looked for. Inputs that are `fixed` keep their values from call to call.
    """

    optimize: Any = "auto"
    memory_limit: Any = None
    strict: bool = False
    specialise: bool = False
    precision: str = "ieee"
    explore: bool = True
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """The program planned for `sizes`, what the passes did, and its CPU form. `exact`: for no other sizes.

    `called` is what of it a call runs, `made` computes the formulas that it takes as constants. `name` is that of the
    candidate, `choice` the table it was chosen from, None where there was nothing to choose.
    """

    program: Program
    called: Program
    made: Program
    records: tuple[PassRecord, ...]
    sizes: Mapping[str, int]
    cpu: CpuProgram
    name: str = "best order"
    exact: bool = False
    choice: Choice | None = None


@dataclass
class Expression:
    """A typed symbolic program with everything that was made from it. `constants` are the values of its constant
    inputs, `target` prices candidates (this machine, where it is None).
    """

    program: Program
    options: Options = field(default_factory=Options)
    constants: dict[str, Array] = field(default_factory=dict)
    target: Target | None = None

    def __post_init__(self) -> None:
        self.program = _without_returned_inputs(self.program)
        self.binder = Binder(self.program)
        context = Context(sizes={}, constants=frozenset(self.constants), strict=self.options.strict)
        self.normal, self.normal_records = run_passes(self.program, NORMAL_PASSES, context)
        self.arguments = tuple(i for i in self.program.inputs if i.name not in self.constants)
        self._constant_shapes = {n: a.shape for n, a in self.constants.items()}
        self._plans: Cache[tuple[int, ...], Planned] = Cache(64)
        self._exact: Cache[tuple[int, ...], Planned] = Cache(64)
        self._bound: Cache[object, Bound] = Cache(512)
        self.records: Cache[object, Record] = Cache(512)
        self.row_major: set[str] = set()  # values of `order` that give row-major results for row-major operands
        self._lock = Lock()

    def sizes_of(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        """The sizes by name that arguments of these shapes (in order) give; every constraint holds, else
        `ShapeError`.
        """
        by_name = {i.name: s for i, s in zip(self.arguments, shapes, strict=True)}
        return self.binder(by_name | self._constant_shapes)

    @cached_property
    def contracts(self) -> bool:
        """Whether there is nothing to choose but an order of contraction, or that is fixed too."""
        from ..passes.candidates import can_only_contract

        return not self.options.explore or not self._context({}).free_order or can_only_contract(self.program)

    def recording(self, target: str) -> Recording:
        """The expression as the PyTorch operator takes it (`runtime.torch_op`)."""
        from .autograd import Recording

        if target not in self._recordings:
            self._recordings[target] = Recording.of(self, target)
        return self._recordings[target]

    @cached_property
    def _recordings(self) -> dict[str, Recording]:
        return {}

    def is_empty(self, sizes: Mapping[str, int]) -> bool:
        """Whether there is a tensor without elements, or an index without values, at these sizes."""
        from ..passes.candidates import is_empty

        return is_empty(self.program, sizes)

    def planned(self, sizes: Mapping[str, int]) -> Planned:
        """The plan for these sizes, shared by all sizes with the same numbers of binary digits where it suits them."""
        key = tuple([n.bit_length() if n != 1 else -1 for n in sizes.values()])
        plan = self._plans.get(key, lambda: self._plan(dict(sizes)))
        if not plan.exact or plan.sizes == sizes:
            return plan
        return self._exact.get(tuple(sizes.values()), lambda: self._plan(dict(sizes)))

    def known_plan(self, sizes: Mapping[str, int]) -> Planned | None:
        """The plan for these sizes if it was made already."""
        key = tuple([n.bit_length() if n != 1 else -1 for n in sizes.values()])
        plan = self._plans.find(key)
        return (
            plan if plan is None or not plan.exact or plan.sizes == sizes else self._exact.find(tuple(sizes.values()))
        )

    def candidates(self, sizes: Mapping[str, int]) -> Choice:
        """The table of candidates at these sizes, as the plan's own choice made it (or made for show)."""
        return self.planned(sizes).choice or self._choose(sizes)

    def pricing(self) -> Target:
        """What prices the candidates."""
        if self.target is not None:
            return self.target
        from ..backends.cpu.target import CpuTarget

        return CpuTarget.here()

    def _choose(self, sizes: Mapping[str, int]) -> Choice:
        from ..passes.choice import choose

        return choose(self.program, self._context(sizes), self.pricing(), self.normal)

    def _context(self, sizes: Mapping[str, int]) -> Context:
        return Context(
            sizes=sizes,
            optimize=self.options.optimize,
            memory_limit=self.options.memory_limit,
            constants=frozenset(self.constants),
            strict=self.options.strict,
        )

    def _plan(self, sizes: dict[str, int]) -> Planned:
        from ..passes.candidates import BEST, Draft, plan

        choice = None if self.contracts or self.is_empty(sizes) else self._choose(sizes)
        if choice is not None:
            found = choice.chosen
        else:
            found = plan(Draft(BEST, self.program), self._context(sizes), self.normal)
        return self.made(found, sizes, choice)

    def made(self, found: Candidate, sizes: Mapping[str, int], choice: Choice | None = None) -> Planned:
        """The plan that runs a candidate, with all that it computes ahead of the calls."""
        from ..backends.cpu.program import CpuProgram
        from ..passes.candidates import BEST, called

        values = self.constants | self._ahead(found, sizes)
        cpu = CpuProgram(found.program, values)
        records = found.records if found.draft.name != BEST else (*self.normal_records, *found.records)
        return Planned(
            found.program, called(found), found.made, records, sizes, cpu, found.name, found.draft.exact, choice
        )

    def _ahead(self, found: Candidate, sizes: Mapping[str, int]) -> dict[str, Array]:
        """The values of formulas, and of equations that depend on constants alone, computed once."""
        values: dict[str, Array] = {}
        if found.made.outputs:
            from ..ir.interpret import interpret

            values.update(interpret(found.made, {}, {}))
        if not found.early:
            return values
        from ..backends.cpu.native import execute
        from ..backends.cpu.program import CpuProgram

        program, known = found.program, self.constants | values
        equations = tuple(e for e in program.equations if e.name in found.early)
        used = {r for e in equations for r in _sources(e)}
        inputs = tuple(i for i in program.inputs if i.name in used)
        part = Program(inputs, equations, tuple(e.name for e in equations), source=program.source)
        bound = CpuProgram(part, {n: a for n, a in known.items() if n in used}).bind(sizes, {})
        return values | dict(zip(part.outputs, execute(bound.executable, ()), strict=True))

    def run(self, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array] | None:
        """The results for arguments of these sizes, where no one executable gives them (`stages.Staged`); else None."""
        return None

    def bind(
        self,
        arrays: Sequence[Array],
        layouts: Mapping[str, Layout] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Bound:
        """The executable for arguments that lie as `arrays` do, with results that lie as `layouts` says.

        Kernels are made for exactly these sizes if all sizes are fixed, or once the record of this binding has expired.
        """
        key = binding_key(arrays, layouts)
        record = self.records.find(key)
        specialise = self.options.specialise or (record is not None and record.expired)
        return self._bound.get((key, specialise), lambda: self._bind(arrays, layouts, sizes, specialise))

    def _bind(
        self,
        arrays: Sequence[Array],
        layouts: Mapping[str, Layout] | None,
        sizes: Mapping[str, int] | None,
        specialise: bool,
    ) -> Bound:
        from ..backends.cpu.native_record import Layout

        if sizes is None:
            sizes = self.sizes_of([a.shape for a in arrays])
        operands = {i.name: Layout.of(a) for i, a in zip(self.arguments, arrays, strict=True)}
        return self.planned(sizes).cpu.bind(sizes, operands, layouts, specialise=specialise)


def binding_key(arrays: Sequence[Array], layouts: Mapping[str, Layout] | None = None) -> object:
    """What a binding depends on: shapes, strides and types of the arguments, and the layout of the results."""
    return tuple((a.shape, a.strides, a.dtype) for a in arrays), tuple(sorted(layouts.items())) if layouts else None


def _sources(equation: Equation) -> set[str]:
    from ..ir.expr import reads

    return {r.tensor for r in reads(equation.expr)} | ({equation.update} if equation.update else set())


def _without_returned_inputs(program: Program) -> Program:
    """The program in which a returned argument is a copy of it."""
    inputs: dict[str, Input] = {i.name: i for i in program.inputs}
    if not any(n in inputs for n in program.outputs):
        return program
    equations = list(program.equations)
    outputs = []
    for name in program.outputs:
        if name in inputs:
            source = inputs[name]
            indices = tuple(Index(f"copy.{d}", n) for d, n in enumerate(source.shape))
            slots = tuple(Affine.of(i.name) for i in indices)
            name += COPY
            equations.append(
                Equation(name, slots, source.shape, indices, Read(source.name, slots, source.dtype), source.dtype)
            )
        outputs.append(name)
    return Program(program.inputs, tuple(equations), tuple(outputs), program.constraints, program.source)


def supposed_sizes(program: Program, extent: int = 64) -> dict[str, int]:
    """Every size name with `extent` in its place: what `explain` speaks of before the sizes are known."""
    return {n: extent for i in program.inputs for size in i.shape for n in sorted(size.names)}
