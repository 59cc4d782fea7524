"""The rows of `gpu.py`: structured products of N = 4096 on a batch of 16384 in bfloat16, their rivals and their goals.

A row has the program, the shapes of its operands and what users of PyTorch would write. Goals are microseconds on an
H200, and how many times faster than the dense product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tensors = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Thunk = Callable[[], Any]

N, SIDE, BATCH = 4096, 64, 16384


@dataclass(frozen=True)
class Row:
    """One comparison: `shapes(batch)` are those of the operands, `rival(torch, operands)` is measured beside."""

    name: str
    text: str
    shapes: Callable[[int], Shapes]
    rival: Callable[[Any, Tensors], Thunk]
    goal: float | None = None
    against_dense: float | None = None
    against_torch: float | None = None
    tolerance: float = 2e-2  # of the norm of the result, in bfloat16


def operands(row: Row, torch: Any, batch: int) -> Tensors:
    """Random operands on the GPU: what is applied to is near 1, factors are such that results are too."""
    found: Tensors = {}
    for name, shape in row.shapes(batch).items():
        if name == "h":
            found[name] = _sylvester(torch, shape[0])
            continue
        scale = 1.0 if name in "xv" else shape[-1] ** (-0.25 if name in "qk" else -0.5)
        found[name] = (torch.randn(shape, device="cuda") * scale).bfloat16()
    return found


def _sylvester(torch: Any, n: int) -> Any:
    """The Hadamard matrix of order n."""
    found = torch.ones((1, 1), device="cuda")
    while len(found) < n:
        found = torch.kron(found, torch.tensor([[1.0, 1.0], [1.0, -1.0]], device="cuda"))
    return found.bfloat16()


def _tiles(*factors: str) -> Callable[[int], Shapes]:
    return lambda batch: dict.fromkeys(factors, (SIDE, SIDE)) | {"x": (batch, SIDE, SIDE)}


def _low_rank(batch: int) -> Shapes:
    return {"U": (N, SIDE), "V": (SIDE, N), "x": (batch, N)}


def _monarch(batch: int) -> Shapes:
    return {"L": (SIDE,) * 3, "R": (SIDE,) * 3, "x": (batch, SIDE, SIDE)}


def _attention(batch: int) -> Shapes:
    return {n: (max(1, batch // 512), N, SIDE) for n in "qkv"}


def _by_fft(torch: Any, o: Tensors) -> Thunk:
    n = o["x"].shape[-1]

    def run() -> Any:
        points = 2 * n
        kernel = torch.fft.rfft(torch.roll(torch.nn.functional.pad(o["t"].float(), (0, 1)), 1 - n), points)
        return torch.fft.irfft(torch.fft.rfft(o["x"].float(), points) * kernel, points)[..., :n].bfloat16()

    return run


ATTENTION = """
    s[h,i,j] = q[h,i,c] * k[h,j,c]
    p[h,i,j] = softmax[j](s[h,i,j])
    y[h,i,d] = p[h,i,j] * v[h,j,d]
"""

ROWS: tuple[Row, ...] = (
    Row(
        "kronecker 64x64",
        "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]",
        _tiles("A", "B"),
        lambda torch, o: lambda: torch.einsum("ik,jl,bkl->bij", o["A"], o["B"], o["x"]),
        69,
        10,
        3.5,
    ),
    Row(
        "hadamard 4096",
        "h: hadamard\ny[b,i,j] = h[i,k] * h[j,l] * x[b,k,l]",
        _tiles("h"),
        lambda torch, o: lambda: torch.einsum("ik,jl,bkl->bij", o["h"], o["h"], o["x"]),
        68,
        10,
    ),
    Row(
        "low rank 64",
        "y[b,i] = U[i,r] * V[r,j] * x[b,j]",
        _low_rank,
        lambda torch, o: lambda: o["x"] @ o["V"].t() @ o["U"].t(),
        75,
        9,
        1.1,
    ),
    Row(
        "dense + low rank 64",
        "y[b,i] = W[i,j] * x[b,j] + U[i,r] * V[r,j] * x[b,j]",
        lambda batch: _low_rank(batch) | {"W": (N, N)},
        lambda torch, o: lambda: o["x"] @ o["W"].t() + o["x"] @ o["V"].t() @ o["U"].t(),
    ),
    Row(
        "monarch 64",
        "y[b,l,j] = L[j,l,k] * R[k,j,i] * x[b,k,i]",
        _monarch,
        lambda torch, o: lambda: torch.einsum("jlk,bkj->blj", o["L"], torch.einsum("kji,bki->bkj", o["R"], o["x"])),
        100,
        7,
        1.25,
    ),
    Row(
        "toeplitz",
        "y[b,i] = t[i-j+4095] * x[b,j]",
        lambda batch: {"t": (2 * N - 1,), "x": (batch, N)},
        _by_fft,
        130,
        5,
        9,
        tolerance=4e-2,
    ),
    Row(
        "attention, 32 heads",
        ATTENTION,
        _attention,
        lambda torch, o: lambda: torch.nn.functional.scaled_dot_product_attention(o["q"], o["k"], o["v"], scale=1.0),
    ),
    Row(
        "dense",
        "y[b,i] = W[i,j] * x[b,j]",
        lambda batch: {"W": (N, N), "x": (batch, N)},
        lambda torch, o: lambda: torch.einsum("ij,bj->bi", o["W"], o["x"]),
        None,
        0.97,
    ),
)
