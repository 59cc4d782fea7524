"""The commands of encrypted programs: `stein keygen`, `encrypt`, `serve-once` and `decrypt`.

Client and server are two processes that share nothing but files: the client keeps its keys, the server gets its own
bundle once and a file of ciphertexts for each run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import EinsumSyntaxError, EncryptionError
from .cli_files import load, parse_shape, read_program, save, split

if TYPE_CHECKING:
    from .client import Client

_file = click.Path(dir_okay=False, path_type=Path)
_arrays = click.argument("arrays", nargs=-1, metavar="NAME=FILE.npy...")
_passphrase_file = click.option(
    "--passphrase-file", type=_file, help="The passphrase of the client's file, on the first line of this one."
)


@click.command()
@click.argument("program")
@click.argument("shapes", nargs=-1, metavar="NAME=SHAPE...")
@click.option("-e", "--encrypted", multiple=True, metavar="NAME", help="An input that arrives encrypted; repeatable.")
@click.option("--precision", default=1e-5, show_default=True, help="The error wanted, relative to the largest result.")
@click.option("--client", default="client.keys", show_default=True, type=_file, help="The client's secret file.")
@click.option("--server", default="server.keys", show_default=True, type=_file, help="What the server gets.")
@click.option("--lock", is_flag=True, help="Ask for a passphrase, and encrypt the client's file under it.")
@_passphrase_file
def keygen(
    program: str,
    shapes: Sequence[str],
    encrypted: Sequence[str],
    precision: float,
    client: Path,
    server: Path,
    lock: bool,
    passphrase_file: Path | None,
) -> None:
    """Compile PROGRAM for encrypted inputs and make a pair of key files for it.

    The client's file holds the secret key; keep it. The server's file holds keys to compute with, none to decrypt;
    send it where only the server reads it, and compare the key id that both sides print.
    """
    from .compile import compile as compile_program
    from .declare import encrypted as encrypted_tensor

    named, plain = split(shapes)
    if plain:
        raise EinsumSyntaxError(f"'{plain[0]}' names no tensor", code="unnamed-shape", help=f"NAME={plain[0]}")
    declared: dict[str, Any] = {name: parse_shape(value) for name, value in named.items()}
    for name in encrypted:
        if name not in declared:
            raise EinsumSyntaxError(
                f"the encrypted '{name}' has no shape", code="unnamed-shape", help=f"{name}=64 or {name}=64,64"
            )
        declared[name] = encrypted_tensor(declared[name])
    passphrase = _written(passphrase_file)
    if passphrase is None and lock:
        passphrase = click.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
    compiled: Any = compile_program(read_program(program), target="ckks", precision=precision, **declared)
    click.echo(str(compiled.explain()))
    mine, theirs = compiled.keygen()
    mine.save(client, passphrase)
    theirs.save(server)
    click.echo(f"{client}: secret, {client.stat().st_size:,} bytes; {server}: {server.stat().st_size:,} bytes")
    click.echo(f"key id {mine.key_id}")


@click.command()
@click.argument("client", type=_file)
@_arrays
@click.option("-o", "--output", required=True, type=_file, help="Where the ciphertexts go.")
@_passphrase_file
def encrypt(client: Path, arrays: Sequence[str], output: Path, passphrase_file: Path | None) -> None:
    """Encrypt arrays stored by NumPy with the client's keys."""
    ciphertexts = _client(client, passphrase_file).encrypt(**_named(arrays))
    ciphertexts.save(output)
    click.echo(f"{output}: {ciphertexts.count} ciphertexts, {ciphertexts.nbytes:,} bytes")


@click.command("serve-once")
@click.argument("server", type=_file)
@click.argument("request", type=_file)
@_arrays
@click.option("-o", "--output", required=True, type=_file, help="Where the encrypted result goes.")
@click.option("--processes", default=1, show_default=True, help="That share the run; 0 for as many as pay.")
def serve_once(server: Path, request: Path, arrays: Sequence[str], output: Path, processes: int) -> None:
    """Evaluate the program once on encrypted inputs, with the server's keys and its clear arrays."""
    from .encrypted_files import Ciphertexts
    from .server import Server

    machine = Server.load(server)
    machine.processes = processes
    with _progress() as machine.progress:
        result = machine.run(Ciphertexts.load(request), **_named(arrays))
    result.save(output)
    executed = ", ".join(f"{name} {count}" for name, count in machine.executed.items())
    click.echo(f"{output}: {result.nbytes:,} bytes; executed: {executed}\nkey id {machine.key_id}")


@click.command()
@click.argument("client", type=_file)
@click.argument("result", type=_file)
@click.option("--request", type=_file, help="The ciphertexts that the result must answer.")
@click.option("-o", "--output", type=_file, help="Where the result goes: .npy or .npz.")
@_passphrase_file
def decrypt(
    client: Path, result: Path, request: Path | None, output: Path | None, passphrase_file: Path | None
) -> None:
    """Decrypt a result with the client's keys."""
    from .encrypted_files import Ciphertexts

    answers = None if request is None else Ciphertexts.load(request)
    save(_client(client, passphrase_file).decrypt(Ciphertexts.load(result), answers=answers), output)


COMMANDS = (keygen, encrypt, serve_once, decrypt)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on a terminal's stderr, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluating")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _written(path: Path | None) -> str | None:
    """The passphrase in a file."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig").partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise EncryptionError(f"{path} is not UTF-8, so it holds no passphrase", code="encoding") from None


def _client(path: Path, passphrase_file: Path | None) -> Client:
    """The client in a file; at a terminal, its passphrase is asked for where it needs one and none was given."""
    from ..backends.ckks.execution import envelope
    from ..backends.ckks.execution.passphrase import locked
    from .client import Client

    passphrase = _written(passphrase_file)
    if passphrase is None and sys.stdin.isatty() and locked(envelope.read(path)):
        passphrase = click.prompt("passphrase", hide_input=True, err=True)
    return Client.load(path, passphrase)


def _named(words: Sequence[str]) -> dict[str, Any]:
    """The arrays by the names that the words give them."""
    named, plain = split(words)
    if plain:
        raise EncryptionError(f"'{plain[0]}' names no tensor", code="unnamed-array", help=f"NAME={plain[0]}")
    return {name: load(Path(path)) for name, path in named.items()}
