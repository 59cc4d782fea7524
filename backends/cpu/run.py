"""Runs calls through ctypes, one after the other: the executor of last resort, and what tests use.

The native executor does the same without Python and on several threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise

from .launch import Call

_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_PAGE = 4096


def run_calls(calls: Sequence[Call], buffers: Sequence[int], shares: int = 1) -> None:
    """Run calls in order on the addresses in `buffers`: output, operands, then the plan's temporaries.

    `shares` cuts each call into that many parts, as threads would; the result does not depend on it.
    """
    for call in calls:
        words = (ctypes.c_int64 * max(1, len(call.args)))(*call.args)
        for word, buffer, offset in call.pointers:
            words[word] = buffers[buffer] + offset
        scratch = []
        for word, size in call.scratch:
            area = ctypes.create_string_buffer(size + _PAGE)
            words[word] = -(-ctypes.addressof(area) // _PAGE) * _PAGE
            scratch.append(area)
        function = _FUNCTION(call.address)
        bounds = [call.count * i // shares for i in range(shares + 1)]
        for low, high in pairwise(bounds):
            if low < high:
                function(ctypes.addressof(words), low, high)
