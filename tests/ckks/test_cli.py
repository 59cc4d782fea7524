"""Client and server as processes that share nothing but files; mistakes are messages, never tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from stein.runtime.cli import cli

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "y[i] = W[i,j] * x[j]"


def process(folder: Path, *words: str) -> str:
    """What a command prints; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".typing")}
    command = [sys.executable, "-m", "stein", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(*words: Any) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_two_processes_that_share_only_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    client, server = tmp_path / "client", tmp_path / "server"
    client.mkdir()
    server.mkdir()
    W, x = rng.standard_normal((3, 4)), rng.uniform(-1, 1, 4)
    np.save(server / "W.npy", W)
    np.save(client / "x.npy", x)
    made = process(client, "keygen", PROGRAM, "W=3,4", "x=4", "-e", "x", "--server", str(server / "server.keys"))
    assert "rotations" in made and (client / "client.keys").exists()
    process(client, "encrypt", "client.keys", "x=x.npy", "-o", str(server / "request"))
    assert sorted(p.name for p in server.iterdir()) == ["W.npy", "request", "server.keys"]  # and no secret key
    ran = process(server, "serve-once", "server.keys", "request", "W=W.npy", "-o", str(client / "answer"))
    assert "executed" in ran and ran.split()[-1] == made.split()[-1]  # both print the key id
    (client / "request").write_bytes((server / "request").read_bytes())
    process(client, "decrypt", "client.keys", "answer", "--request", "request", "-o", "y.npy")
    np.testing.assert_allclose(np.load(client / "y.npy"), W @ x, atol=1e-5 * np.abs(W @ x).max())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, linear_pair: tuple[Any, Any]) -> Path:
    folder = tmp_path_factory.mktemp("files")
    client, server = linear_pair
    client.save(folder / "client.keys")
    server.save(folder / "server.keys")
    client.encrypt(x=np.ones(8)).save(folder / "request")
    np.save(folder / "x.npy", np.ones(8))
    np.save(folder / "short.npy", np.ones(7))
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("encrypt", "client.keys", "x=short.npy", "-o", "out"), "wrong-shape"),
        (("encrypt", "client.keys", "x.npy", "-o", "out"), "names no tensor"),
        (("encrypt", "server.keys", "x=x.npy", "-o", "out"), "wrong-kind"),
        (("encrypt", "nowhere", "x=x.npy", "-o", "out"), "No such file"),
        (("serve-once", "server.keys", "request", "-o", "out"), "'W' is missing"),
        (("serve-once", "client.keys", "request", "-o", "out"), "wrong-kind"),
        (("decrypt", "client.keys", "request"), "wrong-kind"),
        (("decrypt", "client.keys", "x.npy"), "no file of stein"),
    ],
)
def test_mistakes(files: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    result = call(*words)
    assert result.exit_code == 2 and message in result.output and not (files / "out").exists()


def test_mistakes_of_keygen() -> None:
    assert "has no shape" in call("keygen", PROGRAM, "W=3,4", "-e", "x").output
    assert "names no tensor" in call("keygen", PROGRAM, "3,4", "-e", "x").output
    nothing = call("keygen", PROGRAM, "W=3,4", "x=4")
    assert nothing.exit_code == 2 and "nothing-encrypted" in nothing.output


def test_results_are_printed_without_an_output(files: Path, linear_pair: tuple[Any, Any], tmp_path: Path) -> None:
    client, server = linear_pair
    server.run(client.encrypt(x=np.ones(8)), v=np.ones(8)).save(tmp_path / "answer")
    result = call("decrypt", files / "client.keys", tmp_path / "answer")
    assert result.exit_code == 0 and "y: float64[5]" in result.output and "w2: float64[8]" in result.output
