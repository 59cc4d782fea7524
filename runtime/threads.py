"""How many threads kernels may use."""

from __future__ import annotations


def get_threads() -> int:
    """The number of threads that kernels use: the CPUs given to this process, or STEIN_NUM_THREADS, or
    OMP_NUM_THREADS.
    """
    from ..backends.cpu.pool import get_threads as current

    return current()


def set_threads(number: int) -> None:
    """Let kernels use `number` threads from now on. Results do not depend on it, to the last bit.

    Raises `ValueError` for numbers below 1.
    """
    from ..backends.cpu.pool import set_threads as change

    change(number)
