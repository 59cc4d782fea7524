"""Commutative semirings: what `+` and `*` of an einsum mean.

A semiring names its two operations by functions of `ir.functions`; backends compile those names, the interpreter calls
their NumPy meaning. There is no registry: a user's own semiring is a value that is passed to `einsum` or `compile`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .types import DType

Scalar = bool | int | float | complex


@dataclass(frozen=True)
class Semiring:
    """A commutative semiring (R, add, mul, zero, one) given by names of elementwise functions.

    `zero` and `one` are "-inf", "inf" or a number; an infinity stands for the least or greatest value of an integer
    type. `ring` says that subtraction exists; `field` that division does; `idempotent` that `a add a = a`. A semiring
    whose `mul` is empty is a bare reduction (`prod`), legal for one factor only.

    >>> from .types import F32
    >>> MAX_PLUS.zero_of(F32)
    -inf
    """

    name: str
    add: str
    mul: str
    zero: Scalar | str
    one: Scalar | str
    ring: bool = False
    field: bool = False
    idempotent: bool = False

    def zero_of(self, dtype: DType) -> Scalar:
        """The neutral element of `add` in `dtype`, which annihilates under `mul` (in exact arithmetic)."""
        return _limit(self.zero, dtype)

    def one_of(self, dtype: DType) -> Scalar:
        """The neutral element of `mul` in `dtype`."""
        return _limit(self.one, dtype)

    def annihilates(self, dtype: DType) -> bool:
        """Whether products in `dtype` must look for the zero: an integer that stands for an infinity, plus one,
        wraps.
        """
        return self.mul == "add" and isinstance(self.zero, str) and dtype.kind in "iu"


def _limit(value: Scalar | str, dtype: DType) -> Scalar:
    if not isinstance(value, str):
        return bool(value) if dtype.kind == "b" else value
    negative = value.startswith("-")
    if dtype.kind == "b":
        return not negative
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        return int(info.min if negative else info.max)
    return -np.inf if negative else np.inf


PLUS_TIMES = Semiring("plustimes", "add", "mul", 0, 1, ring=True, field=True)
MAX_PLUS = Semiring("maxplus", "maximum", "add", "-inf", 0, idempotent=True)
MIN_PLUS = Semiring("minplus", "minimum", "add", "inf", 0, idempotent=True)
LOGSUMEXP = Semiring("logsumexp", "logaddexp", "add", "-inf", 0)
BOOLEAN = Semiring("boolean", "logical_or", "logical_and", False, True, idempotent=True)
MAX_MIN = Semiring("maxmin", "maximum", "minimum", "-inf", "inf", idempotent=True)
MAX_TIMES = Semiring("maxtimes", "maximum", "mul", 0, 1, idempotent=True)

# Bare reductions of the language that are no einsum of their own: `prod[k](e)`, `all[k](e)`.
PRODUCT = Semiring("prod", "mul", "", 1, 1)
ALL = Semiring("all", "logical_and", "logical_or", True, False, idempotent=True)

SEMIRINGS: dict[str, Semiring] = {
    s.name: s for s in (PLUS_TIMES, MAX_PLUS, MIN_PLUS, LOGSUMEXP, BOOLEAN, MAX_MIN, MAX_TIMES)
}
REDUCTIONS: dict[str, Semiring] = {
    "sum": PLUS_TIMES, "max": MAX_PLUS, "min": MIN_PLUS, "any": BOOLEAN, "logsumexp": LOGSUMEXP, "prod": PRODUCT,
    "all": ALL,
}  # fmt: skip
