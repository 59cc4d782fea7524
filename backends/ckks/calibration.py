"""What this machine takes for homomorphic operations: the constants of `cost`, measured once and kept.

Plans are made with the built-in rates: what decides between them is ratios, which hardly differ among machines, and a
plan should not depend on where it was made. Times in seconds are told with the rates of the machine.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import cache
from math import log2
from pathlib import Path

import numpy as np

from ..kept import replace_file
from .chain.parameters import Parameters
from .execution.seal import Evaluator, Scheme, Secret
from .planning.cost import CALL, DEFAULTS, Prices, Rates

FORMAT = 2  # of the file; another number means measuring again
ODD = 10.0  # times the built-in figure from which on a measurement is not believed
PATIENCE = 0.02  # seconds that are spent on each figure
CHAIN = Parameters(8192, (50, 40, 60))
VALUES, PLAINS = 24, 64  # operands that take turns: more than the second cache holds, as in a circuit of some size


@cache
def machine_rates() -> Rates:
    """The rates of this machine: from the cache folder, else measured now (a second); the built-in ones where
    `STEIN_CALIBRATION=off` says so, or where a measurement is out of all proportion.

    Raises `BackendError` without tenseal.
    """
    if os.environ.get("STEIN_CALIBRATION", "").strip().lower() == "off":
        return DEFAULTS
    path = kept_at()
    known = load(path) if path is not None else None
    if known is None:
        known = measure()
        if not plausible(known):
            return DEFAULTS
        if path is not None:
            save(path, known)
    return known


def kept_at() -> Path | None:
    """The file of this machine's rates in the user's cache folder (`STEIN_CACHE_DIR`); None where caching is off."""
    folder = os.environ.get("STEIN_CACHE_DIR")
    if folder is None:
        import platformdirs

        folder = platformdirs.user_cache_dir("stein")
    if folder.strip().lower() in ("", "off"):
        return None
    return Path(folder) / f"ckks-rates-{_machine()}.json"


def _machine() -> str:
    from hashlib import sha256

    parts = [platform.machine(), platform.processor(), str(os.cpu_count())]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        parts += sorted({line for line in lines if line.startswith(("model name", "cache size"))})
    return sha256("|".join(parts).encode()).hexdigest()[:16]


def plausible(found: Rates) -> bool:
    """Whether a measurement may be that of a processor at work, and not of one that was busy with something else.

    >>> plausible(DEFAULTS), plausible(replace(DEFAULTS, plain=1000.0))
    (True, False)
    """
    usual, given = _figures(DEFAULTS), _figures(found)
    return all(usual[name] / ODD <= given[name] <= usual[name] * ODD for name in usual)


def load(path: Path) -> Rates | None:
    """The rates in a file; None if there is none, or what it holds is damaged or of another format."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given.pop("format") != FORMAT or set(given) != {f.name for f in fields(Rates)}:
            return None
        numbers = [value for name, value in given.items() if name != "measured"]
        if given["measured"] is not True or not all(type(n) in (int, float) for n in numbers):
            return None
        known = Rates(**given)
        return known if plausible(known) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(path: Path, found: Rates) -> None:
    """Write the rates, whole or not at all. A folder that cannot be written means measuring again next time."""
    text = json.dumps({"format": FORMAT, **asdict(found)}, indent=1)
    with suppress(OSError):
        replace_file(path, text.encode())


def measure() -> Rates:
    """Run the operations on a small chain and take the median time of each; many operands each, so that they come
    from memory as often as in a circuit.
    """
    scheme = Scheme(CHAIN)
    secret = Secret(scheme)
    steps = (1, 2, 3, 4)
    evaluator = Evaluator(scheme, secret.evaluation_keys(steps, False))
    ring, primes = CHAIN.ring, CHAIN.levels + 1
    scale = 2.0**CHAIN.scale_bits
    vectors = [np.linspace(-1, 1 + k, CHAIN.slots) for k in range(8)]
    plains = [scheme.encode(vectors[k % 8], 0, scale) for k in range(PLAINS)]
    values, sums = ([secret.encrypt(vectors[k % 8], scale) for k in range(VALUES)] for _ in range(2))
    butterflies = ring / 2 * log2(ring)
    words = 2 * primes * ring
    unit = Prices(ring, replace(DEFAULTS, butterfly=1.0)).rotate(primes) - CALL / 1e6

    def once(operation: Callable[[int], object]) -> float:
        """Nanoseconds of an operation, without the call."""
        return max(1.0, _median(operation) - CALL)

    rotation = once(lambda k: evaluator.rotate(values[k % 8], steps[k % 4]))
    butterfly = rotation / (unit * 1e6)
    encoding = once(lambda k: scheme.encode(vectors[k % 8], 0, scale))
    encryption = once(lambda k: secret.encrypt(vectors[k % 8], scale)) - encoding
    return Rates(
        butterfly,
        once(lambda k: evaluator.multiply_plain(values[k % VALUES], plains[k % PLAINS])) / words,
        once(lambda k: evaluator.multiply(values[k % VALUES], values[(k + 1) % VALUES])) / words,
        once(lambda k: evaluator.add(sums[k % VALUES], values[(k + 1) % VALUES], reuse=True)) / words,
        max(1.0, (encryption - 2 * primes * butterflies * butterfly) / (primes * ring)),
        max(0.1, (encoding - primes * butterflies * butterfly) / butterflies),
        measured=True,
    )


def _figures(rates: Rates) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(rates).items() if name != "measured"}


def _median(operation: Callable[[int], object]) -> float:
    """Nanoseconds: the median of runs that go on for a while. What other processes take is not counted."""
    operation(0)
    runs: list[int] = []
    while len(runs) < 9 or sum(runs) < PATIENCE * 1e9:
        began = time.thread_time_ns()
        operation(len(runs))
        runs.append(time.thread_time_ns() - began)
    return float(np.median(runs))
