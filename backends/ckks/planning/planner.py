"""The planner: from an encrypted program to plans, over rings, levels, and what uploads are worth.

For each ring that has room, with the levels that the program takes at least (more where that is not enough), the
search decides layouts and methods, for three or four prices of an upload. What is not worse than another plan in time,
uploads and keys all at once is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from time import monotonic
from typing import Any

from ....ir.errors import EncryptionError
from ..chain.parameters import USUAL_RINGS, Parameters, chain, depth_error, most_levels
from ..lowering.problem import EncryptedProgram, Product
from ..steps.context import Context, Pricing
from .cost import DEFAULTS, Prices, Rates
from .plan import Plan, Plans, assembled, client_milliseconds, with_few_keys
from .search import Problem, State, depth, problem, search
from .setting import context_of

RINGS = USUAL_RINGS[1:3]
MANY_TIMES = 20.0  # what the client needs for an upload, in the search for plans with few of them
KEPT = ("linear", "matmul3", "matmul3 held")  # what steps remember that holds for every chain and price
SPARE_LEVELS = 2  # beyond the least depth, for moves between layouts
QUIET_SECONDS = 1.0  # before progress is reported


@dataclass(frozen=True)
class _Weighed:
    """Prices at which an upload is worth `each` milliseconds."""

    prices: Pricing
    each: float

    def rotate(self, primes: int) -> float:
        """As in `prices`."""
        return self.prices.rotate(primes)

    def relinearise(self, primes: int) -> float:
        """As in `prices`."""
        return self.prices.relinearise(primes)

    def multiply_plain(self, primes: int) -> float:
        """As in `prices`."""
        return self.prices.multiply_plain(primes)

    def multiply(self, primes: int) -> float:
        """As in `prices`."""
        return self.prices.multiply(primes)

    def rescale(self, primes: int) -> float:
        """As in `prices`."""
        return self.prices.rescale(primes)

    def add(self, primes: int) -> float:
        """As in `prices`."""
        return self.prices.add(primes)

    def upload(self, primes: int) -> float:
        """As decided here."""
        return self.each


def plan(
    program: EncryptedProgram,
    rings: Sequence[int] = RINGS,
    precision: float = 1e-5,
    largest: float = 64.0,
    rates: Rates = DEFAULTS,
    progress: Callable[[str], None] | None = None,
    limit: float = float("inf"),
) -> Plans:
    """Plans of a program: first the one that takes server and client together the least time, then the others by time.

    `rings` are those that may be used, `precision` the largest error of an output relative to its usual magnitude,
    `largest` the magnitude of values that the search makes room for (the chain of a plan suits the values themselves).
    `progress` hears a sentence now and then once planning has taken a second. With a `limit`, plans that take more
    milliseconds of server and client are not looked for: there may be none then. Raises `EncryptionError` where no ring
    has room for the levels that the program needs, for its values, or for the precision.
    """
    started = monotonic()
    found: list[Plan] = []
    needed = 0
    for ring in sorted(rings):
        if any(p.uploads <= len(program.inputs) for p in found):
            # Every input fits one ciphertext: a larger ring makes operations dearer. It is for what is too imprecise.
            with suppress(EncryptionError):
                return Plans(tuple(_front(found, precision)))
        shared = context_of(program, ring, 0, rates)
        needed = depth(program, shared)
        for levels in range(needed, needed + SPARE_LEVELS + 1):
            parameters = chain(ring, levels, largest, precision=precision)
            if parameters is None:
                break
            notice = _notice(progress, started, ring, levels)
            made = _plans(program, parameters, rates, shared.memory, notice, limit)
            found += made
            if made or limit < float("inf"):
                break
    if not found and limit < float("inf"):
        return Plans(())
    if not found:
        raise depth_error(max(needed, 1), rings[-1], max(most_levels(r, largest, precision) for r in rings))
    return Plans(tuple(_front(found, precision)))


def _plans(
    program: EncryptedProgram,
    parameters: Parameters,
    rates: Rates,
    shared: dict[Any, Any],
    notice: Callable[[int], None],
    limit: float,
) -> list[Plan]:
    """The plans on one chain. What linear steps keep holds for every chain of the ring, and is `shared`."""
    prices = Prices(parameters.ring, rates)
    fair = client_milliseconds(prices, parameters.levels)
    states: list[State] = []
    weights = [fair, prices.upload(parameters.levels + 1), MANY_TIMES * fair]
    if any(isinstance(step, Product) for step in program.steps):
        weights.insert(1, 0.0)  # many uploads may take the place of all rotations, and of their keys
    for each in weights:
        known = {k: v for k, v in shared.items() if k[0] in KEPT}
        context = context_of(program, parameters.ring, parameters.levels, rates)
        bar = limit if each == fair else float("inf")  # which counts uploads at this price
        context = replace(context, prices=_Weighed(prices, each), memory=known, limit=bar)
        task = problem(program, context)
        if states and states[0].uploads <= fewest(task, context) and each > fair:
            break
        state = search(task, context, notice)
        shared.update(context.memory)
        if state is None:
            break
        states.append(state)
    plans = [assembled(task, context, parameters, s.trail(), rates) for s in states]
    return [p for one in plans for p in (one, with_few_keys(one, shared))]


def fewest(task: Problem, context: Context) -> int:
    """The fewest ciphertexts in which inputs can be sent."""
    sizes: dict[str, int] = {}
    for name, (tensor, _) in task.views.items():
        if name in task.last:
            sizes[tensor] = max(sizes.get(tensor, 0), -(-prod(context.shapes[tensor]) // context.slots))
    return sum(sizes.values())


def _front(plans: Sequence[Plan], precision: float) -> list[Plan]:
    """Those that no other beats in everything, each on the chain that suits its values; the first is that of least time
    at server and client together.

    Chained rotations come last among equals: they add noise. Raises `EncryptionError` where no plan has room for the
    values or reaches the precision.
    """
    kept: list[Plan] = []
    failure: EncryptionError | None = None
    for one in sorted(plans, key=lambda p: (round(p.work.milliseconds, 6), p.uploads, p.chained)):
        if not any(k.uploads <= one.uploads and k.key_bytes <= one.key_bytes for k in kept):
            try:
                kept.append(one.fitted(precision))
            except EncryptionError as error:
                failure = failure or error
    if not kept:
        assert failure is not None, "there is a plan"
        raise failure
    first = min(kept, key=lambda p: (round(p.work.milliseconds + p.client_milliseconds, 6), p.chained))
    return [first, *(p for p in kept if p is not first)]


def _notice(progress: Callable[[str], None] | None, started: float, ring: int, levels: int) -> Callable[[int], None]:
    """Tells of the search beyond the first second."""

    def notice(tried: int) -> None:
        if progress is not None and monotonic() - started > QUIET_SECONDS:
            progress(f"planning for ring {ring}, {levels} levels: {tried} prefixes tried")

    return notice
