"""Bundles: who holds what. The server has the plan's keys, no others, and nothing that decrypts."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stein import EnvelopeError
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.execution import envelope, seal
from stein.backends.ckks.execution.bundle import ClientKeys, ServerKeys
from stein.runtime.client import Client
from stein.runtime.encrypted_files import Agreement, Ciphertexts
from stein.runtime.server import Server

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

ROOT = Path(__file__).resolve().parents[2]
Pair = tuple[Any, Any]
x, v = np.linspace(-1, 1, 8), np.linspace(2, 1, 8)


def test_keys_are_exactly_the_plans(linear_pair: Pair, square_pair: Pair) -> None:
    client, server = linear_pair
    steps, keys = client.plan.circuit.steps, server._keys
    elements = {seal.galois_element(s, client.plan.parameters.ring) for s in steps}
    assert steps and keys.relinearisation is None and server._bundle.relinearisation == b""
    assert keys.galois.size() == len(elements) and all(map(keys.galois.has_key, elements))
    client, server = square_pair
    assert not client.plan.circuit.steps and server._bundle.galois == b"" and server._keys.galois is None
    assert server._keys.relinearisation is not None
    assert client.plan.circuit.counts()[c.RELINEARISE] >= 1


def test_key_bytes_are_those_of_the_plan(linear_pair: Pair) -> None:
    """The file holds a seed in place of half of each key, and SEAL's compression varies a little."""
    client, server = linear_pair
    assert 0.3 * client.plan.key_bytes < server.nbytes <= client.plan.key_bytes


def test_the_server_has_nothing_of_the_client(linear_pair: Pair) -> None:
    client, server = linear_pair
    theirs = server._bundle.to_bytes()
    assert client._keys.secret not in theirs
    assert not any(client._keys.secret[k : k + 64] in theirs for k in range(64, len(client._keys.secret) - 64, 997))
    assert set(ServerKeys.__dataclass_fields__) == {"plan", "galois", "relinearisation", "integrity"}


def test_both_sides_show_one_id(linear_pair: Pair, square_pair: Pair) -> None:
    assert linear_pair[0].key_id == linear_pair[1].key_id != square_pair[0].key_id == square_pair[1].key_id


def test_files(linear_pair: Pair, W: Any, tmp_path: Path) -> None:
    client, server = linear_pair
    client.save(tmp_path / "client")
    server.save(tmp_path / "server")
    for name in ("client", "server"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600
    again, machine = Client.load(tmp_path / "client"), Server.load(tmp_path / "server")
    assert again.key_id == machine.key_id == client.key_id
    request = again.encrypt(x=x)
    request.save(tmp_path / "request")
    answer = machine.run(Ciphertexts.load(tmp_path / "request"), W=W, v=v)
    np.testing.assert_allclose(client.decrypt(answer, answers=request)["y"], W @ x, atol=1e-5)


@pytest.mark.parametrize("at", [0, 9, 40, 90, 200, -5000, -33, -1])
def test_damaged_files(linear_pair: Pair, tmp_path: Path, at: int) -> None:
    for side, load in zip(linear_pair, (Client.load, Server.load), strict=True):
        side.save(tmp_path / "keys")
        data = bytearray((tmp_path / "keys").read_bytes())
        data[at] ^= 4
        (tmp_path / "keys").write_bytes(data)
        with pytest.raises(EnvelopeError):
            load(tmp_path / "keys")


def test_files_of_another_kind(linear_pair: Pair, tmp_path: Path) -> None:
    client, server = linear_pair
    client.save(tmp_path / "client")
    server.save(tmp_path / "server")
    client.encrypt(x=x).save(tmp_path / "request")
    for call in (
        lambda: Client.load(tmp_path / "server"),
        lambda: Server.load(tmp_path / "client"),
        lambda: Client.load(tmp_path / "request"),
        lambda: Ciphertexts.load(tmp_path / "client"),
    ):
        with pytest.raises(EnvelopeError) as caught:
            call()
        assert caught.value.code == "wrong-kind"
    with pytest.raises(FileNotFoundError):
        Client.load(tmp_path / "nowhere")


def test_a_bundle_of_keys_for_another_plan(linear_pair: Pair, square_pair: Pair) -> None:
    """Who puts a plan and foreign keys together makes a file that hangs together; it is found out by SEAL's keys."""
    mine, theirs = linear_pair[1]._bundle, square_pair[1]._bundle
    mixed = ServerKeys(theirs.plan, mine.galois, mine.relinearisation, mine.integrity)
    again = ServerKeys.from_bytes(mixed.to_bytes())
    assert again.id != mine.id and again.id != theirs.id
    swapped = ServerKeys(mine.plan, theirs.relinearisation, b"", mine.integrity)
    server = Server(swapped, linear_pair[1].agreement)
    with pytest.raises(EnvelopeError):
        _ = server._keys


def test_bundles_come_back() -> None:
    keys = ClientKeys("{}", b"secret", b"shared", b"i" * 16)
    assert ClientKeys.from_bytes(keys.to_bytes()) == keys
    assert "secret" not in repr(keys) and "shared" not in repr(keys)
    theirs = ServerKeys("{}", b"galois", b"", b"shared")
    assert ServerKeys.from_bytes(theirs.to_bytes()) == theirs


def test_one_client_bundle_for_all_values_of_a_constant(linear_pair: Pair, linear_of: Any) -> None:
    """The plan, and with it all that a client gets but its own fresh keys, does not depend on a constant's values."""
    client, _ = linear_pair
    for values in (np.eye(5, 8), np.zeros((5, 8))):
        other, _ = linear_of(values).keygen()
        mine = ClientKeys(client._keys.plan, b"", b"", bytes(16)).to_bytes()
        assert ClientKeys(other._keys.plan, b"", b"", bytes(16)).to_bytes() == mine


SERVER_ALONE = """
import sys
import numpy as np
from stein import EnvelopeError
from stein.runtime.client import Client
from stein.runtime.encrypted_files import Ciphertexts
from stein.runtime.server import Server
from stein.backends.ckks.execution import envelope, seal

folder = sys.argv[1]
server = Server.load(folder + "/server")
request = Ciphertexts.load(folder + "/request")
server.run(request, **np.load(folder + "/clear.npz")).save(folder + "/answer")

try:
    Client.load(folder + "/server")
except EnvelopeError as error:
    print(error.code)

# All that the server has, tried on the request: decryption with a key of its own gives nonsense.
exchange, bundle = server._exchange, server._bundle
parts = envelope.unwrap(request.data, envelope.CIPHERTEXTS, bundle.integrity).parts
own = seal.Secret(exchange.scheme)
(ciphertext,) = exchange.ciphertexts(parts)["x"]
np.save(folder + "/guess.npy", own.decrypt(ciphertext))
for data in (bundle.galois, bundle.relinearisation, bundle.integrity):
    try:
        seal.Secret(exchange.scheme, data)
    except EnvelopeError:
        print("no secret key")
"""


def test_a_process_with_the_server_bundle_alone(linear_pair: Pair, W: Any, tmp_path: Path) -> None:
    client, server = linear_pair
    server.save(tmp_path / "server")
    request = client.encrypt(x=x)
    request.save(tmp_path / "request")
    np.savez(tmp_path / "clear.npz", W=W, v=v)
    done = subprocess.run(
        [sys.executable, "-c", SERVER_ALONE, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".typing")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == ["wrong-kind", "no secret key", "no secret key", "no secret key"]
    answer = client.decrypt(Ciphertexts.load(tmp_path / "answer"), answers=request)
    np.testing.assert_allclose(answer["y"], W @ x, atol=1e-5)
    guess = np.load(tmp_path / "guess.npy")
    assert np.abs(guess).min() > 1e-3 and np.median(np.abs(guess)) > 1e6  # a uniform value modulo the chain of primes


def test_a_bundle_says_what_it_is() -> None:
    """Whole files whose header contradicts their contents, as somebody makes them who knows the format."""
    theirs = ServerKeys("{}", b"galois", b"", b"shared")
    parts = {"plan": b"{}", "galois": b"galois", "relinearisation": b"", "integrity": b"shared"}
    plan = envelope.plan_hash("{}")
    right = envelope.Header(envelope.SERVER, plan, theirs.id)
    assert ServerKeys.from_bytes(envelope.wrap(envelope.Envelope(right, parts))) == theirs
    other_id = envelope.Header(envelope.SERVER, plan, b"i" * 16)
    other_plan = envelope.Header(envelope.SERVER, b"p" * 32, theirs.id)
    for header, code in ((other_id, "damaged"), (other_plan, "wrong-plan")):
        with pytest.raises(EnvelopeError) as caught:
            ServerKeys.from_bytes(envelope.wrap(envelope.Envelope(header, parts)))
        assert caught.value.code == code


def test_a_plan_that_this_version_runs_in_another_way(linear_pair: Pair) -> None:
    agreement = linear_pair[0].agreement
    assert Agreement.from_text(agreement.text).hash == agreement.hash
    changed = json.loads(agreement.text)
    changed["circuit"] = "0" * 32
    with pytest.raises(EnvelopeError, match="runs it in another way") as caught:
        Agreement.from_text(json.dumps(changed))
    assert caught.value.code == "wrong-version"
