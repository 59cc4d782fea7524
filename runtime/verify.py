"""`check=True`: declared structure is verified on the values of each call.

A declaration is trusted otherwise. Each rule gives the value that the structure demands at every position, and where
that value comes from, so that the message can show two entries that disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.errors import Source, StructureError
from ..ir.expr import Input, Structure
from .operands import Array

Options = Mapping[str, int]
Partner = tuple[Array, Array]  # row and column of the entry that each entry must equal


def verify_structures(
    inputs: Sequence[Input], arrays: Sequence[Array], sizes: Mapping[str, int], source: Source
) -> None:
    """Check every declared structure of the arguments; `StructureError` shows the entries that break the first
    broken one.
    """
    for declared, array in zip(inputs, arrays, strict=True):
        for structure in declared.structure:
            options = {k: v.evaluate(sizes) for k, v in structure.options}
            complaint = _complaint(declared.name, structure.name, options, array)
            if complaint:
                raise StructureError(
                    f"{declared.name} is declared {structure.name} but {complaint}",
                    code="structure-broken",
                    source=source,
                    spans=_spans(structure, declared),
                    help="pass an operand that has the structure, or leave the declaration out",
                )


def _spans(structure: Structure, declared: Input) -> tuple[Any, ...]:
    return (structure.span,) if structure.span.end else (declared.span,) if declared.span.end else ()


def _complaint(name: str, structure: str, options: Options, array: Array) -> str:
    """What is wrong, or nothing."""
    if structure in _PARTNERS:
        return _differing(name, array, _PARTNERS[structure])
    if structure in _SUPPORTS:
        rows, cols = (np.asarray(k) for k in np.indices(array.shape))
        outside = ~_SUPPORTS[structure](rows, cols, options) & (array != 0)
        return _entry(name, array, outside, "is not 0") if outside.any() else ""
    if structure in _VALUES:
        return _VALUES[structure](name, array, options)
    return ""


def _entry(name: str, array: Array, wrong: Array, what: str) -> str:
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"{name}[{','.join(map(str, place))}] = {array[place]} {what}"


def _differing(name: str, array: Array, partner: Callable[[Array, Array, tuple[int, int]], Partner]) -> str:
    rows, cols = (np.asarray(k) for k in np.indices(array.shape))
    other = partner(rows, cols, (array.shape[0], array.shape[1]))
    wanted = array[other]
    wrong = (array != wanted) & ~((array != array) & (wanted != wanted))
    if not wrong.any():
        return ""
    i, j = (int(k) for k in np.argwhere(wrong)[0])
    p, q = int(other[0][i, j]), int(other[1][i, j])
    deviation = np.abs(array.astype(complex if array.dtype.kind == "c" else float) - wanted).max()
    first, second = f"{name}[{i},{j}] = {array[i, j]}", f"{name}[{p},{q}] = {array[p, q]}"
    return f"{first} differs from {second} (largest deviation {deviation:.3g})"


def _toeplitz(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    return np.maximum(rows - cols, 0), np.maximum(cols - rows, 0)


def _hankel(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    first = np.minimum(rows + cols, shape[0] - 1)
    return first, rows + cols - first


def _circulant(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    return (rows - cols) % shape[0], np.zeros_like(cols)


def _symmetric(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    return np.minimum(rows, cols), np.maximum(rows, cols)


_PARTNERS = {"toeplitz": _toeplitz, "hankel": _hankel, "circulant": _circulant, "symmetric": _symmetric}
_SUPPORTS: dict[str, Callable[[Array, Array, Options], Array]] = {
    "diag": lambda i, j, o: i == j,
    "lower": lambda i, j, o: i >= j,
    "upper": lambda i, j, o: i <= j,
    "banded": lambda i, j, o: (i - j <= o.get("lo", 0)) & (j - i <= o.get("hi", 0)),
    "blockdiag": lambda i, j, o: i // o.get("block", 1) == j // o.get("block", 1),
}


def _mask(name: str, array: Array, options: Options) -> str:
    wrong = (array != 0) & (array != 1)
    return _entry(name, array, wrong, "is neither 0 nor 1") if wrong.any() else ""


def _permutation(name: str, array: Array, options: Options) -> str:
    complaint = _mask(name, array, options)
    for axis, line in ((1, "row"), (0, "column")):
        counts = (array != 0).sum(axis=axis)
        if not complaint and (counts != 1).any():
            k = int(np.argmax(counts != 1))
            complaint = f"{line} {k} has {counts[k]} entries that are not 0"
    return complaint


def _gram_error(array: Array, scale: float) -> float:
    exact = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    gram = np.matmul(exact, exact.conj().T)
    return float(np.abs(gram - scale * np.eye(len(gram))).max()) if gram.size else 0.0


def _orthogonal(name: str, array: Array, options: Options) -> str:
    # Rows rounded to the type's precision: each of the n products of an inner product is off by at most 2 eps of 1/n
    # on average.
    bound = 4 * array.shape[1] * float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else 0.0
    error = _gram_error(array, 1.0)
    return f"{name} {name}' differs from the identity by {error:.3g}" if not error <= bound else ""


def _hadamard(name: str, array: Array, options: Options) -> str:
    wrong = np.abs(array.astype(float)) != 1
    if wrong.any():
        return _entry(name, array, wrong, "is neither 1 nor -1")
    return "its rows are not orthogonal" if _gram_error(array, array.shape[1]) else ""


def _vandermonde(name: str, array: Array, options: Options) -> str:
    if array.shape[1] < 2:
        return ""
    wanted = array[:, 1:2] ** np.arange(array.shape[1])
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else 0.0
    wrong = ~(np.abs(array - wanted) <= array.shape[1] * eps * np.abs(wanted))
    return _entry(name, array, wrong, "is not that power of its row's entry in column 1") if wrong.any() else ""


def _low_rank(name: str, array: Array, options: Options) -> str:
    rank = int(
        np.linalg.matrix_rank(
            array.astype(np.complex128 if array.dtype.kind == "c" else np.float64), rtol=_tolerance(array)
        )
    )
    return f"its rank is {rank}, more than {options['r']}" if rank > options.get("r", rank) else ""


def _monarch(name: str, array: Array, options: Options) -> str:
    block = options.get("b", 1)
    if array.shape[0] % block or array.shape[1] % block:
        return f"its shape {array.shape} is no multiple of {block}"
    tiles = array.reshape(array.shape[0] // block, block, block, array.shape[1] // block).transpose(1, 2, 0, 3)
    values = np.linalg.svd(tiles.astype(np.complex128 if array.dtype.kind == "c" else np.float64), compute_uv=False)
    if values.shape[-1] < 2:
        return ""
    wrong = values[..., 1] > _tolerance(array) * np.maximum(values[..., 0], np.finfo(float).tiny)
    if not wrong.any():
        return ""
    k, j = (int(v) for v in np.argwhere(wrong)[0])
    return f"block ({k},{j}) of its permuted form is not of rank 1"


def _tolerance(array: Array) -> float:
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else float(np.finfo(float).eps)
    return float(max(array.shape) * eps)


_VALUES: dict[str, Callable[[str, Array, Options], str]] = {
    "mask": _mask,
    "permutation": _permutation,
    "orthogonal": _orthogonal,
    "hadamard": _hadamard,
    "vandermonde": _vandermonde,
    "lowrank": _low_rank,
    "monarch": _monarch,
}
