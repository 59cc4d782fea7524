"""`opt_einsum.contract(..., backend="stein")`: the functions that opt_einsum looks up in a backend's module.

opt_einsum finds the path and hands each pairwise step here, so a step is all that the compiler sees; `stein.einsum` on
the whole network sees all of it. Arrays of NumPy, torch and JAX are taken, and the same kind comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

from ..ir.errors import ShapeError


def tensordot(a: Any, b: Any, axes: int | Sequence[Any] = 2) -> Any:
    """The sum over pairs of axes, as numpy.tensordot: the last `axes` of a with the first of b, or two lists of axes.

    Raises `ShapeError` for axes that do not exist or do not fit.

    >>> import numpy as np
    >>> tensordot(np.ones((2, 3)), np.ones((3, 4)), 1).shape
    (2, 4)
    """
    from .einsum import einsum

    left, right = _rank(a), _rank(b)
    if isinstance(axes, int):
        pairs = [(left - axes + k, k) for k in range(axes)]
        if axes > min(left, right):
            raise ShapeError(f"{axes} axes are summed, the arrays have {left} and {right}", code="axis-count")
    else:
        first, second = (_listed(part) for part in axes)
        if len(first) != len(second):
            raise ShapeError(f"{len(first)} axes of one array, {len(second)} of the other", code="axis-count")
        pairs = [(_axis(p, left), _axis(q, right)) for p, q in zip(first, second, strict=True)]
    if len({p for p, _ in pairs}) < len(pairs) or len({q for _, q in pairs}) < len(pairs):
        raise ShapeError(f"an axis is summed twice: {axes}", code="repeated-axis")
    place = {q: p for p, q in pairs}
    of_a = list(range(left))
    of_b = [place.get(k, left + k) for k in range(right)]
    summed = {p for p, _ in pairs}
    result = [n for n in of_a if n not in summed] + [n for n in of_b if n not in summed]
    if left + right > len(ascii_letters):
        return einsum(a, of_a, b, of_b, result)
    return einsum(f"{_letters(of_a)},{_letters(of_b)}->{_letters(result)}", a, b)


def transpose(a: Any, axes: Sequence[int] | None = None) -> Any:
    """The array with its axes in another order, reversed if none is given: a view.

    Raises `ShapeError` if `axes` is no order of the axes.

    >>> import numpy as np
    >>> transpose(np.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    from .einsum import einsum

    rank = _rank(a)
    order = list(range(rank))[::-1] if axes is None else [_axis(k, rank) for k in axes]
    if sorted(order) != list(range(rank)):
        raise ShapeError(f"{tuple(order)} is no order of {rank} axes", code="repeated-axis")
    if rank > len(ascii_letters):
        return einsum(a, list(range(rank)), order)
    return einsum(f"{_letters(range(rank))}->{_letters(order)}", a)


def _rank(array: Any) -> int:
    shape = getattr(array, "shape", None)
    if shape is None:
        import numpy as np

        return np.ndim(array)
    return len(shape)


def _listed(part: Any) -> list[int]:
    return [part] if isinstance(part, int) else list(part)


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ShapeError(f"there is no axis {axis} of {rank}", code="axis-count")
    return axis % rank


def _letters(labels: Any) -> str:
    return "".join(ascii_letters[n] for n in labels)
