"""`stein demo`: two picture filters as one einsum, explained, timed beside NumPy and opt_einsum, checked; encrypted.

A separable filter of a colour picture is y[i,j,c] = A[i,k] * B[j,l] * x[k,l,c]: a Kronecker product of a matrix for the
rows and one for the columns. With Gaussian matrices it blurs; with A = D' M D, where D is the cosine transform and M
keeps the lowest frequencies, it is the heart of JPEG. The program is compiled once and called with both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import BackendError
from .demo_encrypted import EDGE, show, thumbnail

if TYPE_CHECKING:
    from rich.console import Console

Array = np.ndarray[Any, Any]

PROGRAM = "y[i,j,c] = A[i,k] * B[j,l] * x[k,l,c]"
SPEC = "ik,jl,klc->ijc"


def gaussian(n: int, radius: float) -> Array:
    """The n-by-n matrix that blurs a line of n pixels; its rows sum to 1.

    >>> gaussian(3, 1.0).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    place = np.arange(n)
    weights = np.exp(-((place[:, None] - place) ** 2) / (2 * radius**2))
    weights[weights < 1e-20] = 0  # in single precision these would be subnormal numbers, which are slow everywhere
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def low_pass(n: int, keep: int) -> Array:
    """D' M D: to the frequencies of the orthonormal cosine transform, of which the lowest `keep` stay, and back.

    >>> bool(np.allclose(low_pass(4, 4), np.eye(4), atol=1e-6))
    True
    """
    frequency, place = np.arange(n)[:, None], np.arange(n)
    transform = np.sqrt(2 / n) * np.cos(np.pi * (place + 0.5) * frequency / n)
    transform[0] /= np.sqrt(2)
    kept = transform[:keep]
    return np.asarray(kept.T @ kept, np.float32)


def sample_picture() -> Array:
    """The photograph of Grace Hopper that matplotlib ships, as floats between 0 and 1.

    Raises `BackendError` where matplotlib is not installed.
    """
    image = _pictures()
    from matplotlib.cbook import get_sample_data

    path = get_sample_data("grace_hopper.jpg", asfileobj=False)
    return np.asarray(image.imread(path), np.float32) / np.float32(255)


def _pictures() -> Any:
    """matplotlib's module that reads and writes pictures."""
    try:
        from matplotlib import image
    except ImportError:
        raise BackendError(
            "the demo reads and writes pictures with matplotlib, which is not installed",
            code="not-installed",
            help="pip install 'stein[demo]'",
        ) from None
    return image


def main(out: str | Path = "out", picture: Array | None = None, seconds: float = 1.0, edge: int = EDGE) -> None:
    """Filter `picture` (by default matplotlib's), write the results to the folder `out`, print what happened.

    Each contestant is timed for about `seconds`; `edge` is that of the picture that is filtered encrypted. A result
    beyond the rounding bound is an AssertionError.
    """
    from rich.console import Console

    from .compile import compile as compile_program

    image = _pictures()
    console = Console(width=100, highlight=False)
    x = sample_picture() if picture is None else picture
    rows, cols, colours = x.shape
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    filters = {
        "blurred": (gaussian(rows, rows / 100), gaussian(cols, rows / 100)),
        "low_pass": (low_pass(rows, rows // 8), low_pass(cols, cols // 8)),
    }

    started = time.perf_counter()
    f = compile_program(PROGRAM, A=(rows, rows), B=(cols, cols), x=(rows, cols, colours), dtype="float32")
    results = {name: f(A=A, B=B, x=x) for name, (A, B) in filters.items()}
    elapsed = time.perf_counter() - started

    image.imsave(folder / "before.png", np.clip(x, 0, 1))
    for name, y in results.items():
        error, share = deviation(*filters[name], x, y)
        assert share <= 1, f"{name}: off by {error}, {share} times what rounding can explain"
        image.imsave(folder / f"{name}.png", np.clip(y, 0, 1))
        console.print(f"{name}: off by {error:.1e} at most from NumPy in float64, {share:.1%} of the rounding bound")

    explanation = f.explain()
    console.print(explanation)
    explanation.draw(folder / "tree.png")
    console.print(f"\ncompiled and run twice in {elapsed * 1e3:.0f} ms; pictures are in {folder}/")
    _compare(console, f, *filters["blurred"], x, seconds)
    blur = gaussian(edge, 1.0).astype(float)
    show(console, thumbnail(x, edge), blur, blur, folder)


def deviation(A: Array, B: Array, x: Array, y: Array) -> tuple[float, float]:
    """The largest difference of y to the product in float64, and the largest share of what rounding can explain.

    A sum of n products is off by at most (n + 2) eps times the sum of magnitudes (Higham, "Accuracy and Stability of
    Numerical Algorithms", section 3.1); here two such sums follow each other.
    """
    wide = [np.asarray(each, np.float64) for each in (A, B, x)]
    exact = _filtered(*wide)
    magnitude = _filtered(*(np.abs(each) for each in wide))
    eps = float(np.finfo(y.dtype).eps)
    allowed = (A.shape[1] + B.shape[1] + 4) * eps * magnitude
    error = np.abs(y - exact)
    return float(error.max()), float((error / np.maximum(allowed, np.finfo(np.float64).tiny)).max())


def _filtered(A: Array, B: Array, x: Array) -> Array:
    rows = np.tensordot(A, x, axes=(1, 0))
    return np.asarray(np.tensordot(rows, B, axes=(1, 1)).transpose(0, 2, 1))


def _compare(console: Console, f: Callable[..., Any], A: Array, B: Array, x: Array, seconds: float) -> None:
    """Print the best time of stein, np.einsum and opt_einsum on one filter."""
    from opt_einsum import contract
    from rich.table import Table

    contestants: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("stein", lambda: f(A, B, x)),
        ("np.einsum(optimize=True)", lambda: np.einsum(SPEC, A, B, x, optimize=True)),
        ("opt_einsum.contract", lambda: contract(SPEC, A, B, x)),
    )
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("best of runs", justify="right")
    for name, best in zip(dict(contestants), best_times([call for _, call in contestants], seconds), strict=True):
        table.add_row(name, f"{best * 1e3:.2f} ms")
    console.print(table)
    rows, cols, colours = x.shape
    naive = 3.0 * rows**2 * cols**2 * colours
    console.print(
        f"np.einsum without optimize=True runs one loop nest of {naive:.1e} flops: minutes, so it is left out."
        if naive > 1e11
        else f"np.einsum without optimize=True runs one loop nest of {naive:.1e} flops."
    )


PAUSE = 0.2  # seconds between contestants


def best_times(calls: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """The shortest run of each call, in about `seconds` for each; at least three runs.

    The calls take turns, so that what else the machine does meets all of them alike. Before each there is a pause and
    a run that is not timed: idle threads of other libraries spin for over 100 ms and would slow the next contestant.
    """
    best, runs, end = [float("inf")] * len(calls), 0, time.perf_counter() + seconds * len(calls)
    while runs < 3 or time.perf_counter() < end:
        for k, call in enumerate(calls):
            time.sleep(PAUSE)
            call()
            started = time.perf_counter()
            call()
            best[k] = min(best[k], time.perf_counter() - started)
        runs += 1
    return best
