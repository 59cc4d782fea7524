"""The end of `stein demo`: a small grey copy of the picture is blurred by a server that never sees it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import BackendError

if TYPE_CHECKING:
    from rich.console import Console

Array = np.ndarray[Any, Any]

PROGRAM = "y[i,j] = A[i,k] * B[j,l] * x[k,l]"
EDGE = 32  # pixels


def thumbnail(picture: Array, edge: int = EDGE) -> Array:
    """A square grey copy of a picture (rows, columns, colours): the means of its middle, between -1 and 1.

    >>> thumbnail(np.ones((6, 4, 3)), 2).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    grey = np.asarray(picture, float).mean(axis=2)
    side = min(grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    at = np.linspace(0, side, edge + 1).astype(int)
    rows = np.add.reduceat(grey[top : top + side, left : left + side], at[:-1], axis=0)
    cells = np.add.reduceat(rows, at[:-1], axis=1)
    pixels = np.maximum(np.diff(at), 1)
    return np.asarray(2 * cells / np.outer(pixels, pixels) - 1)


def show(console: Console, x: Array, A: Array, B: Array, folder: Path) -> None:
    """Blur `x` encrypted with the matrices `A` and `B`, say what it took, write the picture and the circuit.

    Without tenseal there is a hint instead. A result beyond the predicted error is an AssertionError.
    """
    from matplotlib import image

    from ..backends.ckks.drawing import draw
    from .compile import compile as compile_program
    from .declare import constant, encrypted

    started = time.perf_counter()
    program: Any = compile_program(
        PROGRAM, A=constant(A), B=constant(B), x=encrypted(x.shape), dtype="float64", target="ckks"
    )
    planned = time.perf_counter()
    try:
        client, server = program.keygen()
    except BackendError as missing:
        console.print(f"\nthe same on encrypted pixels: {missing.sentence} ({missing.help})")
        return
    made = time.perf_counter()
    request = client.encrypt(x=x)
    answer = server.run(request)
    y = client.decrypt(answer, answers=request)
    done = time.perf_counter()
    error, expected = float(np.abs(y - A @ x @ B.T).max()), server.predict()["y"]
    assert error <= expected, f"off by {error}, expected {expected}"
    for name, picture in (("encrypted_before", x), ("encrypted_blurred", y)):
        image.imsave(folder / f"{name}.png", np.clip(picture / 2 + 0.5, 0, 1), cmap="gray", vmin=0, vmax=1)
    draw(program.plan.circuit, folder / "circuit.png")
    ran, stats = server.executed, program.stats
    console.print(f"\nthe same filter on {x.size} encrypted pixels, by a server that cannot decrypt them")
    console.print(
        f"found {stats['candidate']}: {ran['rotations']} rotations, {ran['plain_products']} products, "
        f"{ran['levels']} levels at ring {stats['ring']}, {server.nbytes / 1e6:.1f} MB of keys"
    )
    console.print(
        f"planned in {planned - started:.1f} s, keys in {made - planned:.1f} s, encrypted, run and decrypted in "
        f"{done - made:.2f} s; {request.nbytes / 1e3:.0f} kB up, {answer.nbytes / 1e3:.0f} kB down"
    )
    console.print(f"off by {error:.1e} at most, {expected:.1e} expected; the circuit is in {folder}/circuit.png")
