"""Matrices with structure: the text that defines `M`, values, and the same matrix built by NumPy alone.

A case says what its solver must be called, and the matrices whose condition numbers bound the error of that solver.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
REAL, ALL = ("f32", "f64"), ("f32", "f64", "c64", "c128")


@dataclass(frozen=True)
class Case:
    """`text` declares operands of type T and defines M; `matrix` builds M from the operands."""

    text: str
    matrix: Callable[[Arrays], Array]
    method: str
    parts: Callable[[Arrays], list[Array]]
    types: tuple[str, ...] = ALL
    kinds: Mapping[str, str] = field(default_factory=dict)  # what is special about the values of an operand
    powers: tuple[float, ...] = (2.0,)


def value(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], kind: str = "") -> Array:
    """Values of one operand, well conditioned if it is a matrix."""
    a = rng.standard_normal(shape)
    if dtype.kind == "c":
        a = a + 1j * rng.standard_normal(shape)
    square = len(shape) == 2 and shape[0] == shape[1]
    if square:  # eigenvalues in a disc around 2
        a = a / (2 * np.sqrt(shape[0])) + 2 * np.eye(shape[0])
    if len(shape) == 3:
        a = a / (2 * np.sqrt(shape[1])) + 2 * np.eye(shape[1])
    made = {
        "positive": lambda: np.abs(a) + 1,
        "small": lambda: a / (2 * np.sqrt(shape[0])),
        "spd": lambda: (a + a.T) / 2,
        "lower": lambda: np.tril(a),
        "orthogonal": lambda: np.linalg.qr(a)[0],
        "permutation": lambda: np.eye(shape[0])[rng.permutation(shape[0])],
        "generator": lambda: np.where(np.arange(shape[0]) == 0, 3, a / (2 * shape[0])),
        "bands": lambda: np.where(np.arange(shape[0])[:, None] == 1, 3, a / 4),
        "tridiagonal": lambda: np.triu(np.tril(a, 1), -1),
        "diagonal": lambda: np.diag(np.abs(np.diag(a)) + 1),
    }
    return np.asarray(made[kind]() if kind else a).astype(dtype)


def kron(*factors: Array) -> Array:
    return np.asarray(reduce(np.kron, factors))


def eye(n: int) -> Array:
    return np.eye(n)


def blocks(b: Array) -> Array:
    g, n, _ = b.shape
    out = np.zeros((g * n, g * n), b.dtype)
    for k in range(g):
        out[k * n : (k + 1) * n, k * n : (k + 1) * n] = b[k]
    return out


def circulant(c: Array) -> Array:
    return np.array([[c[(i - j) % len(c)] for j in range(len(c))] for i in range(len(c))])


def banded(a: Array) -> Array:
    n = a.shape[1]
    out = np.zeros((n, n), a.dtype)
    for i in range(n):
        for j in range(max(0, i - 1), min(n, i + 2)):
            out[i, j] = a[j - i + 1, i]
    return out


def core(d: Array, u: Array, v: Array) -> Array:
    """I + V D^-1 U, which Woodbury solves with."""
    return np.eye(u.shape[1]) + v @ (u / d[:, None])


CASES: dict[str, Case] = {
    "kronecker": Case(
        "A: T[5,5]; B: T[3,3]; M = kron(A, B)", lambda v: kron(v["A"], v["B"]),
        "Kronecker product of 2 factors", lambda v: [v["A"], v["B"]],
    ),
    "kronecker_three_transposed": Case(
        "A: T[3,3]; B: T[4,4]; C: T[2,2]; M = kron(A, B', C)", lambda v: kron(v["A"], v["B"].T, v["C"]),
        "Kronecker product of 3 factors", lambda v: [v["A"], v["B"], v["C"]],
    ),
    "kronecker_scaled": Case(
        "A: T[3,3]; B: T[4,4]; s: T; M = -2*s*kron(A, B)", lambda v: -2 * v["s"] * kron(v["A"], v["B"]),
        "Kronecker product of 2 factors", lambda v: [v["A"], v["B"]], kinds={"s": "positive"},
    ),
    "kronecker_permuted": Case(
        "A: T[3,3]; B: T[4,4]; M[(i k),(l j)] = A[i,j]*B[k,l]",
        lambda v: np.einsum("ij,kl->iklj", v["A"], v["B"]).reshape(12, 12),
        "Kronecker product of 2 factors", lambda v: [v["A"], v["B"]], powers=(),
    ),
    "kronecker_by_indices": Case(
        "A: T[3,3]; B: T[4,4]; M[(i k),(j l)] = B[k,l]*A[i,j]", lambda v: kron(v["A"], v["B"]),
        "Kronecker product of 2 factors", lambda v: [v["A"], v["B"]],
    ),
    "kronecker_shifted": Case(
        "A: T[5,5] symmetric; B: T[4,4] symmetric; s: T; I: identity T[20,20]; M = kron(A, B) + s*I",
        lambda v: kron(v["A"], v["B"]) + v["s"] * eye(20),
        "diagonal in the eigenvectors of its symmetric factors (5x5, 4x4)",
        lambda v: [kron(v["A"], v["B"]) + v["s"] * eye(20)],
        REAL, {"A": "spd", "B": "spd", "s": "positive"}, powers=(2.0, -0.5),
    ),
    "kronecker_shifted_general": Case(
        "A: T[5,5]; B: T[4,4]; s: T; I: identity T[20,20]; M = kron(A, B) + s*I",
        lambda v: kron(v["A"], v["B"]) + v["s"] * eye(20),
        "triangular in the Schur bases of its factors (5x5, 4x4",
        lambda v: [kron(v["A"], v["B"]) + v["s"] * eye(20)], kinds={"s": "positive"}, powers=(),
    ),
    "kronecker_sum": Case(
        "A: T[5,5]; B: T[3,3]; I: identity T[5,5]; J: identity T[3,3]; M = kron(A, J) + 2*kron(I, B')",
        lambda v: kron(v["A"], eye(3)) + 2 * kron(eye(5), v["B"].T),
        "triangular in the Schur bases", lambda v: [kron(v["A"], eye(3)) + 2 * kron(eye(5), v["B"].T)], powers=(),
    ),
    "kronecker_sum_of_three": Case(
        "A: T[3,3] symmetric; B: T[2,2] symmetric; d: T[4]; C[i,j] = (i == j)*d[i] for i in 0..4, j in 0..4\n"
        "I: identity T[3,3]; J: identity T[2,2]; K: identity T[4,4]\n"
        "M = kron(A, J, K) + 3*kron(I, B, K) + kron(I, J, C) + 0.5*kron(A, B, K)",
        lambda v: kron(v["A"], eye(2), eye(4)) + 3 * kron(eye(3), v["B"], eye(4))
        + kron(eye(6), np.diag(v["d"])) + 0.5 * kron(v["A"], v["B"], eye(4)),
        "diagonal in the eigenvectors of its symmetric factors",
        lambda v: [kron(v["A"], v["B"]), np.diag(v["d"])],
        REAL, {"A": "spd", "B": "spd", "d": "positive"}, powers=(2.0, 0.5),
    ),
    "gram_factors_shifted": Case(  # symmetric because they are products, not because somebody said so
        "G: T[3,7]; H: T[2,5]; A = G @ G'; B = H @ H'; I: identity T[6,6]; M = kron(A, B) + I",
        lambda v: kron(v["G"] @ v["G"].T, v["H"] @ v["H"].T) + eye(6),
        "diagonal in the eigenvectors of its symmetric factors",
        lambda v: [kron(v["G"] @ v["G"].T, v["H"] @ v["H"].T) + eye(6)], REAL, powers=(-0.25,),
    ),
    "common_factor": Case(
        "A: T[4,4]; B: T[3,3]; I: identity T[3,3]; M = kron(A, B) + 2*kron(A, I)",
        lambda v: kron(v["A"], v["B"] + 2 * eye(3)),
        "Kronecker product of 2 factors", lambda v: [v["A"], v["B"] + 2 * eye(3)],
    ),
    "beside_identity": Case(
        "A: T[4,4]; I: identity T[3,3]; J: identity T[12,12]; M = kron(A, I) + 2*J",
        lambda v: kron(v["A"] + 2 * eye(4), eye(3)), "beside an identity: dense 4x4",
        lambda v: [v["A"] + 2 * eye(4)],
    ),
    "diagonal": Case(
        "d: T[7]; M[i,j] = (i == j)*d[i] for i in 0..7, j in 0..7",
        lambda v: np.diag(v["d"]), "diagonal: elementwise", lambda v: [np.diag(v["d"])], kinds={"d": "positive"},
    ),
    "diagonal_declared": Case(
        "D: T[6,6] diag; I: identity T[6,6]; M = 3*D + I", lambda v: 3 * v["D"] + eye(6), "diagonal: elementwise",
        lambda v: [3 * v["D"] + eye(6)], kinds={"D": "diagonal"}, powers=(2.0,),
    ),
    "block_diagonal": Case(
        "B: T[3,4,4]; M[(g i),(h j)] = (g == h)*B[g,i,j] for h in 0..3", lambda v: blocks(v["B"]),
        "block diagonal: 3 blocks of 4x4", lambda v: list(v["B"]),
    ),
    "block_diagonal_shifted": Case(
        "B: T[3,4,4]; N[(g i),(h j)] = (g == h)*B[g,i,j] for h in 0..3; I: identity T[12,12]; M = N + 2*I",
        lambda v: blocks(v["B"]) + 2 * eye(12), "block diagonal: 3 blocks of 4x4",
        lambda v: list(v["B"] + 2 * eye(4)),
    ),
    "blocks_inside": Case(  # the digit of the blocks stands last: blocks with strides
        "B: T[3,4,4]; M[(i g),(j h)] = (g == h)*B[g,i,j] for h in 0..3",
        lambda v: blocks(v["B"]).reshape(3, 4, 3, 4).transpose(1, 0, 3, 2).reshape(12, 12),
        "block diagonal: 3 blocks of 4x4", lambda v: list(v["B"]),
    ),
    "diagonal_plus_low_rank": Case(
        "d: T[11]; U: T[11,2]; V: T[2,11]; D[i,j] = (i == j)*d[i] for i in 0..11, j in 0..11; M = D + U @ V",
        lambda v: np.diag(v["d"]) + v["U"] @ v["V"], "low rank 2 beside a part that is solved alone (Woodbury): diag",
        lambda v: [np.diag(v["d"]), np.diag(v["d"]), core(v["d"], v["U"], v["V"])],
        kinds={"d": "positive", "U": "small", "V": "small"}, powers=(),
    ),
    "identity_plus_gram": Case(
        "U: T[9,2]; s: T; I: identity T[9,9]; M = s*I + U @ U'",
        lambda v: v["s"] * eye(9) + v["U"] @ v["U"].T, "low rank 2 beside", lambda v: [
            core(v["s"] * np.ones(9), v["U"], v["U"].T)
        ], kinds={"s": "positive", "U": "small"}, powers=(),
    ),
    "kronecker_plus_outer": Case(
        "A: T[4,4]; B: T[3,3]; u: T[12]; v: T[12]; K = kron(A, B); M[i,j] = K[i,j] + 0.5*u[i]*v[j]",
        lambda v: kron(v["A"], v["B"]) + 0.5 * np.outer(v["u"], v["v"]),
        "low rank 1 beside a part that is solved alone (Woodbury): Kronecker product",
        lambda v: [kron(v["A"], v["B"]), kron(v["A"], v["B"]), np.eye(1) + 0.5
                   * v["v"][None] @ np.linalg.solve(kron(v["A"], v["B"]), v["u"][:, None])],
        kinds={"u": "small", "v": "small"}, powers=(),
    ),
    "circulant": Case(
        "c: T[7]; M[i,j] = c[(i-j) mod 7] for i in 0..7, j in 0..7", lambda v: circulant(v["c"]), "circulant of size 7",
        lambda v: [circulant(v["c"])], kinds={"c": "generator"}, powers=(2.0, -0.5),
    ),
    "circulant_shifted": Case(
        "c: T[6]; I: identity T[6,6]; N[i,j] = c[(i-j) mod 6] for i in 0..6, j in 0..6; M = 2*N + I",
        lambda v: 2 * circulant(v["c"]) + eye(6), "circulant of size 6", lambda v: [2 * circulant(v["c"]) + eye(6)],
        kinds={"c": "generator"},
    ),
    "banded": Case(
        "a: T[-1..2,13] pad=0; M[i,j] = a[j-i,i] for i in 0..13, j in 0..13", lambda v: banded(v["a"]),
        "banded, 1 below and 1 above", lambda v: [banded(v["a"])], kinds={"a": "bands"}, powers=(),
    ),
    "banded_declared": Case(
        "N: T[13,13] banded(lo=1, hi=1); I: identity T[13,13]; M = N' + I", lambda v: v["N"].T + eye(13),
        "banded, 1 below and 1 above", lambda v: [v["N"].T + eye(13)], kinds={"N": "tridiagonal"}, powers=(),
    ),
    "orthogonal": Case(
        "Q: T[5,5] orthogonal; M = Q'", lambda v: v["Q"].T, "orthogonal: the inverse is the transpose",
        lambda v: [v["Q"]], REAL, {"Q": "orthogonal"}, powers=(),
    ),
    "permutation": Case(
        "P: T[6,6] permutation; M = P'", lambda v: v["P"].T, "permutation: the inverse is the transpose",
        lambda v: [v["P"]], ALL, {"P": "permutation"}, powers=(),
    ),
    "product": Case(
        "A: T[5,5]; B: T[5,5]; M = A @ B'", lambda v: v["A"] @ v["B"].T, "a product, factor by factor",
        lambda v: [v["A"], v["B"]], powers=(),
    ),
    "product_of_structures": Case(
        "A: T[6,6]; d: T[6]; P: T[6,6] permutation; L: T[6,6] lower; D[i,j] = (i == j)*d[i] for i in 0..6, j in 0..6\n"
        "M = L @ D @ A @ P",
        lambda v: v["L"] @ np.diag(v["d"]) @ v["A"] @ v["P"], "a product, factor by factor",
        lambda v: [v["L"] @ np.diag(v["d"]), v["A"] @ v["P"]],
        kinds={"P": "permutation", "L": "lower", "d": "positive"}, powers=(),
    ),
    "kronecker_of_triangles": Case(
        "L: T[4,4] lower; K: T[3,3] lower; M = kron(L, K')", lambda v: kron(v["L"], v["K"].T),
        "dense 4x4 (lower); dense 3x3 (upper)", lambda v: [v["L"], v["K"]], kinds={"L": "lower", "K": "lower"},
    ),
}  # fmt: skip
