"""The rows of `gpu.py`: structured products of N = 4096 on a batch of 16384, their rivals and their goals.

Outside the compiler. The most important rows come first: a run that is short of time leaves out the last ones. Goals
are microseconds on an H200, and how many times faster than what stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import gpu_rivals as rivals
from gpu_rivals import Rival, Tensors

import stein

Shapes = dict[str, tuple[int, ...]]

UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}  # half of the distance of neighbours near 1


@dataclass(frozen=True)
class Scale:
    """How large the rows are: matrices of order `n` (a square), a batch, the element type."""

    n: int = 4096
    batch: int = 16384
    dtype: str = "bfloat16"

    @property
    def side(self) -> int:
        """The order of each of two factors."""
        return isqrt(self.n)

    @property
    def thirds(self) -> tuple[int, int, int]:
        """The orders of three factors."""
        one = 1 << round((self.n.bit_length() - 1) / 3)
        return one, one, self.n // one**2

    def blocks(self, side: int) -> tuple[int, int]:
        """The blocks of a row and the side of one: at most that, at least the 16 that matrix units take."""
        side = max(16, min(side, self.n // 8))
        return self.n // side, side


@dataclass(frozen=True)
class Row:
    """One comparison. `text` is formatted with `last` (n - 1) and `grid` (blocks of a row).

    `shapes` are those of the operands; those in `places` are positions of blocks, `share` of all of them, which are
    constants of the program. `exact` is the result in double precision, for the operands in `batched` cut along their
    first axis. `plans` are the structures of the fused plans that the compiler makes of it; together they move at most
    `traffic` times the bytes of the floor. A result has passed `roundings` at most, and may be off by `coarse` more.
    `operations` are those of the floor, where the plan has more of them than it takes to compute the row; `product`
    gives M, K and N of the dense product beside. Of a row with `gradient` derivatives are checked, too.
    """

    name: str
    text: str
    shapes: Callable[[Scale], Shapes]
    exact: Callable[[Any, Tensors], Any]
    rivals: tuple[Rival, ...]
    plans: tuple[str, ...] = ()
    microseconds: float | None = None
    against_dense: float | None = None
    against_copy: float | None = None
    batch: int | None = None
    batched: tuple[str, ...] = ("x",)
    fans: Mapping[str, Callable[[Scale], int]] | None = None
    places: Mapping[str, Callable[[Scale], tuple[int, int]]] | None = None
    traffic: float = 1.05
    roundings: int = 4
    coarse: float = 0.0
    operations: Callable[[Scale], int] | None = None
    product: Callable[[Scale], tuple[int, int, int]] | None = lambda s: (s.batch, s.n, s.n)
    value: Callable[[Any], Any] = lambda found: found
    gradient: bool = False

    def at(self, scale: Scale) -> Scale:
        """The scale of this row: some have a batch of their own."""
        return scale if self.batch is None else replace(scale, batch=min(self.batch, scale.batch))

    def source(self, scale: Scale) -> str:
        """The text of the program."""
        x = self.shapes(scale).get("x", ())
        return self.text.format(last=scale.n - 1, grid=x[1] if len(x) > 1 else 0)

    def tolerance(self, dtype: str, terms: int) -> float:
        """How far an item of the batch may be off, of its norm: roundings, sums in single precision, and `coarse`."""
        return self.roundings * UNIT[dtype] + terms * 2.0**-24 + self.coarse


def lists(row: Row, scale: Scale) -> dict[str, Any]:
    """The positions of the blocks, drawn once for all: arrays by name."""
    import numpy as np

    found: dict[str, Any] = {}
    for number, (name, drawn) in enumerate((row.places or {}).items()):
        grid, count = drawn(scale)
        chosen = np.sort(np.random.default_rng(number).permutation(grid * grid)[:count])
        end = "" if name == "rows" else "_2"
        found[f"rows{end}"], found[f"columns{end}"] = chosen // grid, chosen % grid
    return found


def compiled(row: Row, scale: Scale) -> Any:
    """The program of a row for the GPU: positions are constants of it, everything else is given at the call."""
    constants = {n: stein.constant(a) for n, a in lists(row, scale).items()}
    return stein.compile(row.source(scale), dtype=scale.dtype, target="cuda", **constants, **row.shapes(scale))


def operands(row: Row, torch: Any, scale: Scale, device: Any) -> dict[str, Any]:
    """Random operands: what is applied to is near 1, factors are such that results are too."""
    found: dict[str, Any] = {}
    kind = getattr(torch, scale.dtype)
    random = torch.Generator(device=device).manual_seed(sum(map(ord, row.name)))
    for name, shape in row.shapes(scale).items():
        if name == "h":
            found[name] = _sylvester(torch, shape[0], device).to(kind)
            continue
        fan = row.fans[name](scale) if row.fans and name in row.fans else 1 if name in "xv" else shape[-1]
        found[name] = (torch.randn(shape, device=device, generator=random) * fan**-0.5).to(kind)
    return found


def given_and_places(row: Row, torch: Any, scale: Scale, device: Any, given: Tensors) -> dict[str, Any]:
    """The operands with the positions of the blocks: what rivals and definitions read."""
    return dict(given) | {n: torch.as_tensor(a, device=device) for n, a in lists(row, scale).items()}


def _sylvester(torch: Any, n: int, device: Any) -> Any:
    """The Hadamard matrix of order n."""
    found = torch.ones((1, 1), device=device)
    while len(found) < n:
        found = torch.kron(found, torch.tensor([[1.0, 1.0], [1.0, -1.0]], device=device))
    return found


def _tiles(*factors: str) -> Callable[[Scale], Shapes]:
    return lambda s: dict.fromkeys(factors, (s.side, s.side)) | {"x": (s.batch, s.side, s.side)}


def _groups(s: Scale) -> Shapes:
    return dict.fromkeys("AB", (8, s.side, s.side)) | {"x": (max(1, s.batch // 8), 8, s.side, s.side)}


def _low_rank(s: Scale) -> Shapes:
    return {"U": (s.n, s.side), "V": (s.side, s.n), "x": (s.batch, s.n)}


def _monarch(s: Scale) -> Shapes:
    return {"L": (s.side,) * 3, "R": (s.side,) * 3, "x": (s.batch, s.side, s.side)}


def _three(s: Scale) -> Shapes:
    return {n: (d, d) for n, d in zip("ABC", s.thirds, strict=True)} | {"x": (s.batch, *s.thirds)}


def _permuted(s: Scale) -> Shapes:
    return {"x": (max(1, s.batch // s.side), s.side, s.side, s.side), "w": (16, s.side, 16, s.side)}


def _heads(s: Scale) -> Shapes:
    return {n: (max(1, s.batch // 512), s.n, 64) for n in "qkv"}


def _drawn(side: int, share: float) -> Callable[[Scale], tuple[int, int]]:
    """The blocks of a row, and how many of all blocks are stored."""

    def found(s: Scale) -> tuple[int, int]:
        grid = s.blocks(side)[0]
        return grid, max(2, int(share * grid**2))

    return found


def _blocks(side: int, share: float, *names: str) -> Callable[[Scale], Shapes]:
    def found(s: Scale) -> Shapes:
        grid, order = s.blocks(side)
        _, count = _drawn(side, share)(s)
        stored: Shapes = dict.fromkeys(names, (count, order, order))
        return stored | {"x": (s.batch, grid, order)}

    return found


def _dequantised(found: Any) -> Any:
    return found["y"].double() * found["g"].double()[:, None, None]


KRONECKER = "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]"
LOW_RANK = "y[b,i] = U[i,r] * V[r,j] * x[b,j]"
SPARSE = "y[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}"
QUANTISED = """
    z[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]
    m[b] = max[i,j] abs(z[b,i,j])
    g[b] = m[b] / 127
    y: i8[b,i,j]
    y[b,i,j] = i8(clip(round(z[b,i,j] / g[b]), -127, 127))
    return y, g
"""
GATED_MLP = """
    g[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}
    h[b,i,a] = (rows[s] == i) * V[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}
    u[b,i,a] = silu(g[b,i,a]) * h[b,i,a]
    y[b,i,a] = (rows_2[t] == i) * Z[t,a,c] * (columns_2[t] == j) * u[b,j,c] for i in 0..{grid}
"""
ATTENTION = """
    s[h,i,j] = q[h,i,c] * k[h,j,c]
    p[h,i,j] = softmax[j](s[h,i,j])
    y[h,i,d] = p[h,i,j] * v[h,j,d]
"""

BY_EINSUM = rivals.einsum("ik,jl,bkl->bij", "A", "B", "x")
BSR = Rival("torch BSR", rivals.torch_bsr, capture=False)

ROWS: tuple[Row, ...] = (
    Row("kronecker 64x64", KRONECKER, _tiles("A", "B"), rivals.exact_kronecker,
        (Rival("torch.einsum", BY_EINSUM, 3.5), Rival("two matmuls", rivals.two_matmuls("A", "B"), 1.8)),
        ("kronecker",), 69, 10, gradient=True),
    Row("monarch 64", "y[b,l,j] = L[j,l,k] * R[k,j,i] * x[b,k,i]", _monarch, rivals.exact_monarch,
        (Rival("two bmm, permuted", rivals.monarch_by_two_bmm, 1.9),
         Rival("torch.einsum", rivals.monarch_by_einsum, 1.25)),
        ("monarch",), 100, 7, gradient=True),
    Row("block sparse 90 %", SPARSE, _blocks(128, 0.1, "W"), rivals.exact_block_sparse, (BSR,), ("block_sparse",), 116,
        6, places={"rows": _drawn(128, 0.1)}, gradient=True),
    Row("low rank 64", LOW_RANK, _low_rank, rivals.exact_low_rank, (Rival("two matmuls", rivals.low_rank, 1.1),),
        ("low_rank",), 75, 9, gradient=True),
    Row("toeplitz", "y[b,i] = t[i-j+{last}] * x[b,j]", lambda s: {"t": (2 * s.n - 1,), "x": (s.batch, s.n)},
        rivals.exact_toeplitz, (Rival("torch.fft", rivals.fft_chain, 9),), ("toeplitz",), 130, 5, roundings=10,
        operations=lambda s: s.batch * 2 * 5 * s.n * (2 * s.n).bit_length()),  # two real transforms of 2n points
    Row("hadamard", "h: hadamard\ny[b,i,j] = h[i,k] * h[j,l] * x[b,k,l]", _tiles("h"), rivals.exact_hadamard,
        (Rival("two matmuls", rivals.two_matmuls("h", "h")),), ("kronecker",), 68, 10, against_copy=1.1),
    Row("dense", "y[b,i] = W[i,j] * x[b,j]", lambda s: {"W": (s.n, s.n), "x": (s.batch, s.n)}, rivals.exact_dense,
        (Rival("torch.einsum", rivals.einsum("ij,bj->bi", "W", "x")),), against_dense=0.97),
    Row("dense, permuted", "y[a,b,d,c] = x[a,e,b,f] * w[d,f,c,e]", _permuted, rivals.exact_permuted,
        (Rival("torch.einsum", rivals.einsum("aebf,dfce->abdc", "x", "w"), 1.5),), fans={"w": lambda s: s.n},
        product=lambda s: (max(1, s.batch // s.side) * s.side, s.n, 256)),
    Row("block sparse 95 %", SPARSE, _blocks(128, 0.05, "W"), rivals.exact_block_sparse, (BSR,), ("block_sparse",), 78,
        9, places={"rows": _drawn(128, 0.05)}),
    Row("kronecker, int8", QUANTISED, _tiles("A", "B"), rivals.exact_kronecker,
        (Rival("two matmuls, then int8", rivals.kronecker_quantised),), ("kronecker",), coarse=8 / 254,
        value=_dequantised),
    Row("dense + low rank 64", "y[b,i] = W[i,j] * x[b,j] + U[i,r] * V[r,j] * x[b,j]",
        lambda s: _low_rank(s) | {"W": (s.n, s.n)}, rivals.exact_dense_and_low_rank,
        (Rival("three matmuls", rivals.dense_and_low_rank),), ("dense_and_low_rank",)),
    Row("gated block-sparse MLP", GATED_MLP, _blocks(128, 0.1, "W", "V", "Z"), rivals.exact_gated_mlp,
        (Rival("dense MLP", rivals.dense_gated_mlp),), ("gated_block_sparse", "block_sparse"), traffic=2.05,
        places={"rows": _drawn(128, 0.1), "rows_2": _drawn(128, 0.1)}, roundings=6),
    Row("kronecker 64x64, batch 16", KRONECKER, _tiles("A", "B"), rivals.exact_kronecker,
        (Rival("torch.einsum", BY_EINSUM), Rival("two matmuls", rivals.two_matmuls("A", "B"))),
        ("kronecker",), batch=16),
    Row("low rank 64, batch 16", LOW_RANK, _low_rank, rivals.exact_low_rank,
        (Rival("two matmuls", rivals.low_rank),), batch=16),  # one kernel would leave all processors but one idle
    Row("kronecker 16x16x16", "y[b,i,j,m] = A[i,k] * B[j,l] * C[m,n] * x[b,k,l,n]", _three, rivals.exact_three_factors,
        (Rival("torch.einsum", rivals.einsum("ik,jl,mn,bkln->bijm", *"ABCx")),
         Rival("three matmuls", rivals.three_matmuls)), ("kronecker",)),
    Row("attention, 32 heads", ATTENTION, _heads, rivals.exact_attention,
        (Rival("torch's attention", rivals.attention),), ("attention",), batched=("q", "k", "v"), product=None,
        fans={"q": lambda s: 8, "k": lambda s: 8}),
    Row("kronecker 64x64, 8 groups", "y[b,g,i,j] = A[g,i,k] * B[g,j,l] * x[b,g,k,l]", _groups, rivals.exact_groups,
        (Rival("torch.einsum", rivals.einsum("gik,gjl,bgkl->bgij", "A", "B", "x")),), ("kronecker",)),
)  # fmt: skip
