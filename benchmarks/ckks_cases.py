"""The cases that must run encrypted: programs, data, what NumPy says, and the counts to reach.

`benchmarks/ckks.py` runs all of them, `tests/ckks/test_cases.py` the quick ones. Counts to reach are those of the best
known circuits (rotations, products of ciphertexts, products with plain vectors, levels, uploaded ciphertexts);
`einhops` are the rotations of the same einsum in EinHops (Roy et al., "EinHops: Einsum Notation for Expressive
Homomorphic Operations on RNS-CKKS Tensors", 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """One encrypted einsum. `encrypted` and `clear` are the shapes of its inputs, `reference` is what it means.

    `goal` are counts to reach by name of `stats`; `options` go to `stein.compile`. A quick case plans and runs within
    a few seconds on one core.
    """

    name: str
    program: str
    encrypted: Shapes
    reference: Callable[..., Array]
    clear: Shapes = field(default_factory=dict)
    goal: Mapping[str, int] = field(default_factory=dict)
    einhops: int | None = None
    group: str = "linear"
    quick: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Encrypted inputs between -1 and 1, and clear ones that keep results of that size."""
        rng = np.random.default_rng((len(self.name), len(self.program)))
        secret = {name: rng.uniform(-1, 1, shape) for name, shape in self.encrypted.items()}
        clear = {}
        for name, shape in self.clear.items():
            clear[name] = rng.standard_normal(shape) / np.sqrt(shape[-1])
        return secret, clear


def goal(
    rotations: int, products: int | None = None, levels: int | None = None, uploads: int | None = None
) -> dict[str, int]:
    """Counts of a linear map: rotations, products with plain vectors, levels."""
    found = {"rotations": rotations, "plain_products": products, "levels": levels, "uploads": uploads}
    return {name: count for name, count in found.items() if count is not None}


def encrypted_goal(
    rotations: int, products: int, relinearisations: int, uploads: int, levels: int = 1
) -> dict[str, int]:
    """Counts of a product of ciphertexts."""
    return {
        "rotations": rotations,
        "cipher_products": products,
        "relinearisations": relinearisations,
        "uploads": uploads,
        "levels": levels if products else 0,
    }


def ein(spec: str) -> Callable[..., Array]:
    """The reference of an einsum over the inputs in order of their declaration, encrypted ones first."""
    return lambda *arrays: np.asarray(np.einsum(spec, *arrays, optimize=True))


def dense(n: int, rotations: int, products: int, quick: bool = False) -> Case:
    """A dense n-by-n matrix times a vector."""
    return Case(
        f"dense {n}",
        "y[i] = W[i,j] * x[j]",
        {"x": (n,)},
        ein("j,ij->i"),
        {"W": (n, n)},
        goal(rotations, products, 1),
        quick=quick,
    )


def kronecker(m: int, rotations: int, products: int, quick: bool = False) -> Case:
    """A Kronecker product of two m-by-m matrices."""
    return Case(
        f"Kronecker {m * m}",
        "y[a,b] = A[a,i] * B[b,j] * x[i,j]",
        {"x": (m, m)},
        ein("ij,ai,bj->ab"),
        {"A": (m, m), "B": (m, m)},
        goal(rotations, products, 2),
        quick=quick,
    )


def monarch(m: int, rotations: int, products: int, quick: bool = False) -> Case:
    """Two block diagonals with a stride permutation between them."""
    return Case(
        f"Monarch {m * m}",
        "t[k,j] = R[k,j,i] * x[k,i]; y[l,j] = L[j,l,k] * t[k,j]",
        {"x": (m, m)},
        ein("ki,kji,jlk->lj"),
        {"R": (m, m, m), "L": (m, m, m)},
        goal(rotations, products, 2),
        quick=quick,
    )


def low_rank(n: int, rank: int, rotations: int, products: int, quick: bool = False) -> Case:
    """U V^T x."""
    return Case(
        f"low rank {rank} of {n}",
        "y[i] = U[i,r] * V[r,j] * x[j]",
        {"x": (n,)},
        ein("j,ir,rj->i"),
        {"U": (n, rank), "V": (rank, n)},
        goal(rotations, products, 2),
        quick=quick,
    )


def banded(n: int, width: int) -> Case:
    """A band of `width` diagonals on each side of the main one."""

    def reference(x: Array, a: Array) -> Array:
        padded = np.pad(x, width)
        return np.asarray(sum(a[d] * padded[d : d + n] for d in range(2 * width + 1)))

    return Case(
        f"banded {2 * width + 1} of {n}",
        f"a: f64[-{width}..{width + 1}, {n}]; x: encrypted f64[{n}] pad=0; y[i] = a[d,i] * x[i+d]",
        {"x": (n,)},
        reference,
        {"a": (2 * width + 1, n)},
        goal(7, 17, 1),
        quick=True,
    )


def block_sparse(blocks: int, order: int, shift: int) -> Case:
    """Two blocks in each block row, the second one `shift` to the right, round the end."""

    def reference(x: Array, W: Array) -> Array:
        return np.asarray(sum(np.einsum("bij,bj->bi", W[:, o], np.roll(x, -shift * o, axis=0)) for o in range(2)))

    return Case(
        f"block-sparse 2 of {blocks}",
        f"y[b,i] = W[b,o,i,j] * x[(b+{shift}*o) mod {blocks}, j] for o in 0..2",
        {"x": (blocks, order)},
        reference,
        {"W": (blocks, 2, order, order)},
        goal(27, 191, 1),
        quick=True,
    )


def toeplitz(n: int) -> Case:
    """A Toeplitz matrix, whose argument and result are the client's."""

    def reference(x: Array, t: Array) -> Array:
        return np.convolve(t, x)[n - 1 : 2 * n - 1]

    return Case(
        f"Toeplitz {n}",
        f"y[i] = t[i-j+{n - 1}] * x[j]",
        {"x": (n,)},
        reference,
        {"t": (2 * n - 1,)},
        goal(0, 1, 1),
        quick=True,
    )


def ragged(*sizes: int) -> Case:
    """A dense matrix of a size that is no power of two."""
    rows, cols = sizes
    counts = goal(10, 13, 1) if rows == cols == 200 else {}
    return Case(
        f"dense {rows} x {cols}",
        "y[i] = W[i,j] * x[j]",
        {"x": (cols,)},
        ein("j,ij->i"),
        {"W": sizes},
        counts,
        quick=True,
    )


def matmul(name: str, counts: Mapping[str, int]) -> Case:
    """A product of two encrypted 64-by-64 matrices, by a plan of these counts."""
    return Case(name, "y[i,k] = A[i,j] * B[j,k]", {"A": (64, 64), "B": (64, 64)}, ein("ij,jk->ik"), goal=counts)


LINEAR = (
    dense(1024, 33, 256, quick=True),
    dense(4096, 128, 4096),
    kronecker(32, 14, 23, quick=True),
    kronecker(64, 36, 191),
    Case(
        "Kronecker 16 x 16 x 16",
        "y[a,b,c] = A[a,i] * B[b,j] * C[c,k] * x[i,j,k]",
        {"x": (16, 16, 16)},
        ein("ijk,ai,bj,ck->abc"),
        {"A": (16, 16), "B": (16, 16), "C": (16, 16)},
        goal(26, 78, 3),
    ),
    monarch(32, 14, 23, quick=True),
    monarch(64, 36, 191),
    low_rank(1024, 8, 13, 4, quick=True),
    low_rank(1024, 32, 17, 16),
    low_rank(4096, 8, 17, 16),
    low_rank(4096, 32, 27, 64),
    Case(
        "block diagonal 1024",
        "y[b,i] = W[b,i,j] * x[b,j]",
        {"x": (32, 32)},
        ein("bj,bij->bi"),
        {"W": (32, 32, 32)},
        goal(6, 8, 1),
        quick=True,
    ),
    Case(
        "outer axis 1024",
        "y[i,c] = W[c,i,j] * x[j,c]",
        {"x": (32, 32)},
        ein("jc,cij->ic"),
        {"W": (32, 32, 32)},
        goal(6, 8, 1),
        quick=True,
    ),
    Case(
        "block diagonal 4096",
        "y[b,i] = W[b,i,j] * x[b,j]",
        {"x": (64, 64)},
        ein("bj,bij->bi"),
        {"W": (64, 64, 64)},
        goal(14, 64, 1),
    ),
    banded(1024, 8),
    block_sparse(16, 64, 5),
    toeplitz(4096),
    ragged(200, 200),
    ragged(300, 1000),
    Case(
        "batch of 4, dense 64 (`...`)",
        "y[...,i] = W[i,j] * x[...,j]",
        {"x": (4, 64)},
        ein("...j,ij->...i"),
        {"W": (64, 64)},
        quick=True,
    ),
)

EINHOPS = (
    Case("ij->ji", "y[j,i] = A[i,j]", {"A": (128, 128)}, ein("ij->ji"), goal=encrypted_goal(0, 0, 0, 4), einhops=254),
    Case("ij->", "y = sum[i,j] A[i,j]", {"A": (128, 128)}, ein("ij->"), goal=encrypted_goal(12, 0, 0, 4), einhops=14),
    Case("ij->j", "y[j] = sum[i] A[i,j]", {"A": (128, 128)}, ein("ij->j"), goal=encrypted_goal(5, 0, 0, 4), einhops=7),
    Case(
        "ij->i", "y[i] = sum[j] A[i,j]", {"A": (128, 128)}, ein("ij->i"), goal=encrypted_goal(5, 0, 0, 4), einhops=261
    ),
    Case(
        "ik,k->i",
        "y[i] = A[i,k] * b[k]",
        {"A": (128, 128), "b": (128,)},
        ein("ik,k->i"),
        goal=encrypted_goal(5, 4, 1, 8),
        einhops=522,
    ),
    Case(
        "ik,kj->ij",
        "y[i,j] = A[i,k] * B[k,j]",
        {"A": (16, 32), "B": (32, 32)},
        ein("ik,kj->ij"),
        goal=encrypted_goal(3, 4, 1, 8),
        einhops=110,
    ),
    Case(
        "i,i->",
        "y = sum[i] a[i] * b[i]",
        {"a": (16384,), "b": (16384,)},
        ein("i,i->"),
        goal=encrypted_goal(12, 4, 1, 8),
        einhops=14,
    ),
    Case(
        "ij,ij->",
        "y = sum[i,j] A[i,j] * B[i,j]",
        {"A": (128, 128), "B": (128, 128)},
        ein("ij,ij->"),
        goal=encrypted_goal(12, 4, 1, 8),
        einhops=14,
    ),
    Case(
        "ij,ij->ij",
        "y[i,j] = A[i,j] * B[i,j]",
        {"A": (128, 128), "B": (128, 128)},
        ein("ij,ij->ij"),
        goal=encrypted_goal(0, 4, 4, 8),
        einhops=0,
    ),
    Case(
        "ij,ij,ij->ij",
        "y[i,j] = A[i,j] * B[i,j] * C[i,j]",
        {"A": (128, 128), "B": (128, 128), "C": (128, 128)},
        ein("ij,ij,ij->ij"),
        goal=encrypted_goal(0, 8, 8, 12, levels=2),
        einhops=0,
    ),
    Case(
        "i,j->ij",
        "y[i,j] = a[i] * b[j]",
        {"a": (128,), "b": (128,)},
        ein("i,j->ij"),
        goal=encrypted_goal(0, 4, 4, 4),
        einhops=268,
    ),
    Case(
        "ijk,ikl->ijl",
        "y[i,j,l] = A[i,j,k] * B[i,k,l]",
        {"A": (16, 8, 8), "B": (16, 8, 8)},
        ein("ijk,ikl->ijl"),
        goal=encrypted_goal(2, 2, 1, 4),
        einhops=37,
    ),
    Case(
        "ij,jk,kl->il",
        "y[i,l] = A[i,j] * B[j,k] * C[k,l]",
        {"A": (16, 8), "B": (8, 8), "C": (8, 16)},
        ein("ij,jk,kl->il"),
        goal=encrypted_goal(4, 5, 2, 9, levels=2),
        einhops=310,
    ),
    Case(
        "ik,jkl,il->ij",
        "y[i,j] = A[i,k] * B[j,k,l] * C[i,l]",
        {"A": (8, 16), "B": (8, 16, 16), "C": (8, 16)},
        ein("ik,jkl,il->ij"),
        goal=encrypted_goal(6, 5, 2, 9, levels=2),
        einhops=444,
    ),
    Case(
        "pqrs,tuqvr->pstuv",
        "y[p,s,t,u,v] = A[p,q,r,s] * B[t,u,q,v,r]",
        {"A": (2, 4, 8, 8), "B": (1, 4, 4, 2, 8)},
        ein("pqrs,tuqvr->pstuv"),
        goal=encrypted_goal(5, 1, 1, 2),
        einhops=329,
    ),
    Case(
        "bthd,bThd->bhtT",
        "y[b,h,t,T] = A[b,t,h,d] * B[b,T,h,d]",
        {"A": (2, 5, 8, 16), "B": (2, 5, 8, 16)},
        ein("bthd,bThd->bhtT"),
        goal=encrypted_goal(3, 2, 1, 4),
        einhops=518,
    ),
)

ENCRYPTED = (
    Case("ii->i", "y[i] = A[i,i]", {"A": (64, 64)}, ein("ii->i"), goal=encrypted_goal(0, 0, 0, 1)),
    Case("ii->", "y = sum[i] A[i,i]", {"A": (64, 64)}, ein("ii->")),
    Case("...i,...i->...", "y[...] = A[...,i] * B[...,i]", {"A": (3, 5, 16), "B": (3, 5, 16)}, ein("...i,...i->...")),
    Case(
        "dot of 20,000",
        "y = sum[i] a[i] * b[i]",
        {"a": (20_000,), "b": (20_000,)},
        ein("i,i->"),
        goal=encrypted_goal(12, 5, 1, 10),
    ),
    matmul("64^3 of two uploads", encrypted_goal(53, 64, 16, 2)),
    matmul("64^3 between", encrypted_goal(8, 64, 4, 64)),
    matmul("64^3 without rotations", encrypted_goal(0, 64, 1, 128)),
    Case(
        "Gram 24 x 40",
        "G[i,j] = X[i,k] * X[j,k]",
        {"X": (24, 40)},
        lambda X: np.asarray(X @ X.T),
    ),
)

CASES = LINEAR + tuple(
    Case(c.name, c.program, c.encrypted, c.reference, c.clear, c.goal, c.einhops, group, c.quick, c.options)
    for group, cases in (("EinHops", EINHOPS), ("encrypted", ENCRYPTED))
    for c in cases
)
