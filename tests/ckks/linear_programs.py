"""Encrypted programs of linear steps for tests: the cases of the table of counts, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from stein.backends.ckks.core.simulator import simulate
from stein.backends.ckks.lowering.problem import EncryptedProgram, Linear, Slot, Step, Term
from stein.backends.ckks.lowering.problem_eval import evaluate
from stein.backends.ckks.planning.plan import Plan
from stein.ir.expr import Input, Program
from stein.ir.size import Size
from stein.ir.types import F64

Array = np.ndarray[Any, Any]


def clear(shapes: Mapping[str, tuple[int, ...]]) -> Program:
    """A clear program that hands its inputs on."""
    inputs = tuple(Input(n, tuple(Size.of(k) for k in s), F64) for n, s in shapes.items())
    return Program(inputs, (), tuple(shapes))


def at(*terms: tuple[str, int], offset: int = 0, modulus: int = 0) -> Slot:
    """An affine position."""
    return Slot(terms, offset, modulus)


def bare(names: str) -> tuple[Slot, ...]:
    """One slot for each letter."""
    return tuple(at((n, 1)) for n in names)


def linear(
    name: str, argument: str, extents: dict[str, int], rows: Any, columns: Any, coefficients: str | None, where: Any
) -> Linear:
    """A step of one term; strings of letters stand for bare slots."""
    slots = (bare(s) if isinstance(s, str) else s for s in (rows, columns, where))
    r, c, w = slots
    return Linear(name, argument, (Term(tuple(extents.items()), r, c, coefficients, w),))


def program(
    shapes: dict[str, tuple[int, ...]], steps: list[Step], output: str = "y", **tensors: tuple[int, ...]
) -> EncryptedProgram:
    """A program of the input x."""
    return EncryptedProgram(("x",), shapes, tuple(steps), (output,), clear(tensors))


def dense(m: int, n: int) -> EncryptedProgram:
    """W x."""
    step = linear("y", "x", {"i": m, "j": n}, "i", "j", "W", "ij")
    return program({"x": (n,), "y": (m,)}, [step], W=(m, n))


def kronecker(m: int) -> EncryptedProgram:
    """(A (x) B) x, one factor after the other."""
    first = linear("h", "x", {"k": m, "j": m, "l": m}, "kj", "kl", "B", "jl")
    second = linear("y", "h", {"i": m, "j": m, "k": m}, "ij", "kj", "A", "ik")
    return program(dict.fromkeys("xhy", (m, m)), [first, second], A=(m, m), B=(m, m))


def kronecker_outer_first(m: int) -> EncryptedProgram:
    """The same matrix, the other factor first."""
    first = linear("h", "x", {"i": m, "k": m, "l": m}, "il", "kl", "A", "ik")
    second = linear("y", "h", {"i": m, "j": m, "l": m}, "ij", "il", "B", "jl")
    return program(dict.fromkeys("xhy", (m, m)), [first, second], A=(m, m), B=(m, m))


def kronecker3(m: int) -> EncryptedProgram:
    """Three factors."""
    extents = dict.fromkeys("abcd", m)
    steps: list[Step] = [
        linear("g", "x", extents, "abd", "abc", "C", "dc"),
        linear("h", "g", extents, "adc", "abc", "B", "db"),
        linear("y", "h", extents, "dbc", "abc", "A", "da"),
    ]
    return program(dict.fromkeys("xghy", (m, m, m)), steps, A=(m, m), B=(m, m), C=(m, m))


def monarch(m: int) -> EncryptedProgram:
    """Blocks on neighbours, then blocks on strided elements."""
    extents = dict.fromkeys("bij", m)
    first = linear("h", "x", extents, "bi", (at(("b", m), ("j", 1)),), "R", "bij")
    second = linear("y", "h", extents, (at(("i", m), ("b", 1)),), "jb", "L", "bij")
    return program({"x": (m * m,), "h": (m, m), "y": (m * m,)}, [first, second], R=(m, m, m), L=(m, m, m))


def block_diagonal(m: int) -> EncryptedProgram:
    """m blocks of m x m."""
    row, column = (at(("b", m), ("i", 1)),), (at(("b", m), ("j", 1)),)
    step = linear("y", "x", dict.fromkeys("bij", m), row, column, "R", "bij")
    return program({"x": (m * m,), "y": (m * m,)}, [step], R=(m, m, m))


def outer_axis(m: int) -> EncryptedProgram:
    """A on the first of two axes."""
    step = linear("y", "x", dict.fromkeys("ijk", m), "ij", "kj", "A", "ik")
    return program(dict.fromkeys("xy", (m, m)), [step], A=(m, m))


def low_rank(n: int, r: int) -> EncryptedProgram:
    """U (V x)."""
    steps: list[Step] = [
        linear("h", "x", {"r": r, "j": n}, "r", "j", "V", "rj"),
        linear("y", "h", {"r": r, "i": n}, "i", "r", "U", "ir"),
    ]
    return program({"x": (n,), "h": (r,), "y": (n,)}, steps, V=(r, n), U=(n, r))


def banded(n: int, width: int) -> EncryptedProgram:
    """`width` diagonals on either side of the main one."""
    column = (at(("i", 1), ("t", 1), offset=-width),)
    step = linear("y", "x", {"i": n, "t": 2 * width + 1}, "i", column, "D", "it")
    return program({"x": (n,), "y": (n,)}, [step], D=(n, 2 * width + 1))


def block_sparse(n: int, blocks: int) -> EncryptedProgram:
    """Two blocks in each row of blocks: on the diagonal, and five to the right of it."""
    size = n // blocks
    row = (at(("b", size), ("i", 1)),)
    terms = tuple(
        Term(
            (("b", blocks), ("i", size), ("j", size)),
            row,
            (at(("b", size), ("j", 1), offset=shift * size, modulus=n),),
            f"W{shift}",
            bare("bij"),
        )
        for shift in (0, 5)
    )
    tensors = {f"W{shift}": (blocks, size, size) for shift in (0, 5)}
    return program({"x": (n,), "y": (n,)}, [Linear("y", "x", terms)], **tensors)


def toeplitz(m: int, n: int) -> EncryptedProgram:
    """t[i - j + n - 1]."""
    where = (at(("i", 1), ("j", -1), offset=n - 1),)
    step = linear("y", "x", {"i": m, "j": n}, "i", "j", "t", where)
    return program({"x": (n,), "y": (m,)}, [step], t=(m + n - 1,))


def moved(shape: tuple[int, ...], rows: str, columns: str, extents: dict[str, int]) -> EncryptedProgram:
    """A sum, a diagonal or a transposition: no coefficients."""
    step = linear("y", "x", extents, rows, columns, None, "")
    return program({"x": shape, "y": tuple(extents[i] for i in rows)}, [step])


def bit_reversal(bits: int, inside: bool) -> EncryptedProgram:
    """x in bit-reversed order, between two diagonal matrices if `inside`."""
    n = 1 << bits
    extents = {f"b{k}": 2 for k in range(bits)}
    row = (at(*((f"b{k}", 1 << k) for k in range(bits))),)
    column = (at(*((f"b{k}", 1 << (bits - 1 - k)) for k in range(bits))),)
    if not inside:
        return program({"x": (n,), "y": (n,)}, [linear("y", "x", extents, row, column, None, "")])
    steps: list[Step] = [
        linear("h", "x", {"i": n, "j": n}, "i", "j", "W", "ij"),
        linear("g", "h", extents, row, column, None, ""),
        linear("y", "g", {"i": n, "j": n}, "i", "j", "V", "ij"),
    ]
    return program(dict.fromkeys("xhgy", (n,)), steps, W=(n, n), V=(n, n))


def checked(plan: Plan, seed: int = 0) -> dict[str, int]:
    """Runs a plan on exact slots, compares with NumPy, and gives the counts of what ran."""
    problem, rng = plan.program, np.random.default_rng(seed)
    encrypted = {n: rng.uniform(-1, 1, problem.shapes[n]) for n in problem.inputs}
    tensors = {i.name: rng.uniform(-1, 1, [n.constant or 0 for n in i.shape]) for i in problem.clear.inputs}
    shapes = {n: problem.shapes[n] for n in problem.outputs}
    run = simulate(plan.circuit, encrypted, tensors, shapes)
    wanted = evaluate(problem, encrypted, tensors)
    for name in problem.outputs:
        # sums of at most `terms` products of numbers below 1, in any order: each rounds once
        terms = sum(prod(shapes_of) for shapes_of in problem.shapes.values()) + len(problem.steps)
        bound = 4.0 * terms * np.finfo(float).eps * max(1.0, float(np.abs(wanted[name]).max(initial=0.0)), run.largest)
        np.testing.assert_allclose(run.outputs[name], wanted[name], rtol=0, atol=bound)
    return run.executed


def by_uploads(plans: Any) -> Plan:
    """The plan with the fewest uploads, and of these the quickest."""
    found: Plan = min(plans, key=lambda p: (p.uploads, round(p.work.milliseconds, 6), p.chained))
    return found


CASES: dict[str, tuple[Callable[[], EncryptedProgram], tuple[int, int, int]]] = {
    # name: program, (rotations, products, levels) that are not to be exceeded with the fewest uploads, ring 8192
    "dense 1024": (lambda: dense(1024, 1024), (33, 256, 1)),
    "dense 4096": (lambda: dense(4096, 4096), (128, 4096, 1)),
    "dense 200x200": (lambda: dense(200, 200), (10, 13, 1)),
    "dense 300x1000": (lambda: dense(300, 1000), (24, 128, 1)),
    "kronecker 1024": (lambda: kronecker(32), (14, 23, 2)),
    "kronecker 4096": (lambda: kronecker(64), (36, 191, 2)),
    "kronecker 1024, outer first": (lambda: kronecker_outer_first(32), (14, 23, 2)),
    "three factors 4096": (lambda: kronecker3(16), (26, 78, 3)),
    "monarch 1024": (lambda: monarch(32), (14, 23, 2)),
    "monarch 4096": (lambda: monarch(64), (36, 191, 2)),
    "block diagonal 1024": (lambda: block_diagonal(32), (6, 8, 1)),
    "block diagonal 4096": (lambda: block_diagonal(64), (14, 64, 1)),
    "outer axis 1024": (lambda: outer_axis(32), (6, 8, 1)),
    "outer axis 4096": (lambda: outer_axis(64), (14, 64, 1)),
    "low rank 8 1024": (lambda: low_rank(1024, 8), (13, 4, 2)),
    "low rank 32 1024": (lambda: low_rank(1024, 32), (17, 16, 2)),
    "low rank 8 4096": (lambda: low_rank(4096, 8), (17, 16, 2)),
    "low rank 32 4096": (lambda: low_rank(4096, 32), (27, 64, 2)),
    "banded 17 1024": (lambda: banded(1024, 8), (7, 17, 1)),
    "banded 17 4096": (lambda: banded(4096, 8), (7, 17, 1)),
    "banded 17 5000": (lambda: banded(5000, 8), (14, 51, 1)),
    "block-sparse 2 of 16": (lambda: block_sparse(1024, 16), (12, 32, 1)),
    "toeplitz 1024": (lambda: toeplitz(1024, 1024), (0, 1, 1)),
    "toeplitz 4096": (lambda: toeplitz(4096, 4096), (0, 1, 1)),
    "bit reversal at the client": (lambda: bit_reversal(10, False), (0, 0, 0)),
    "bit reversal inside 1024": (lambda: bit_reversal(10, True), (66, 512, 2)),
    "ij->": (lambda: moved((128, 128), "", "ij", {"i": 128, "j": 128}), (12, 0, 0)),
    "ij->j": (lambda: moved((128, 128), "j", "ij", {"i": 128, "j": 128}), (5, 0, 0)),
    "ij->i": (lambda: moved((128, 128), "i", "ij", {"i": 128, "j": 128}), (5, 0, 0)),
    "ij->ji": (lambda: moved((128, 128), "ji", "ij", {"i": 128, "j": 128}), (0, 0, 0)),
    "ii->i": (lambda: moved((128, 128), "i", "ii", {"i": 128}), (0, 0, 0)),
}


@st.composite
def random_programs(draw: st.DrawFn, longest: int = 40) -> EncryptedProgram:
    """One to three linear steps on one input: random shapes, affine slots, sums, biases and coefficients."""
    shapes: dict[str, tuple[int, ...]] = {"x": tuple(draw(st.lists(st.integers(1, longest), min_size=1, max_size=2)))}
    tensors: dict[str, tuple[int, ...]] = {}
    steps: list[Step] = []
    last = "x"
    for number in range(draw(st.integers(1, 3))):
        name = f"v{number}"
        shapes[name] = tuple(draw(st.lists(st.integers(1, longest), max_size=2)))
        terms = tuple(
            _term(draw, shapes[name], shapes[last], f"w{number}_{k}", tensors) for k in range(draw(st.integers(1, 2)))
        )
        bias = f"b{number}" if draw(st.booleans()) else None
        if bias is not None:
            tensors[bias] = shapes[name]
        steps.append(Linear(name, last, terms, bias))
        last = name
    return EncryptedProgram(("x",), shapes, tuple(steps), (last,), clear(tensors))


def _term(
    draw: st.DrawFn,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    tensor: str,
    tensors: dict[str, tuple[int, ...]],
) -> Term:
    """A term whose first point is inside: bare, shared, shifted, strided or cyclic slots."""
    indices: list[tuple[str, int]] = []

    def slot(extent: int) -> Slot:
        kind = draw(st.sampled_from(["bare", "bare", "shared", "shift", "cyclic", "strided"]))
        if kind == "shared" and indices:
            return at((draw(st.sampled_from(indices))[0], 1), offset=draw(st.integers(0, 1)) if extent > 1 else 0)
        name = f"i{len(indices)}"
        indices.append((name, draw(st.integers(1, extent)) if kind == "strided" else extent))
        if kind == "shift" and len(indices) > 1:
            return at((name, 1), (indices[0][0], draw(st.sampled_from([1, -1]))))
        if kind == "cyclic":
            return at((name, 1), offset=draw(st.integers(0, extent)), modulus=extent)
        if kind == "strided" and indices[-1][1] > 1:
            return at((name, (extent - 1) // (indices[-1][1] - 1)))
        return at((name, 1))

    row, column = tuple(slot(n) for n in rows), tuple(slot(n) for n in columns)
    if draw(st.booleans()) or not indices:
        return Term(tuple(indices), row, column, None, (), draw(st.sampled_from([1.0, 1.0, -0.5])))
    kept = draw(st.lists(st.sampled_from(indices), min_size=1, max_size=2, unique=True))
    tensors[tensor] = tuple(n for _, n in kept)
    return Term(tuple(indices), row, column, tensor, tuple(at((n, 1)) for n, _ in kept))
