"""The wire format: what was wrapped comes back, and nothing else passes: neither accidents nor mischief."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stein import EncryptionError, EnvelopeError
from stein.backends.ckks.execution import envelope as e

KEY, PLAN, PAIR, REQUEST = b"k" * 32, b"p" * 32, b"i" * 16, b"r" * 16
PARTS = {"x 0": bytes(range(256)), "x 1": b"", "meta": b'{"a": 1}'}
MESSAGE = e.wrap(e.Envelope(e.Header(e.CIPHERTEXTS, PLAN, PAIR, REQUEST), PARTS), KEY)


def opened(data: bytes) -> e.Envelope:
    return e.unwrap(data, e.CIPHERTEXTS, KEY, plan=PLAN, key=PAIR)


def test_comes_back() -> None:
    found = opened(MESSAGE)
    assert dict(found.parts) == PARTS and found.header == e.Header(e.CIPHERTEXTS, PLAN, PAIR, REQUEST, len(PARTS))
    assert list(found.parts) == list(PARTS)


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=40), max_size=5), st.sampled_from(e.KINDS))
def test_any_parts_come_back(parts: dict[str, bytes], kind: str) -> None:
    key = KEY if kind in e.MESSAGES else e.PUBLIC
    assert dict(e.unwrap(e.wrap(e.Envelope(e.Header(kind), parts), key), kind, key).parts) == parts


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at : at + 8] = rng.randbytes(8)[: len(data) - at]


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def extend(data: bytearray, rng: random.Random) -> None:
    data += rng.randbytes(rng.randrange(1, 100))


def cut_within(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 40)]


def insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.randrange(1, 40))


def swap(data: bytearray, rng: random.Random) -> None:
    a, b, n = rng.randrange(len(data) - 16), rng.randrange(len(data) - 16), rng.randrange(1, 16)
    data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]


def another_length(data: bytearray, rng: random.Random) -> None:
    """A length that fits the shorter data: what a cut by somebody who knows the format looks like."""
    cut(data, rng)
    if len(data) >= e.HEADER.size:
        struct.pack_into(">Q", data, e.HEADER.size - 8, len(data))


MUTATIONS = (flip, flip, overwrite, cut, extend, cut_within, insert, swap, another_length)


def test_ten_thousand_mutations_are_rejected() -> None:
    rng, kinds, tried = random.Random(0), set(), 0
    while tried < 10_000:
        data = bytearray(MESSAGE)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            if len(data) > 16:
                rng.choice(MUTATIONS)(data, rng)
        if bytes(data) == MESSAGE:
            continue
        tried += 1
        with pytest.raises(EnvelopeError) as caught:
            opened(bytes(data))
        kinds.add(caught.value.code)
    assert kinds == {"damaged", "wrong-kind", "wrong-plan", "wrong-key"}


@pytest.mark.parametrize("kind", [e.PLAN, e.CLIENT, e.SERVER])
def test_mutations_of_files_are_rejected(kind: str) -> None:
    rng, good = random.Random(1), e.wrap(e.Envelope(e.Header(kind, PLAN, PAIR), PARTS))
    for _ in range(500):
        data = bytearray(good)
        rng.choice(MUTATIONS)(data, rng)
        if bytes(data) != good:
            with pytest.raises(EnvelopeError):
                e.unwrap(bytes(data), kind)


def test_every_single_bit_counts() -> None:
    for bit in range(8 * len(MESSAGE)):
        data = bytearray(MESSAGE)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EnvelopeError):
            opened(bytes(data))


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: e.wrap(e.Envelope(e.Header(e.RESULT, PLAN, PAIR), PARTS), KEY), "wrong-kind"),
        (lambda: e.wrap(e.Envelope(e.Header(e.CIPHERTEXTS, b"q" * 32, PAIR), PARTS), KEY), "wrong-plan"),
        (lambda: e.wrap(e.Envelope(e.Header(e.CIPHERTEXTS, PLAN, b"j" * 16), PARTS), KEY), "wrong-key"),
        (lambda: e.wrap(e.Envelope(e.Header(e.CIPHERTEXTS, PLAN, PAIR), PARTS), b"another key"), "damaged"),
        (lambda: b"", "damaged"),
        (lambda: b"\x93NUMPY" + bytes(1000), "damaged"),
    ],
)
def test_reasons(made: Callable[[], bytes], code: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        opened(made())
    assert caught.value.code == code and isinstance(caught.value, EncryptionError)


def test_a_result_is_no_upload_even_if_it_says_so() -> None:
    """One integrity key, but a key of its own for each kind: a relabelled message has the wrong tag."""
    data = bytearray(e.wrap(e.Envelope(e.Header(e.RESULT, PLAN, PAIR, REQUEST), PARTS), KEY))
    struct.pack_into(">H", data, len(e.MAGIC) + 2, e.KINDS.index(e.CIPHERTEXTS))
    with pytest.raises(EnvelopeError, match="changed on their way"):
        opened(bytes(data))


@pytest.mark.parametrize("count", [0, 2, 4, 2**32 - 1])
def test_a_key_holder_who_sends_nonsense_is_rejected(count: int) -> None:
    data = bytearray(MESSAGE[: -e.TAG_BYTES])
    struct.pack_into(">I", data, e.HEADER.size - 12, count)
    with pytest.raises(EnvelopeError, match="table of parts"):
        opened(bytes(data) + e._tag(bytes(data), e.CIPHERTEXTS, KEY))


def test_a_missing_part() -> None:
    with pytest.raises(EnvelopeError, match="no part 'y'"):
        opened(MESSAGE).part("y")


def test_files_are_written_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    e.write(path, b"first", secret=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    e.write(path, b"second", secret=True)
    assert e.read(path) == b"second" and [p.name for p in tmp_path.iterdir()] == ["keys"]
    e.write(tmp_path / "shared", b"", secret=False)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) & 0o400


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    e.write(path, b"first", secret=True)

    def full(number: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        e.write(path, b"second", secret=True)
    assert e.read(path) == b"first" and [p.name for p in tmp_path.iterdir()] == ["keys"]
