"""Programs with functions of matrices (`solve`, `inv`, `logdet`, `powm`): kernels of ours, leaves of LAPACK, in turns.

`Staged` stands where an `Expression` stands. At given sizes the solver passes put cheaper programs for what structure
allows (`passes.solve`); the result is cut at its `Linalg` equations into stages. Each stage has one program of
ordinary equations, planned and run as any other, and then leaves. What depends on constants alone is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..ir.bind import Binder
from ..ir.errors import SingularError
from ..ir.expr import Const, Equation, Input, Linalg, Program, Read, reads
from .cache import Cache
from .expression import Array, Expression, Options, Planned, _without_returned_inputs
from .fix import fix_sizes

if TYPE_CHECKING:
    from ..passes.solve import Solver

DECOMPOSITIONS = ("eigenvalues", "eigenvectors", "schur_form", "schur_vectors")


def has_linalg(program: Program) -> bool:
    """Whether a program has a function of matrices, so that it must be run in stages."""
    return any(isinstance(e.expr, Linalg) for e in program.equations)


def expression_of(program: Program, options: Options, constants: dict[str, Array]) -> Expression:
    """The `Expression` of a program, or its `Staged` where it needs that.

    Declared constants stand as stored blocks or as products of factors, where their values are so.
    """
    if any(i.structure and i.name in constants for i in program.inputs):
        from ..passes.constant_factors import with_factors
        from ..passes.stored import store_blocks

        program, constants = with_factors(*store_blocks(program, constants))
    return (Staged if has_linalg(program) else Expression)(program, options, constants)


@dataclass(frozen=True)
class Stage:
    """Kernels, then leaves in order. `kernels` is None where there is nothing to compute before the leaves."""

    kernels: Expression | None
    leaves: tuple[Equation, ...]
    drop: tuple[str, ...] = ()  # what no later stage reads


@dataclass(frozen=True)
class Stages:
    """A program at fixed sizes, cut into stages; `solvers` tell what was done for each function of the source."""

    program: Program
    stages: tuple[Stage, ...]
    solvers: tuple[Solver, ...]
    known: Mapping[str, Array]


@dataclass
class Staged(Expression):
    """An expression whose program has functions of matrices. `run` evaluates it; there is no one executable."""

    def __post_init__(self) -> None:
        self.program = _without_returned_inputs(self.program)
        self.binder = Binder(self.program)
        self.normal, self.normal_records = self.program, ()
        self.arguments = tuple(i for i in self.program.inputs if i.name not in self.constants)
        self._constant_shapes = {n: a.shape for n, a in self.constants.items()}
        self._stages: Cache[tuple[int, ...], Stages] = Cache(64)

    def known_plan(self, sizes: Mapping[str, int]) -> Planned | None:
        """None: each stage has a plan of its own."""
        return None

    def planned(self, sizes: Mapping[str, int]) -> Planned:
        """The solved program as one text, leaves and all; there is no one form of it for the CPU."""
        program = self.stages(sizes).program
        made = replace(program, equations=(), outputs=())
        return Planned(program, program, made, (), dict(sizes), None)  # type: ignore[arg-type]

    def stages(self, sizes: Mapping[str, int]) -> Stages:
        """The stages at these sizes."""
        return self._stages.get(tuple(sizes.values()), lambda: self._cut(sizes))

    def kernels(self, sizes: Mapping[str, int]) -> tuple[Expression, ...]:
        """The expressions between the leaves."""
        return tuple(s.kernels for s in self.stages(sizes).stages if s.kernels is not None)

    def _cut(self, sizes: Mapping[str, int]) -> Stages:
        from ..passes.solve import solve_structured

        fixed = replace(fix_sizes(self.program, sizes), constraints=())
        program, solvers = solve_structured(fixed)
        early = _constant_part(program, frozenset(self.constants))
        known = dict(self.constants)
        if early is not None:
            found = run_stages(cut(early, self.options, known), known, early)
            known.update(found)
            program = _after(program, early)
        used = {r for e in program.equations for r in _sources(e)} | set(program.outputs)
        known = {n: a for n, a in known.items() if n in used}
        return Stages(program, cut(program, self.options, known), solvers, known)

    def run(self, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
        """The results for arguments of these sizes, in order; `SingularError` tells the statement it belongs to."""
        if any(0 in shape for shape in self._constant_shapes.values()) or any(0 in a.shape for a in arrays):
            return self._empty(arrays, sizes)
        stages = self.stages(sizes)
        values = dict(stages.known) | {i.name: a for i, a in zip(self.arguments, arrays, strict=True)}
        given = list(values.values())
        found = run_stages(stages.stages, values, stages.program)
        results = [found[n] for n in stages.program.outputs]
        return [a.copy() if any(np.may_share_memory(a, g) for g in given) else a for a in results]

    def _empty(self, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
        """The results where an argument is empty: there is next to nothing to compute, so the definition will do."""
        from ..ir.interpret import interpret

        given = {i.name: a for i, a in zip(self.arguments, arrays, strict=True)} | self.constants
        found = interpret(self.program, given, dict(sizes))
        return [found[n] for n in self.program.outputs]


# --- cutting ----------------------------------------------------------------------------------------------------------


def _sources(equation: Equation) -> list[str]:
    names = [r.tensor for r in reads(equation.expr)]
    return names if equation.update is None else [*names, equation.update]


def cut(program: Program, options: Options, constants: Mapping[str, Array]) -> tuple[Stage, ...]:
    """The stages of a program: an equation stands in the first stage in which all that it reads is there."""
    level: dict[str, int] = {}
    groups: dict[int, tuple[list[Equation], list[Equation]]] = {}
    leaves: set[str] = set()
    for equation in program.equations:
        leaf = isinstance(equation.expr, Linalg)
        at = max((level.get(n, 0) + (n in leaves and not leaf) for n in _sources(equation)), default=0)
        level[equation.name] = at
        groups.setdefault(at, ([], []))[leaf].append(equation)
        if leaf:
            leaves.add(equation.name)
    order = sorted(groups)
    reading = [{n for e in (*groups[k][0], *groups[k][1]) for n in _sources(e)} for k in order]
    stages = []
    for place, k in enumerate(order):
        kernels, foreign = groups[k]
        later = {n for names in reading[place + 1 :] for n in names} | set(program.outputs)
        wanted = later | {n for e in foreign for n in _sources(e)}
        part = _part(program, kernels, wanted)
        made = None if part is None else Expression(part, replace(options, specialise=False), _of(part, constants))
        drop = (reading[place] | {e.name for e in foreign} | wanted) - later
        stages.append(Stage(made, tuple(foreign), tuple(sorted(drop))))
    return tuple(stages)


def _part(program: Program, equations: Sequence[Equation], wanted: Iterable[str]) -> Program | None:
    """Some equations as a program: what they read from outside are inputs, what is wanted are outputs."""
    if not equations:
        return None
    own = {e.name for e in equations}
    inputs = []
    for name in dict.fromkeys(n for e in equations for n in _sources(e) if n not in own):
        tensor = program.tensors[name]
        inputs.append(tensor if isinstance(tensor, Input) else Input(name, tensor.shape, tensor.dtype))
    wanted = set(wanted)
    outputs = tuple(e.name for e in equations if e.name in wanted)
    return Program(tuple(inputs), tuple(equations), outputs, (), program.source)


def _of(part: Program, constants: Mapping[str, Array]) -> dict[str, Array]:
    return {i.name: constants[i.name] for i in part.inputs if i.name in constants}


def _constant_part(program: Program, constants: frozenset[str]) -> Program | None:
    """The equations that depend on constants alone, up to the last leaf of them; None if there is no such leaf."""
    fixed = set(constants)
    for equation in program.equations:
        if set(_sources(equation)) <= fixed and any(_sources(equation)):
            fixed.add(equation.name)
    early = [e for e in program.equations if e.name in fixed]
    while early and not isinstance(early[-1].expr, Linalg):
        early.pop()
    if not early:
        return None
    names = {e.name for e in early}
    rest = {n for e in program.equations if e.name not in names for n in _sources(e)} | set(program.outputs)
    return _part(program, early, rest)


def _after(program: Program, early: Program) -> Program:
    """The program in which the outputs of its constant part are constants."""
    done = {e.name for e in early.equations}
    inputs = [Input(e.name, e.shape, e.dtype, const=True) for e in early.equations if e.name in early.outputs]
    rest = tuple(e for e in program.equations if e.name not in done)
    return replace(program, inputs=(*program.inputs, *inputs), equations=rest)


# --- running ----------------------------------------------------------------------------------------------------------


def run_stages(stages: Sequence[Stage], values: dict[str, Array], program: Program) -> dict[str, Array]:
    """The outputs of a program by name; `values` (its inputs by name) is used up."""
    from ..backends.cpu.native import execute

    kept = set(program.outputs)
    for stage in stages:
        if stage.kernels is not None:
            arrays = [values[i.name] for i in stage.kernels.arguments]
            bound = stage.kernels.bind(arrays, None, {})
            values.update(zip(stage.kernels.program.outputs, execute(bound.executable, arrays), strict=True))
        _run_leaves(stage.leaves, values, program)
        for name in stage.drop:
            if name not in kept:
                values.pop(name, None)
    return {n: values[n] for n in kept}


def _run_leaves(leaves: Sequence[Equation], values: dict[str, Array], program: Program) -> None:
    """The leaves of one stage; decompositions of one matrix are computed together."""
    from ..backends.cpu.lapack import decompose, leaf

    for equation in leaves:
        if equation.name in values:
            continue
        node = equation.expr
        assert isinstance(node, Linalg)
        args = [_operand(a, values) for a in node.args]
        try:
            if node.function in DECOMPOSITIONS:
                same = [e for e in leaves if _decomposes(e, node)]
                found = decompose([e.expr.function for e in same], args[0])  # type: ignore[union-attr]
                for e in same:
                    values[e.name] = found[e.expr.function].astype(e.dtype.numpy, copy=False)  # type: ignore[union-attr]
            else:
                values[equation.name] = leaf(node.function, args, node.assume).astype(equation.dtype.numpy, copy=False)
        except SingularError as error:
            raise error.located(program.source, equation.span) from None


def _decomposes(equation: Equation, node: Linalg) -> bool:
    """Whether an equation is of the same decomposition of the same matrix."""
    other = equation.expr
    if not isinstance(other, Linalg) or other.function not in DECOMPOSITIONS:
        return False
    return other.function[:5] == node.function[:5] and [r.tensor for r in reads(other)] == [
        r.tensor for r in reads(node)
    ]


def _operand(arg: object, values: Mapping[str, Array]) -> Array:
    if isinstance(arg, Read):
        return values[arg.tensor]
    assert isinstance(arg, Const)
    return np.asarray(arg.value, arg.dtype.numpy)
