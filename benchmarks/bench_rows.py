"""The rows of the CPU benchmark: einsum expressions with sizes, grouped, each with its flops and bytes.

Outside the compiler; the lowest module of `benchmarks`. A `Row` says what is computed; how each library computes it is
in `bench_peers`, timing in `bench_timing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Row:
    """One einsum: `sizes` gives the length of each label.

    `matmul` says that the operands go into `np.matmul` and `torch.matmul` as they are, after the transpositions
    (`"T"`) named for each operand. `compiled` rows call what `stein.compile` returns instead of `stein.einsum`.
    """

    group: str
    name: str
    spec: str
    sizes: dict[str, int] = field(hash=False)
    dtype: str = "float32"
    matmul: tuple[str, str] | None = None
    compiled: bool = False

    @property
    def inputs(self) -> list[str]:
        """The labels of each operand."""
        return self.spec.split("->")[0].split(",")

    @property
    def output(self) -> str:
        """The labels of the result."""
        return self.spec.split("->")[1]

    def shape(self, term: str) -> tuple[int, ...]:
        """The lengths of a term's labels."""
        return tuple(self.sizes[c] for c in term)

    def operands(self) -> list[Array]:
        """Random operands, contiguous."""
        rng = np.random.default_rng(0)
        return [rng.standard_normal(self.shape(t)).astype(self.dtype) for t in self.inputs]

    @cached_property
    def flops(self) -> int:
        """Multiplications and additions along opt_einsum's best path (a fused multiply-add counts two)."""
        return _flops(self)

    @cached_property
    def bytes(self) -> int:
        """Operands read once and the result written once: what no method can avoid."""
        terms = ("".join(dict.fromkeys(t)) for t in (*self.inputs, self.output))  # of a diagonal, only the diagonal
        count = sum(prod(self.shape(t)) for t in terms)
        return count * np.dtype(self.dtype).itemsize


def _flops(row: Row) -> int:
    import opt_einsum

    terms = list(row.inputs)
    if len(terms) > 2:
        shapes = [row.shape(t) for t in terms]
        path, _ = opt_einsum.contract_path(
            row.spec, *shapes, shapes=True, optimize="optimal" if len(terms) < 8 else "dp"
        )
    else:
        path = [tuple(range(len(terms)))]
    total = 0
    for step in path:
        taken = [terms[i] for i in step]
        terms = [t for i, t in enumerate(terms) if i not in step]
        rest = set("".join(terms)) | set(row.output)
        labels = set("".join(taken))
        kept = "".join(sorted(labels & rest)) if terms else row.output
        adds = any(c not in kept for c in labels)
        total += prod(row.sizes[c] for c in labels) * (len(taken) - 1 + adds)
        terms.append(kept)
    return total


def _cube(n: int) -> dict[str, int]:
    return {"i": n, "j": n, "k": n}


def _sized(**sizes: int) -> dict[str, int]:
    return sizes


MM, NT, TN = "ij,jk->ik", "ij,kj->ik", "ji,jk->ik"
PLAIN, RIGHT, LEFT = ("", ""), ("", "T"), ("T", "")

ROWS: tuple[Row, ...] = (
    *(Row("tiny", f"{n}^3", MM, _cube(n), matmul=PLAIN) for n in (4, 8, 16)),
    *(Row("tiny", f"{n}^3 compiled", MM, _cube(n), matmul=PLAIN, compiled=True) for n in (4, 8, 16)),
    *(
        Row("batched", f"{b} x {n}^3", "bij,bjk->bik", {"b": b, **_cube(n)}, matmul=PLAIN)
        for b, n in ((10000, 4), (10000, 8), (1000, 16), (1000, 32))
    ),
    *(Row("blas", f"{n}^3", MM, _cube(n), matmul=PLAIN) for n in (64, 128, 256, 512, 1024)),
    Row("blas", "512^3 f64", MM, _cube(512), "float64", matmul=PLAIN),
    Row("blas", "M8 N1024 K1024", MM, _sized(i=8, j=1024, k=1024), matmul=PLAIN),
    Row("blas", "M1024 N1024 K8", MM, _sized(i=1024, j=8, k=1024), matmul=PLAIN),
    Row("blas", "M1024 N8 K1024", MM, _sized(i=1024, j=1024, k=8), matmul=PLAIN),
    Row("blas", "A x, 1024", "ij,j->i", _sized(i=1024, j=1024), matmul=PLAIN),
    Row("blas", "A' x, 1024", "ij,i->j", _sized(i=1024, j=1024)),
    Row("transposed", "256^3 NT", NT, _cube(256), matmul=RIGHT),
    Row("transposed", "256^3 TN", TN, _cube(256), matmul=LEFT),
    Row("transposed", "1024^3 NT", NT, _cube(1024), matmul=RIGHT),
    Row("transposed", "256^3 to ki", "ij,jk->ki", _cube(256)),
    Row("transposed", "aibj,jcid->abcd 16", "aibj,jcid->abcd", dict.fromkeys("abcdij", 16)),
    Row("transposed", "abcd,dbea->ec 24", "abcd,dbea->ec", dict.fromkeys("abcde", 24)),
    Row("transposed", "aebf,dfce->abdc 32,4", "aebf,dfce->abdc", {**dict.fromkeys("abcd", 32), "e": 4, "f": 4}),
    Row("transposed", "abcde,efbad->cf 12,48", "abcde,efbad->cf", {**dict.fromkeys("abcde", 12), "f": 48}),
    Row("transposed", "abc,acd->bad 64 (batch inside)", "abc,acd->bad", dict.fromkeys("abcd", 64)),
    Row("permute", "ij->ji 1024", "ij->ji", _sized(i=1024, j=1024)),
    Row("permute", "abc->cba 128", "abc->cba", dict.fromkeys("abc", 128)),
    Row("permute", "abcd->dbca 40", "abcd->dbca", dict.fromkeys("abcd", 40)),
    Row("reduction", "row sums 1024^2", "ij->i", _sized(i=1024, j=1024)),
    Row("reduction", "column sums 1024^2", "ij->j", _sized(i=1024, j=1024)),
    Row("reduction", "all 1024^2", "ij->", _sized(i=1024, j=1024)),
    Row("reduction", "trace 1024", "ii->", _sized(i=1024)),
    Row("reduction", "dot 1e6", "i,i->", _sized(i=1_000_000)),
    Row("reduction", "hadamard-reduce 1024^2", "ij,ij->i", _sized(i=1024, j=1024)),
    Row("reduction", "A o B' 512", "ij,ji->ij", _sized(i=512, j=512)),
    Row("reduction", "outer 1000", "i,j->ij", _sized(i=1000, j=1000)),
    Row("reduction", "a b c elementwise 1e6", "i,i,i->i", _sized(i=1_000_000)),
    Row("network", "MTTKRP 64^3 r32", "ijk,jr,kr->ir", {**dict.fromkeys("ijk", 64), "r": 32}),
    Row("network", "chain of 4, 128", "ij,jk,kl,lm->im", dict.fromkeys("ijklm", 128)),
    Row("network", "chain 8 to scalar, 32", "ab,bc,cd,de,ef,fg,gh,ha->", dict.fromkeys("abcdefgh", 32)),
    Row("network", "opt_einsum 7 operands", "bdik,acaj,ikab,ajac,ikbd,fgh,gh->f", dict.fromkeys("abcdfghijk", 10)),
    Row("network", "MPS, 10 operands", "ab,bcd,dcf,fg,ahi,ijk,kjl,lm,gn,mn->h", {**dict.fromkeys("abcdfghijklmn", 16)}),
    Row("network", "attention scores", "bqhd,bkhd->bhqk", _sized(b=2, q=256, k=256, h=8, d=64)),
    Row("network", "attention values", "bhqk,bkhd->bqhd", _sized(b=2, q=256, k=256, h=8, d=64)),
    Row("network", "bilinear", "bi,oij,bj->bo", _sized(b=128, o=32, i=64, j=64)),
    Row("network", "b-form bi,bj,bij->b", "bi,bj,bij->b", _sized(b=256, i=64, j=64)),
    Row("network", "Kronecker 32x32 m1024", "ik,jl,bkl->bij", _sized(i=32, j=32, k=32, l=32, b=1024)),
    Row("network", "picture filter 600x512x3", "ik,jl,klc->ijc", _sized(i=600, j=512, k=600, l=512, c=3)),
    Row("network", "Monarch 1024 m64", "kij,jkm,bjm->bik", _sized(i=32, j=32, k=32, m=32, b=64)),
)  # fmt: skip

QUICK = {
    "8^3", "8^3 compiled", "10000 x 4^3", "1000 x 32^3", "64^3", "512^3", "M8 N1024 K1024", "A x, 1024", "256^3 NT",
    "abcd,dbea->ec 24", "ij->ji 1024", "column sums 1024^2", "dot 1e6", "MTTKRP 64^3 r32", "attention scores",
}  # fmt: skip
