"""Predicts the error of every output of a circuit before it runs.

Each operation adds an independent error whose variance is known in the canonical embedding (Cheon, Kim, Kim and Song
2017, section 4; the factors below are those of SEAL): a fresh encryption, a rescale's rounding, a key switch, the
rounding of an encoded vector. Products multiply errors by the magnitude of the other factor. The predicted error is a
number of standard deviations that the largest of all elements stays below: errors by rounding are the product of two
complex normal variables, whose real part has the tails of a Laplace distribution. One of the two is the secret's value
at the slot, which all roundings at that slot share; once they are rotated, their sums tend to the normal distribution.

Variances are of the real part of a slot (of a coefficient, in circuits that convolve), in units of the value squared.
Numbers stand for all slots alike, arrays for each slot by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, log, pi, sqrt
from typing import Any

import numpy as np

from ..core import circuit as c
from ..core.layout import NOTHING
from .parameters import Parameters
from .ranges import Slots, Vectors, bound, largest, lesser, moved, packed, spectral, spread
from .scales import Scales

Array = np.ndarray[Any, Any]

SAMPLED = 10.5  # variance of a coefficient of a fresh error: SEAL's centred binomial distribution of 42 bits
ROUNDED = 1 / 12  # variance of a rounding
TERNARY = 2 / 3  # variance of a coefficient of the secret
FAILURE = 1e-7  # how likely the largest error of one run may exceed the prediction
LAPLACE, SQUARED = 3.0, 15.0  # excess kurtosis of a rounding times the secret, and times its square
OUTLYING = 4.5  # standard deviations that the few slots stay below where key switches err most
USUAL = 3.0  # a value is taken to be no greater than this many times its root mean square


@dataclass(frozen=True)
class Prediction:
    """`magnitudes` bounds each value of the circuit; by output: `errors` (absolute), how much of them is due to scales
    that do not meet (`drifts`), and `usual` (the magnitude that errors are compared with: a few times the root mean
    square for inputs that fill their range evenly).
    """

    magnitudes: tuple[float, ...]
    errors: Mapping[str, float]
    drifts: Mapping[str, float]
    usual: Mapping[str, float]

    @property
    def relative(self) -> float:
        """The worst error of an output, relative to its usual magnitude."""
        return max((self.errors[n] / self.usual[n] for n in self.errors if self.usual[n] > 0), default=0.0)


@dataclass
class _Value:
    """A bound and the mean square of a value's slots; variances of the errors that share the secret's value at a slot
    (`local`) and of all others (`mixed`), each with its excess kurtosis (0 normal, 3 Laplace); the variance by key
    switches alone at the slot where they err most (`spike`), and at those that this slot was rotated to (`stray`); and
    a bound of an error that is no accident.
    """

    bound: Slots
    power: Slots
    local: Slots = 0.0
    mixed: Slots = 0.0
    local_excess: float = 0.0
    mixed_excess: float = 0.0
    spike: float = 0.0
    stray: float = 0.0
    bias: Slots = 0.0


def _shared(*parts: tuple[Slots, float]) -> float:
    """The excess kurtosis of a sum of (variance, excess) whose parts have the secret's value in common."""
    weights = [largest(variance) for variance, _ in parts]
    total = sum(weights)
    return sum(w * excess for w, (_, excess) in zip(weights, parts, strict=True)) / total if total else 0.0


def _independent(*parts: tuple[Slots, float]) -> float:
    """The excess kurtosis of a sum of (variance, excess) whose parts have nothing in common: it fades."""
    weights = [largest(variance) for variance, _ in parts]
    total = sum(weights)
    return sum(w**2 * excess for w, (_, excess) in zip(weights, parts, strict=True)) / total**2 if total else 0.0


def deviations(elements: int, excess: float) -> float:
    """Standard deviations that the largest of so many errors stays below: those of a normal distribution, those of a
    Laplace distribution, or between (and beyond) by the excess kurtosis.

    >>> round(deviations(4096, 0.0), 1), round(deviations(4096, 3.0), 1)
    (7.0, 17.3)
    """
    rarity = log(max(1, elements) / FAILURE)
    normal, laplace = sqrt(2 * rarity), rarity / sqrt(2)
    return normal + (laplace - normal) * sqrt(excess / LAPLACE)


def predict(
    circuit: c.Circuit, scales: Scales, ranges: Mapping[str, float], vectors: Vectors, wide: bool = False
) -> Prediction:
    """The errors of the outputs; `wide` works slot by slot (`vectors` being arrays, as `ranges.exact` gives them)."""
    model = _Model(circuit, scales, ranges, vectors, wide)
    values: dict[int, _Value] = {}
    magnitudes: list[float] = []
    for number, (node, freed) in enumerate(zip(circuit.nodes, circuit.last_uses(), strict=True)):
        value = model.value(number, node, [values[a] for a in node.args])
        if number in circuit.claims:
            claim = circuit.claims[number]
            value.bound, value.power = lesser(value.bound, claim), lesser(value.power, claim**2)
        values[number] = value
        magnitudes.append(largest(value.bound))
        for v in freed:
            del values[v]
    errors, drifts, usual = {}, {}, {}
    for name, (packing, numbers) in circuit.downloads.items():
        read = packing.at != NOTHING
        elements = int(read.sum())
        error, drift, magnitude = 0.0, 0.0, 0.0
        for row, number in zip(read, numbers, strict=True):
            value = values[number]
            local = deviations(elements, value.local_excess) * sqrt(_at(value.local, row))
            mixed = deviations(elements, value.mixed_excess) * sqrt(_at(value.mixed, row))
            likely = hypot(local, mixed, OUTLYING * sqrt(max(value.spike, value.stray)))
            drift = max(drift, _at(value.bias, row))
            error = max(error, likely + _at(value.bias, row))
            magnitude = max(magnitude, min(_at(value.bound, row), USUAL * sqrt(_at(value.power, row))))
        errors[name], drifts[name], usual[name] = error, drift, magnitude
    return Prediction(tuple(magnitudes), errors, drifts, usual)


def _at(value: Slots, row: Array) -> float:
    if isinstance(value, np.ndarray):
        return float(value[row].max(initial=0.0))
    return float(value)


class _Model:
    """Variances of a ring and a chain."""

    def __init__(
        self, circuit: c.Circuit, scales: Scales, ranges: Mapping[str, float], vectors: Vectors, wide: bool
    ) -> None:
        self.circuit, self.scales, self.ranges, self.vectors = circuit, scales, ranges, vectors
        self.parameters: Parameters = scales.parameters
        self.convolving = spectral(circuit)
        self.wide = wide or self.convolving
        self.ring = self.parameters.ring
        self.unit = (
            1.0 if self.convolving else self.ring / 2
        )  # of a coefficient's variance, as that of a slot's real part

    def value(self, number: int, node: c.Node, args: Sequence[_Value]) -> _Value:
        """The result of an operation."""
        scale = self.scales.values[number]
        if node.kind == c.INPUT:
            filled = packed(self.circuit, node, self.ranges, self.wide)
            return _Value(filled, filled**2 / 3, mixed=self.unit * (SAMPLED + ROUNDED) / scale**2)
        plain = self.vectors(number) if node.plain >= 0 else 0.0
        magnitude = bound(node, [a.bound for a in args], plain, self.ring if self.convolving else 0)
        first = args[0]
        if node.kind == c.MULTIPLY_PLAIN:
            return self.times_plain(number, first, plain, magnitude)
        if node.kind == c.MULTIPLY:
            return self.times(args[0], args[1], node.args[0] == node.args[1], magnitude)
        if node.kind in (c.ADD, c.SUBTRACT):
            return self.plus(number, node, args, magnitude)
        if node.kind == c.ROTATE:
            return self.rotated(node, first, scale, magnitude)
        result = replace(first, bound=magnitude)
        if node.kind == c.ADD_PLAIN:
            result.mixed = first.mixed + self.unit * ROUNDED / scale**2
            result.power = first.power + plain**2
        elif node.kind in (c.RESCALE, c.RELINEARISE):
            added, excess = self.rounding(node.size), SQUARED if node.size == 3 else LAPLACE
            if self.convolving:
                excess = 0.0  # a coefficient of a product is a sum over the whole ring
            if node.kind == c.RELINEARISE:
                added = self.switching(node.level)
                result.spike = first.spike + self.spike(node.level) / scale**2
            result.local = first.local + added / scale**2
            result.local_excess = _shared((first.local, first.local_excess), (added / scale**2, excess))
        return result

    def rotated(self, node: c.Node, a: _Value, scale: float, magnitude: Slots) -> _Value:
        """All errors so far come from another slot now; those of the key switch are of this one."""
        return _Value(
            magnitude,
            moved(a.power, node.step),
            self.switching(node.level) / scale**2,
            moved(a.local + a.mixed, node.step),
            LAPLACE,
            _independent((a.local, a.local_excess), (a.mixed, a.mixed_excess)),
            self.spike(node.level) / scale**2,
            max(a.spike, a.stray),
            moved(a.bias, node.step),
        )

    def times_plain(self, number: int, a: _Value, plain: Slots, magnitude: Slots) -> _Value:
        """A product with a plain vector, which is itself rounded."""
        rounding = self.unit * ROUNDED / self.scales.factors[number] ** 2
        if not self.convolving:
            square = plain**2
            local, mixed = a.local * square, a.mixed * square + a.bound**2 * rounding
            power, gain, bias = a.power * square, largest(square), a.bias * plain
        else:
            entries = spread(plain, self.ring)
            total = float((entries**2).sum())
            local, mixed = largest(a.local) * total, largest(a.mixed) * total
            mixed = mixed + float((spread(a.bound, self.ring) ** 2).sum()) * rounding
            power, gain, bias = largest(a.power) * total, total, largest(a.bias) * float(entries.sum())
        excess = a.local_excess, a.mixed_excess
        return _Value(magnitude, power, local, mixed, *excess, a.spike * gain, a.stray * gain, bias)

    def times(self, a: _Value, b: _Value, same: bool, magnitude: Slots) -> _Value:
        """A product of ciphertexts; of a value with itself the two errors are one."""
        count = (self.ring if self.convolving else 1) * (1 + same)
        one, two = a.bound**2, b.bound**2
        local = count * (one * b.local + two * a.local)
        mixed = count * (one * b.mixed + two * a.mixed + (a.local + a.mixed) * (b.local + b.mixed))
        spike = count * (largest(one) * b.spike + largest(two) * a.spike)
        stray = count * (largest(one) * b.stray + largest(two) * a.stray)
        bias = (self.ring if self.convolving else 1) * (a.bound * b.bias + b.bound * a.bias)
        power = (self.ring if self.convolving else 1) * a.power * b.power
        excess = max(a.local_excess, b.local_excess), max(a.mixed_excess, b.mixed_excess)
        return _Value(magnitude, power, local, mixed, *excess, spike, stray, bias)

    def plus(self, number: int, node: c.Node, args: Sequence[_Value], magnitude: Slots) -> _Value:
        """A sum, of independent errors unless a value is added to itself. All key switches err most at one slot, but
        the slots to which that was rotated differ.
        """
        a, b = args
        same = 2 if node.args[0] == node.args[1] else 1
        drift = self.scales.drift.get(number, 0.0)
        return _Value(
            magnitude,
            same * (a.power + b.power),
            same * (a.local + b.local),
            same * (a.mixed + b.mixed),
            _shared((a.local, a.local_excess), (b.local, b.local_excess)),
            _independent((a.mixed, a.mixed_excess), (b.mixed, b.mixed_excess)),
            same * (a.spike + b.spike),
            same**2 * max(a.stray, b.stray),
            a.bias + b.bias + drift * b.bound,
        )

    def rounding(self, size: int) -> float:
        """Dividing each polynomial by a prime, and rounding; the polynomials meet powers of the secret."""
        secret = TERNARY * self.ring
        total = 1 + secret
        if size == 3:
            total += 2 * secret**2  # the mean of the fourth power of its absolute value
        return self.unit * ROUNDED * total

    def switching(self, level: int) -> float:
        """Digits of the ciphertext times errors of the key, divided by the special prime, and a rounding.

        SEAL does not centre its digits: the mean square of a coefficient is a third of the prime's square.
        """
        return self.unit * SAMPLED * self.digits(level) * self.ring / 3 + self.rounding(2)

    def spike(self, level: int) -> float:
        """The variance of a key switch at its worst slot. The mean of a digit, q / 2 in every coefficient, is the value
        q / (1 - z) at a slot whose root is z: large where z is near 1.
        """
        return 0.0 if self.convolving else self.unit * SAMPLED * self.digits(level) * (self.ring / pi) ** 2

    def digits(self, level: int) -> float:
        """The squares of the primes at a level, in units of the special one's square."""
        primes = self.parameters.primes
        return sum((q / primes[-1]) ** 2 for q in primes[: self.parameters.levels - level + 1])
