"""The executor as machine code: runs the calls of a record block on buffers (text for `native_ir.translate`).

Holds no lock and calls no Python, so the dispatcher may give up the interpreter lock around `run`. Workspaces belong
to the executing thread and are kept between runs up to `env(KEEP_BYTES)`, because the first touch of fresh memory is
slow.
"""

from __future__ import annotations

from .native_ir import env, load64, store64
from .native_words import (
    ARGS,
    CALL_HEAD,
    CALLS,
    CALLS_AT,
    COUNT,
    OPERANDS,
    OUTPUTS,
    POINTERS,
    SCRATCH_BYTES,
    SCRATCHES,
    SHARES,
    TEMPORARIES,
    THREADS,
    WORKSPACE,
)
from .native_workspace import reserve, thread_cells, trim
from .pool_program import region, share


def run_call(at: int, table: int, cells: int) -> int:
    """Run one call, shared among threads where that pays; 1 if there was no memory."""
    count = load64(at + 8 * COUNT)
    if count <= 0:
        return 0
    shares = load64(at + 8 * SHARES)
    if shares > 1:
        threads = env(THREADS)
        shares = shares if shares < threads else threads
        if shares > 1 and region(at, table, shares) != 0:
            return 0
    scratch = 0
    size = load64(at + 8 * SCRATCH_BYTES)
    if size > 0:
        scratch = reserve(cells + 16, size)
        if scratch == 0:
            return 1
    share(at, table, scratch, 0, count)
    return 0


def run(block: int, table: int) -> int:
    """Run all calls of a record. `table` holds the addresses of operands and outputs and room for one more word.

    Returns 0, or 1 if there was no memory (the outputs are then unspecified).
    """
    cells = 0
    if load64(block + 8 * WORKSPACE) != 0:
        cells = thread_cells()
        if cells == 0:
            return 1
    size = load64(block + 8 * TEMPORARIES)
    if size > 0:
        base = reserve(cells, size)
        if base == 0:
            return 1
        store64(table + 8 * (load64(block + 8 * OPERANDS) + load64(block + 8 * OUTPUTS)), base)
    at = block + load64(block + 8 * CALLS_AT)
    left = load64(block + 8 * CALLS)
    failed = 0
    while left > 0 and failed == 0:
        failed = run_call(at, table, cells)
        left -= 1
        length = CALL_HEAD + load64(at + 8 * ARGS) + 3 * load64(at + 8 * POINTERS) + 2 * load64(at + 8 * SCRATCHES)
        at += 8 * length
    if cells != 0:
        trim(cells)
        trim(cells + 16)
    return failed
