"""Real messages, changed on their way: rejected by one error before SEAL sees a byte.

(`test_envelope` does the same to small messages, ten thousand times.)
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from stein import EnvelopeError
from stein.backends.ckks.execution import envelope, seal
from stein.runtime.encrypted_files import Ciphertexts

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")


Pair = tuple[Any, Any]
x = np.linspace(-1, 1, 8)


def mutated(good: bytes, rng: random.Random) -> bytes:
    """A message with flipped bits, a piece cut out, moved, doubled or overwritten, or another end."""
    data, at = bytearray(good), rng.randrange(len(good))
    kind = rng.randrange(8)
    if kind <= 2:
        for _ in range(rng.choice((1, 1, 2, 9))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        data += rng.randbytes(rng.randrange(1, 200))
    elif kind == 5:
        del data[at : at + rng.randrange(1, 200)]
    elif kind == 6:
        data[at:at] = data[at : at + rng.randrange(1, 200)]
    else:
        to = rng.randrange(len(good))
        data[at : at + 64], data[to : to + 64] = data[to : to + 64], data[at : at + 64]
    return bytes(data)


def test_changed_requests(square_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = square_pair
    good = client.encrypt(x=x).data

    def reached(*args: Any) -> None:
        raise AssertionError("SEAL was reached")

    monkeypatch.setattr(seal.Scheme, "_load", reached)
    with pytest.raises(AssertionError, match="SEAL was reached"):  # as it is by the message itself
        server.run(Ciphertexts.from_bytes(good))
    rng, tried = random.Random(0), 0
    while tried < 2000:
        data = mutated(good, rng)
        if data != good:
            tried += 1
            with pytest.raises(EnvelopeError):
                server.run(Ciphertexts.from_bytes(data))


def test_changed_results(square_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = square_pair
    good = server.run(client.encrypt(x=x)).data

    def reached(*args: Any) -> None:
        raise AssertionError("SEAL was reached")

    monkeypatch.setattr(seal.Scheme, "_load", reached)
    rng = random.Random(1)
    for _ in range(500):
        data = mutated(good, rng)
        if data != good:
            with pytest.raises(EnvelopeError):
                client.decrypt(Ciphertexts.from_bytes(data))


def forged(square_pair: Pair, parts: dict[str, bytes]) -> Ciphertexts:
    """A request made by somebody who has the integrity key."""
    client, _ = square_pair
    header = envelope.Header(envelope.CIPHERTEXTS, client.agreement.hash, client._keys.id, bytes(16))
    return Ciphertexts.from_bytes(envelope.wrap(envelope.Envelope(header, parts), client._keys.integrity))


def test_a_key_holder_who_sends_nonsense(square_pair: Pair) -> None:
    """Authenticated, but no ciphertexts of this plan: SEAL's loader is reached, and what it lets through is checked."""
    client, server = square_pair
    request = client.encrypt(x=x)
    parts = dict(envelope.unwrap(request.data, envelope.CIPHERTEXTS, client._keys.integrity).parts)
    (name, data), *_ = parts.items()
    bad: list[dict[str, bytes]] = [{}, {**parts, "y 0": data}, {"y 0": data}, {name: b""}, {name: data + b"\0"}]
    bad += [{name: data[:-1]}, {name: bytes(len(data))}, {name: client._keys.secret}]
    for each in bad:
        with pytest.raises(EnvelopeError):
            server.run(forged(square_pair, each))
    server.run(forged(square_pair, parts))
