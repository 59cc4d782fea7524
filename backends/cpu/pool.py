"""The number of threads, and the settings of the pool of `pool_program.py`.

Workers are started by machine code when the first call is shared, sleep when there is nothing to do, and end with the
process. After a fork the child gets a fresh pool, as threads do not survive a fork. Where the native entry is
unavailable, `native_fallback.py` uses the same number of threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
import time

from ...ir.errors import BackendError
from . import native_words as words

SPIN_NANOSECONDS = 30_000
KEEP_BYTES = 128 << 20
MAX_THREADS = words.MAX_WORKERS + 1
_WORKER_STACK = 4 << 20
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221}


def cpus() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def default_threads() -> int:
    """`STEIN_NUM_THREADS`, else `OMP_NUM_THREADS` (the first number of a list), but no more than there are processors.

    Raises `BackendError` if `STEIN_NUM_THREADS` is no positive integer; another library's variable is then not our
    concern.
    """
    limit = min(cpus(), MAX_THREADS)
    own = os.environ.get("STEIN_NUM_THREADS", "").strip()
    if own:
        if not own.isdecimal() or int(own) < 1:
            raise BackendError(
                f"STEIN_NUM_THREADS is {own!r}, which is no number of threads",
                code="bad-threads",
                help="set it to a positive integer, or unset it",
            )
        return min(limit, int(own))
    other = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(limit, int(other)) if other.isdecimal() and int(other) > 0 else limit


class _Settings:
    """The settings of this process: the number of threads, and the table of the machine code once it is loaded."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = 0
        self.table: ctypes.Array[ctypes.c_int64] | None = None
        self.buffers: list[ctypes.Array[ctypes.c_char]] = []  # pools are never freed: sleeping threads look at them

    def number(self) -> int:
        if self.threads == 0:
            number = default_threads()
            with self.lock:
                self.threads = self.threads or number
        return self.threads

    def publish(self) -> None:
        """Write the number of threads to the table. With more threads than processors, spinning only costs."""
        if self.table is not None:
            self.table[words.THREADS] = self.number()
            self.table[words.SPIN] = SPIN_NANOSECONDS if 1 < self.number() <= cpus() else 0

    def renew(self) -> None:
        """Give the machine code a fresh pool, without workers (after a fork nobody would release the locks)."""
        self.lock = threading.Lock()
        if self.table is not None:
            buffer = ctypes.create_string_buffer(words.POOL_BYTES + words.PAGE)
            self.buffers.append(buffer)
            address = (ctypes.addressof(buffer) + words.PAGE - 1) & -words.PAGE
            library = ctypes.CDLL(None)
            library.pthread_mutex_init(ctypes.c_void_p(address + words.MUTEX), None)
            library.pthread_cond_init(ctypes.c_void_p(address + words.CONDITION), None)
            self.table[words.POOL] = address


_settings = _Settings()


def get_threads() -> int:
    """The number of threads that share one large call, the calling one included."""
    return _settings.number()


def set_threads(number: int) -> None:
    """Set the number of threads (1: never share a call). More than there are processors is allowed, and slow.

    Raises `BackendError` if `number` is not an integer from 1 to 256.

    >>> before = get_threads()
    >>> set_threads(1)
    >>> get_threads()
    1
    >>> set_threads(before)
    """
    if type(number) is not int or not 1 <= number <= MAX_THREADS:
        raise BackendError(
            f"{number!r} is no number of threads", code="bad-threads", help=f"give an integer from 1 to {MAX_THREADS}"
        )
    with _settings.lock:
        _settings.threads = number
        _settings.publish()


def attach(table: ctypes.Array[ctypes.c_int64], *, futex: bool = True) -> None:
    """Fill the words of `env` that the pool needs. Without `futex`, workers sleep on a condition variable."""
    library = ctypes.CDLL(None)

    def address(name: str) -> int:
        found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        assert found is not None
        return found

    table[words.CLOCK], table[words.CLOCK_ID] = address("clock_gettime"), time.CLOCK_MONOTONIC
    table[words.CREATE], table[words.ATTRIBUTES] = address("pthread_create"), _thread_attributes(library)
    table[words.SIGNAL_MASK], table[words.SET_MASK] = address("pthread_sigmask"), int(signal.SIG_SETMASK)
    table[words.SIGNALS] = _blocked_signals(library)
    table[words.LOCK], table[words.UNLOCK] = address("pthread_mutex_lock"), address("pthread_mutex_unlock")
    table[words.WAIT], table[words.BROADCAST] = address("pthread_cond_wait"), address("pthread_cond_broadcast")
    number = _FUTEX_NUMBERS.get(platform.machine().lower(), 0) if futex and sys.platform == "linux" else 0
    table[words.SYSCALL], table[words.FUTEX] = (address("syscall") if number else 0), number
    table[words.KEEP_BYTES] = KEEP_BYTES
    _settings.table = table
    _settings.renew()
    _settings.publish()
    os.register_at_fork(after_in_child=_settings.renew)


def _buffer(size: int) -> int:
    buffer = ctypes.create_string_buffer(size)
    _settings.buffers.append(buffer)
    return ctypes.addressof(buffer)


def _thread_attributes(library: ctypes.CDLL) -> int:
    """The address of a pthread_attr_t for workers: detached, so that nobody must join them, with a moderate stack."""
    attributes = _buffer(256)
    pointer = ctypes.c_void_p(attributes)
    library.pthread_attr_init(pointer)
    library.pthread_attr_setdetachstate(pointer, 2 if sys.platform == "darwin" else 1)
    library.pthread_attr_setstacksize(pointer, ctypes.c_size_t(_WORKER_STACK))
    return attributes


def _blocked_signals(library: ctypes.CDLL) -> int:
    """The address of a sigset_t of all signals but those that report a fault of the thread itself."""
    signals = _buffer(256)
    library.sigfillset(ctypes.c_void_p(signals))
    for fault in (signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV):
        library.sigdelset(ctypes.c_void_p(signals), int(fault))
    return signals
