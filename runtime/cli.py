"""The command `stein` (and `python -m stein`): explain, run and inspect programs from a shell.

Everything here goes through the public calls `einsum` and `compile`; what it adds is reading files and printing. A
user's mistake prints its message to stderr and leaves with exit code 2; a traceback is always our own bug.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..ir.errors import EinsumSyntaxError, SteinError
from .cli_encrypted import COMMANDS
from .cli_files import Shape, load, parse_shape, read_program, save, split
from .version import VERSION

if TYPE_CHECKING:
    from .compiled import Compiled


class _Reported(click.ClickException):
    """A user's mistake, as its message stands."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(self.message, file=file, err=file is None)


class _Commands(click.Group):
    """A group whose commands report a `SteinError` instead of raising it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SteinError, OSError) as error:
            raise _Reported(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="stein")
def cli() -> None:
    """Compile tensor expressions, and see what the compiler did.

    PROGRAM is an einsum string ("ij,jk->ik"), a program of the named language ("y[i] = A[i,j]*x[j]"), a file of one
    (name.ein), or - for standard input.
    """


_program = click.argument("program")
_shapes = click.argument("shapes", nargs=-1, metavar="[[NAME=]SHAPE]...")
_dtype = click.option("--dtype", default=None, help="Element type of operands whose type is not declared.")
_target = click.option("--target", default="cpu", show_default=True, help="Where the program is to run.")


@cli.command()
@_program
@_shapes
@_dtype
@_target
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@click.option("--draw", type=click.Path(dir_okay=False, path_type=Path), help="Draw the tree or circuit into a file.")
def explain(
    program: str, shapes: Sequence[str], dtype: str | None, target: str, as_json: bool, draw: Path | None
) -> None:
    """Say what the compiler makes of PROGRAM: passes, contraction tree, work, kernels.

    Shapes follow in order ("64,32 32,16") or by name ("A=64,64 x=batch,64"); a name in a shape is a symbolic size.
    """
    compiled: Any = _compile(program, shapes, dtype, target)
    explanation = compiled.explain()
    if draw is not None:
        (compiled if target == "ckks" else explanation).draw(draw)
    click.echo(json.dumps(explanation.as_dict(), indent=2) if as_json else str(explanation))


@cli.command()
@_program
@_shapes
@_dtype
@_target
@click.option("--stage", default="planned", show_default=True, type=click.Choice(["elaborated", "normal", "planned"]))
def ir(program: str, shapes: Sequence[str], dtype: str | None, target: str, stage: str) -> None:
    """Print the intermediate representation of PROGRAM at a stage of compilation."""
    click.echo(_compile(program, shapes, dtype, target).ir(stage))


@cli.command()
@_program
@_shapes
@_dtype
@_target
@click.option("--kind", default="llvm", show_default=True, help="Which text: llvm or asm.")
def source(program: str, shapes: Sequence[str], dtype: str | None, target: str, kind: str) -> None:
    """Print the code that was generated for PROGRAM."""
    click.echo(_compile(program, shapes, dtype, target).source(kind))


@cli.command()
@_program
@click.argument("arrays", nargs=-1, metavar="[NAME=]FILE.npy...")
@_target
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where the result goes: .npy or .npz."
)
def run(program: str, arrays: Sequence[str], target: str, output: Path | None) -> None:
    """Run PROGRAM on arrays stored by NumPy.

    Several results go into one .npz, or into one .npy each, whose names end in the result's name.
    """
    from .einsum import einsum

    text = read_program(program)
    named, plain = split(arrays)
    loaded = {name: load(Path(path)) for name, path in named.items()}
    positional = [load(Path(path)) for path in plain]
    if _is_classic(text):
        if loaded:
            raise EinsumSyntaxError("the operands of an einsum string have no names", code="named-operand")
        result = einsum(text, *positional)
    else:
        declared = {name: _Described(array.shape, array.dtype) for name, array in loaded.items()}
        result = _compiled(text, (), None, target, declared)(*positional, **loaded)
    save(result, output)


class _Described:
    """A shape and a type: what `compile` asks of an array-like."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype


@cli.command()
@click.option("--out", default="out", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def demo(out: Path) -> None:
    """Filter a photograph with one einsum, and show how it was compiled."""
    from .demo import main as run_demo

    run_demo(out)


@cli.command()
def info() -> None:
    """Describe this installation: versions, processor, targets, threads, cache."""
    from .info import describe

    click.echo(describe())


for _command in COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with `arguments` (by default the process's) and leave the process."""
    cli.main(args=None if arguments is None else list(arguments), prog_name="stein")


def _is_classic(text: str) -> bool:
    """Whether a text is an einsum string: a named program has "=" or ":"."""
    return not any(sign in text for sign in "=:")


def _compile(program: str, words: Sequence[str], dtype: str | None, target: str) -> Compiled:
    """The program compiled for the shapes that the command line gives."""
    named, plain = split(words)
    declared = {name: parse_shape(value) for name, value in named.items()}
    return _compiled(read_program(program), [parse_shape(word) for word in plain], dtype, target, declared)


def _compiled(
    text: str, shapes: Sequence[Shape], dtype: str | None, target: str, declared: Mapping[str, Any]
) -> Compiled:
    from .compile import compile as compile_program

    options = set(inspect.signature(compile_program).parameters) & set(declared)
    if options:
        raise EinsumSyntaxError(
            f"'{min(options)}' is an option of the compiler; a shell cannot declare a tensor of that name",
            code="reserved-name",
            help="rename it",
        )
    keywords: dict[str, Any] = {"dtype": dtype, "target": target, **declared}
    compiled: Compiled = compile_program(text, *shapes, **keywords)
    return compiled
