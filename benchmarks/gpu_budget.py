"""Minutes that `gpu.py` may take: what is spent, what a row may take, and the end of what takes longer.

Outside the compiler. Time is taken by a signal, so that a compilation that does not end is ended; where the system has
no such signal nothing is ended, and a row may take longer.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

AGAIN = 5.0  # seconds after which a signal that was swallowed comes again


class OutOfTime(BaseException):
    """The time for something is over. No `Exception`: libraries that catch all of those go on."""


@dataclass
class Budget:
    """`minutes` for everything, of which `earlier` seconds were spent by a run that this one goes on with."""

    minutes: float
    earlier: float = 0.0
    spent_on: dict[str, float] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _ends: list[float] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.earlier + time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the end, 0 after it."""
        return max(0.0, 60 * self.minutes - self.spent)

    @property
    def remaining(self) -> float:
        """Seconds for what is done now, 0 when they are over."""
        return max(0.0, min(self._ends) - time.monotonic()) if self._ends else self.left

    def share(self, rows: int) -> float:
        """Seconds for the next of so many rows: twice its share, so that what comes first may take more."""
        return min(self.left, 2 * self.left / (rows + 1))

    @contextmanager
    def phase(self, name: str, into: dict[str, float]) -> Iterator[None]:
        """Count the seconds of a phase, for a row and for the run."""
        began = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - began
            for counts in (into, self.spent_on):
                counts[name] = counts.get(name, 0.0) + took

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Raise `OutOfTime` in what takes longer; these nest, and the earliest end counts."""
        if not hasattr(signal, "SIGALRM"):
            yield
            return
        end = min([time.monotonic() + seconds, *self._ends])
        self._ends.append(end)
        before = signal.signal(signal.SIGALRM, _over)
        _arm(end)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._ends.pop()
            signal.signal(signal.SIGALRM, before)
            if self._ends:
                _arm(self._ends[-1])


def _arm(end: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, max(0.001, end - time.monotonic()), AGAIN)


def _over(number: int, frame: FrameType | None) -> None:
    raise OutOfTime
