"""The rows of the structure benchmark: a program for stein, the dense matrix it stands for, and hand-written peers.

Outside the compiler. `x` is always (batch, n) or a view of it in digits; `dense` builds W with y = x W', in float32.
Peers are what a good programmer would write for the structure with NumPy, SciPy or torch; each is checked like stein.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Operands: TypeAlias = "dict[str, Array]"
Thunk = Callable[[], Any]
N, BATCH = 4096, 256


@dataclass(frozen=True)
class StructureRow:
    """One structure: the program, its operands, its dense matrix, peers by name, and flops of the structured form.

    `goal` is how many times faster than the best dense product it is to be; `constants` are given at compile time.
    """

    name: str
    program: str
    goal: float
    operands: Callable[[], Operands]
    dense: Callable[[Operands], Array]
    peers: Mapping[str, Callable[[Operands], Thunk]]
    flops: float
    constants: tuple[str, ...] = ()
    note: str = field(default="")


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def _with(x: tuple[int, ...] = (BATCH, N), **shapes: tuple[int, ...]) -> Callable[[], Operands]:
    def make() -> Operands:
        made = {n: _random(*s, seed=k) for k, (n, s) in enumerate(shapes.items())}
        return made | {"x": _random(*x, seed=99)}

    return make


def _torch(function: Callable[..., Any], *names: str) -> Callable[[Operands], Thunk]:
    def make(o: Operands) -> Thunk:
        import torch

        tensors = [torch.from_numpy(o[n]) for n in names]

        def call() -> Any:
            with torch.no_grad():
                return function(torch, *tensors)

        return call

    return make


def _kron_numpy(o: Operands) -> Thunk:
    return lambda: (o["A"] @ o["x"]) @ o["B"].T


def _kron3_numpy(o: Operands) -> Thunk:
    def call() -> Array:
        x = o["x"].reshape(BATCH, 16, 256)
        x = (o["A"] @ x).reshape(BATCH * 16, 16, 16)
        return (o["B"] @ x) @ o["C"].T

    return call


def _kron3_torch(t: Any, A: Any, B: Any, C: Any, x: Any) -> Any:
    x = (A @ x.reshape(BATCH, 16, 256)).reshape(BATCH * 16, 16, 16)
    return (B @ x) @ C.T


def _monarch_numpy(o: Operands) -> Thunk:
    def call() -> Array:
        z = np.matmul(o["x"].transpose(1, 0, 2), o["R"].transpose(0, 2, 1))  # k b j
        return np.matmul(z.transpose(2, 1, 0), o["L"].transpose(0, 2, 1))  # j b l

    return lambda: np.ascontiguousarray(call().transpose(1, 2, 0))


def _monarch_torch(t: Any, L: Any, R: Any, x: Any) -> Any:
    z = t.bmm(x.transpose(0, 1), R.transpose(1, 2))
    return t.bmm(z.permute(2, 1, 0), L.transpose(1, 2)).permute(1, 2, 0).contiguous()


def _btt_numpy(o: Operands) -> Thunk:
    def call() -> Array:
        rank = o["L"].shape[-1]
        right = o["R"].transpose(0, 2, 1, 3).reshape(64, 64, 64 * rank)  # k i (j r)
        z = np.matmul(o["x"].transpose(1, 0, 2), right).reshape(64, BATCH, 64, rank)  # k b j r
        z = z.transpose(2, 1, 0, 3).reshape(64, BATCH, 64 * rank)  # j b (k r)
        left = o["L"].transpose(0, 2, 3, 1).reshape(64, 64 * rank, 64)  # j (k r) l
        return np.ascontiguousarray(np.matmul(z, left).transpose(1, 2, 0))

    return call


def _btt_torch(t: Any, L: Any, R: Any, x: Any) -> Any:
    rank = L.shape[-1]
    right = R.permute(0, 2, 1, 3).reshape(64, 64, 64 * rank)
    z = t.bmm(x.transpose(0, 1), right).reshape(64, BATCH, 64, rank)
    z = z.permute(2, 1, 0, 3).reshape(64, BATCH, 64 * rank)
    left = L.permute(0, 2, 3, 1).reshape(64, 64 * rank, 64)
    return t.bmm(z, left).permute(1, 2, 0).contiguous()


def _toeplitz_dense(o: Operands) -> Array:
    i = np.arange(N)
    return o["t"][i[:, None] - i[None, :] + N - 1]


def _toeplitz_scipy(o: Operands) -> Thunk:
    import scipy.fft as fft

    def call() -> Array:
        spectrum = fft.rfft(o["t"], 2 * N)
        product = fft.rfft(o["x"], 2 * N, axis=1, workers=-1) * spectrum
        return fft.irfft(product, 2 * N, axis=1, workers=-1)[:, N - 1 : 2 * N - 1]

    # t[i-j+N-1] over lags -(N-1)..N-1: the product's entries N-1 .. 2N-2 (circular of length 2N)
    return call


def _toeplitz_torch(torch: Any, t: Any, x: Any) -> Any:
    spectrum = torch.fft.rfft(t, 2 * N)
    return torch.fft.irfft(torch.fft.rfft(x, 2 * N) * spectrum, 2 * N)[:, N - 1 : 2 * N - 1]


def _hadamard(order: int) -> Array:
    return reduce(np.kron, [np.array([[1, 1], [1, -1]], np.float32)] * order)


def _hadamard_numpy(o: Operands) -> Thunk:
    h = _hadamard(6)
    return lambda: ((h @ o["x"].reshape(BATCH, 64, 64)) @ h).reshape(BATCH, N)


def _hadamard_torch(o: Operands) -> Thunk:
    import torch

    h, x = torch.from_numpy(_hadamard(6)), torch.from_numpy(o["x"]).reshape(BATCH, 64, 64)
    return lambda: ((h @ x) @ h).reshape(BATCH, N)


def _banded_dense(o: Operands) -> Array:
    w = np.zeros((N, N + 64), np.float32)
    for d in range(65):
        w[np.arange(N), np.arange(N) + d] = o["a"][d]
    return w


def _banded_scipy(o: Operands) -> Thunk:
    import scipy.sparse as sparse

    band = sparse.csr_array(sparse.dia_array((_diagonals(o["a"]), np.arange(65)), shape=(N, N + 64)))
    return lambda: (band @ o["x"].T).T


def _diagonals(a: Array) -> Array:
    data = np.zeros((65, N + 64), np.float32)
    for d in range(65):
        data[d, d : d + N] = a[d]
    return data


def _banded_torch(torch: Any, a: Any, x: Any) -> Any:
    y = a[0] * x[:, :N]
    for d in range(1, 65):
        y.addcmul_(a[d], x[:, d : d + N])
    return y


def _blocks() -> Operands:
    rng = np.random.default_rng(5)
    kept = rng.permutation(64 * 64)[: 64 * 64 // 10]
    rows, cols = np.divmod(np.sort(kept), 64)
    return {
        "I": rows.astype(np.int64), "J": cols.astype(np.int64),
        "W": _random(len(kept), 64, 64), "x": _random(BATCH, 64, 64, seed=99),
    }  # fmt: skip


def _blocks_dense(o: Operands) -> Array:
    w = np.zeros((64, 64, 64, 64), np.float32)
    w[o["I"], :, o["J"], :] = o["W"]
    return w.reshape(N, N)


def _blocks_scipy(o: Operands) -> Thunk:
    import scipy.sparse as sparse

    starts = np.searchsorted(o["I"], np.arange(65))
    matrix = sparse.bsr_array((o["W"], o["J"], starts), shape=(N, N))
    return lambda: (matrix @ o["x"].reshape(BATCH, N).T).T.reshape(BATCH, 64, 64)


def _blocks_torch(torch: Any, I: Any, J: Any, W: Any, x: Any) -> Any:  # noqa: E741
    products = torch.bmm(x.transpose(0, 1)[J], W.transpose(1, 2))  # s b a
    y = torch.zeros(64, BATCH, 64)
    return y.index_add_(0, I, products).transpose(0, 1)


def _dense_kron(*names: str) -> Callable[[Operands], Array]:
    return lambda o: reduce(np.kron, [o[n] for n in names])


def _flat(o: Operands) -> Array:
    return o["x"].reshape(BATCH, -1)


def dense_input(o: Operands) -> Array:
    """x as a matrix, for the dense product."""
    return _flat(o)


STRUCTURES: tuple[StructureRow, ...] = (
    StructureRow(
        "kronecker 64x64", "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", 12,
        _with((BATCH, 64, 64), A=(64, 64), B=(64, 64)), _dense_kron("A", "B"),
        {"numpy": _kron_numpy, "torch": _torch(lambda t, A, B, x: (A @ x) @ B.T, "A", "B", "x")},
        2 * BATCH * N * 128,
    ),
    StructureRow(
        "kronecker 16x16x16", "y[b,i,j,k] = A[i,l] * B[j,m] * C[k,n] * x[b,l,m,n]", 15,
        _with((BATCH, 16, 16, 16), A=(16, 16), B=(16, 16), C=(16, 16)), _dense_kron("A", "B", "C"),
        {"numpy": _kron3_numpy, "torch": _torch(_kron3_torch, "A", "B", "C", "x")}, 2 * BATCH * N * 48,
    ),
    StructureRow(
        "monarch 64", "y[b,l,j] = L[j,l,k] * R[k,j,i] * x[b,k,i]", 6,
        _with((BATCH, 64, 64), L=(64, 64, 64), R=(64, 64, 64)),
        lambda o: np.einsum("jlk,kji->ljki", o["L"], o["R"]).reshape(N, N),
        {"numpy": _monarch_numpy, "torch": _torch(_monarch_torch, "L", "R", "x")}, 2 * BATCH * N * 128,
    ),
    StructureRow(
        "low rank 64", "y[b,i] = U[i,r] * V[r,j] * x[b,j]", 22, _with(U=(N, 64), V=(64, N)),
        lambda o: o["U"] @ o["V"],
        {"numpy": lambda o: lambda: (o["x"] @ o["V"].T) @ o["U"].T,
         "torch": _torch(lambda t, U, V, x: (x @ V.T) @ U.T, "U", "V", "x")}, 2 * BATCH * N * 128,
    ),
    StructureRow(
        "toeplitz", "y[b,i] = t[i-j+4095] * x[b,j] for i in 0..4096", 5, _with(t=(2 * N - 1,)), _toeplitz_dense,
        {"scipy": _toeplitz_scipy, "torch": _torch(_toeplitz_torch, "t", "x")}, 2.0 * BATCH * N * N,
        note="flops of the direct sum",
    ),
    StructureRow(
        "hadamard 2^12", "h: f32[2,2] hadamard; y = x @ kron(h, h, h, h, h, h, h, h, h, h, h, h)", 20,
        lambda: {"h": _hadamard(1), "x": _random(BATCH, N, seed=99)}, lambda o: _hadamard(12),
        {"numpy": _hadamard_numpy, "torch": _hadamard_torch}, BATCH * N * 12,
    ),
    StructureRow(
        "banded 65", "y[b,i] = a[d,i] * x[b,i+d]", 6, _with((BATCH, N + 64), a=(65, N)), _banded_dense,
        {"scipy": _banded_scipy, "torch": _torch(_banded_torch, "a", "x")}, 2 * BATCH * N * 65,
    ),
    StructureRow(
        "block tensor-train 4", "y[b,l,j] = L[j,l,k,r] * R[k,j,i,r] * x[b,k,i]", 1.8,
        _with((BATCH, 64, 64), L=(64, 64, 64, 4), R=(64, 64, 64, 4)),
        lambda o: np.einsum("jlkr,kjir->ljki", o["L"], o["R"], optimize=True).reshape(N, N),
        {"numpy": _btt_numpy, "torch": _torch(_btt_torch, "L", "R", "x")}, 8 * BATCH * N * 128,
    ),
    StructureRow(
        "block sparse 10 %",
        "I, J: i64[S]; y[b,i,a] = (I[s] == i) * W[s,a,c] * (J[s] == j) * x[b,j,c] for i in 0..64", 3,
        _blocks, _blocks_dense,
        {"scipy": _blocks_scipy, "torch": _torch(_blocks_torch, "I", "J", "W", "x")}, 2 * BATCH * 409 * 64 * 64,
    ),
)  # fmt: skip
