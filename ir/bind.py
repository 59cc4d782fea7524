"""Shapes of arguments -> sizes of a program: the step between a symbolic program and a call.

A `Binder` is made once per program. It decides ahead in which order the size names are solved from which axes, so that
a call only runs down a short list of steps. Messages are made on failure only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NoReturn

from .errors import DTypeError, ShapeError, Span, SteinError, StructureError
from .expr import Constraint, Input, Program, Read
from .size import Size

Shapes = Mapping[str, tuple[int, ...]]


def bind_sizes(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The value of every size name of `program` for arguments of these shapes.

    Raises `ShapeError` if a shape has the wrong number of axes, if the shapes contradict each other or a constraint,
    and `DTypeError` if one is missing.

    >>> from .expr import Input
    >>> from .types import F32
    >>> t = Input("t", (2 * Size.name("n") - 1,), F32)
    >>> bind_sizes(Program((t,), (), ()), {"t": (7,)})
    {'n': 4}
    """
    binder: Binder | None = program.__dict__.get("_binder")
    if binder is None:  # kept with the program, as its other cached properties are
        binder = program.__dict__.setdefault("_binder", Binder(program))
    return binder(shapes)


def check_padding(read: Read, shape: tuple[int, ...]) -> None:
    """`ShapeError` if values outside a tensor are to be copies of those inside, and there are none inside."""
    if isinstance(read.pad, str) and 0 in shape:
        raise ShapeError(
            f"{read.tensor} has shape {shape}: pad={read.pad} has no value to repeat",
            code="empty-padding",
            help="pad with a number",
        )


class Binder:
    """Solves the size names of one program. Call it with the shapes of the inputs by name."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._ranks = tuple((i.name, len(i.shape)) for i in program.inputs)
        known: set[str] = set()
        self._names: list[tuple[str, str, int]] = []  # size name, tensor, axis
        self._solved: list[tuple[Size, str, int]] = []
        self._checked: list[tuple[Size, str, int]] = []
        axes = [(s, i.name, a) for i in program.inputs for a, s in enumerate(i.shape)]
        for size, tensor, axis in sorted(
            axes, key=lambda e: e[0].single != f"{e[1]}.{e[2]}"
        ):  # `A.0` from its own axis
            name = size.single
            if name is not None and name not in known:
                known.add(name)
                self._names.append((name, tensor, axis))
            elif name is None or name in known:
                self._checked.append((size, tensor, axis))
        progress = True
        while progress:
            progress = False
            for entry in self._checked:
                unknown = entry[0].names - known
                if len(unknown) == 1 and _solvable(entry[0], next(iter(unknown))):
                    self._checked.remove(entry)
                    self._solved.append(entry)
                    known |= unknown
                    progress = True
                    break
        self._known = frozenset(known)
        axis_names = {f"{t}.{a}" for t, rank in self._ranks for a in range(rank)}
        used = {n for c in program.constraints for s in (c.left, c.right, *c.values) for n in s.names} - known
        self._axes = [(n, *_axis(n)) for n in sorted(used & axis_names)]
        self._constraints = [(c, _compiled(c.left), _compiled(c.right)) for c in program.constraints]
        self._checks = [(_compiled(s), t, a) for s, t, a in self._checked]

    @cached_property
    def unsolved(self) -> frozenset[str]:
        """Size names of the program that the shapes of its arguments do not determine."""
        names: set[str] = set()
        for tensor in self.program.inputs:
            names.update(*(s.names for s in tensor.shape))
        for equation in self.program.equations:
            names.update(*(s.names for s in equation.shape))
            names.update(*(i.extent.names for i in equation.indices))
        return frozenset(names - self._known)

    def __call__(self, shapes: Shapes) -> dict[str, int]:
        """The sizes by name; see `bind_sizes`."""
        for name, rank in self._ranks:
            shape = shapes.get(name)
            if shape is None or len(shape) != rank:
                self._fail_rank(name, rank, shape)
        sizes = {name: shapes[tensor][axis] for name, tensor, axis in self._names}
        for size, tensor, axis in self._solved:
            found = size.solve(shapes[tensor][axis], sizes)
            if found is None or found[1] < 0:
                self._fail_axis(size, tensor, axis, shapes, sizes)
            sizes[found[0]] = found[1]
        axes = sizes
        if self._axes:
            axes = sizes | {name: shapes[tensor][axis] for name, tensor, axis in self._axes}
        for constraint, left, right in self._constraints:
            if not _holds(constraint.relation, left(axes), right(axes)):
                self._fail_constraint(constraint, axes)
        for evaluate, tensor, axis in self._checks:
            if evaluate(sizes) != shapes[tensor][axis]:
                self._fail_axis(self._input(tensor).shape[axis], tensor, axis, shapes, sizes)
        return sizes

    def _input(self, name: str) -> Input:
        return next(i for i in self.program.inputs if i.name == name)

    def _fail_rank(self, name: str, rank: int, shape: tuple[int, ...] | None) -> NoReturn:
        if shape is None:
            raise DTypeError(f"argument '{name}' is missing", code="missing-argument")
        raise ShapeError(
            f"{name} has {rank} ax{'is' if rank == 1 else 'es'}, the argument has {len(shape)} {tuple(shape)}",
            code="axis-count",
            source=self.program.source,
            spans=self._places(name),
        )

    def _places(self, name: str) -> tuple[Span, ...]:
        span = self._input(name).span
        return (span,) if span.end else ()

    def _fail_axis(self, size: Size, tensor: str, axis: int, shapes: Shapes, sizes: Mapping[str, int]) -> NoReturn:
        actual, text = shapes[tensor][axis], str(size)
        if not size.names <= sizes.keys():
            unknown = next(iter(size.names - sizes.keys()))
            raise ShapeError(
                f"axis {axis} of {tensor} is {text}, but no {unknown} makes that {actual}",
                code="size-mismatch",
                source=self.program.source,
                spans=self._places(tensor),
            )
        value = size.evaluate(sizes)
        sentence = f"axis {axis} of {tensor} is {actual}, but {text} = {value}"
        if size.constant is not None:
            sentence = f"axis {axis} of {tensor} is {actual}, declared {value}"
        other = next(((t, a) for n, t, a in self._names if n in size.names), None)
        if other is not None:
            sentence += f" (axis {other[1]} of {other[0]} is {shapes[other[0]][other[1]]})"
        spans = self._places(tensor)
        if other is not None and other[0] != tensor:
            spans += self._places(other[0])
        raise ShapeError(sentence, code="size-mismatch", source=self.program.source, spans=spans)

    def _fail_constraint(self, c: Constraint, sizes: Mapping[str, int]) -> NoReturn:
        values: dict[str, int] = dict(sizes) | {"left": c.left.evaluate(sizes), "right": c.right.evaluate(sizes)}
        values |= {str(k): v.evaluate(sizes) for k, v in enumerate(c.values)}

        def filled(text: str) -> str:
            return re.sub(r"\{([^{}]+)\}", lambda m: str(values.get(m[1], m[0])), text)

        kind: type[SteinError] = StructureError if c.code == "block" else ShapeError
        raise kind(filled(c.sentence), code=c.code, source=self.program.source, spans=c.spans, help=filled(c.help))


def _axis(name: str) -> tuple[str, int]:
    tensor, _, axis = name.rpartition(".")
    return tensor, int(axis)


def _solvable(size: Size, name: str) -> bool:
    """Whether `size` is linear in `name`, with `name` in no floor division."""
    return all(
        m.count(name) <= 1 and all(isinstance(a, str) or name not in Size((((a,), 1),)).names for a in m)
        for m, _ in size.terms
    )


def _holds(relation: str, left: int, right: int) -> bool:
    if relation == "==":
        return left == right
    if relation == ">=":
        return left >= right
    return left != 0 and right % left == 0


def _compiled(size: Size) -> Callable[[Mapping[str, int]], int]:
    """A closure that evaluates `size`, short for the shapes that occur most."""
    constant, single = size.constant, size.single
    if constant is not None:
        return lambda sizes: constant
    if single is not None:
        return lambda sizes: sizes[single]
    return size.evaluate
