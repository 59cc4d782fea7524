"""Programs that one plan computes: at small sizes for Triton's interpreter, at real ones for the compiler's facts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import stein
from stein.backends.gpu.kernels import Goal
from stein.backends.gpu.roofline import DEVICES as DEVICE_TABLE
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.passes.base import Context
from stein.passes.candidates import BEST, WRITTEN, Draft, plan

Shapes = dict[str, tuple[int, ...]]
HALF = ("float16", "bfloat16")
ALL = ("float32", *HALF)
LISTS = ("rows", "columns", "rows_2", "columns_2")  # tensors of positions


@dataclass(frozen=True)
class Case:
    """A program, the structure of its plan, and its shapes.

    As many kernels as `tensor_cores` do it, after `formed` that prepare operands; `apart` equations stay outside. These
    are the matrix instructions that the kernels have on sm_90 in 16-bit types. A program that is `written` keeps its
    equations. A `variant` has the kernel of another case, with other ends or sizes: the tests run it, and leave it to
    `make gpu-check` to assemble it.

    `kind` says how results are held to the exact ones: `product` and `gated` by the sums of absolute values, `softmax`
    by the largest value, `transform` by norms, `quantised` by one step of the result. An `impulse` is a transform whose
    generator is 1 at lag 0 and 0 elsewhere, so that errors of what follows the product show beside those of norms.
    """

    name: str
    structure: str
    text: str
    small: Shapes
    full: Shapes
    kind: str = "product"
    dtypes: tuple[str, ...] = ALL
    formed: int = 0
    tensor_cores: tuple[str, ...] = ("HGMMA",)
    apart: int = 0
    written: bool = False
    variant: bool = False

    @property
    def count(self) -> int:
        """The kernels that do it, without those that prepare operands."""
        return len(self.tensor_cores)


KRON = "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]"
QUANTISED = """
    z[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]
    m[b] = max[i,j] abs(z[b,i,j])
    g[b] = m[b] / 127
    y: i8[b,i,j]
    y[b,i,j] = i8(clip(round(z[b,i,j] / g[b]), -127, 127))
    return y, g
"""
MONARCH = "y[b,l,j] = L[j,l,k] * R[k,j,i] * x[b,k,i]"
ATTENTION = """
    s[h,i,j] = q[h,i,c] * k[h,j,c]
    p[h,i,j] = softmax[j](s[h,i,j])
    y[h,i,d] = p[h,i,j] * v[h,j,d]
"""
CAUSAL = """
    s[h,i,j] = q[h,i,c] * k[h,j,c] * 0.125
    p[h,i,j] = softmax[j](where(i >= j, s[h,i,j], -inf))
    y[h,i,d] = p[h,i,j] * v[h,j,d]
"""
BIASED = """
    s[i,j] = q[i,c] * k[j,c] + f[i,r] * g[j,r]
    p[i,j] = softmax[j](s[i,j])
    y[i,d] = p[i,j] * v[j,d]
"""
PREFIX = """
    s[h,b,j] = q[b,h,c] * k[h,j,c]
    p[h,b,j] = softmax[j](s[h,b,j])
    y[b,h,d] = p[h,b,j] * v[h,j,d]
"""
SPARSE = "rows, columns: i64[S]\ny[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}"
ADDED = "\ny[b,i,a] = relu(z[b,i,a] + d[i,a])"
GATED = """
    rows, columns: i64[S]
    g[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}
    h[b,i,a] = (rows[s] == i) * V[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}
    y[b,i,a] = silu(g[b,i,a]) * h[b,i,a]
"""
GATED_TWICE = """
    rows, columns: i64[S]
    rows_2, columns_2: i64[T]
    g[b,i,a] = (rows[s] == i) * W[s,a,c] * (columns[s] == j) * x[b,j,c] for i in 0..{grid}
    h[b,i,a] = (rows_2[t] == i) * V[t,a,c] * (columns_2[t] == j) * x[b,j,c] for i in 0..{grid}
    y[b,i,a] = silu(g[b,i,a]) * h[b,i,a]
"""
ADAPTER = "y[b,i] = W[i,j] * x[b,j] + U[i,r] * V[r,j] * x[b,j] + c[i]"


def square(n: int, batch: int) -> Shapes:
    return {"A": (n, n), "B": (n, n), "x": (batch, n, n)}


def blocks(names: str, grid: int, side: int, count: int, batch: int = 16384, lists: int = 0) -> Shapes:
    """Matrices of `count` stored blocks in a grid of `grid` x `grid`, one pair of the lists, and x."""
    places = dict.fromkeys(LISTS[2 * lists : 2 * lists + 2], (count,))
    return places | dict.fromkeys(names, (count, side, side)) | {"x": (batch, grid, side)}


CASES: tuple[Case, ...] = (
    Case("kronecker", "kronecker", KRON, square(64, 5), square(64, 16384)),
    Case("kronecker 32", "kronecker", KRON, square(32, 3), square(32, 16384), tensor_cores=("HMMA",)),
    Case("kronecker 48x40", "kronecker", KRON, {"A": (48, 48), "B": (40, 40), "x": (3, 48, 40)},
         {"A": (48, 48), "B": (40, 40), "x": (16384, 48, 40)}, dtypes=HALF),
    Case("kronecker 128", "kronecker", KRON, square(128, 2), square(128, 4096), dtypes=HALF),
    Case("kronecker 256", "kronecker", KRON, {"A": (128, 256), "B": (64, 256), "x": (2, 256, 256)}, square(256, 1024),
         dtypes=("bfloat16",)),
    Case("kronecker, groups", "kronecker", "y[b,g,i,j] = A[g,i,k] * B[g,j,l] * x[b,g,k,l]",
         {"A": (3, 64, 64), "B": (3, 40, 40), "x": (5, 3, 64, 40)},
         {"A": (8, 64, 64), "B": (8, 64, 64), "x": (2048, 8, 64, 64)}, dtypes=HALF),
    Case("kronecker 16x256", "kronecker", KRON, {"A": (16, 16), "B": (256, 256), "x": (9, 16, 256)},
         {"A": (16, 16), "B": (256, 256), "x": (16384, 16, 256)}, dtypes=("bfloat16",)),
    Case("kronecker, bias, relu", "kronecker", "y[b,i,j] = relu((sum[k,l] A[i,k] * B[j,l] * x[b,k,l]) + c[i,j])",
         square(64, 3) | {"c": (64, 64)}, square(64, 16384) | {"c": (64, 64)}),
    Case("kronecker, int8", "kronecker", QUANTISED, square(64, 5), square(64, 16384), "quantised", HALF),
    Case("kronecker 16x16x16", "kronecker", "y[b,i,j,m] = A[i,k] * B[j,l] * C[m,n] * x[b,k,l,n]",
         {"A": (16, 16), "B": (16, 16), "C": (16, 16), "x": (9, 16, 16, 16)},
         {"A": (16, 16), "B": (16, 16), "C": (16, 16), "x": (16384, 16, 16, 16)}, dtypes=HALF, formed=1),
    Case("kronecker 8x8x8x8", "kronecker", "y[b,i,j,m,q] = A[i,k] * B[j,l] * C[m,n] * D[q,p] * x[b,k,l,n,p]",
         dict.fromkeys("ABCD", (8, 8)) | {"x": (3, 8, 8, 8, 8)},
         dict.fromkeys("ABCD", (8, 8)) | {"x": (16384, 8, 8, 8, 8)}, dtypes=HALF, formed=2),
    Case("kronecker 16x256, bias, relu", "kronecker", "y[b,i,j] = relu((sum[k,l] A[i,k] * B[j,l] * x[b,k,l]) + c[i,j])",
         {"A": (16, 16), "B": (256, 256), "c": (16, 256), "x": (9, 16, 256)},
         {"A": (16, 16), "B": (256, 256), "c": (16, 256), "x": (16384, 16, 256)}, dtypes=("bfloat16",), variant=True),
    Case("hadamard 64x64", "kronecker", "h: hadamard\ny[b,i,j] = h[i,k] * h[j,l] * x[b,k,l]",
         {"h": (64, 64), "x": (5, 64, 64)}, {"h": (64, 64), "x": (16384, 64, 64)}, dtypes=HALF),
    Case("low rank", "low_rank", "y[b,i] = U[i,r] * V[r,j] * x[b,j]", {"U": (200, 20), "V": (20, 136), "x": (37, 136)},
         {"U": (4096, 64), "V": (64, 4096), "x": (16384, 4096)}),
    Case("low rank 128, bias", "low_rank", "y[b,i] = U[i,r] * V[r,j] * x[b,j] + c[i]",
         {"U": (200, 100), "V": (100, 136), "x": (37, 136), "c": (200,)},
         {"U": (4096, 128), "V": (128, 4096), "x": (16384, 4096), "c": (4096,)}, dtypes=HALF),
    Case("dense + low rank", "dense_and_low_rank", ADAPTER,
         {"W": (136, 200), "U": (136, 20), "V": (20, 200), "x": (37, 200), "c": (136,)},
         {"W": (4096, 4096), "U": (4096, 64), "V": (64, 4096), "x": (16384, 4096), "c": (4096,)}, dtypes=HALF),
    Case("monarch 32", "monarch", MONARCH, {"L": (32, 32, 32), "R": (32, 32, 32), "x": (19, 32, 32)},
         {"L": (32, 32, 32), "R": (32, 32, 32), "x": (16384, 32, 32)}, dtypes=HALF, tensor_cores=("HMMA",)),
    Case("monarch 32, 40 columns", "monarch", MONARCH, {"L": (40, 32, 32), "R": (32, 40, 32), "x": (19, 32, 32)},
         {"L": (40, 32, 32), "R": (32, 40, 32), "x": (16384, 32, 32)}, dtypes=HALF, tensor_cores=("HMMA",),
         variant=True),
    Case("monarch 64", "monarch", MONARCH, {"L": (64, 64, 64), "R": (64, 64, 64), "x": (19, 64, 64)},
         {"L": (64, 64, 64), "R": (64, 64, 64), "x": (16384, 64, 64)}, dtypes=HALF, tensor_cores=("HGMMA", "HMMA")),
    Case("block tensor-train", "block_tensor_train", "y[b,l,j] = L[j,l,k,r] * R[k,j,i,r] * x[b,k,i]",
         {"L": (16, 32, 32, 2), "R": (32, 16, 32, 2), "x": (19, 32, 32)},
         {"L": (16, 32, 32, 2), "R": (32, 16, 32, 2), "x": (16384, 32, 32)}, dtypes=HALF, tensor_cores=("HMMA",)),
    Case("monarch 32, bias, relu", "monarch", "y[b,l,j] = relu((sum[k,i] L[j,l,k] * R[k,j,i] * x[b,k,i]) + c[l,j])",
         {"L": (40, 32, 32), "R": (32, 40, 32), "x": (19, 32, 32), "c": (32, 40)},
         {"L": (40, 32, 32), "R": (32, 40, 32), "x": (16384, 32, 32), "c": (32, 40)}, dtypes=HALF,
         tensor_cores=("HMMA",), variant=True),
    Case("monarch 64, beside", "monarch", "y[b,l,j] = (sum[k,i] L[j,l,k] * R[k,j,i] * x[b,k,i]) * 0.5 + z[b,l,j]",
         {"L": (64, 64, 64), "R": (64, 64, 64), "x": (19, 64, 64), "z": (19, 64, 64)},
         {"L": (64, 64, 64), "R": (64, 64, 64), "x": (16384, 64, 64), "z": (16384, 64, 64)}, dtypes=HALF,
         tensor_cores=("HGMMA", "HMMA"), variant=True),
    Case("block tensor-train, places", "block_tensor_train",
         "y[b,l,j] = where(l + j >= 9, (sum[k,i,r] L[j,l,k,r] * R[k,j,i,r] * x[b,k,i]), c[j])",
         {"L": (16, 32, 32, 2), "R": (32, 16, 32, 2), "x": (19, 32, 32), "c": (16,)},
         {"L": (16, 32, 32, 2), "R": (32, 16, 32, 2), "x": (16384, 32, 32), "c": (16,)}, dtypes=HALF,
         tensor_cores=("HMMA",), variant=True),
    Case("block sparse", "block_sparse", SPARSE, blocks("W", 4, 32, 9, 37), blocks("W", 32, 128, 102)),
    Case("block sparse 32", "block_sparse", SPARSE, blocks("W", 4, 32, 7, 37), blocks("W", 128, 32, 1638),
         dtypes=HALF),
    Case("block sparse 16", "block_sparse", SPARSE, blocks("W", 3, 16, 5, 40), blocks("W", 256, 16, 6553),
         dtypes=HALF),
    Case("block sparse, bias, relu", "block_sparse", SPARSE.replace("y[", "z[") + ADDED,
         blocks("W", 4, 64, 6, 37) | {"d": (4, 64)}, blocks("W", 64, 64, 410) | {"d": (64, 64)}),
    Case("gated block sparse", "gated_block_sparse", GATED, blocks("WV", 4, 32, 7, 37), blocks("WV", 64, 64, 410),
         "gated", written=True),
    Case("gated block sparse, two lists", "gated_block_sparse", GATED_TWICE,
         blocks("W", 4, 32, 14, 37) | blocks("V", 4, 32, 13, 37, lists=1),
         blocks("W", 64, 64, 410) | blocks("V", 64, 64, 205, lists=1), "gated", written=True),
    Case("toeplitz", "toeplitz", "y[b,i] = t[i-j+4095] * x[b,j]", {"t": (8191,), "x": (2, 4096)},
         {"t": (8191,), "x": (16384, 4096)}, "transform", HALF, formed=1),
    Case("causal convolution", "toeplitz", "K: pad=0\ny[b,h,i] = K[h,i-j] * u[b,h,j] for i in 0..1500",
         {"K": (2, 1500), "u": (2, 2, 1500)}, {"K": (64, 1500), "u": (64, 64, 1500)}, "transform", HALF, formed=1,
         apart=1),
    Case("toeplitz, transposed", "toeplitz", "y[b,i] = t[j-i+900] * x[b,j]", {"t": (1801,), "x": (2, 901)},
         {"t": (1801,), "x": (16384, 901)}, "transform", HALF, formed=1,
         tensor_cores=("HMMA",), variant=True),
    Case("toeplitz, bias, relu", "toeplitz", "y[b,i] = relu((sum[j] t[i-j+1023] * x[b,j]) + c[i])",
         {"t": (2047,), "x": (2, 1024), "c": (1024,)}, {"t": (2047,), "x": (16384, 1024), "c": (1024,)}, "impulse",
         HALF, formed=1, tensor_cores=("HMMA",), variant=True),
    Case("causal convolution, transposed", "toeplitz", "K: pad=0\ny[b,h,i] = K[h,j-i] * u[b,h,j] for i in 0..1500",
         {"K": (2, 1400), "u": (2, 2, 1500)}, {"K": (64, 1400), "u": (64, 64, 1500)}, "transform", HALF, formed=1,
         apart=1, variant=True),
    Case("causal convolution, skip", "toeplitz",
         "K: pad=0\ny[b,h,i] = where(i >= 700, (sum[j] K[h,i-j] * u[b,h,j]) + d[h] * u[b,h,i], g[i]) for i in 0..1500",
         {"K": (2, 1500), "u": (2, 2, 1500), "d": (2,), "g": (1500,)},
         {"K": (64, 1500), "u": (64, 64, 1500), "d": (64,), "g": (1500,)}, "impulse", HALF, formed=1, apart=1,
         variant=True),
    Case("attention", "attention", ATTENTION, {"q": (2, 45, 64), "k": (2, 150, 64), "v": (2, 150, 32)},
         {"q": (16, 4096, 64), "k": (16, 4096, 64), "v": (16, 4096, 64)}, "softmax"),
    Case("attention, causal", "attention", CAUSAL, dict.fromkeys("qkv", (2, 140, 64)),
         dict.fromkeys("qkv", (16, 4096, 64)), "softmax"),
    Case("attention 128", "attention", ATTENTION, {"q": (2, 45, 128), "k": (2, 70, 128), "v": (2, 70, 128)},
         dict.fromkeys("qkv", (16, 4096, 128)), "softmax", HALF),
    Case("attention, bias of low rank", "attention", BIASED,
         {"q": (45, 64), "k": (70, 64), "v": (70, 64), "f": (45, 16), "g": (70, 16)},
         {"q": (4096, 64), "k": (4096, 64), "v": (4096, 64), "f": (4096, 16), "g": (4096, 16)}, "softmax"),
    Case("attention, common prefix", "attention", PREFIX, {"q": (20, 2, 64), "k": (2, 70, 64), "v": (2, 70, 64)},
         {"q": (128, 16, 64), "k": (16, 4096, 64), "v": (16, 4096, 64)}, "softmax", HALF),
)  # fmt: skip


def program_of(case: Case, dtype: str, shapes: Shapes) -> Program:
    """The planned program of a case, every contraction in the best order, or its equations as written."""
    return planned(case.text, dtype, shapes, case.written)


def planned(text: str, dtype: str, shapes: Shapes, written: bool = False) -> Program:
    """The planned program of a text."""
    return _planned(text, dtype, tuple(shapes.items()), written)


@cache
def _planned(text: str, dtype: str, pairs: tuple[tuple[str, tuple[int, ...]], ...], written: bool) -> Program:
    shapes = dict(pairs)
    declared: dict[str, Any] = {n: stein.tensor(s, "int64" if n in LISTS else dtype) for n, s in pairs}
    if "{grid}" in text:
        text = text.replace("{grid}", str(shapes["x"][1]))
    program: Program = stein.compile(text, dtype=dtype, target="reference", **declared).program
    kept = frozenset(e.name for e in program.equations) if written else frozenset[str]()
    return plan(Draft(WRITTEN if written else BEST, program, kept), Context(sizes={})).program


def layouts_of(program: Program) -> dict[str, Layout]:
    """Row-major layouts of the inputs."""
    return {i.name: Layout.dense(tuple(s.evaluate({}) for s in i.shape), i.dtype) for i in program.inputs}


ARCHITECTURES = ("sm_90", "sm_80", "gfx942")
DEVICES = {d.architecture: d for d in reversed(DEVICE_TABLE)}


def goal_of(architecture: str) -> Goal:
    """The goal that plans of the tests are made for: the first device of an architecture."""
    return Goal.of(DEVICES[architecture])
