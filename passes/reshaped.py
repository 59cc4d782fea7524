"""Row-major reshapes as equations: a tensor read into the digits of a structure, and digits put back into a shape."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ..ir.expr import Equation, Read
from ..ir.index import Affine, Index
from ..ir.size import Size
from ..ir.types import DType
from .tools import Names


def reshaped(
    source: str, old: tuple[int, ...], target: str, new: tuple[int, ...], dtype: DType, names: Names
) -> list[Equation]:
    """target = source in another shape, row-major: through a flat vector unless one shape refines the other.

    >>> from ..ir.expr import Program
    >>> from ..ir.types import F32
    >>> [e.name for e in reshaped("x", (6,), "y", (2, 3), F32, Names(Program((), (), ())))]
    ['y']
    """
    if _groups(new, old) is not None:
        return [_view(source, old, target, new, dtype, True)]
    if _groups(old, new) is not None:
        return [_view(source, old, target, new, dtype, False)]
    flat = names.fresh(f"{target}.flat")
    size = (prod(old),)
    return [_view(source, old, flat, size, dtype, False), _view(flat, size, target, new, dtype, True)]


def placed(equation: Equation, shape: tuple[int, ...]) -> Equation | None:
    """The equation that writes its result in a coarser shape at once; None where the axes do not make that up.

    >>> from ..ir.expr import Program
    >>> from ..ir.types import F32
    >>> fine = reshaped("x", (6,), "y", (2, 3), F32, Names(Program((), (), ())))[0]
    >>> [str(s) for s in placed(fine, (6,)).slots]
    ['3*i0+i1']
    """
    names = [s.bare for s in equation.slots]
    fine = tuple(s.constant for s in equation.shape)
    if None in names or len(set(names)) < len(names) or equation.update is not None:
        return None
    if any(equation.extents[n or ""] != s for n, s in zip(names, equation.shape, strict=True)):
        return None
    groups = _groups(tuple(n or 0 for n in fine), shape)
    if groups is None:
        return None
    indices = {i.name: i for i in equation.indices}
    slots = tuple(Affine.composite(tuple(indices[names[k] or ""] for k in g)) for g in groups)
    return replace(equation, slots=slots, shape=tuple(map(Size.of, shape)))


def _groups(fine: tuple[int, ...], coarse: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    """The axes of `fine` that make up each axis of `coarse`, if they do."""
    groups, k = [], 0
    for extent in coarse:
        start, total = k, 1
        while total < extent and k < len(fine):
            total *= fine[k]
            k += 1
        if total != extent:
            return None
        groups.append(tuple(range(start, k)))
    while k < len(fine) and fine[k] == 1:  # axes of one element after all others
        if groups:
            groups[-1] += (k,)
        k += 1
    return groups if k == len(fine) else None


def _view(source: str, old: tuple[int, ...], target: str, new: tuple[int, ...], dtype: DType, split: bool) -> Equation:
    """One copy; `split` says that the target has the finer axes."""
    fine, coarse = (new, old) if split else (old, new)
    groups = _groups(fine, coarse)
    assert groups is not None
    indices = tuple(Index(f"i{k}", Size.of(n)) for k, n in enumerate(fine))
    composite = tuple(Affine.composite(tuple(indices[k] for k in g)) for g in groups)
    bare = tuple(Affine.of(i.name) for i in indices)
    slots, reads = (bare, composite) if split else (composite, bare)
    return Equation(target, slots, tuple(map(Size.of, new)), indices, Read(source, reads, dtype), dtype)
