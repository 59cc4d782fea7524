"""Development tool of the vector mathematics: fits the polynomials and prints the tables of `vector_math_tables.py`.

Nothing of the compiler imports this module. Run `python -m stein.backends.cpu.vector_math_fit` (needs mpmath) to see
where each constant comes from, or after changing a degree or an interval. Every fit is minimax by the exchange
algorithm of Remez (Muller, *Elementary Functions*, chapter 3) on a fine Chebyshev grid in 70-digit arithmetic. The
coefficients are then rounded to the element type one after the other, lowest power first, each time fitting the rest
again to what rounding left over (so the rounding of the large coefficients costs almost nothing).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp

Real = Any  # an mpmath number: the library has no types


@dataclass(frozen=True)
class Fit:
    """One table: `count` coefficients c so that weight(x) (sum c_i x^i - target(x)) is smallest on [low, high].

    `weight` turns an error of the polynomial into a relative error of the function it serves.
    """

    name: str
    element: str
    count: int
    low: float
    high: float
    target: Callable[[Real], Real]
    weight: Callable[[Real], Real]


def _remez(points: list[Real], values: list[Real], weights: list[Real], powers: range) -> tuple[list[Real], Real]:
    """Minimax coefficients for x^i, i in `powers`, on the grid, and the largest weighted error (Remez exchange)."""
    count, size = len(powers), len(points)
    basis = [[x**i for i in powers] for x in points]
    chosen = [round((size - 1) * (1 - math.cos(math.pi * j / count)) / 2) for j in range(count + 1)]
    coefficients: list[Real] = []
    worst = mp.mpf(0)
    for _ in range(30):
        rows = [[*basis[p], mp.mpf((-1) ** j) / weights[p]] for j, p in enumerate(chosen)]
        *coefficients, level = mp.lu_solve(mp.matrix(rows), mp.matrix([values[p] for p in chosen]))
        errors = [w * (v - mp.fdot(b, coefficients)) for w, v, b in zip(weights, values, basis, strict=True)]
        worst = max(abs(e) for e in errors)
        if worst <= abs(level) * mp.mpf("1.001"):
            break
        chosen = _alternation(errors, count + 1)
    return coefficients, worst


def _alternation(errors: list[Real], count: int) -> list[int]:
    """The positions of `count` extrema of alternating sign, the smaller end dropped while there are too many."""
    extrema: list[int] = []
    for p, e in enumerate(errors):
        if extrema and (errors[extrema[-1]] > 0) == (e > 0):
            if abs(e) > abs(errors[extrema[-1]]):
                extrema[-1] = p
        else:
            extrema.append(p)
    while len(extrema) > count:
        extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
    assert len(extrema) == count, "the error does not alternate: the grid is too coarse or the degree too high"
    return extrema


def rounded(x: Real, element: str) -> float:
    """`x` rounded to nearest in `element`."""
    return float(struct.unpack("f", struct.pack("f", float(x)))[0]) if element == "float" else float(x)


def solve(fit: Fit, exact: int = 3) -> tuple[tuple[float, ...], float]:
    """The rounded coefficients of `fit`, lowest power first, and the largest weighted error they leave.

    The first `exact` coefficients are rounded before the others are fitted; the rest are rounded as they are, far below
    the error.
    """
    size = 24 * (fit.count + 1)
    middle, half = mp.mpf(fit.high + fit.low) / 2, mp.mpf(fit.high - fit.low) / 2
    points = [middle - half * mp.cos(mp.pi * (2 * j + 1) / (2 * size)) for j in range(size)]
    weights = [fit.weight(x) for x in points]
    left = [fit.target(x) for x in points]
    result: list[float] = []
    for start in range(min(exact, fit.count - 1) + 1):
        coefficients, _ = _remez(points, left, weights, range(start, fit.count))
        taken = coefficients[:1] if start < min(exact, fit.count - 1) else coefficients
        for c in taken:
            value = rounded(c, fit.element)
            left = [v - value * x ** len(result) for v, x in zip(left, points, strict=True)]
            result.append(value)
    return tuple(result), float(max(abs(w * e) for w, e in zip(weights, left, strict=True)))


def _atanh_tail(z: Real) -> Real:
    """(log((1 + s) / (1 - s)) / s - 2) / s^2 for z = s^2: 2/3 + 2/5 z + ..."""
    s = mp.sqrt(z)
    return (mp.log((1 + s) / (1 - s)) / s - 2) / z


def _odd_tail(f: Callable[[Real], Real], first: float = 1.0) -> Callable[[Real], Real]:
    """f(x) / x - first, as a function of z = x^2."""
    return lambda z: f(mp.sqrt(z)) / mp.sqrt(z) - first


def fits() -> list[Fit]:
    """All tables, with their intervals a little wider than the reductions deliver."""
    third = math.log(2) / 2 * 1.0001
    low, high = math.sqrt(0.5) - 1 - 1e-6, math.sqrt(2) - 1 + 1e-6
    square = (high / (2 + high)) ** 2  # of s = f / (2 + f) at both ends
    quarter = (math.pi / 4) ** 2 * 1.0001
    exp = (lambda r: (mp.exp(r) - 1 - r) / r**2), (lambda r: r**2 / mp.exp(r))
    tanh = (lambda z: _odd_tail(mp.tanh)(z) / z), (lambda z: z * mp.sqrt(z) / mp.tanh(mp.sqrt(z)))
    erf = _odd_tail(mp.erf), (lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)))
    erfc = (lambda t: mp.log(mp.erfc(t)) / t), (lambda t: t * mp.erfc(t) / mp.erf(t))
    sine = (lambda z: _odd_tail(mp.sin)(z) / z), (lambda z: z)
    cosine = (lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2), (lambda z: z**2)
    log = (lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3), (lambda f: f**3 / mp.log1p(f))
    atanh = _atanh_tail, (lambda z: z / 2)
    second = (lambda z: (_atanh_tail(z) - mp.mpf(2) / 3) / z), (lambda z: z**2 / 2)
    return [
        Fit("EXP_F32", "float", 5, -third, third, *exp),
        Fit("EXP_F64", "double", 10, -third, third, *exp),
        Fit("EXP_MIXED", "double", 6, -third, third, *exp),
        Fit("TANH_F32", "float", 5, 0.0, 0.625**2, *tanh),
        Fit("TANH_F64", "double", 11, 0.0, 0.625**2, *tanh),
        Fit("ERF_F32", "float", 7, 0.0, 0.93**2, *erf),
        Fit("ERF_F64", "double", 12, 0.0, 1.0, *erf),
        Fit("ERFC_F32", "float", 7, 0.92, 4.0, *erfc),
        Fit("ERFC_F64", "double", 19, 0.99, 6.0, *erfc),
        Fit("LOG_F32", "float", 9, low, high, *log),
        Fit("LOG_F64", "double", 7, 0.0, square, *atanh),
        Fit("LOG_MIXED", "double", 11, low, high, *log),
        Fit("LOG1P_UNIT_F32", "float", 4, 0.0, 1 / 9, *atanh),
        Fit("LOG1P_UNIT_F64", "double", 10, 0.0, 1 / 9, *atanh),
        Fit("POW_F64", "double", 7, 0.0, square, *second),
        Fit("SIN_MIXED", "double", 4, 0.0, quarter, *sine),
        Fit("COS_MIXED", "double", 3, 0.0, quarter, *cosine),
        Fit("SIN_F64", "double", 6, 0.0, quarter, *sine),
        Fit("COS_F64", "double", 6, 0.0, quarter, *cosine),
    ]


def main() -> None:
    """Print every table with the weighted error of its fit, in bits."""
    mp.mp.dps = 70
    for fit in fits():
        coefficients, error = solve(fit)
        print(f"{fit.name} = (  # [{fit.low:.6g}, {fit.high:.6g}], error 2^{math.log2(error):.1f}")
        for c in coefficients:
            print(f"    {c!r},")
        print(")", flush=True)


if __name__ == "__main__":
    main()
