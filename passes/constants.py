"""What can be computed ahead: equations that depend on constant inputs, and on sizes that these determine.

`hoist` goes before planning: an equation that reads nothing at all (the factors of a Fourier transform, written as a
formula) becomes a constant input, so that no pass evaluates it again inside a kernel. `ahead` goes after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from math import prod

from ..ir.expr import Equation, Input, Position, Program, Read, SizeValue, reads, walk
from ..ir.size import Size
from .base import Context
from .tools import weight

RELOAD = 4  # units of work that reading a stored element costs: a cheaper formula is evaluated where it is needed


def ahead(program: Program, context: Context) -> frozenset[str]:
    """The names of equations whose values are known once the constant inputs are.

    An equation counts if all that it reads is constant and if no size in it depends on another argument.
    """
    known = {i.name for i in program.inputs if i.const or i.name in context.constants}
    if not known:
        return frozenset()
    sizes = frozenset[str]().union(*(s.names for i in program.inputs if i.name in known for s in i.shape))
    found = set()
    for equation in program.equations:
        if is_ahead(equation, known, sizes):
            known.add(equation.name)
            found.add(equation.name)
    return frozenset(found)


def is_ahead(equation: Equation, known: Set[str], sizes: frozenset[str]) -> bool:
    """Whether an equation reads tensors of `known` only (at least one), and has only size names in `sizes`."""
    tensors = {r.tensor for r in reads(equation.expr)} | ({equation.update} if equation.update else set())
    return bool(tensors) and tensors <= known and _sizes_of(equation) <= sizes


def hoist(program: Program, sizes: Mapping[str, int], room: int = 0) -> tuple[Program, Program]:
    """(the program with its formulas as constant inputs, the program that computes these).

    A formula reads no tensor and holds no size name. It is hoisted if evaluating it is dearer than reading it back, and
    as long as all of them together have no more elements than the arguments and results of the program, or than `room`
    (those of a matrix that they stand for).

    >>> from ..ir.text import parse_ir
    >>> text = "input x: f64[4]\\nf[i]: f64[4] = exp(cast[f64](at(i))) over i<4\\n"
    >>> text += "y[i]: f64[4] = mul(f[i], x[i]) over i<4\\nreturn y"
    >>> rest, made = hoist(parse_ir(text), {})
    >>> [i.name for i in rest.inputs], made.outputs
    (['x', 'f'], ('f',))
    """
    formulas = [
        e for e in program.equations if not reads(e.expr) and e.update is None and e.name not in program.outputs
    ]
    if not formulas:
        return program, Program((), (), (), source=program.source)
    arguments = sum(_elements(t, sizes) for t in (*program.inputs, *(program.tensors[n] for n in program.outputs)))
    room = max(room, arguments)
    found: list[Equation] = []
    for equation in formulas:
        size = _elements(equation, {}) if not _sizes_of(equation) else room + 1
        if size <= room and weight(equation.expr) > RELOAD:
            found.append(equation)
            room -= size
    names = {e.name for e in found}
    inputs = tuple(Input(e.name, e.shape, e.dtype, const=True) for e in found)
    rest = tuple(e for e in program.equations if e.name not in names)
    made = Program((), tuple(found), tuple(e.name for e in found), source=program.source)
    return (replace(program, inputs=(*program.inputs, *inputs), equations=rest) if found else program), made


def _elements(tensor: Input | Equation, sizes: Mapping[str, int]) -> int:
    return prod(s.evaluate(sizes) for s in tensor.shape)


def _sizes_of(equation: Equation) -> set[str]:
    found: list[Size] = [*equation.shape, *(i.extent for i in equation.indices)]
    affines = list(equation.slots)
    for e in walk(equation.expr):
        if isinstance(e, Read):
            affines.extend(e.slots)
        elif isinstance(e, Position):
            affines.append(e.affine)
        elif isinstance(e, SizeValue):
            found.append(e.size)
    for a in affines:
        found.extend((a.offset, *(c for _, c in a.terms)))
        if a.modulus is not None:
            found.append(a.modulus)
    return {n for s in found for n in s.names}
