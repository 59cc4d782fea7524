"""`check=True`: declared structure is verified on the values of each call.

A declaration is trusted otherwise: a structured product of an array that has not the structure is the product with
another matrix. Each rule looks at the last two axes of an array (the last one for `unit`, all for `mask`), once for
every place on the axes before. It gives the first entry that breaks the structure and the largest deviation, so that
the message can show what disagrees. NaN agrees with nothing but a NaN that must equal it.

Structure of values that are rounded (orthogonal, low rank, ...) is held to the rounding of their type: the bounds say
from what they come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..frontend.declare import AXES, SQUARE
from ..ir.errors import Source, StructureError
from ..ir.expr import Input, Program, Structure
from .operands import Array

Options = Mapping[str, tuple[int, ...]]  # the values of each option; a block per axis is two values
Partner = tuple[Array, Array]  # row and column of the entry that each entry must equal


def verify_structures(
    inputs: Sequence[Input], arrays: Sequence[Array], sizes: Mapping[str, int], source: Source
) -> None:
    """Check every declared structure of the arguments; `StructureError` shows the entries that break the first
    broken one.
    """
    for declared, array in zip(inputs, arrays, strict=True):
        for structure in declared.structure:
            complaint = complaint_of(declared.name, structure, array, sizes)
            if complaint:
                raise StructureError(
                    f"{declared.name} is declared {structure.name} but {complaint}",
                    code="structure-broken",
                    source=source,
                    spans=_spans(structure, declared),
                    help="pass an operand that has the structure, or leave the declaration out",
                )


def verify_constants(program: Program, constants: Mapping[str, Array]) -> None:
    """The same for constants, once; what a structure says in sizes that only a call gives is left out."""
    given = [i for i in program.inputs if i.name in constants]
    sizes: dict[str, int] = {}
    for declared in given:
        pairs = zip(declared.shape, constants[declared.name].shape, strict=True)
        sizes |= {size.single: n for size, n in pairs if size.single is not None}
    known = [
        replace(i, structure=tuple(s for s in i.structure if all(v.names <= sizes.keys() for _, v in s.options)))
        for i in given
    ]
    verify_structures(known, [constants[i.name] for i in known], sizes, program.source)


def complaint_of(name: str, structure: Structure, array: Array, sizes: Mapping[str, int]) -> str:
    """What keeps an array from having a structure, "" if it has it.

    >>> complaint_of("W", Structure("diag"), np.array([[1.0, 0.5], [0.0, 2.0]]), {})
    'W[0,1] = 0.5 is not 0 (largest deviation 0.5)'
    """
    options: dict[str, tuple[int, ...]] = {}
    for key, value in structure.options:
        options[key] = (*options.get(key, ()), value.evaluate(sizes))
    rule = _RULES.get(structure.name)
    if rule is None or not array.size:  # nothing is demanded, or of nothing
        return ""
    axes = AXES.get(structure.name, 2)
    if array.ndim < axes:
        return f"{name} has {array.ndim} axes"
    if structure.name in SQUARE and array.shape[-1] != array.shape[-2]:
        return f"{name} is {array.shape[-2]} x {array.shape[-1]}, not square"
    for lead in np.ndindex(*array.shape[: array.ndim - axes]) if axes else [()]:
        complaint = rule(_Named(name, lead), array[lead], options)
        if complaint:
            return complaint
    return ""


def _spans(structure: Structure, declared: Input) -> tuple[Any, ...]:
    return (structure.span,) if structure.span.end else (declared.span,) if declared.span.end else ()


class _Named:
    """How an entry of the array is written: its name and the place on the leading axes."""

    def __init__(self, name: str, lead: tuple[int, ...]) -> None:
        self.name, self.lead = name, lead

    def at(self, *place: int | str) -> str:
        """`W[0,1]`."""
        return f"{self.name}[{','.join(map(str, (*self.lead, *place)))}]"

    def __str__(self) -> str:
        return self.at(":", ":") if self.lead else self.name


# --- entries ----------------------------------------------------------------------------------------------------------


def _wrong_entry(name: _Named, array: Array, wrong: Array, what: str, deviation: Array) -> str:
    """The first wrong entry, and the largest deviation."""
    if not wrong.any():
        return ""
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"{name.at(*place)} = {array[place]} {what} ({_largest(deviation[wrong])})"


def _largest(deviation: Array) -> str:
    """The largest of some deviations, NaN only if all are."""
    known = deviation[~(deviation != deviation)]
    return f"largest deviation {float(known.max()) if known.size else float('nan'):.3g}"


def _distance(first: Array, second: Array) -> Array:
    """|first - second|, of integers without wrapping."""
    if first.dtype.kind in "iu":
        with np.errstate(over="ignore"):
            a, b = first.astype(np.uint64), second.astype(np.uint64)  # two's complement: the difference is exact
            return np.asarray(np.where(first > second, a - b, b - a))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.abs(_wide(first) - _wide(second)))


def _wide(array: Array) -> Array:
    """The values in float64 or complex128."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _eps(array: Array) -> float:
    """The spacing of the array's numbers near 1; 0 for integers and bool, which are exact."""
    if array.dtype.kind in "iub":
        return 0.0
    return float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else 2.0**-7  # bfloat16


# --- equal entries ----------------------------------------------------------------------------------------------------


def _equal_to(partner: Callable[[Array, Array, tuple[int, int]], Partner]) -> Callable[[_Named, Array, Options], str]:
    """The rule that each entry equals its partner."""

    def rule(name: _Named, array: Array, options: Options) -> str:
        rows, cols = (np.asarray(k) for k in np.indices(array.shape))
        other = partner(rows, cols, (array.shape[0], array.shape[1]))
        wanted = array[other]
        wrong = (array != wanted) & ~((array != array) & (wanted != wanted))
        if not wrong.any():
            return ""
        i, j = (int(k) for k in np.argwhere(wrong)[0])
        p, q = int(other[0][i, j]), int(other[1][i, j])
        deviation = _largest(_distance(array, wanted)[wrong])
        return f"{name.at(i, j)} = {array[i, j]} differs from {name.at(p, q)} = {array[p, q]} ({deviation})"

    return rule


def _toeplitz(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    return np.maximum(rows - cols, 0), np.maximum(cols - rows, 0)


def _hankel(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    first = np.minimum(rows + cols, shape[0] - 1)
    return first, rows + cols - first


def _circulant(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    return (rows - cols) % shape[0], np.zeros_like(cols)


def _symmetric(rows: Array, cols: Array, shape: tuple[int, int]) -> Partner:
    return np.minimum(rows, cols), np.maximum(rows, cols)


# --- entries that are 0 -----------------------------------------------------------------------------------------------


def _zero_outside(inside: Callable[[Array, Array, Options], Array]) -> Callable[[_Named, Array, Options], str]:
    """The rule that entries outside of a support are 0."""

    def rule(name: _Named, array: Array, options: Options) -> str:
        rows, cols = (np.asarray(k) for k in np.indices(array.shape))
        wrong = ~inside(rows, cols, options) & (array != 0)
        return _wrong_entry(name, array, wrong, "is not 0", _distance(array, np.zeros_like(array)))

    return rule


def _in_band(rows: Array, cols: Array, options: Options) -> Array:
    below, above = (options.get(side, (0,))[0] for side in ("lo", "hi"))
    return np.asarray((rows - cols <= below) & (cols - rows <= above))


def _in_blocks(rows: Array, cols: Array, options: Options) -> Array:
    block = options.get("block", (1,))
    return np.asarray(rows // block[0] == cols // block[-1])


# --- values -----------------------------------------------------------------------------------------------------------


def _mask(name: _Named, array: Array, options: Options) -> str:
    wrong = (array != 0) & (array != 1)
    nearest = np.minimum(_distance(array, np.zeros_like(array)), _distance(array, np.ones_like(array)))
    return _wrong_entry(name, array, wrong, "is neither 0 nor 1", nearest)


def _permutation(name: _Named, array: Array, options: Options) -> str:
    complaint = _mask(name, array, options)
    for axis, line in ((1, "row"), (0, "column")):
        counts = (array != 0).sum(axis=axis)
        if not complaint and (counts != 1).any():
            k = int(np.argmax(counts != 1))
            worst = int(np.abs(counts - 1).max())
            complaint = f"{line} {k} of {name} has {counts[k]} entries that are not 0 (largest deviation {worst})"
    return complaint


def _finite(name: _Named, array: Array) -> str:
    """A complaint about the first entry that is NaN or infinite: the values have no norm, rank or spectrum."""
    wrong = ~np.isfinite(_wide(array))
    return _wrong_entry(name, array, wrong, "is not finite", np.full(array.shape, np.nan))


def _gram_error(array: Array, scale: float) -> tuple[int, int, float]:
    """Where and by how much A A* differs most from `scale` times the identity (A* A for a tall A)."""
    exact = _wide(array)
    exact = exact if array.shape[0] <= array.shape[1] else exact.T
    gram = np.abs(np.matmul(exact, exact.conj().T) - scale * np.eye(len(exact)))
    i, j = np.unravel_index(int(gram.argmax()), gram.shape)
    return int(i), int(j), float(gram[i, j])


def _orthogonal(name: _Named, array: Array, options: Options) -> str:
    # A row of length 1, off by the rounding of its n entries (and of the n steps that made it orthogonal), has inner
    # products off by 2 n eps in all; twice that leaves room for the sums here.
    error = _finite(name, array)
    if error:
        return error
    i, j, deviation = _gram_error(array, 1.0)
    line = "rows" if array.shape[0] <= array.shape[1] else "columns"
    if deviation <= 4 * max(array.shape) * _eps(array):
        return ""
    what = (
        f"{line[:-1]} {i} of {name} has not length 1" if i == j else f"{line} {i} and {j} of {name} are not orthogonal"
    )
    return f"{what} (largest deviation {deviation:.3g})"


def _hadamard(name: _Named, array: Array, options: Options) -> str:
    wrong = np.abs(_wide(array)) != 1
    off = np.abs(np.abs(_wide(array)) - 1)
    complaint = _wrong_entry(name, array, wrong, "is neither 1 nor -1", off)
    n = len(array)
    if complaint:
        return complaint
    if n & (n - 1):
        i, j, deviation = _gram_error(array, n)
        return f"rows {i} and {j} of {name} are not orthogonal (largest deviation {deviation:.3g})" if deviation else ""
    wanted = sylvester(n)
    wrong = _wide(array) != wanted
    if not wrong.any():
        return ""
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    return _wrong_entry(name, array, wrong, f"is {wanted[place]:g} in Sylvester's matrix", _distance(array, wanted))


def sylvester(n: int) -> Array:
    """Sylvester's matrix for a power of two: (-1) to the number of binary digits that row and column share.

    >>> sylvester(2).astype(int).tolist()
    [[1, 1], [1, -1]]
    """
    both = np.arange(n)[:, None] & np.arange(n)
    odd = np.zeros_like(both)
    while both.any():
        odd ^= both & 1
        both >>= 1
    return np.asarray(1.0 - 2.0 * odd)


def _vandermonde(name: _Named, array: Array, options: Options) -> str:
    nodes = array[:, 1:2] if array.shape[1] > 1 else np.zeros_like(array)
    exact = array.dtype.kind in "iub"
    base = nodes if exact and array.dtype.kind != "b" else _wide(nodes)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = base ** np.arange(array.shape[1], dtype=base.dtype if exact else np.int64)
        # A power made by j-1 products is off by (j-1) eps/2, this one by about eps/2 for a node that is itself exact.
        near = np.abs(_wide(array) - wanted) <= array.shape[1] * _eps(array) * np.abs(wanted)
    wrong = ~(near | (array == wanted.astype(array.dtype)))
    what = "is not that power of its row's entry in column 1"
    return _wrong_entry(name, array, wrong, what, _distance(_wide(array), _wide(wanted)))


def _low_rank(name: _Named, array: Array, options: Options) -> str:
    complaint = _finite(name, array)
    rank = options.get("r", (min(array.shape),))[0]
    if complaint or rank >= min(array.shape):
        return complaint
    values = np.linalg.svd(_wide(array), compute_uv=False)
    bound = _rank_tolerance(array) * values[0]
    found = int((values > bound).sum())
    if found <= rank:
        return ""
    return f"the rank of {name} is {found}, more than {rank} (largest deviation {values[rank]:.3g})"


def _rank_tolerance(array: Array) -> float:
    """What is left of a zero singular value, relative to the largest: entries rounded, and an SVD in float64."""
    return float(max(array.shape) * max(_eps(array), float(np.finfo(float).eps)))


def _monarch(name: _Named, array: Array, options: Options) -> str:
    block = options.get("b", (1,))[0]
    if block < 1 or array.shape[0] % block or array.shape[1] % block:
        return f"the shape {array.shape} of {name} is no multiple of {block}"
    complaint = _finite(name, array)
    if complaint:
        return complaint
    tiles = array.reshape(array.shape[0] // block, block, block, array.shape[1] // block).transpose(1, 2, 0, 3)
    values = np.linalg.svd(_wide(tiles), compute_uv=False)
    if values.shape[-1] < 2:
        return ""
    wrong = values[..., 1] > _rank_tolerance(array) * values[..., 0]
    if not wrong.any():
        return ""
    j, k = (int(v) for v in np.argwhere(wrong)[0])
    deviation = float(values[..., 1].max())
    return f"block ({j},{k}) of {name}, rows {j} mod {block}, has rank 2 or more (largest deviation {deviation:.3g})"


def _psd(name: _Named, array: Array, options: Options) -> str:
    complaint = _finite(name, array)
    if complaint:
        return complaint
    wide = _wide(array)
    skew = np.abs(wide - wide.conj().T)
    wrong = skew > len(array) * _eps(array) * np.abs(wide).max()  # the two were made by different sums
    if wrong.any():
        i, j = (int(k) for k in np.argwhere(wrong)[0])
        return f"{name.at(i, j)} = {array[i, j]} differs from {name.at(j, i)} = {array[j, i]} ({_largest(skew)})"
    least, most = (float(v) for v in np.linalg.eigvalsh(wide)[[0, -1]])
    # Rounding its entries moves an eigenvalue of an n x n matrix by at most n eps/2 times the largest entry.
    if least >= -_rank_tolerance(array) * max(abs(least), abs(most)):
        return ""
    return f"{name} has the eigenvalue {least:.3g} (largest deviation {-least:.3g})"


def _doubly_stochastic(name: _Named, array: Array, options: Options) -> str:
    wide = _wide(array).real
    complaint = _wrong_entry(name, array, ~(wide >= 0), "is negative", np.abs(wide))
    for axis, line in ((1, "row"), (0, "column")):
        sums = wide.sum(axis=axis)
        off = np.abs(sums - 1)
        wrong = ~(off <= 2 * array.shape[axis] * _eps(array))  # n entries and their normalisation, each rounded
        if not complaint and wrong.any():
            k = int(np.argmax(wrong))
            complaint = f"{line} {k} of {name} adds up to {sums[k]:.6g} ({_largest(off)})"
    return complaint


def _unit(name: _Named, array: Array, options: Options) -> str:
    length = float(np.linalg.norm(_wide(array)))
    if abs(length - 1) <= (len(array) + 2) * _eps(array):  # n entries rounded after a division by the length
        return ""
    vector = name.at(":") if name.lead else name.name
    return f"{vector} has length {length:.6g} (largest deviation {abs(length - 1):.3g})"


_RULES: dict[str, Callable[[_Named, Array, Options], str]] = {
    "diag": _zero_outside(lambda i, j, o: np.asarray(i == j)),
    "lower": _zero_outside(lambda i, j, o: np.asarray(i >= j)),
    "upper": _zero_outside(lambda i, j, o: np.asarray(i <= j)),
    "banded": _zero_outside(_in_band),
    "blockdiag": _zero_outside(_in_blocks),
    "toeplitz": _equal_to(_toeplitz),
    "hankel": _equal_to(_hankel),
    "circulant": _equal_to(_circulant),
    "symmetric": _equal_to(_symmetric),
    "mask": _mask,
    "permutation": _permutation,
    "orthogonal": _orthogonal,
    "hadamard": _hadamard,
    "vandermonde": _vandermonde,
    "lowrank": _low_rank,
    "monarch": _monarch,
    "psd": _psd,
    "doubly_stochastic": _doubly_stochastic,
    "unit": _unit,
}
