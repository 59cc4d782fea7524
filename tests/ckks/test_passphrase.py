"""Client files under a passphrase: only it opens them, every change is rejected, no secret is ever readable."""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stein import BackendError, Client, EncryptionError, EnvelopeError
from stein.backends.ckks.execution import envelope, passphrase
from stein.backends.ckks.execution.envelope import Envelope
from stein.runtime.cli import cli

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
pytest.importorskip("cryptography", reason="passphrases need cryptography")

Pair = tuple[Any, Any]
SECRET = "correct horse \u00e9"
x, v = np.linspace(-1, 1, 8), np.ones(8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses that cost little, for tests."""
    monkeypatch.setattr(passphrase, "COST", 4)


def code_of(call: Any) -> str:
    with pytest.raises(EnvelopeError) as caught:
        call()
    return caught.value.code


def test_the_passphrase_opens_the_file(linear_pair: Pair, W: Any, tmp_path: Path) -> None:
    client, server = linear_pair
    client.save(tmp_path / "client", SECRET)
    data = (tmp_path / "client").read_bytes()
    assert not any(client._keys.secret[k : k + 32] in data for k in range(64, len(client._keys.secret) - 32, 997))
    for same in (SECRET, "correct horse e\u0301", SECRET.encode()):  # however it is composed
        again = Client.load(tmp_path / "client", same)
    assert again.key_id == client.key_id == envelope.peek(data).key.hex()
    request = again.encrypt(x=x)
    np.testing.assert_allclose(again.decrypt(server.run(request, v=v), answers=request)["y"], W @ x, atol=1e-5)


def test_what_does_not_open_it(linear_pair: Pair, tmp_path: Path) -> None:
    client, _ = linear_pair
    client.save(tmp_path / "locked", SECRET)
    client.save(tmp_path / "open")
    assert code_of(lambda: Client.load(tmp_path / "locked", "another")) == "wrong-passphrase"
    assert code_of(lambda: Client.load(tmp_path / "locked")) == "locked"
    assert code_of(lambda: Client.load(tmp_path / "open", SECRET)) == "not-locked"
    for call in (lambda: client.save(tmp_path / "x", ""), lambda: Client.load(tmp_path / "locked", b"")):
        with pytest.raises(EncryptionError, match="passphrase is empty"):
            call()
    assert not (tmp_path / "x").exists()


def test_every_change_is_rejected(linear_pair: Pair) -> None:
    data = passphrase.lock(linear_pair[0]._keys.to_bytes(), SECRET)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 60).tolist():
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        assert code_of(partial(passphrase.unlock, bytes(changed), SECRET)) in ("damaged", "wrong-kind")
    assert code_of(lambda: passphrase.unlock(data[:-1], SECRET)) == "damaged"


def test_changes_by_somebody_who_knows_the_format_are_rejected(linear_pair: Pair) -> None:
    """The checksum of the envelope is no secret; what is inside is authenticated by the passphrase."""
    found = envelope.unwrap(passphrase.lock(linear_pair[0]._keys.to_bytes(), SECRET), envelope.LOCKED)

    def opened(header: Any = found.header, **parts: bytes) -> str:
        again = envelope.wrap(Envelope(header, {**found.parts, **parts}))
        return code_of(lambda: passphrase.unlock(again, SECRET))

    assert passphrase.unlock(envelope.wrap(found), SECRET) == linear_pair[0]._keys.to_bytes()
    for name in ("salt", "nonce", "sealed"):
        part = found.part(name)
        assert opened(**{name: part[:-1] + bytes([part[-1] ^ 1])}) == "wrong-passphrase"
    assert opened(envelope.Header(envelope.LOCKED, bytes(32), found.header.key)) == "wrong-passphrase"
    assert opened(envelope.Header(envelope.LOCKED, found.header.plan, bytes(16))) == "wrong-passphrase"
    assert opened(cost=bytes([5])) == "wrong-passphrase"
    for cost in (bytes([0]), bytes([60]), b"", bytes(2)):  # a guess that would take all memory is not begun
        assert opened(cost=cost) == "damaged"
    assert opened(salt=b"", nonce=b"") == "damaged"


def test_the_usual_cost_is_not_the_one_of_these_tests(monkeypatch: pytest.MonkeyPatch, linear_pair: Pair) -> None:
    monkeypatch.undo()
    data = passphrase.lock(linear_pair[0]._keys.to_bytes(), SECRET)
    assert envelope.unwrap(data, envelope.LOCKED).part("cost") == bytes([17])


def test_without_cryptography_the_error_says_so(linear_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(BackendError, match="need cryptography") as caught:
        linear_pair[0].save("nowhere", SECRET)
    assert caught.value.code == "not-installed" and not os.path.exists("nowhere")


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_secret_file_is_its_owners_from_the_first_byte_on(
    linear_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    client, server = linear_pair
    targets, seen, replace = [tmp_path / "client", tmp_path / "server"], [], os.replace
    for target in targets:
        target.write_bytes(b"old")
        target.chmod(0o644)  # the mode of what it takes the place of does not count

    def look(source: Any, goal: Any) -> None:
        seen.append((stat.S_IMODE(os.stat(source).st_mode), Path(goal).read_bytes()))
        replace(source, goal)

    monkeypatch.setattr(os, "replace", look)
    before = os.umask(0)
    try:
        client.save(targets[0], secret)
        server.save(targets[1])
    finally:
        os.umask(before)
    assert seen == [(0o600, b"old")] * 2  # whole, and private, before they have their names
    assert [stat.S_IMODE(target.stat().st_mode) for target in targets] == [0o600] * 2


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    linear_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_bytes(b"old")

    def full(number: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        linear_pair[0].save(tmp_path / "keys", SECRET)
    assert [p.name for p in tmp_path.iterdir()] == ["keys"] and (tmp_path / "keys").read_bytes() == b"old"


def test_the_commands(tmp_path: Path) -> None:
    def call(*words: object, text: str = "") -> Any:
        return CliRunner().invoke(cli, [str(word) for word in words], input=text)

    made = tmp_path / "client.keys", tmp_path / "server.keys"
    program = ("y[i] = w[i] * x[i]", "w=4", "x=4", "-e", "x", "--client", made[0], "--server", made[1])
    asked = call("keygen", *program, "--lock", text="first\nfirst\n")
    assert asked.exit_code == 0, asked.output
    assert code_of(lambda: Client.load(made[0])) == "locked" and Client.load(made[0], "first")
    (tmp_path / "secret").write_text("second\nnot this line\n")
    assert call("keygen", *program, "--passphrase-file", tmp_path / "secret").exit_code == 0
    assert Client.load(made[0], "second")
    np.save(tmp_path / "x.npy", np.ones(4))
    words = ("encrypt", made[0], f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "request")
    without = call(*words)
    assert without.exit_code == 2 and "locked" in without.output
    assert call(*words, "--passphrase-file", tmp_path / "secret").exit_code == 0
    (tmp_path / "secret").write_text("third")
    for file, message in (("secret", "wrong-passphrase"), ("x.npy", "is not UTF-8")):
        wrong = call("decrypt", made[0], tmp_path / "request", "--passphrase-file", tmp_path / file)
        assert wrong.exit_code == 2 and message in wrong.output
