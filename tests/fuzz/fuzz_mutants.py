"""Wrong einsums on purpose: `test_fuzz.py` checks that the fuzz catches each of them.

Outside the compiler. Each is NumPy's einsum with one fault that a compiler may have.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

_BUFFERS: dict[tuple[Any, ...], Any] = {}
_FIRST: dict[Any, Any] = {}


def stale_buffer(*args: Any, **keywords: Any) -> Any:
    """Results of one shape and type share their memory."""
    result = np.asarray(np.einsum(*args, **keywords))
    buffer = _BUFFERS.setdefault((result.shape, result.dtype), np.empty_like(result))
    buffer[...] = result
    return buffer


def skips_nan(*args: Any, **keywords: Any) -> Any:
    """Anything that is not finite counts as zero."""
    clean = [np.where(np.isfinite(a), a, 0).astype(a.dtype) if _is_float(a) else a for a in args]
    return np.einsum(*clean, **keywords)


def half_precision(*args: Any, **keywords: Any) -> Any:
    """Doubles are rounded to single precision on the way in."""
    rounded = [a.astype(np.float32).astype(a.dtype) if _is_float(a) and a.dtype == np.float64 else a for a in args]
    return np.einsum(*rounded, **keywords)


def promotes_late(*args: Any, **keywords: Any) -> Any:
    """The first two operands are multiplied in their own type."""
    if isinstance(args[0], str) and len(args) > 3:
        path = ["einsum_path", *[(0, 1)] * (len(args) - 2)]
        return np.einsum(*args, **{**keywords, "optimize": path})
    return np.einsum(*args, **keywords)


def ignores_strides(*args: Any, **keywords: Any) -> Any:
    """Negative strides are read as positive ones."""
    return np.einsum(*(_unturned(a) for a in args), **keywords)


def writes_operands(*args: Any, **keywords: Any) -> Any:
    """The last operand is scratch space."""
    result = np.array(np.einsum(*args, **keywords))
    for a in args:
        if isinstance(a, np.ndarray) and a.flags.writeable and a.size and keywords.get("out") is None:
            a.flat[0] = 0
    return result


def wrong_type(*args: Any, **keywords: Any) -> Any:
    """Small integers come back as int64."""
    result = np.asarray(np.einsum(*args, **keywords))
    return result.astype(np.int64) if result.dtype.kind in "iu" else result


def ignores_order(*args: Any, **keywords: Any) -> Any:
    """`order=` is accepted and forgotten."""
    return np.einsum(*args, **{k: v for k, v in keywords.items() if k != "order"})


def keeps_first_answer(*args: Any, **keywords: Any) -> Any:
    """The cache key is the expression and the shapes, not the values."""
    key = tuple(a if isinstance(a, str) else getattr(a, "shape", str(a)) for a in args)
    return _FIRST.setdefault(key, np.array(np.einsum(*args, **keywords)))


def drops_tail(*args: Any, **keywords: Any) -> Any:
    """The last element of a long axis is not computed."""
    result = np.array(np.einsum(*args, **keywords))
    if result.ndim and result.shape[-1] > 8 and result.shape[-1] % 8:
        result[..., -1] = 0
    return result


def crashes(*args: Any, **keywords: Any) -> Any:
    """A sum over an empty axis kills the process."""
    if any(isinstance(a, np.ndarray) and a.size == 0 for a in args):
        os.kill(os.getpid(), signal.SIGSEGV)
    return np.einsum(*args, **keywords)


def _is_float(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"


def _unturned(a: Any) -> Any:
    if isinstance(a, np.ndarray) and any(s < 0 for s in a.strides):
        return a[tuple(slice(None, None, -1 if s < 0 else 1) for s in a.strides)]
    return a
