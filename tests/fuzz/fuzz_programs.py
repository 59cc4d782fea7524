"""Programs of the named language with random sizes, each beside its meaning in NumPy.

Outside the compiler. Every program is a sum of products (or a maximum of sums), so that the rounding bound of
`fuzz_oracle` applies: the reference evaluated on magnitudes is `sum|terms|`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from fuzz_operands import Array
from fuzz_oracle import Expected, _limits

Rng = np.random.Generator
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Template:
    """A program, the shape of each argument by size names, its reference and how often it adds.

    `terms` gives the number of summed terms of one element; `factors` the number of operands of a product.
    """

    text: str
    shapes: dict[str, tuple[Any, ...]]
    reference: Callable[[Arrays], Array]
    terms: Callable[[dict[str, int]], int]
    factors: int = 3
    linear: bool = True


def _einsum(spec: str, *names: str) -> Callable[[Arrays], Array]:
    return lambda a: np.asarray(np.einsum(spec, *(a[n] for n in names), optimize=False))


def _toeplitz(a: Arrays) -> Array:
    n = a["x"].shape[-1]
    i, j = np.indices((n, n))
    return np.asarray(np.einsum("ij,bj->bi", a["t"][i - j + n - 1], a["x"]))


def _hankel(a: Arrays) -> Array:
    n = a["x"].shape[0]
    i, j = np.indices((n, n))
    return np.asarray(np.einsum("ij,j->i", a["h"][i + j], a["x"]))


def _circulant(a: Arrays) -> Array:
    n = a["x"].shape[0]
    i, j = np.indices((n, n))
    return np.asarray(np.einsum("ij,j->i", a["c"][(i - j) % n], a["x"]))


def _convolution(a: Arrays) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(a["x"], a["w"].shape)
    return np.asarray(np.einsum("pquv,uv->pq", windows, a["w"]))


def _stencil(a: Arrays) -> Array:
    padded = np.pad(a["x"], 1)
    return np.asarray(sum(a["w"][d] * padded[d : d + a["x"].shape[0]] for d in range(3)))


def _polynomial(a: Arrays) -> Array:
    y = np.zeros(len(a["a"]) + len(a["b"]) - 1, a["a"].dtype)
    for i, left in enumerate(a["a"]):
        y[i : i + len(a["b"])] += left * a["b"]
    return y


def _causal(a: Arrays) -> Array:
    return np.asarray(np.tril(a["A"]) @ a["x"])


TEMPLATES: dict[str, Template] = {
    "product": Template(
        "y[i,k] = A[i,j] * B[j,k]", {"A": ("n", "m"), "B": ("m", "p")}, _einsum("ij,jk->ik", "A", "B"), lambda s: s["m"]
    ),
    "kronecker": Template(
        "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", {"A": ("n", "n"), "B": ("m", "m"), "x": ("p", "n", "m")},
        _einsum("ik,jl,bkl->bij", "A", "B", "x"), lambda s: s["n"] * s["m"],
    ),
    "sylvester": Template(
        "y[i,j] = A[i,k]*x[k,j] + x[i,l]*B[j,l]", {"A": ("n", "n"), "x": ("n", "m"), "B": ("m", "m")},
        lambda a: a["A"] @ a["x"] + a["x"] @ a["B"].T, lambda s: s["n"] + s["m"],
    ),
    "difference": Template(
        "y[i] = A[i,k]*x[k] - 2*b[i]", {"A": ("n", "m"), "x": ("m",), "b": ("n",)},
        lambda a: a["A"] @ a["x"] - a["minus"] * 2 * a["b"], lambda s: s["m"] + 1,
    ),
    "low rank": Template(
        "y[i] = U[i,r]*V[j,r]*x[j]", {"U": ("n", "p"), "V": ("m", "p"), "x": ("m",)},
        _einsum("ir,jr,j->i", "U", "V", "x"), lambda s: s["m"] * s["p"],
    ),
    "dense plus low rank": Template(
        "y[b,i] = (D[i,j] + U[i,r]*V[j,r])*x[b,j]",
        {"D": ("n", "m"), "U": ("n", "p"), "V": ("m", "p"), "x": ("q", "m")},
        lambda a: a["x"] @ (a["D"] + a["U"] @ a["V"].T).T, lambda s: s["m"] * (s["p"] + 1),
    ),
    "toeplitz": Template(
        "x: f64[b,n]; t: f64[2*n-1]; y[b,i] = t[i-j+n-1]*x[b,j]", {"x": ("p", "n"), "t": ("2n-1",)},
        _toeplitz, lambda s: s["n"],
    ),
    "hankel": Template(
        "h: f64[2*n-1]; x: f64[n]; y[i] = h[i+j]*x[j]", {"h": ("2n-1",), "x": ("n",)}, _hankel, lambda s: s["n"]
    ),
    "circulant": Template(
        "c, x: f64[n]; y[i] = c[(i-j) mod n]*x[j]", {"c": ("n",), "x": ("n",)}, _circulant, lambda s: s["n"]
    ),
    "convolution": Template(
        "y[p,q] = x[p+u,q+v]*w[u,v]", {"x": ("n+3", "m+3"), "w": ("3", "3")}, _convolution, lambda s: 9
    ),
    "stencil": Template(
        "w: f64[-1..2]; x: f64[n] pad=0; y[i] = w[d]*x[i+d] for i in 0..n", {"w": ("3",), "x": ("n",)},
        _stencil, lambda s: 3,
    ),
    "monarch": Template(
        "t[b,j,k] = R[j,k,m]*x[b,j,m]; y[b,i,k] = L[k,i,j]*t[b,j,k]",
        {"R": ("n", "m", "p"), "x": ("q", "n", "p"), "L": ("m", "q", "n")},
        _einsum("kij,jkm,bjm->bik", "L", "R", "x"), lambda s: s["n"] * s["p"],
    ),
    "polynomial": Template(
        "y[i+j] = a[i]*b[j]", {"a": ("n",), "b": ("m",)}, _polynomial, lambda s: min(s["n"], s["m"])
    ),
    "diagonal": Template("D[i,i] = v[i]", {"v": ("n",)}, lambda a: np.diag(a["v"]), lambda s: 1),
    "causal": Template("y[i] = (i >= j)*A[i,j]*x[j]", {"A": ("n", "n"), "x": ("n",)}, _causal, lambda s: s["n"]),
    "whole": Template(
        "y = A' @ x + 2*b", {"A": ("n", "m"), "x": ("n",), "b": ("m",)},
        lambda a: a["A"].T @ a["x"] + 2 * a["b"], lambda s: s["n"] + 1,
    ),
    "composite": Template(
        "y[b,(i k)] = A[i,j]*x[b,j,k]", {"A": ("n", "m"), "x": ("p", "m", "q")},
        lambda a: np.einsum("ij,bjk->bik", a["A"], a["x"]).reshape(a["x"].shape[0], -1), lambda s: s["m"],
    ),
    "maxplus": Template(
        "d[i,j] = A[i,k]*B[k,j] over maxplus", {"A": ("n", "m"), "B": ("m", "p")},
        lambda a: (a["A"][:, :, None] + a["B"][None]).max(axis=1), lambda s: 1, linear=False,
    ),
    "relu": Template(
        "y[i] = relu(sum[k] A[i,k]*x[k])", {"A": ("n", "m"), "x": ("m",)},
        lambda a: np.maximum(a["A"] @ a["x"], 0), lambda s: s["m"],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ProgramCall:
    """One compiled program called `calls` times with new values."""

    kind: str
    sizes: tuple[tuple[str, int], ...]
    seed: int
    calls: int = 2

    @property
    def template(self) -> Template:
        """The program and its reference."""
        return TEMPLATES[self.kind]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each argument."""
        sizes = dict(self.sizes)
        return {name: tuple(_size(s, sizes) for s in shape) for name, shape in self.template.shapes.items()}

    def arrays(self, call: int) -> Arrays:
        """The arguments of one call."""
        rng = np.random.default_rng([self.seed, call])
        return {n: rng.uniform(0.5, 1.5, s) * rng.choice([-1.0, 1.0], s) for n, s in self.shapes().items()}

    def expected(self, arrays: Arrays) -> Expected:
        """Reference and bound for one call."""
        wide: Arrays = {n: a.astype(np.longdouble) for n, a in arrays.items()}
        one = np.asarray(np.longdouble(1))
        value = np.asarray(self.template.reference({**wide, "minus": one}))
        magnitude = np.asarray(self.template.reference({**{n: np.abs(a) for n, a in wide.items()}, "minus": -one}))
        eps, tiny, _ = _limits(np.dtype(np.float64))
        slack = 1.5 * (self.template.terms(dict(self.sizes)) + self.template.factors + 2)
        return Expected(value, slack * (eps * magnitude + tiny), np.dtype(np.float64))

    def code(self) -> str:
        """A runnable snippet."""
        return (
            'import sys; sys.path.insert(0, "tests/fuzz")\nimport stein\nfrom fuzz_programs import ProgramCall\n'
            f"p = {self!r}\n"
            'f = stein.compile(p.template.text, dtype="float64", **p.shapes())\n'
            "for k in range(p.calls):\n    print(f(**p.arrays(k)), p.expected(p.arrays(k)).value)"
        )


def _size(text: str, sizes: dict[str, int]) -> int:
    if text.isdigit():
        return int(text)
    if text == "2n-1":
        return 2 * sizes["n"] - 1
    name, _, plus = text.partition("+")
    return sizes[name] + int(plus or 0)


def program(rng: Rng) -> ProgramCall:
    """One random program."""
    kinds = list(TEMPLATES)
    kind = kinds[int(rng.integers(len(kinds)))]
    sizes = tuple((n, int(rng.choice((1, 2, 3, 4, 5, 8, 9, 16, 17)))) for n in ("n", "m", "p", "q"))
    return ProgramCall(kind, sizes, int(rng.integers(1 << 31)))
