"""Fits a chain of primes to a circuit: sizes for the range of its values, scales that meet, and the predicted error.

A planner chooses a ring and a number of levels, which decide the time; this decides the bits, which time does not
depend on. What comes out is checked once more on the server, where the values of the clear tensors are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from ....ir.errors import EMPTY, EncryptionError, Source
from ..core import circuit as c
from .noise import Prediction, predict
from .parameters import Parameters, chain
from .ranges import RANGE, Vectors, assumed, check_ranges, magnitudes
from .scales import Scales, bind, settle

_SMALLER = f"declare smaller ranges of the inputs: stein.encrypted(shape, range=1.0); unsaid, it is {RANGE:g}"
WORTH = 0.25  # of the predicted error: more than this by scales that do not meet is worth products that make them meet


@dataclass(frozen=True)
class Fitted:
    """A circuit (with corrections of scales, where they pay) on its chain, and the predicted errors."""

    circuit: c.Circuit
    parameters: Parameters
    scales: Scales
    prediction: Prediction


def fit(
    circuit: c.Circuit,
    levels: int,
    ranges: Mapping[str, float],
    precision: float = 1e-5,
    source: Source = EMPTY,
) -> Fitted:
    """The best chain of `levels` levels for a circuit whose inputs and clear tensors stay within `ranges`.

    `precision` is the largest error of an output, relative to its usual magnitude. Raises `EncryptionError`, at the
    place of the expression in `source`, where the circuit's ring has no room for the values or for the precision.
    """
    known = assumed(circuit, ranges)
    found = magnitudes(circuit, ranges, known)
    # A value at the last level, or a product that is about to get there, has the first prime's room alone.
    lowest = [(found[k], k) for k, n in enumerate(circuit.nodes) if n.level + n.pending >= levels]
    most, worst = max(lowest, default=(1.0, 0))
    switches = any(n.kind in (c.ROTATE, c.RELINEARISE) for n in circuit.nodes)
    parameters = chain(2 * circuit.slots, levels, max(1.0, most), switches, inf)
    if parameters is None:
        raise EncryptionError(
            f"a value here can reach {most:.3g}; with {levels} levels, ring {2 * circuit.slots} has no room for it",
            code="overflow",
            source=source,
            spans=circuit.spans(worst),
            help=f"{_SMALLER}, or allow a larger ring",
        )
    fitted = on_chain(circuit, parameters, ranges)
    check_ranges(fitted.circuit, fitted.scales, fitted.prediction.magnitudes, source)
    relative = fitted.prediction.relative
    if relative > precision:
        ends = (s for _, values in circuit.downloads.values() for v in values for s in circuit.spans(v))
        raise EncryptionError(
            f"{parameters.text()} gives a relative error of {relative:.1g}; {precision:.1g} is wanted",
            code="imprecise",
            source=source,
            spans=tuple(dict.fromkeys(ends)),
            help=f"allow a larger ring or a larger error, or {_SMALLER}",
        )
    return fitted


def on_chain(circuit: c.Circuit, parameters: Parameters, ranges: Mapping[str, float]) -> Fitted:
    """The circuit on this very chain. It depends on nothing else: a saved plan gives the same again."""
    scales = bind(circuit, parameters)
    prediction = predict(circuit, scales, ranges, assumed(circuit, ranges))
    if any(prediction.drifts[name] > WORTH * error for name, error in prediction.errors.items()):
        circuit = settle(circuit, parameters)
        scales = bind(circuit, parameters)
        prediction = predict(circuit, scales, ranges, assumed(circuit, ranges))
    return Fitted(circuit, parameters, scales, prediction)


def check_values(
    circuit: c.Circuit, scales: Scales, ranges: Mapping[str, float], vectors: Vectors, source: Source = EMPTY
) -> Prediction:
    """The prediction for the values that the clear tensors have, once it is sure that none of them makes a value
    overflow. `vectors` are those of `ranges.exact`, or of `Encodings.magnitude`.

    Raises `EncryptionError` at the place of the expression in `source` otherwise.
    """
    prediction = predict(circuit, scales, ranges, vectors, wide=True)
    check_ranges(circuit, scales, prediction.magnitudes, source)
    return prediction
