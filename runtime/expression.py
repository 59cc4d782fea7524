"""An expression at work: a typed program, its plans by size, and its executables by layout.

This is where the layers meet. Elaboration gave a symbolic `Program`; here the passes run on it (once, and then once per
coarse bucket of sizes), the CPU backend binds the planned program to sizes and strides, and what was bound is kept, so
that a known call costs a look-up, new sizes cost a binding, and only a new kind of kernel costs a compilation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.bind import Binder
from ..ir.expr import Equation, Input, Program, Read
from ..ir.index import Affine, Index
from ..passes.pipeline import NORMAL_PASSES, PLAN_PASSES, Context, PassRecord, run_passes
from .cache import Cache

if TYPE_CHECKING:
    from ..backends.cpu.native_record import Layout, Record
    from ..backends.cpu.program import Bound, CpuProgram

Array = np.ndarray[Any, Any]
COPY = ".copy"  # ends the name of the copy of an argument that is returned


@dataclass(frozen=True)
class Options:
    """How a program is planned: `optimize` as opt_einsum's, a limit on the elements of an intermediate, `strict`
    order.
    """

    optimize: Any = "auto"
    memory_limit: Any = None
    strict: bool = False
    specialise: bool = False


@dataclass(frozen=True)
class Planned:
    """The program planned for sizes like `sizes`, what the passes did, and its CPU form."""

    program: Program
    records: tuple[PassRecord, ...]
    sizes: Mapping[str, int]
    cpu: CpuProgram


@dataclass
class Expression:
    """A typed symbolic program with everything that was made from it. `constants` are the values of its constant
    inputs.
    """

    program: Program
    options: Options = field(default_factory=Options)
    constants: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.program = _without_returned_inputs(self.program)
        self.binder = Binder(self.program)
        context = Context(sizes={}, constants=frozenset(self.constants), strict=self.options.strict)
        self.normal, self.normal_records = run_passes(self.program, NORMAL_PASSES, context)
        self.arguments = tuple(i for i in self.program.inputs if i.name not in self.constants)
        self._constant_shapes = {n: a.shape for n, a in self.constants.items()}
        self._plans: Cache[tuple[int, ...], Planned] = Cache(64)
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

    def planned(self, sizes: Mapping[str, int]) -> Planned:
        """The plan for these sizes, shared by all sizes with the same numbers of binary digits."""
        key = tuple(n.bit_length() if n != 1 else -1 for n in sizes.values())
        return self._plans.get(key, lambda: self._plan(dict(sizes)))

    def _plan(self, sizes: dict[str, int]) -> Planned:
        from ..backends.cpu.program import CpuProgram

        context = Context(
            sizes=sizes,
            optimize=self.options.optimize,
            memory_limit=self.options.memory_limit,
            constants=frozenset(self.constants),
            strict=self.options.strict,
        )
        program, records = run_passes(self.normal, PLAN_PASSES, context)
        ahead = self._ahead(program, context, sizes)
        return Planned(program, records, sizes, CpuProgram(program, self.constants | ahead))

    def _ahead(self, program: Program, context: Context, sizes: Mapping[str, int]) -> dict[str, Array]:
        """The values of the equations that depend on constants alone, computed once."""
        from ..passes.constants import ahead

        names = ahead(program, context) if self.constants else frozenset()
        names -= set(program.outputs)
        if not names:
            return {}
        from ..backends.cpu.native import execute
        from ..backends.cpu.program import CpuProgram

        equations = tuple(e for e in program.equations if e.name in names)
        used = {r for e in equations for r in _sources(e)}
        inputs = tuple(i for i in program.inputs if i.name in used)
        part = Program(inputs, equations, tuple(e.name for e in equations), source=program.source)
        bound = CpuProgram(part, {n: a for n, a in self.constants.items() if n in used}).bind(sizes, {})
        return dict(zip(part.outputs, execute(bound.executable, ()), strict=True))

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
