"""Calls of compiled kernels: what the scheduler hands to the executor, in words that need no Python at run time.

A kernel is `void kernel(int64 *args, int64 lo, int64 hi)`. `args` is a block of 64-bit words: addresses, extents,
strides, tables. A `Call` holds the block with the addresses left open: `pointers` says which word is which buffer.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """One call of a kernel. Shares lo..hi of 0..`count` write disjoint parts of the output, so any split gives the
    same bits.

    `pointers` are (word, buffer, byte offset): args[word] = address of the buffer + offset. `scratch` are (word,
    bytes): a 64-byte aligned (4096 where larger than a page) private workspace for each executing thread. `work`
    estimates the nanoseconds of the whole call on one core, for the decision to share it among threads. `keep` holds
    what must stay alive.
    """

    address: int
    args: tuple[int, ...]
    pointers: tuple[tuple[int, int, int], ...]
    scratch: tuple[tuple[int, int], ...]
    count: int
    work: float
    name: str = ""
    family: str = ""
    keep: tuple[object, ...] = field(default=(), compare=False, repr=False)
