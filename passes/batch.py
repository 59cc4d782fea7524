"""Programs over a batch: the same program for many values of some of its inputs at once.

Each of those inputs gets a leading axis, and so does every tensor that depends on one; what does not stays as it is and
is computed once. This is what `torch.func.vmap` asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..ir.expr import Equation, Expr, Linalg, Program, Read, reads, transform
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES
from ..ir.size import Size
from .tools import Names, definition, fresh_index


def batched(program: Program, inputs: Iterable[str]) -> tuple[Program, frozenset[str]]:
    """(the program with a leading axis on `inputs`, the outputs that have one too).

    A declared structure speaks of a matrix, so it is dropped from an input that becomes a batch of them.

    >>> from ..ir.text import parse_ir, print_program
    >>> inputs = "input A: f64[m, n]\\ninput x: f64[n]\\n"
    >>> product = "y[i]: f64[m] = einsum[plustimes, f64](j; A[i, j], x[j]) over i<m, j<n"
    >>> made, outputs = batched(parse_ir(inputs + product + "\\nreturn y"), ["x"])
    >>> print(print_program(made).splitlines()[2], sorted(outputs))
    y[batch, i]: f64[batch, m] = einsum[plustimes, f64](j; A[i, j], x[batch, j]) over i<m, j<n, batch<batch ['y']
    """
    chosen = set(inputs)
    extent = Size.name(fresh_index("batch", _size_names(program)))
    declared = {f"{i.name}.{k}": s for i in program.inputs for k, s in enumerate(i.shape)}
    sizes = {n: s for n, s in declared.items() if s.single != n}  # an axis that goes by another name than its own
    constraints = tuple(
        replace(
            c,
            left=c.left.substitute(sizes),
            right=c.right.substitute(sizes),
            values=tuple(v.substitute(sizes) for v in c.values),
        )
        for c in program.constraints
    )
    names, equations = Names(program), list[Equation]()
    for equation in program.equations:
        sources = {r.tensor for r in reads(equation.expr)} | ({equation.update} if equation.update else set())
        if not sources & chosen:
            equations.append(equation)
            continue
        spread: dict[str, str] = {}  # what must have the axis though it does not depend on the batch
        if isinstance(equation.expr, Linalg):
            spread = dict.fromkeys(sources - chosen, "")
        elif equation.update is not None and equation.update not in chosen:
            spread = {equation.update: ""}
        for name in sorted(spread):
            copy = _spread(program, name, extent, names)
            equations.append(copy)
            spread[name] = copy.name
        equations.append(_with_axis(equation, chosen, spread, extent))
        chosen.add(equation.name)
    arguments = tuple(
        replace(i, shape=(extent, *i.shape), structure=(), origin=()) if i.name in chosen else i for i in program.inputs
    )
    made = Program(arguments, tuple(equations), program.outputs, constraints, program.source)
    return made, frozenset(n for n in program.outputs if n in chosen)


def _with_axis(equation: Equation, chosen: set[str], spread: dict[str, str], extent: Size) -> Equation:
    name = fresh_index("batch", equation.extents)
    axis = Affine.of(name)

    def rule(expr: Expr) -> Expr:
        match expr:
            case Read(tensor=tensor) if tensor in spread:
                return replace(expr, tensor=spread[tensor], slots=(axis, *expr.slots))
            case Read(tensor=tensor) if tensor in chosen:
                return replace(expr, slots=(axis, *expr.slots))
        return expr

    expr = equation.expr
    if isinstance(expr, Linalg):
        return _linalg_with_axis(equation, expr, chosen, spread, extent)
    update = equation.update
    return replace(
        equation,
        slots=(axis, *equation.slots),
        shape=(extent, *equation.shape),
        indices=(*equation.indices, Index(name, extent)),
        expr=transform(expr, rule),
        update=spread.get(update, update) if update is not None else None,
    )


def _linalg_with_axis(
    equation: Equation, node: Linalg, chosen: set[str], spread: dict[str, str], extent: Size
) -> Equation:
    """A function of matrices with one more axis of its batch: each argument is read at an index of its own there."""
    taken = dict(equation.extents)

    def fresh() -> str:
        name = fresh_index("batch", taken)
        taken[name] = extent
        return name

    first = fresh()
    bound, args = list(node.bound), list[Expr]()
    for arg in node.args:
        if isinstance(arg, Read):
            bound.append(fresh())
            args.append(
                replace(arg, tensor=spread.get(arg.tensor, arg.tensor), slots=(Affine.of(bound[-1]), *arg.slots))
            )
        else:
            args.append(arg)
    value = replace(node, result=(first, *node.result), bound=tuple(bound), args=tuple(args))
    return replace(
        equation,
        slots=(Affine.of(first), *equation.slots),
        shape=(extent, *equation.shape),
        indices=tuple(Index(n, e) for n, e in taken.items()),
        expr=value,
    )


def _spread(program: Program, tensor: str, extent: Size, names: Names) -> Equation:
    """A tensor repeated along a new leading axis."""
    source = program.tensors[tensor]
    axes = [f"i{k}" for k in range(len(source.shape))]
    extents = {"batch": extent, **dict(zip(axes, source.shape, strict=True))}
    value = Read(tensor, tuple(map(Affine.of, axes)), source.dtype)

    return definition(names.numbered(f"{tensor}.spread"), ("batch", *axes), value, extents, source.dtype, PLUS_TIMES)


def _size_names(program: Program) -> set[str]:
    found = {n for i in program.inputs for s in i.shape for n in s.names}
    for equation in program.equations:
        found |= {n for s in (*equation.shape, *(i.extent for i in equation.indices)) for n in s.names}
    return found
