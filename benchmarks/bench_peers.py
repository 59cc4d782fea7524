"""How each library computes a row: one callable per library and row, made before anything is timed.

Outside the compiler. Every peer gets its best natural spelling: NumPy the faster of `np.einsum` with and without
`optimize` and `np.matmul` where it applies; opt_einsum a prepared expression; torch the faster of `einsum` and
`matmul`, under `no_grad`; JAX a jitted einsum, waited for. A peer that is not installed is a reason in place of calls.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from bench_rows import Array, Row

Thunk = Callable[[], Any]


@dataclass
class Peer:
    """One library: its name, version with thread count, and `variants(row, operands)`, which makes callables."""

    name: str
    version: str
    variants: Callable[[Row, list[Array]], dict[str, Thunk]]
    product: Callable[[Array, Array], Thunk] | None = None  # a matrix product, to measure the machine's peak with


def numpy_peer(threads: int) -> Peer:
    """NumPy with its BLAS."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]

    def variants(row: Row, operands: list[Array]) -> dict[str, Thunk]:
        made: dict[str, Thunk] = {"optimize": lambda: np.einsum(row.spec, *operands, optimize=True)}
        if len(operands) <= 2 or row.flops * 50 > _naive(row):  # the plain loop of a network may take minutes
            made["plain"] = lambda: np.einsum(row.spec, *operands)
        if row.matmul:
            a, b = _turned(row, operands)
            made["matmul"] = lambda: np.matmul(a, b)
        if row.spec == "i,i->":
            made["dot"] = lambda: np.dot(*operands)
        if row.spec == "ij,i->j":
            made["matmul"] = lambda: operands[0].T @ operands[1]
        if len(operands) == 1 and row.output and set(row.inputs[0]) == set(row.output):
            order = [row.inputs[0].index(c) for c in row.output]
            made = {"copy": lambda: np.ascontiguousarray(operands[0].transpose(order))}
        return made

    return Peer(
        "numpy",
        f"{np.__version__} ({blas['name']} {blas['version']}, {threads} threads)",
        variants,
        lambda a, b: lambda: a @ b,
    )


def _naive(row: Row) -> int:
    return int(np.prod([float(n) for n in row.sizes.values()])) * len(row.inputs)


def _turned(row: Row, operands: list[Array]) -> tuple[Any, Any]:
    assert row.matmul is not None
    a, b = (x.swapaxes(-1, -2) if t == "T" else x for x, t in zip(operands, row.matmul, strict=True))
    return a, b


def opt_einsum_peer() -> Peer:
    """opt_einsum on NumPy, path found in advance."""
    import opt_einsum

    def variants(row: Row, operands: list[Array]) -> dict[str, Thunk]:
        expression = opt_einsum.contract_expression(row.spec, *(a.shape for a in operands))
        if _is_permute(row):
            return {"copy": lambda: np.ascontiguousarray(expression(*operands))}
        return {"expression": lambda: expression(*operands)}

    return Peer("opt_einsum", opt_einsum.__version__, variants)


def _is_permute(row: Row) -> bool:
    return len(row.inputs) == 1 and set(row.inputs[0]) == set(row.output)


def torch_peer(threads: int) -> Peer:
    """torch on the CPU."""
    import torch

    torch.set_num_threads(threads)

    def variants(row: Row, operands: list[Array]) -> dict[str, Thunk]:
        tensors = [torch.from_numpy(a) for a in operands]
        if _is_permute(row):
            order = [row.inputs[0].index(c) for c in row.output]
            return {"copy": lambda: tensors[0].permute(order).contiguous()}

        def einsum() -> Any:
            with torch.no_grad():
                return torch.einsum(row.spec, *tensors)

        made: dict[str, Thunk] = {"einsum": einsum}
        if row.matmul:
            a, b = (x.transpose(-1, -2) if t == "T" else x for x, t in zip(tensors, row.matmul, strict=True))
            made["matmul"] = lambda: torch.matmul(a, b)
        return made

    def product(a: Array, b: Array) -> Thunk:
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        return lambda: x @ y

    return Peer("torch", f"{torch.__version__} ({torch.get_num_threads()} threads)", variants, product)


def jax_peer(threads: int) -> Peer:
    """JAX on the CPU, jitted and waited for."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

    def variants(row: Row, operands: list[Array]) -> dict[str, Thunk]:
        arrays = [jnp.asarray(a) for a in operands]
        function = jax.jit(lambda *xs: jnp.einsum(row.spec, *xs))
        return {"jit": lambda: function(*arrays).block_until_ready()}

    def product(a: Array, b: Array) -> Thunk:
        x, y, function = jnp.asarray(a), jnp.asarray(b), jax.jit(jnp.matmul)
        return lambda: function(x, y).block_until_ready()

    return Peer("jax", f"{jax.__version__} (XLA, {threads} cores by affinity)", variants, product)


def stein_peer() -> Peer:
    """stein, through `stein.einsum` or, for rows marked so, a compiled callable (its native entry, if it has one).

    The environment variable STEIN_BENCH_TARGET (`module:function`) puts a stand-in there, to check the harness.
    """
    target = os.environ.get("STEIN_BENCH_TARGET", "stein:einsum")
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name)
    einsum = getattr(module, attribute)
    version = str(getattr(module, "__version__", "?"))

    def variants(row: Row, operands: list[Array]) -> dict[str, Thunk]:
        if row.compiled and module_name == "stein":
            compiled = _compiled(row, operands)
            return {"compiled": lambda: compiled(*operands)}
        if _is_permute(row):  # a copy is asked for: out= makes the permuted view a contiguous array
            out = np.empty(row.shape(row.output), row.dtype)
            return {"out=": lambda: einsum(row.spec, *operands, out=out)}
        return {"einsum": lambda: einsum(row.spec, *operands)}

    return Peer("stein", f"{version} ({target})", variants)


def _compiled(row: Row, operands: list[Array]) -> Callable[..., Any]:
    import stein

    names = "ABCDEFGHIJ"[: len(operands)]
    accesses = [f"{n}[{','.join(t)}]" for n, t in zip(names, row.inputs, strict=True)]
    left = f"y[{','.join(row.output)}]" if row.output else "y"
    shapes: dict[str, Any] = {n: a.shape for n, a in zip(names, operands, strict=True)}
    function: Callable[..., Any] = stein.compile(f"{left} = {' * '.join(accesses)}", dtype=row.dtype, **shapes)
    return function


def all_peers(threads: int) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be used, stein first, and why others cannot."""
    makers: dict[str, Callable[[], Peer]] = {
        "stein": stein_peer,
        "numpy": lambda: numpy_peer(threads),
        "opt_einsum": opt_einsum_peer,
        "torch": lambda: torch_peer(threads),
        "jax": lambda: jax_peer(threads),
    }
    peers, missing = [], {}
    for name, make in makers.items():
        try:
            peers.append(make())
        except Exception as error:  # a peer that is broken is reported, not fatal
            missing[name] = f"{type(error).__name__}: {error}"
    return peers, missing
