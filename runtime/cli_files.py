"""What every command of the shell does with its words and files: programs, shapes, arrays in, arrays out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError

Array = np.ndarray[Any, Any]
Shape = tuple[int | str, ...]


def read_program(program: str) -> str:
    """The text of a program: the word itself, a file, or standard input."""
    if program == "-":
        return sys.stdin.read()
    if program.endswith(".ein"):
        try:
            return Path(program).read_text(encoding="utf-8-sig")  # an editor may have put a byte order mark in front
        except UnicodeDecodeError as error:
            raise EinsumSyntaxError(f"{program} is not UTF-8: {error}", code="encoding") from error
    return program


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The words NAME=VALUE as a dictionary, the others as a list."""
    named, plain = {}, []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            if name in named:
                raise click.UsageError(f"{name} is given twice")
            named[name] = value
        else:
            plain.append(word)
    return named, plain


def parse_shape(text: str) -> Shape:
    """The shape that a word of the command line means; names and arithmetic stand for symbolic sizes.

    >>> parse_shape("batch,64,2*n-1"), parse_shape("()"), parse_shape("(3,)")
    (('batch', 64, '2*n-1'), (), (3,))
    """
    inside = text.strip()
    if inside.startswith("(") and inside.endswith(")"):
        inside = inside[1:-1]
    parts = [part.strip() for part in inside.split(",") if part.strip()]
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def load(path: Path) -> Array:
    """An array from a .npy file; files with Python objects in them are refused."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DTypeError(f"{path} is no array that NumPy stored: {error}", code="not-an-array") from error
    if not isinstance(loaded, np.ndarray):
        raise DTypeError(f"{path} holds several arrays; give one .npy file for each operand", code="not-an-array")
    return loaded


def save(result: Any, output: Path | None) -> None:
    """Write the results where they belong, or describe them if no place was given."""
    results = result if isinstance(result, dict) else {"": result}
    if output is None:
        for name, value in results.items():
            array = np.asarray(value)
            click.echo(f"{name or 'result'}: {array.dtype}{list(array.shape)}\n{array}")
    elif output.suffix == ".npz":
        members: dict[str, Any] = {name or "result": np.asarray(value) for name, value in results.items()}
        np.savez(output, **members)
        click.echo(f"{output}: {', '.join(name or 'result' for name in results)}")
    elif output.suffix == ".npy":
        for name, value in results.items():
            path = output.with_name(f"{output.stem}-{name}.npy") if name else output
            np.save(path, np.asarray(value), allow_pickle=False)
            click.echo(f"{path}: {np.asarray(value).dtype}{list(np.shape(value))}")
    else:
        raise ShapeError(f"'{output}' ends neither in .npy nor in .npz", code="output-name")
