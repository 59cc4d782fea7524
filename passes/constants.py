"""What can be computed ahead: equations that depend on constant inputs, and on sizes that these determine."""

from __future__ import annotations

from collections.abc import Set

from ..ir.expr import Equation, Position, Program, Read, SizeValue, reads, walk
from ..ir.size import Size
from .base import Context


def ahead(program: Program, context: Context) -> frozenset[str]:
    """The names of equations whose values are known once the constant inputs are.

    An equation counts if all that it reads is constant and if no size in it depends on another argument.
    """
    known = {i.name for i in program.inputs if i.const or i.name in context.constants}
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
