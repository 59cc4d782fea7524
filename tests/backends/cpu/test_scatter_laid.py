"""Lookups on tensors laid out anew: the same numbers, and taken where the price says so."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import stein
from stein.backends.cpu import scatter_laid

SIZES = {"b": 17, "i": 5, "j": 6, "a": 16, "c": 3, "s": 40}
TEXT = "I, J: i64[S]; y[{y}] = (I[s] == i) * W[s,a,c] * (J[s] == j) * x[{x}] for i in 0..5"


def _operands(dtype: str, order: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, [SIZES[k] for k in order])
    w = rng.integers(-9, 9, [SIZES[k] for k in "sac"])
    # positions outside of the axes select nothing
    rows, cols = rng.integers(-2, SIZES["i"] + 2, SIZES["s"]), rng.integers(-2, SIZES["j"] + 2, SIZES["s"])
    return {"I": rows, "J": cols, "W": w.astype(dtype), "x": x.astype(dtype)}


def _wanted(o: dict[str, np.ndarray], x: str, y: str) -> np.ndarray:
    i = (o["I"][:, None] == np.arange(SIZES["i"])).astype(o["x"].dtype)
    j = (o["J"][:, None] == np.arange(SIZES["j"])).astype(o["x"].dtype)
    return np.einsum(f"si,sac,sj,{x}->{y}", i, o["W"], j, o["x"], optimize=True)


@pytest.mark.parametrize(("x", "y"), list(product(("bjc", "jbc", "cjb"), ("bia", "iba", "aib"))))
@pytest.mark.parametrize("dtype", ["float32", "int32", "complex128"])
def test_copies_change_no_number(x: str, y: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layout, with copies forced wherever they are possible; sums of small integers are exact."""
    monkeypatch.setattr(scatter_laid, "_BETTER", 1e9)
    monkeypatch.setattr(scatter_laid, "_VISITS", 0)
    operands = _operands(dtype, x)
    f = stein.compile(TEXT.format(y=",".join(y), x=",".join(x)), x=operands["x"], W=operands["W"])
    np.testing.assert_array_equal(f(**operands), _wanted(operands, x, y))
    turned = operands | {"x": operands["x"][::-1], "W": operands["W"][:, ::-1]}
    np.testing.assert_array_equal(f(**turned), _wanted(turned, x, y))


def test_the_price_decides() -> None:
    """Blocks of rows a page apart, visited often, are copied together; with the batch last, nothing is copied."""
    first, last = (
        stein.compile(
            f"I, J: i64[409]; y[{y}] = (I[s] == i) * W[s,a,c] * (J[s] == j) * x[{x}] for i in 0..64",
            W=(409, 64, 64),
            x=shape,
            dtype="float32",
        )
        for x, y, shape in (("b,j,c", "b,i,a", (256, 64, 64)), ("j,c,b", "i,a,b", (64, 64, 256)))
    )
    assert "laid direct" in str(first.explain())
    assert "laid direct" not in str(last.explain())


def test_updates_start_from_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """`+=` adds to the values of the tensor, through the copy too."""
    monkeypatch.setattr(scatter_laid, "_BETTER", 1e9)
    monkeypatch.setattr(scatter_laid, "_VISITS", 0)
    rng = np.random.default_rng(1)
    z, v, positions = rng.integers(0, 9, (32, 6)), rng.integers(0, 9, (50, 32)), rng.integers(0, 6, 50)
    f = stein.compile("I: i64[S]; z[b,i] = g[b,i]; z[b,I[s]] += v[s,b]", g=z, v=v)
    wanted = z.copy()
    np.add.at(wanted.T, positions, v)
    np.testing.assert_array_equal(f(I=positions, g=z, v=v), wanted)
