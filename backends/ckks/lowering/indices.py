"""Index arithmetic at known sizes, for lowering: slots, extents, and which indices occur where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ....ir import expr as e
from ....ir.index import Affine
from ....ir.size import Size
from .problem import Slot


def number(size: Size) -> int:
    """A size that is a number."""
    value = size.constant
    assert value is not None, f"the size {size} is not known"
    return value


def shape_of(shape: Sequence[Size]) -> tuple[int, ...]:
    """A shape of numbers."""
    return tuple(map(number, shape))


def slot(affine: Affine) -> Slot:
    """A slot at known sizes."""
    modulus = 0 if affine.modulus is None else number(affine.modulus)
    return Slot(tuple((n, number(c)) for n, c in affine.terms), number(affine.offset), modulus)


def sources(equation: e.Equation) -> set[str]:
    """The tensors that an equation reads."""
    found = {r.tensor for r in e.reads(equation.expr)}
    return found if equation.update is None else found | {equation.update}


def indices_of(slots: Iterable[Affine]) -> set[str]:
    """The indices in some slots."""
    return {n for s in slots for n in s.indices}


def free_of(exprs: Iterable[e.Expr]) -> set[str]:
    """The free indices of some expressions."""
    return {n for x in exprs for n in e.free_indices(x)}


def every_index(expr: e.Expr) -> set[str]:
    """Every index that occurs in an expression, free or bound."""
    found = set(e.free_indices(expr))
    for node in e.walk(expr):
        found.update(e.free_indices(node))
        if isinstance(node, e.Einsum):
            found.update(node.bound)
        if isinstance(node, e.Softmax):
            found.update(node.along)
    return found
