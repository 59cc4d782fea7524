"""Polynomials for functions that CKKS cannot evaluate: `approx(tanh, degree=7, range=-4..4)`.

A fit is the Chebyshev series of the function on the range, cut at the degree: the best polynomial in the mean with the
Chebyshev weight, and within a small factor the best one in the largest error (Trefethen, Approximation Theory and
Approximation Practice, ch. 16). Its error is bounded, not sampled alone: see `Fit.error`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, pi
from typing import Any

import numpy as np

from ....ir.errors import NOWHERE, EncryptionError, Source, Span

Array = np.ndarray[Any, Any]

MOST_NODES = 1 << 14  # samples of the function for its series, and of the error for its bound
ROUNDING = 2.0**-48  # coefficients smaller than this share of the largest are rounding, and left out
CORNERS = (0.0,)  # where relu, abs and the like are not smooth: the error is bounded on each side


@dataclass(frozen=True)
class Fit:
    """Coefficients of the Chebyshev polynomials T_0, T_1, ... of the range mapped to -1..1.

    `error` bounds |f - p| on the range. On each side of 0 the error is a function that its own interpolant r of degree
    N in Chebyshev points represents up to the size of the coefficients beyond N, estimated by twice those of the upper
    half of r (enough for decay as 1/k^2, that of sqrt at 0). |r| between the points is bounded by its largest value on
    M > N Chebyshev points over cos(pi N / 2M) (Ehlich and Zeller, 1964).
    """

    coefficients: tuple[float, ...]
    low: float
    high: float
    error: float

    def __call__(self, x: Array) -> Array:
        """The polynomial's value."""
        scaled = (2 * np.asarray(x, dtype=float) - (self.high + self.low)) / (self.high - self.low)
        found: Array = np.polynomial.chebyshev.chebval(scaled, self.coefficients)
        return found


@lru_cache(maxsize=256)
def fit(
    function: Callable[..., Any],
    degree: int,
    low: float,
    high: float,
    source: Source | None = None,
    span: Span = NOWHERE,
) -> Fit:
    """The polynomial of a degree for a NumPy function on low..high.

    Raises `EncryptionError` where the function has no finite value somewhere on the range.

    >>> p = fit(np.exp, 7, -1.0, 1.0)
    >>> p.error < 3e-7, bool(abs(p(0.5) - np.exp(0.5)) <= p.error)
    (True, True)
    """
    values = _sampled(function, low, high)
    if values is None:
        spans = () if span == NOWHERE else (span,)
        raise EncryptionError(
            f"the function has no finite value somewhere on {low:g}..{high:g}, so no polynomial stands for it there",
            code="approx-range",
            source=source or Source("<program>", ""),
            spans=spans,
            help="a range on which it is finite, such as 0.1..8 for log",
        )
    coefficients = _series(values)[: degree + 1]
    floor = ROUNDING * float(np.abs(coefficients).max(initial=0.0))
    coefficients = np.where(np.abs(coefficients) < floor, 0.0, coefficients)
    rounded = tuple(float(c) for c in np.trim_zeros(coefficients, "b")) or (0.0,)
    found = Fit(rounded, low, high, 0.0)
    ends = [low, *(c for c in CORNERS if low < c < high), high]
    error = max(_bound(lambda x: function(x) - found(x), a, b) for a, b in pairwise(ends))
    scale = float(np.abs(values).max(initial=0.0))
    return Fit(rounded, low, high, float(error + 64 * np.finfo(float).eps * scale))


def _points(count: int, low: float, high: float) -> Array:
    """Chebyshev points (roots), descending."""
    angles = (np.arange(count) + 0.5) * pi / count
    found: Array = (low + high) / 2 + (high - low) / 2 * np.cos(angles)
    return found


def _sampled(function: Callable[..., Any], low: float, high: float) -> Array | None:
    """The function in Chebyshev points and at the ends; None if it is not finite there. The ends are not returned."""
    with np.errstate(all="ignore"):
        values = np.asarray(function(_points(MOST_NODES, low, high)), dtype=float)
        ends = np.asarray(function(np.array([low, high])), dtype=float)
    return values if np.isfinite(values).all() and np.isfinite(ends).all() else None


def _series(values: Array) -> Array:
    """The coefficients of the interpolant from values in Chebyshev points: a cosine transform, by FFT."""
    n = len(values)
    spectrum = np.fft.rfft(np.concatenate([values, values[::-1]]))[:n]
    found: Array = (spectrum * np.exp(-0.5j * pi * np.arange(n) / n)).real / n
    found[0] /= 2
    return found


def _bound(error: Callable[[Array], Any], low: float, high: float) -> float:
    """A bound of |error| on low..high, for a function that is smooth inside."""
    samples, order = MOST_NODES, MOST_NODES // 8
    coefficients = _series(np.asarray(error(_points(order, low, high)), dtype=float))
    tail = 2 * float(np.abs(coefficients[order // 2 :]).sum())
    largest = float(np.abs(np.asarray(error(_points(samples, low, high)), dtype=float)).max())
    return float((largest + tail) / cos(pi * order / (2 * samples)) + tail)
