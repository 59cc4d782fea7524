"""What users of PyTorch write in place of the rows of `gpu_rows`, and what the rows are in double precision.

Outside the compiler. A rival is a function of torch and the operands that gives something to call and to time.
`exact_*` are functions of the same operands in double precision: plain definitions, by other ways than the compiler's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Tensor = Any  # torch.Tensor
Torch = Any  # the module
Tensors = Mapping[str, Tensor]
Thunk = Callable[[], Any]


@dataclass(frozen=True)
class Rival:
    """Another way to compute a row. `goal` is how many times faster stein shall be; `capture` says whether the call can
    be recorded in a CUDA graph (one that waits for the GPU cannot).
    """

    name: str
    make: Callable[[Torch, Tensors], Thunk]
    goal: float | None = None
    capture: bool = True


# --- rivals -----------------------------------------------------------------------------------------------------------


def einsum(pattern: str, *names: str) -> Callable[[Torch, Tensors], Thunk]:
    """One call of torch.einsum."""
    return lambda torch, o: lambda: torch.einsum(pattern, *(o[n] for n in names))


def two_matmuls(left: str, right: str) -> Callable[[Torch, Tensors], Thunk]:
    """A Kronecker product as A x B^T, batched."""
    return lambda torch, o: lambda: o[left] @ (o["x"] @ o[right].t())


def three_matmuls(torch: Torch, o: Tensors) -> Thunk:
    """A Kronecker product of three factors, an axis at a time."""

    def run() -> Tensor:
        b, k = o["x"].shape[:2]
        u = o["B"] @ (o["x"] @ o["C"].t())
        return (o["A"] @ u.reshape(b, k, -1)).reshape(b, -1, *u.shape[2:])

    return run


def kronecker_quantised(torch: Torch, o: Tensors) -> Thunk:
    """Two products of matrices, then the scale of each item and numbers of 8 bits."""

    def run() -> Tensor:
        z = o["A"] @ (o["x"] @ o["B"].t())
        g = z.abs().amax((1, 2), keepdim=True) / 127
        return (z / g).round().clamp(-127, 127).to(torch.int8), g

    return run


def low_rank(torch: Torch, o: Tensors) -> Thunk:
    """x V^T U^T."""
    return lambda: o["x"] @ o["V"].t() @ o["U"].t()


def dense_and_low_rank(torch: Torch, o: Tensors) -> Thunk:
    """The layer with its adapter, as LoRA's reference writes it."""
    return lambda: o["x"] @ o["W"].t() + o["x"] @ o["V"].t() @ o["U"].t()


def monarch_by_two_bmm(torch: Torch, o: Tensors) -> Thunk:
    """Dao et al.'s `blockdiag_butterfly_multiply`: two batched products, a permutation between them."""
    first, second = o["R"], o["L"]  # [k, j, i], [j, l, k]

    def run() -> Tensor:
        x = o["x"]
        batch, k, _ = x.shape
        j, m = second.shape[:2]
        inner = torch.empty((batch, k, j), dtype=x.dtype, device=x.device).transpose(0, 1)
        inner = torch.bmm(x.transpose(0, 1), first.transpose(-1, -2), out=inner)
        inner = inner.transpose(0, 1).transpose(-1, -2).contiguous().transpose(0, 1)
        outer = torch.empty((batch, j, m), dtype=x.dtype, device=x.device).transpose(0, 1)
        outer = torch.bmm(inner, second.transpose(-1, -2), out=outer)
        return outer.permute(1, 2, 0).reshape(batch, m * j)

    return run


def monarch_by_einsum(torch: Torch, o: Tensors) -> Thunk:
    """Both factors by torch.einsum."""
    return lambda: torch.einsum("jlk,bkj->blj", o["L"], torch.einsum("kji,bki->bkj", o["R"], o["x"]))


def fft_chain(torch: Torch, o: Tensors) -> Thunk:
    """A Toeplitz product through torch.fft, in single precision as half types have no transform of this length."""
    n = o["x"].shape[-1]

    def run() -> Tensor:
        points = 2 * n
        kernel = torch.fft.rfft(torch.roll(torch.nn.functional.pad(o["t"].float(), (0, 1)), 1 - n), points)
        return torch.fft.irfft(torch.fft.rfft(o["x"].float(), points) * kernel, points)[..., :n].to(o["x"].dtype)

    return run


def attention(torch: Torch, o: Tensors) -> Thunk:
    """torch's fused attention, which wants four axes: with three it is not fused."""
    q, k, v = (o[n][None] for n in "qkv")
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)[0]


def torch_bsr(torch: Torch, o: Tensors) -> Thunk:
    """torch.sparse: a matrix in block compressed rows times x^T."""
    x = o["x"]
    grid, side = x.shape[1:]
    order = torch.argsort(o["rows"] * grid + o["columns"])
    counts = torch.bincount(o["rows"], minlength=grid)
    starts = torch.nn.functional.pad(torch.cumsum(counts, 0), (1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that all of torch.sparse is in beta is known
        matrix = torch.sparse_bsr_tensor(starts, o["columns"][order], o["W"][order], (grid * side, grid * side))
    turned = x.reshape(len(x), -1).t()
    return lambda: (matrix @ turned).t()


def dense_gated_mlp(torch: Torch, o: Tensors) -> Thunk:
    """The layer with full matrices (zeros stored), as in BLaST's comparison."""
    full = [dense_of_blocks(torch, o, n, rows, columns) for n, rows, columns in MLP]
    x = o["x"].reshape(len(o["x"]), -1)

    def run() -> Tensor:
        w, v, z = full
        return (torch.nn.functional.silu(x @ w.t()) * (x @ v.t())) @ z.t()

    return run


# --- what is computed -------------------------------------------------------------------------------------------------

MLP = (("W", "rows", "columns"), ("V", "rows", "columns"), ("Z", "rows_2", "columns_2"))


def dense_of_blocks(torch: Torch, o: Tensors, name: str, rows: str, columns: str) -> Tensor:
    """The matrix of stored blocks with its zeros."""
    grid, side = o["x"].shape[1:]
    full = torch.zeros((grid, grid, side, side), dtype=o[name].dtype, device=o[name].device)
    full[o[rows], o[columns]] = o[name]
    return full.permute(0, 2, 1, 3).reshape(grid * side, grid * side)


def exact_kronecker(torch: Torch, o: Tensors) -> Tensor:
    return o["A"] @ o["x"] @ o["B"].t()


def exact_groups(torch: Torch, o: Tensors) -> Tensor:
    return o["A"] @ o["x"] @ o["B"].transpose(-1, -2)


def exact_hadamard(torch: Torch, o: Tensors) -> Tensor:
    return o["h"] @ o["x"] @ o["h"].t()


def exact_three_factors(torch: Torch, o: Tensors) -> Tensor:
    x = torch.einsum("mn,bkln->bklm", o["C"], o["x"])
    return torch.einsum("ik,bkjm->bijm", o["A"], torch.einsum("jl,bklm->bkjm", o["B"], x))


def exact_low_rank(torch: Torch, o: Tensors) -> Tensor:
    return o["x"] @ o["V"].t() @ o["U"].t()


def exact_dense_and_low_rank(torch: Torch, o: Tensors) -> Tensor:
    return o["x"] @ (o["W"] + o["U"] @ o["V"]).t()


def exact_monarch(torch: Torch, o: Tensors) -> Tensor:
    return torch.einsum("jlk,bkj->blj", o["L"], torch.einsum("kji,bki->bkj", o["R"], o["x"]))


def exact_toeplitz(torch: Torch, o: Tensors) -> Tensor:
    n = o["x"].shape[-1]
    at = torch.arange(n, device=o["x"].device)
    return o["x"] @ o["t"][at[:, None] - at + n - 1].t()


def exact_block_sparse(torch: Torch, o: Tensors) -> Tensor:
    x = o["x"]
    return (x.reshape(len(x), -1) @ dense_of_blocks(torch, o, "W", "rows", "columns").t()).reshape(x.shape)


def exact_gated_mlp(torch: Torch, o: Tensors) -> Tensor:
    return dense_gated_mlp(torch, o)().reshape(o["x"].shape)


def exact_dense(torch: Torch, o: Tensors) -> Tensor:
    return o["x"] @ o["W"].t()


def exact_permuted(torch: Torch, o: Tensors) -> Tensor:
    return torch.einsum("aebf,dfce->abdc", o["x"], o["w"])


def exact_attention(torch: Torch, o: Tensors) -> Tensor:
    return torch.softmax(o["q"] @ o["k"].transpose(-1, -2), -1) @ o["v"]
