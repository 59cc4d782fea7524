"""Random structured programs through their fused plans, in Triton's interpreter: sizes that divide nothing, operands in
any order of axes, and what may follow a product.

A process of its own, as `fused_interpreted`, whose bounds it takes. Prints a line for each failure and a summary, and
exits 0 if there is none.

    python -m stein.tests.gpu.fused_random --seed 0 --cases 200
    python -m stein.tests.gpu.fused_random --seed 0 --start 17 --cases 1
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from stein.backends.gpu.program import bind
from stein.backends.gpu.run import run
from stein.tests.gpu.fused_cases import ARCHITECTURES, Case, Shapes, goal_of, program_of
from stein.tests.gpu.fused_interpreted import Array, allowed, exact_of, operands, ratio
from stein.tests.gpu.interpreter import array_of, layout_of, poisoned, tensor_of  # it asks for the interpreter

Rng = np.random.Generator
Made = tuple[str, str, Shapes, dict[str, int]]  # the product, the axes of y, the shapes, the extents of these axes
POINTS = 4_000_000  # of the largest loop


def _between(rng: Rng, low: int, high: int, count: int) -> list[int]:
    return [int(n) for n in rng.integers(low, high + 1, count)]


def kronecker(rng: Rng) -> Made:
    i, k, j, n = _between(rng, 1, 72, 4)
    (b,) = _between(rng, 1, 5, 1)
    shapes = {"A": (i, k), "B": (j, n), "x": (b, k, n)}
    return "sum[k,n] A[i,k] * B[j,n] * x[b,k,n]", "b,i,j", shapes, {"b": b, "i": i, "j": j}


def grouped(rng: Rng) -> Made:
    i, k, j, n = _between(rng, 2, 40, 4)
    b, g = _between(rng, 1, 4, 2)
    shapes = {"A": (g, i, k), "B": (j, n), "x": (b, g, k, n)}
    return "sum[k,n] A[g,i,k] * B[j,n] * x[b,g,k,n]", "b,g,i,j", shapes, {"b": b, "g": g, "i": i, "j": j}


def three_factors(rng: Rng) -> Made:
    i, k, j, n, u, v = _between(rng, 2, 14, 6)
    (b,) = _between(rng, 1, 4, 1)
    shapes = {"A": (i, k), "B": (j, n), "C": (u, v), "x": (b, k, n, v)}
    product = "sum[k,n,v] A[i,k] * B[j,n] * C[u,v] * x[b,k,n,v]"
    return product, "b,i,j,u", shapes, {"b": b, "i": i, "j": j, "u": u}


def low_rank(rng: Rng) -> Made:
    i, j, b = _between(rng, 1, 200, 3)
    (r,) = _between(rng, 1, 70, 1)
    shapes = {"U": (i, r), "V": (r, j), "x": (b, j)}
    return "sum[r,j] U[i,r] * V[r,j] * x[b,j]", "b,i", shapes, {"b": b, "i": i}


def adapter(rng: Rng) -> Made:
    i, j, b = _between(rng, 20, 200, 3)
    (r,) = _between(rng, 1, 16, 1)
    shapes = {"W": (i, j), "U": (i, r), "V": (r, j), "x": (b, j)}
    product = "(sum[j] W[i,j] * x[b,j]) + (sum[r,j] U[i,r] * V[r,j] * x[b,j])"
    return product, "b,i", shapes, {"b": b, "i": i}


def monarch(rng: Rng) -> Made:
    k, j, i, m = _between(rng, 3, 40, 4)
    (b,) = _between(rng, 1, 40, 1)
    shapes = {"L": (j, m, k), "R": (k, j, i), "x": (b, k, i)}
    return "sum[k,i] L[j,m,k] * R[k,j,i] * x[b,k,i]", "b,m,j", shapes, {"b": b, "m": m, "j": j}


def tensor_train(rng: Rng) -> Made:
    k, j, i, m = _between(rng, 3, 24, 4)
    (b,) = _between(rng, 1, 40, 1)
    (r,) = _between(rng, 1, 3, 1)
    shapes = {"L": (j, m, k, r), "R": (k, j, i, r), "x": (b, k, i)}
    return "sum[k,i,r] L[j,m,k,r] * R[k,j,i,r] * x[b,k,i]", "b,m,j", shapes, {"b": b, "m": m, "j": j}


def block_sparse(rng: Rng) -> Made:
    grid, count = _between(rng, 1, 6, 2)
    a, c = _between(rng, 8, 48, 2)
    (b,) = _between(rng, 1, 60, 1)
    shapes = {"rows": (count,), "columns": (count,), "W": (count, a, c), "x": (b, grid, c)}
    product = "sum[s,j,c] W[s,a,c] * (rows[s] == i) * (columns[s] == j) * x[b,j,c]"
    return product, "b,i,a", shapes, {"b": b, "i": grid, "a": a}


def toeplitz(rng: Rng) -> Made:
    n, m = _between(rng, 20, 700, 2)
    (b,) = _between(rng, 1, 4, 1)
    lag = n // 2 + m // 2
    shapes = {"t": (2 * lag + 1,), "x": (b, n)}
    return f"sum[j] t[i-j+{lag}] * x[b,j]", "b,i", shapes, {"b": b, "i": m}


MAKERS: tuple[Callable[[Rng], Made], ...] = (
    kronecker, grouped, three_factors, low_rank, adapter, monarch, tensor_train, block_sparse, toeplitz
)  # fmt: skip


def ending(rng: Rng, product: str, axes: str, extents: dict[str, int]) -> tuple[str, Shapes]:
    """The right side of y with what is done with the product, and the shapes of what it reads more."""
    names = axes.split(",")
    last, rest = names[-1], ",".join(names[1:])
    whole, inner = tuple(extents.values()), tuple(extents.values())[1:]
    choices: tuple[tuple[str, Shapes], ...] = (
        (product, {}),
        (f"relu(({product}) + c[{rest}])", {"c": inner}),
        (f"({product}) * 0.5 + z[{axes}]", {"z": whole}),
        (f"({product}) * w[{names[0]}]", {"w": whole[:1]}),
        (f"where({last} >= {extents[last] // 2}, ({product}), c[{rest}])", {"c": inner}),
        (f"where({names[0]} == 0, z[{axes}], ({product}))", {"z": whole}),
    )
    return choices[int(rng.integers(len(choices)))]


def case_of(rng: Rng) -> Case:
    """A random program. Products with Toeplitz matrices are held to norms, or to an impulse where something follows."""
    maker = MAKERS[int(rng.integers(len(MAKERS)))]
    product, axes, shapes, extents = maker(rng)
    text, more = ending(rng, product, axes, extents)
    start, kind = "", "product"
    if maker is block_sparse:
        start = "rows, columns: i64[S]\n"
        text += " for i in 0..{grid}"
    elif maker is toeplitz:
        start, kind = "t: pad=0\n", "impulse" if more else "transform"
        text += f" for i in 0..{extents['i']}"
    names = maker.__name__, axes, *(f"{n}{s}" for n, s in (shapes | more).items())
    return Case(" ".join(names), "", f"{start}y[{axes}] = {text}", shapes | more, {}, kind)


def scattered(array: Array, rng: Rng) -> Array:
    """The same values in memory with the axes in another order, and a gap behind each row, now and then."""
    if rng.random() < 0.5 or array.ndim < 2:
        return array
    order = rng.permutation(array.ndim)
    shape = [array.shape[k] for k in order]
    wide = np.zeros((*shape[:-1], shape[-1] + int(rng.integers(3))), array.dtype)
    found = wide[..., : shape[-1]].transpose(np.argsort(order))
    found[...] = array
    return found


def misses(case: Case, dtype: str, rng: Rng, structures: Counter[str]) -> Iterator[str]:
    """What is wrong with a case on each architecture that has kernels of its own."""
    program = program_of(case, dtype, case.small)
    arrays = {n: scattered(a, rng) for n, a in operands(case, program).items()}
    tensors = {n: tensor_of(a) if a.dtype.name != "bfloat16" else _strided(a) for n, a in arrays.items()}
    exact, sizes = exact_of(case, arrays)
    limits = allowed(case, program, program.tensors["y"].dtype, arrays, exact, sizes)
    seen = set()
    for architecture in ARCHITECTURES:
        layouts = {n: layout_of(t) for n, t in tensors.items()}
        bound = bind(program, {}, layouts, library=False, goal=replace(goal_of(architecture), processors=2))
        kernels = tuple(c.kernel for c in bound.kernels)
        if kernels in seen:
            continue
        seen.add(kernels)
        structures.update(p.structure for p in bound.plans)
        if not bound.plans:
            structures["none"] += 1
        (result,) = run(bound, tensors, torch.device("cpu"), poisoned)
        found = array_of(result).astype(np.float64)
        worst = ratio(case, found, exact["y"], limits["y"]) if exact["y"].any() else float(np.abs(found).max())
        if not worst <= 1:
            yield f"{worst:.3g} times the bound, {architecture}, {[p.structure for p in bound.plans]}"


def _strided(array: Array) -> torch.Tensor:
    """A tensor of bfloat16 with the strides of an array."""
    order = sorted(range(array.ndim), key=lambda k: -array.strides[k])
    held = np.ascontiguousarray(array.transpose(order))
    tensor = torch.from_numpy(held.view(np.int16).copy()).view(torch.bfloat16)
    return tensor.permute([order.index(k) for k in range(array.ndim)])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--start", type=int, default=0)
    options.add_argument("--cases", type=int, default=200)
    chosen = options.parse_args()
    structures: Counter[str] = Counter()
    bad = 0
    for number in range(chosen.start, chosen.start + chosen.cases):
        rng = np.random.default_rng([chosen.seed, number])
        case, dtype = case_of(rng), str(rng.choice(["float32", "float16", "bfloat16"]))
        try:
            with np.errstate(all="ignore"):
                wrong = list(misses(case, dtype, rng, structures))
        except Exception:  # any exception of a correct program is a failure
            wrong = [traceback.format_exc()]
        for text in wrong:
            bad += 1
            print(f"case {number}, {dtype}: {case.name}\n{case.text}\n{text}", flush=True)
    plans = ", ".join(f"{n} {name}" for name, n in sorted(structures.items()))
    print(f"{chosen.cases} programs, {bad} wrong; plans: {plans}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
