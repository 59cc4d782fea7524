"""Fixing sizes: the same program with some size names replaced by numbers, so that kernels may be made for exactly
those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.expr import Constraint, Equation, Expr, Position, Program, Read, SizeValue, transform
from ..ir.index import Affine, Index
from ..ir.size import Size


def fix_sizes(program: Program, values: Mapping[str, int]) -> Program:
    """The program with each size name in `values` replaced by its value.

    >>> from stein.ir.expr import Input
    >>> from stein.ir.types import F32
    >>> x = Input("x", (Size.name("n"),), F32)
    >>> fix_sizes(Program((x,), (), ("x",)), {"n": 3}).inputs[0].shape[0].constant
    3
    """
    sizes = {name: Size.of(value) for name, value in values.items()}

    def fixed(size: Size) -> Size:
        return size.substitute(sizes)

    def affine(slot: Affine) -> Affine:
        terms = tuple((n, c) for n, c in ((n, fixed(c)) for n, c in slot.terms) if c.terms)
        return Affine(terms, fixed(slot.offset), None if slot.modulus is None else fixed(slot.modulus))

    def rule(expr: Expr) -> Expr:
        match expr:
            case SizeValue():
                return replace(expr, size=fixed(expr.size))
            case Position():
                return replace(expr, affine=affine(expr.affine))
            case Read():
                return replace(expr, slots=tuple(map(affine, expr.slots)))
        return expr

    def equation(old: Equation) -> Equation:
        return replace(
            old,
            slots=tuple(map(affine, old.slots)),
            shape=tuple(map(fixed, old.shape)),
            indices=tuple(Index(i.name, fixed(i.extent)) for i in old.indices),
            expr=transform(old.expr, rule),
        )

    def constraint(old: Constraint) -> Constraint:
        return replace(old, left=fixed(old.left), right=fixed(old.right), values=tuple(map(fixed, old.values)))

    return replace(
        program,
        inputs=tuple(
            replace(
                i,
                shape=tuple(map(fixed, i.shape)),
                origin=tuple(map(fixed, i.origin)),
                structure=tuple(replace(s, options=tuple((k, fixed(v)) for k, v in s.options)) for s in i.structure),
            )
            for i in program.inputs
        ),
        equations=tuple(map(equation, program.equations)),
        constraints=tuple(map(constraint, program.constraints)),
    )
