"""Operands of the fuzz: arrays of any type in any memory layout, each reproducible from one line of text.

Outside the compiler; the lowest module of `tests/fuzz`. An `Operand` is a recipe, so that a failing case can be printed
and run again; `build` makes the array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

LAYOUTS = ("C", "F", "permuted", "negative", "stepped", "padded", "unaligned", "zero", "mixed")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name; `bfloat16` is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    return np.dtype(name)


@dataclass(frozen=True)
class Operand:
    """A recipe of one operand.

    `values` is "plain" (floats of magnitude 0.5 to 1.5, integers of at most 9), "wrapping" (integers over the whole
    range), "special" (some NaN, infinities and zeros), "positive" (magnitudes only) or "small" (0 to 3 in any type).
    `container` is "array", "list" (nested lists or a Python scalar), or "duck" (an object that only has `__array__`).
    """

    shape: tuple[int, ...]
    dtype: str = "float64"
    layout: str = "C"
    seed: int = 0
    values: str = "plain"
    container: str = "array"
    writeable: bool = True

    def build(self) -> Any:
        """The operand itself."""
        rng = np.random.default_rng(self.seed)
        content = _content(rng, self.shape, self.dtype, self.values)
        array = _lay_out(rng, content, self.layout)
        assert array.shape == self.shape and array.dtype == content.dtype
        if not self.writeable:
            array.flags.writeable = False
        if self.container == "list":
            return array.tolist()
        return Duck(array) if self.container == "duck" else array


class Duck:
    """An object that NumPy can convert and that is nothing else."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self._array if dtype is None else self._array.astype(dtype)


def _content(rng: np.random.Generator, shape: tuple[int, ...], name: str, values: str) -> Array:
    dtype = numpy_dtype(name)
    if values == "small":
        return np.asarray(rng.integers(0, 4, shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.6)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = (info.min, info.max) if values == "wrapping" else (max(-9, info.min), 9)
        return np.asarray(rng.integers(low, high, shape, dtype=dtype, endpoint=True))
    content = _floats(rng, shape, values)
    if dtype.kind == "c":
        content = content + 1j * _floats(rng, shape, values)
    return np.asarray(content).astype(dtype)


def _floats(rng: np.random.Generator, shape: tuple[int, ...], values: str) -> Array:
    content = np.asarray(rng.uniform(0.5, 1.5, shape))
    if values != "positive":
        content = np.where(rng.random(shape) < 0.5, content, -content)
    if values == "special":
        marks = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
        content = np.where(rng.random(shape) < 0.12, marks[rng.integers(0, len(marks), shape)], content)
    return np.asarray(content)


def _lay_out(rng: np.random.Generator, content: Array, layout: str) -> Array:
    """The same values (for "zero", their first slice along an axis repeated) in another layout."""
    rank = content.ndim
    if layout == "mixed":
        layout = str(rng.choice(LAYOUTS[1:-1]))
    if rank == 0 and layout != "unaligned":
        return content
    if layout == "F":
        return np.asfortranarray(content)
    if layout == "permuted":
        order = rng.permutation(rank)
        return np.ascontiguousarray(content.transpose(order)).transpose(np.argsort(order))
    if layout == "negative":
        turned = tuple(slice(None, None, -1 if rng.random() < 0.6 else 1) for _ in range(rank))
        return np.ascontiguousarray(content[turned])[turned]
    if layout == "stepped":
        steps = rng.integers(1, 4, rank)
        room = np.zeros([n * int(s) for n, s in zip(content.shape, steps, strict=True)], content.dtype)
        view = room[tuple(slice(None, None, int(s)) for s in steps)]
        view[...] = content
        return view
    if layout == "padded":
        before, after = rng.integers(0, 4, rank), rng.integers(0, 4, rank)
        room = np.zeros([n + int(b + a) for n, b, a in zip(content.shape, before, after, strict=True)], content.dtype)
        view = room[tuple(slice(int(b), int(b) + n) for b, n in zip(before, content.shape, strict=True))]
        view[...] = content
        return view
    if layout == "unaligned":
        room = np.zeros(content.nbytes + 1, np.uint8)
        view = room[1:].view(content.dtype).reshape(content.shape) if content.nbytes else content
        view[...] = content
        return view
    if layout == "zero":
        axis = int(rng.integers(rank))
        first = content.take([0], axis) if content.shape[axis] else content
        return np.broadcast_to(first, content.shape)
    return content
