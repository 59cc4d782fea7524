"""Constants with zeros that the user declared: stored blocks and where they stand, found once, instead of the matrix.

`W: const bsr(block=32)` and `M: const mask` say that zeros of the value are zeros of the program: what they multiply is
neither read nor counted, whatever it holds. The list of blocks that hold anything is taken from the array, and every
product with `W[i,j]` becomes one with W.blocks[s,a,b] at the rows W.rows[s] and columns W.columns[s] (`ir.lookup`).
For a mask, the block is the cheapest of a few; where the list would cost more than the dense product, the constant
stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..ir.expr import (
    Einsum,
    Equation,
    Expr,
    Input,
    Position,
    Program,
    Read,
    Softmax,
    reads,
    transform,
    walk,
)
from ..ir.index import Affine, Index
from ..ir.lookup import Lookup
from ..ir.semiring import PLUS_TIMES
from ..ir.size import Size
from ..ir.types import I64, dtype_of
from .tools import fresh_index, rebuilt

Array = np.ndarray[Any, Any]
BLOCKS = (64, 32, 16, 8, 4, 1)
PER_BLOCK = 12.0  # elements of a dense product that take as long as going to one more block


def store_blocks(program: Program, constants: Mapping[str, Array]) -> tuple[Program, dict[str, Array]]:
    """The program on the stored blocks of its declared sparse constants, and the constants with their lists."""
    known = dict(constants)
    for tensor in program.inputs:
        if tensor.name not in constants or constants[tensor.name].ndim != 2 or tensor.pad is not None:
            continue
        array = constants[tensor.name]
        block = _block_of(tensor, array)
        if block is not None:
            program, known = in_blocks(program, tensor.name, array, block, known)
    return program, known


def _block_of(tensor: Input, array: Array) -> tuple[int, int] | None:
    """The block in which a constant is stored; None where it is not declared sparse, or dense is cheaper."""
    for structure in tensor.structure:
        options = {k: v.constant for k, v in structure.options}
        if structure.name == "bsr" and "pad" not in options:
            sizes = [v.constant for k, v in structure.options if k == "block"]
            pair = (sizes[0], sizes[-1]) if sizes else (None, None)
            if pair[0] and pair[1]:
                return _cheapest(array, [(pair[0], pair[1])])
        if structure.name == "mask":
            return _cheapest(array, [(b, b) for b in BLOCKS])
    return None


def _cheapest(array: Array, blocks: list[tuple[int, int]]) -> tuple[int, int] | None:
    best: tuple[float, tuple[int, int]] | None = None
    for p, q in blocks:
        if array.size and not array.shape[0] % p and not array.shape[1] % q:
            price = len(block_list(array, (p, q))[0]) * (p * q + PER_BLOCK)
            if best is None or price < best[0]:
                best = price, (p, q)
    return best[1] if best is not None and best[0] < array.size else None


def block_list(array: Array, block: tuple[int, int]) -> tuple[Array, Array, Array]:
    """(block rows, block columns, blocks) of all blocks that hold anything but zeros, row by row.

    >>> rows, columns, blocks = block_list(np.eye(4), (2, 2))
    >>> rows, columns, blocks.shape
    (array([0, 1]), array([0, 1]), (2, 2, 2))
    """
    p, q = block
    grid = array.reshape(array.shape[0] // p, p, array.shape[1] // q, q)
    rows, columns = np.nonzero((grid != 0).any(axis=(1, 3)))
    return rows.astype(np.int64), columns.astype(np.int64), np.ascontiguousarray(grid[rows, :, columns])


def in_blocks(
    program: Program, name: str, array: Array, block: tuple[int, int], constants: Mapping[str, Array]
) -> tuple[Program, dict[str, Array]]:
    """The program with the constant `name` in stored blocks, and the constants with the lists; both unchanged where
    the constant is read in any way but as a factor `name[i,j]` of an ordinary product, once in each equation.
    """
    users = [e for e in program.equations if any(r.tensor == name for r in reads(e.expr)) or e.update == name]
    if name in program.outputs or not users or not all(_fits(e, name) for e in users):
        return program, dict(constants)
    rows, columns, blocks = block_list(array, block)
    count = Size.of(len(rows))
    names = tuple(f"{name}.{part}" for part in ("rows", "columns", "blocks"))
    dtype = dtype_of(array.dtype)
    shape = (count,) if block == (1, 1) else (count, Size.of(block[0]), Size.of(block[1]))
    values = rows, columns, blocks.reshape(len(rows)) if block == (1, 1) else blocks
    new = [Input(names[0], (count,), I64, const=True), Input(names[1], (count,), I64, const=True)]
    new.append(Input(names[2], shape, dtype, const=True))
    inputs = tuple(part for i in program.inputs for part in (new if i.name == name else [i]))
    equations = tuple(_in_blocks(e, name, block, count) if e in users else e for e in program.equations)
    known = {n: a for n, a in constants.items() if n != name} | dict(zip(names, values, strict=True))
    return replace(program, inputs=inputs, equations=equations), known


def _fits(equation: Equation, name: str) -> bool:
    found = [r for r in reads(equation.expr) if r.tensor == name]
    if len(found) != 1 or equation.update == name or any(isinstance(e, Softmax) for e in walk(equation.expr)):
        return False
    einsum = next(
        (e for e in walk(equation.expr) if isinstance(e, Einsum) and any(f is found[0] for f in e.factors)), None
    )
    i, j = (s.bare for s in found[0].slots)
    if einsum is None or einsum.semiring != PLUS_TIMES or i is None or j is None or i == j or found[0].pad is not None:
        return False
    return bool(einsum.bound)


def _in_blocks(equation: Equation, name: str, block: tuple[int, int], count: Size) -> Equation:
    """The equation with `name[i,j]` as a sum over stored blocks; i and j become a block number and a place in it."""
    (read,) = (r for r in reads(equation.expr) if r.tensor == name)
    extents = dict(equation.extents)
    s = fresh_index("s", extents)
    extents[s] = count
    values: dict[str, Affine] = {}
    halves: dict[str, tuple[str, ...]] = {}
    places, tests = [Affine.of(s)], []
    for slot, size, part in zip(read.slots, block, ("rows", "columns"), strict=True):
        index = slot.bare
        assert index is not None
        at = Read(f"{name}.{part}", (Affine.of(s),), I64)
        if block == (1, 1):
            tests.append(Lookup(index, at).factor)
            continue
        number, place = index, fresh_index(f"{index}_", extents)
        extents[place] = Size.of(size)
        extents[number] = equation.extents[index] // size
        values[index] = Affine.of(number) * size + Affine.of(place)
        halves[index] = (number, place)
        places.append(Affine.of(place))
        tests.append(Lookup(number, at).factor)
    stored = Read(f"{name}.blocks", tuple(places), read.dtype, None, read.span)

    def rule(e: Expr) -> Expr:
        match e:
            case Position():
                return replace(e, affine=e.affine.substitute(values))
            case Read() if e is not stored and not any(e is t.args[1] for t in tests):
                return replace(e, slots=tuple(a.substitute(values) for a in e.slots))
            case Einsum():
                bound = tuple(n for b in e.bound for n in halves.get(b, (b,)))
                if any(isinstance(f, Read) and f.tensor == name for f in e.factors):
                    factors = tuple(stored if isinstance(f, Read) and f.tensor == name else f for f in e.factors)
                    return replace(e, bound=(*bound, s), factors=(*factors, *tests))
                return replace(e, bound=bound)
        return e

    slots = tuple(a.substitute(values) for a in equation.slots)
    indices = tuple(Index(n, e) for n, e in extents.items())
    return rebuilt(replace(equation, indices=indices), transform(equation.expr, rule), extents, slots)
