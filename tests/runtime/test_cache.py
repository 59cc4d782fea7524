"""The bounded cache: bounds, one making per key under threads, errors that leave nothing behind."""

from __future__ import annotations

import threading
import time

import pytest

from stein.runtime.cache import Cache


def test_least_recently_used_goes_first() -> None:
    cache: Cache[int, int] = Cache(2)
    for n in (1, 2):
        cache.get(n, lambda n=n: n)
    cache.get(1, lambda: 0)
    cache.get(3, lambda: 3)
    assert cache.find(1) == 1
    assert cache.find(2) is None


def test_one_thread_makes_and_the_others_wait() -> None:
    cache: Cache[str, object] = Cache(4)
    made = []

    def make() -> object:
        time.sleep(0.02)
        made.append(object())
        return made[-1]

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(cache.get("k", make))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(made) == 1
    assert found == made * 8


def test_a_failed_making_is_tried_again() -> None:
    cache: Cache[str, int] = Cache(4)

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get("k", fail)
    assert cache.get("k", lambda: 5) == 5
