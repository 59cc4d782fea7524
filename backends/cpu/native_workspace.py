"""Workspaces as machine code: page-aligned memory kept between runs (text for `native_ir.translate`).

A cell is two words, (address, size). Each thread that runs records has two of them, for temporaries and for scratch,
which are freed when the thread ends; the pool has one for each worker.
"""

from __future__ import annotations

from .native_ir import address_of, call, env, load64, low32, store64
from .native_words import (
    ALIGNED,
    CALLOC,
    FREE,
    GET_SPECIFIC,
    HUGE_ADVICE,
    HUGE_PAGE,
    KEEP_BYTES,
    MADVISE,
    PAGE,
    SET_SPECIFIC,
    SPECIFIC_KEY,
)


def release(cell: int) -> None:
    """Free the workspace of a cell (address, size)."""
    call(env(FREE), load64(cell))
    store64(cell, 0)
    store64(cell + 8, 0)


def trim(cell: int) -> None:
    """Free the workspace of a cell if it is larger than is kept."""
    if load64(cell + 8) > env(KEEP_BYTES):
        release(cell)


def reserve(cell: int, size: int) -> int:
    """The page-aligned workspace of a cell, grown to `size` > 0 bytes; 0 if there is no memory. Contents are lost."""
    if load64(cell + 8) >= size:
        return load64(cell)
    release(cell)
    unit = HUGE_PAGE if size >= 2 * HUGE_PAGE else PAGE
    rounded = (size + unit - 1) & -unit
    if rounded < size or low32(call(env(ALIGNED), cell, unit, rounded)) != 0:
        store64(cell, 0)
        return 0
    if unit == HUGE_PAGE and env(MADVISE) != 0:
        call(env(MADVISE), load64(cell), rounded, HUGE_ADVICE)
    store64(cell + 8, rounded)
    return load64(cell)


def thread_cells() -> int:
    """The two workspace cells of this thread, temporaries then scratch; 0 if there is no memory."""
    cells = call(env(GET_SPECIFIC), env(SPECIFIC_KEY))
    if cells == 0:
        cells = call(env(CALLOC), 4, 8)
        if cells != 0 and low32(call(env(SET_SPECIFIC), env(SPECIFIC_KEY), cells)) != 0:
            call(env(FREE), cells)
            return 0
    return cells


def drop_cells(cells: int) -> int:
    """What happens to them when the thread ends."""
    release(cells)
    release(cells + 16)
    call(env(FREE), cells)
    return 0


def cells_destructor() -> int:
    """The address of `drop_cells`, for the key of the thread's own memory."""
    return address_of(drop_cells)
