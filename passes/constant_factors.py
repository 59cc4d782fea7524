"""Constants with declared structure that needs a look at the values: low rank and Monarch matrices.

`W: const lowrank(r=4)` is a product of two factors that nobody wrote down. They are found once, at compile time, and
checked: where the product of the factors is W up to the rounding of its type, W becomes the value of an equation in
front of the program, over the factors as constants, and everything else (order of contraction, recognition, choice)
goes on from there. Where it is not, or where factors would be no smaller, W stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ir.expr import Einsum, Equation, Expr, Input, Program, Read, reads, transform
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES
from ..ir.size import Size
from ..ir.types import accumulation_type
from .declared import options_of
from .tools import Names

Array = np.ndarray[Any, Any]
OVERSAMPLE = 8  # random directions beyond the rank, so that the range is found with certainty (Halko et al., 2011)


@dataclass(frozen=True)
class Factors:
    """W as a sum of products: W[slots] = the sum over the other indices of the factors, each read at its indices.

    `parts` are (suffix, array, indices).
    """

    extents: Mapping[str, int]
    slots: tuple[Affine, Affine]
    parts: tuple[tuple[str, Array, tuple[str, ...]], ...]


def with_factors(program: Program, constants: Mapping[str, Array]) -> tuple[Program, dict[str, Array]]:
    """The program in which such constants stand as products of factors, and the constants with the factors.

    Only matrices of known shape that equations of plus and times read are taken apart.

    >>> from ..ir.text import parse_ir
    >>> text = "input const W: f64[6, 6] lowrank(r=1)\\ninput x: f64[6]\\n"
    >>> product = "y[i]: f64[6] = einsum[plustimes, f64](j; W[i, j], x[j]) over i<6, j<6\\nreturn y"
    >>> made, constants = with_factors(parse_ir(text + product), {"W": np.ones((6, 6))})
    >>> sorted(constants)
    ['W', 'W.left', 'W.right']
    """
    names, found = Names(program), dict(constants)
    for tensor in program.inputs:
        factors = _factors(tensor, found.get(tensor.name), program)
        if factors is not None:
            program = _in_front(program, tensor, factors, names, found)
    return program, found


def _factors(tensor: Input, array: Array | None, program: Program) -> Factors | None:
    if array is None or array.ndim != 2 or not array.size or tensor.pad is not None or tensor.name in program.outputs:
        return None
    if any(s.constant is None for s in tensor.shape) or array.dtype.kind not in "fc":
        return None
    readers = [e for e in program.equations if any(r.tensor == tensor.name for r in reads(e.expr))]
    if any(e.semiring != PLUS_TIMES or e.update == tensor.name for e in readers) or not np.isfinite(array).all():
        return None
    kinds = options_of(tensor.structure, {})
    for name, rule in _RULES.items():
        if name in kinds:
            return rule(array, {k: v[-1] for k, v in kinds[name].items()})
    return None


def _in_front(program: Program, tensor: Input, factors: Factors, names: Names, constants: dict[str, Array]) -> Program:
    """The program with the equation of the product, which all equations read instead of the constant."""
    inputs, terms = [], list[Expr]()

    for suffix, array, at in factors.parts:
        name = names.fresh(f"{tensor.name}.{suffix}")
        inputs.append(Input(name, tuple(map(Size.of, array.shape)), tensor.dtype, (), True, span=tensor.span))
        constants[name] = np.ascontiguousarray(array.astype(tensor.dtype.numpy))
        terms.append(Read(name, tuple(map(Affine.of, at)), tensor.dtype))
    free = {i for s in factors.slots for i in s.indices}
    bound = tuple(i for i in factors.extents if i not in free)
    total = Einsum(bound, tuple(terms), tensor.dtype, accumulation_type(tensor.dtype))
    made = names.fresh(f"{tensor.name}.product")
    indices = tuple(Index(i, Size.of(n)) for i, n in factors.extents.items())
    equation = Equation(made, factors.slots, tensor.shape, indices, total, tensor.dtype, span=tensor.span)

    def rule(e: Expr) -> Expr:
        return replace(e, tensor=made) if isinstance(e, Read) and e.tensor == tensor.name else e

    equations = tuple(replace(e, expr=transform(e.expr, rule)) for e in program.equations)
    return replace(program, inputs=(*program.inputs, *inputs), equations=(equation, *equations))


# --- rules ------------------------------------------------------------------------------------------------------------


def _tolerance(array: Array) -> float:
    """How far a product of factors may be from the array, relative to its norm: the rounding of each entry, in each
    of the sums over rows or columns that made the factors.
    """
    return float(max(array.shape) * np.finfo(array.dtype).eps)


def _low_rank(array: Array, options: Mapping[str, int]) -> Factors | None:
    """U V from the range of W: an orthonormal basis of W times random vectors, cut to the rank."""
    (n, m), rank = array.shape, options.get("r", 0)
    if not 0 < rank * (n + m) < n * m:
        return None
    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    directions = np.random.default_rng(0).standard_normal((m, min(rank + OVERSAMPLE, n, m)))
    basis, _ = np.linalg.qr(wide @ directions)
    left, values, right = np.linalg.svd(basis.conj().T @ wide, full_matrices=False)
    u, v = basis @ left[:, :rank], values[:rank, None] * right[:rank]
    u, v = u.astype(array.dtype), v.astype(array.dtype)
    if np.linalg.norm(wide - u.astype(wide.dtype) @ v.astype(wide.dtype)) > _tolerance(array) * np.linalg.norm(wide):
        return None
    extents = {"i": n, "j": m, "r": rank}
    slots = Affine.of("i"), Affine.of("j")
    return Factors(extents, slots, (("left", u, ("i", "r")), ("right", v, ("r", "j"))))


def _monarch(array: Array, options: Mapping[str, int]) -> Factors | None:
    """W[(l j),(k i)] = L[j,l,k] R[j,k,i]: of each block (j, k), its largest column and the row that goes with it."""
    (n, m), b = array.shape, options.get("b", 0)
    if b < 1 or n % b or m % b or b * (n + m) >= n * m:
        return None
    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    tiles = wide.reshape(n // b, b, b, m // b).transpose(1, 2, 0, 3)  # j, k, l, i
    largest = np.linalg.norm(tiles, axis=2).argmax(axis=-1)
    left = np.take_along_axis(tiles, largest[:, :, None, None], axis=3)[..., 0]
    norm = (np.abs(left) ** 2).sum(axis=-1, keepdims=True)
    right = np.einsum("jkl,jkli->jki", left.conj(), tiles) / np.where(norm == 0, 1, norm)
    left, right = left.transpose(0, 2, 1).astype(array.dtype), right.astype(array.dtype)
    product = np.einsum("jlk,jki->ljki", left.astype(wide.dtype), right.astype(wide.dtype)).reshape(n, m)
    if np.linalg.norm(wide - product) > _tolerance(array) * np.linalg.norm(wide):
        return None
    extents = {"l": n // b, "j": b, "k": b, "i": m // b}
    slots = Affine.of("l") * b + Affine.of("j"), Affine.of("k") * (m // b) + Affine.of("i")
    return Factors(extents, slots, (("outer", left, ("j", "l", "k")), ("inner", right, ("j", "k", "i"))))


_RULES: dict[str, Callable[[Array, Mapping[str, int]], Factors | None]] = {
    "lowrank": _low_rank,
    "monarch": _monarch,
}
