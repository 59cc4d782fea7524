"""Long sums with few results, in two kernels: sums of chunks, and the sum of those.

One program can sum at a small part of the speed of memory. Where an equation has too few results to keep every
processor busy, one of its summed indices is cut into chunks, whose sums are stored beside one another and then summed;
what follows the sum is left to the second kernel. The order is fixed, so a result is the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ...ir.expr import Einsum, Equation, Read, free_indices, transform, walk
from ...ir.index import Affine, Index
from ...ir.lookup import split_lookups
from ...ir.size import Size
from .choose import Chunk, Settings, choose
from .views import Layout, Views

PROGRAMS = 4  # for each processor, so that all finish at about the same time
LEAST_WORK = 1 << 14  # points that are worth a program of their own
LEAST_CHUNKS = 4  # from which on they make up for a second kernel
LEAST_STEPS = 8  # of a loop of `tl.dot`, whose pipeline must fill


def chunk_of(
    equation: Equation, sizes: Mapping[str, int], layouts: Mapping[str, Layout], settings: Settings, programs: int
) -> Chunk | None:
    """How the sum of an equation, which `programs` would compute in one kernel, is cut; None if it need not be."""
    einsum = next((e for e in walk(equation.expr) if isinstance(e, Einsum)), None)
    wanted = PROGRAMS * settings.processors // max(1, programs)
    if einsum is None or wanted < 2 or any(i.extent.evaluate(sizes) == 0 for i in equation.indices):
        return None
    looked = {found.index for found in split_lookups(einsum.factors)[0]}
    axes = Views(equation, sizes, layouts).axes
    best: tuple[int, Chunk] | None = None
    for index in einsum.bound:
        extent = equation.extents[index].evaluate(sizes)
        if index in looked or extent < 2:
            continue
        chosen = choose(equation, sizes, layouts, settings, Chunk(index))
        blocks = dict(chosen.blocks)
        block = blocks[axes[index]]
        steps = -(-extent // block)
        beside = {axes[n] for n in einsum.bound}
        results = prod(b for a, b in blocks.items() if a not in beside)  # of a program
        others = prod(equation.extents[n].evaluate(sizes) for n in einsum.bound if n != index)
        least = LEAST_STEPS if chosen.dot else -(-LEAST_WORK // (block * others * results))
        each = max(-(-steps // wanted), least)
        chunks = -(-steps // each)
        if chunks >= LEAST_CHUNKS and (best is None or chunks > best[0]):
            number = index + "_chunk"
            while number in equation.extents:
                number += "_"
            best = (chunks, Chunk(index, number, each * block))
    return None if best is None else best[1]


def in_chunks(equation: Equation, chunk: Chunk, sizes: Mapping[str, int]) -> tuple[Equation, Equation]:
    """(the sums of the chunks, the equation as a sum of these).

    >>> from ...ir.text import parse_ir
    >>> text = "input x: f32[n]\\ny: f32 = einsum[plustimes, f32](i; x[i]) over i<n\\nreturn y"
    >>> first, second = in_chunks(parse_ir(text).equations[0], Chunk("i", "c", 4096), {"n": 10000})
    >>> first.name, [str(s) for s in first.shape], second.expr.bound
    ('y.chunks', ['3'], ('c',))
    """
    einsum = next(e for e in walk(equation.expr) if isinstance(e, Einsum))
    count = Index(chunk.number, Size.of(-(-equation.extents[chunk.index].evaluate(sizes) // chunk.length)))
    used = set(free_indices(einsum))
    free = tuple(n for n in equation.free if n in used)
    slots = (Affine.of(count.name), *(Affine.of(n) for n in free))
    extents = equation.extents
    first = Equation(
        f"{equation.name}.chunks",
        slots,
        (count.extent, *(extents[n] for n in free)),
        (*(i for i in equation.indices if i.name in {*free, *einsum.bound}), count),
        replace(einsum, dtype=einsum.accumulate),
        einsum.accumulate,
        einsum.semiring,
    )
    read = Read(first.name, slots, first.dtype)
    total = replace(einsum, bound=(count.name,), factors=(read,))
    indices = (*(i for i in equation.indices if i.name not in einsum.bound), count)
    rest = transform(equation.expr, lambda e: total if isinstance(e, Einsum) else e)
    return first, replace(equation, expr=rest, indices=indices)
