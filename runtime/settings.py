"""The keywords of `stein.einsum`, checked: what they are called, what they may be, what is assumed without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError
from ..ir.semiring import PLUS_TIMES, SEMIRINGS, Semiring
from ..ir.types import DType, dtype_of, parse_dtype
from .expression import Options


@dataclass(frozen=True)
class Settings:
    """The keywords of a call, checked. `order`, `casting` and `dtype` are NumPy's."""

    dtype: np.dtype[Any] | None = None
    order: str = "K"
    casting: str = "safe"
    out_casting: str = "safe"
    semiring: Semiring = PLUS_TIMES
    names: bool = False
    diagonal_output: bool = False
    accumulate: DType | None = None
    options: Options = Options()


DEFAULTS = {
    "out": None,
    "dtype": None,
    "order": "K",
    "casting": "safe",
    "optimize": "auto",
    "memory_limit": None,
    "semiring": "plustimes",
    "names": False,
    "diagonal_output": False,
    "accumulate": None,
    "strict": False,
}


def check_settings(keywords: Mapping[str, Any]) -> Settings:
    """The settings that keywords ask for; `TypeError` for unknown ones, `ValueError` for values that mean nothing."""
    unknown = [k for k in keywords if k not in _KEYWORDS]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], _KEYWORDS, 1)
        raise DTypeError(
            f"einsum has no keyword {unknown[0]!r}",
            code="unknown-keyword",
            help=f"did you mean {near[0]!r}?" if near else "",
        )
    order = keywords.get("order", "K")
    if order is None:
        order = "K"
    if not isinstance(order, str) or order.upper() not in ("C", "F", "A", "K"):
        raise ShapeError(f"order is {order!r}; it is one of 'C', 'F', 'A', 'K'", code="bad-order")
    casting = keywords.get("casting", "safe")
    if casting not in ("no", "equiv", "safe", "same_kind", "unsafe"):
        raise ShapeError(
            f"casting is {casting!r}; it is one of 'no', 'equiv', 'safe', 'same_kind', 'unsafe'", code="bad-casting"
        )
    return Settings(
        dtype=_check_dtype(keywords.get("dtype")),
        order=order.upper(),
        casting=casting,
        # An optimised call of NumPy's assigns to out with any cast (numpy #31350 keeps that so).
        out_casting="unsafe" if keywords.get("optimize") and "casting" not in keywords else casting,
        semiring=check_semiring(keywords.get("semiring", PLUS_TIMES)),
        names=bool(keywords.get("names", False)),
        diagonal_output=bool(keywords.get("diagonal_output", False)),
        accumulate=_check_accumulate(keywords.get("accumulate")),
        options=check_options(
            keywords.get("optimize", "auto"), keywords.get("memory_limit"), bool(keywords.get("strict", False))
        ),
    )


# `backend` and `use_blas` are opt_einsum's: they choose who multiplies, which here is stein, so they change nothing.
_KEYWORDS = (*(k for k in DEFAULTS if k != "out"), "backend", "use_blas")


def check_options(optimize: Any, memory_limit: Any = None, strict: bool = False) -> Options:
    """How to plan: `optimize` is a name, True, False, a path, an optimiser object, or NumPy's (name, memory limit).

    Raises `EinsumSyntaxError` for a name that is no path finder's.
    """
    from ..passes.paths import PATH_FINDERS

    number = isinstance(memory_limit, (int, float, np.number)) and not isinstance(memory_limit, bool)
    if not (memory_limit is None or memory_limit == "max_input" or number):
        raise DTypeError(
            f"memory_limit is {memory_limit!r}",
            code="memory-limit",
            help="a number of elements, or 'max_input'",
        )
    if isinstance(optimize, (list, tuple)):
        if len(optimize) == 2 and isinstance(optimize[0], str) and isinstance(optimize[1], (int, float)):
            return check_options(optimize[0], int(optimize[1]), strict)
        optimize = tuple(tuple(step) if isinstance(step, list) else step for step in optimize)
    elif isinstance(optimize, str) and optimize.lower() not in PATH_FINDERS:
        raise EinsumSyntaxError(
            f"optimize={optimize!r} names no path finder",
            code="unknown-optimizer",
            help="one of " + ", ".join(PATH_FINDERS) + "; or True, False, a path, an optimiser object",
        )
    return Options("auto" if optimize is None else optimize, memory_limit, strict)


def _check_dtype(dtype: Any) -> np.dtype[Any] | None:
    if dtype is None:
        return None
    named = parse_dtype(dtype) if isinstance(dtype, str) else None
    if named is not None:
        return named.numpy
    try:
        found: np.dtype[Any] = np.dtype(dtype)
        return found
    except TypeError as error:
        raise DTypeError(f"dtype is {dtype!r}: {error}", code="bad-dtype") from error


def _check_accumulate(dtype: Any) -> DType | None:
    checked = _check_dtype(dtype)
    return None if checked is None else dtype_of(checked)


def check_semiring(semiring: Any) -> Semiring:
    """The semiring of a name or value."""
    if isinstance(semiring, Semiring):
        return semiring
    if isinstance(semiring, str) and semiring in SEMIRINGS:
        return SEMIRINGS[semiring]
    raise EinsumSyntaxError(
        f"{semiring!r} is no semiring",
        code="unknown-semiring",
        help=f"one of {', '.join(SEMIRINGS)}, or a stein.Semiring",
    )


PLAIN = Settings()
