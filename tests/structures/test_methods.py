"""Methods at sizes beyond the law suite's samples: blocks that do not divide, several levels, grouped transforms.

A method is a chain of at most DEPTH sums of at most n products each; what it misses at an entry is below
DEPTH * n * eps times the product of the norms that the entry's row and the argument have, and of the transforms' (which
are below the square root of twice the points, once each way, with the back transform divided by the points).
"""

from __future__ import annotations

import numpy as np
import pytest

from stein.backends.cpu.native import execute
from stein.ir.check import check_program
from stein.ir.interpret import interpret
from stein.ir.semiring import MAX_PLUS, PLUS_TIMES
from stein.ir.structures import Hadamard, Toeplitz
from stein.ir.structures.block_dft import block_length
from stein.ir.structures.build import applied
from stein.ir.structures.toeplitz import Level
from stein.ir.text import parse_ir
from stein.ir.types import C128, F32, F64, I64, DType
from stein.passes.recognise import recognise
from stein.passes.structured import rewritten
from stein.runtime.expression import Expression

DEPTH = 8
CASES = {
    "one": Toeplitz.of(1, 1), "row": Toeplitz.of(1, 9), "column": Toeplitz.of(9, 1), "square": Toeplitz.of(7, 7),
    "wide": Toeplitz.of(33, 80), "tall": Toeplitz.of(100, 17), "hankel": Toeplitz.hankel(40, 33),
    "circulant": Toeplitz.circulant(30), "strided": Toeplitz((Level(14, 13, 51, 2, -1, 24),)),
    "two levels": Toeplitz((Level(20, 30, 49, 1, -1, 29), Level(5, 6, 10, 1, -1, 5))),
    "level and hankel": Toeplitz((Level(12, 9, 20, 1, 1, 0), Level(5, 6, 10, 1, -1, 5))),
    "hankel inside": Toeplitz((Level(12, 9, 20, 1, -1, 8), Level(5, 6, 10, 1, 1, 0))),
}  # fmt: skip


def _arrays(program: object, dtype: DType, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for i in program.inputs:  # type: ignore[attr-defined]
        shape = tuple(s.constant for s in i.shape)
        value = rng.standard_normal(shape)
        arrays[i.name] = (value + 1j * rng.standard_normal(shape) if dtype.kind == "c" else value).astype(dtype.numpy)
    return arrays


OTHERS = [(n, t) for n in ("wide", "hankel inside") for t in (F32, C128)]


@pytest.mark.parametrize(("name", "dtype"), [*((n, F64) for n in CASES), *OTHERS])
def test_the_blocked_transform_is_the_toeplitz_product(name: str, dtype: DType) -> None:
    """Interpreted and, in some cases, compiled, against the direct sum."""
    structure = CASES[name]
    operator = structure.operator()
    methods = {m.name: m for m in structure.methods()}
    direct, blocked = (applied(methods[m], operator, (3,), dtype, PLUS_TIMES) for m in ("contraction", "blocked"))
    arrays = _arrays(direct, dtype)
    wanted = interpret(direct, arrays)[direct.outputs[0]]
    terms = operator.size[0] + operator.size[1]
    norms = float(np.linalg.norm(arrays[direct.inputs[0].name]) * np.linalg.norm(arrays["x"]))
    bound = DEPTH * terms * float(np.finfo(dtype.numpy).eps) * norms
    found = interpret(blocked, arrays)[blocked.outputs[0]]
    assert np.abs(found - wanted).max() <= bound
    if name not in ("wide", "two levels"):
        return
    expression = Expression(blocked)
    operands = [arrays[i.name] for i in expression.arguments]
    (compiled,) = execute(expression.bind(operands).executable, operands)
    assert np.abs(compiled - wanted).max() <= bound


def test_the_blocked_transform_needs_a_field() -> None:
    """R21: there is none over max-plus or the integers."""
    (method,) = (m for m in Toeplitz.of(4, 4).methods() if m.name == "blocked")
    assert method.allowed(F64, PLUS_TIMES)
    assert not method.allowed(F64, MAX_PLUS)
    assert not method.allowed(I64, PLUS_TIMES)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (4096, 4096), (4096, 64), (64, 4096), (1000, 1000)])
def test_the_block_length_minimises_the_work(rows: int, cols: int) -> None:
    """About the square root of the geometric mean of rows and columns; never longer than both."""
    p = block_length(rows, cols, (1, 1))
    assert 1 <= p <= max(rows, cols)
    assert 0.4 * (rows * cols) ** 0.25 <= p <= 2.5 * (rows * cols) ** 0.25


@pytest.mark.parametrize("power", [0, 1, 3, 6, 7, 12, 13])
def test_grouped_hadamard_is_exact(power: int) -> None:
    """Over the integers every method gives the same, and the matrix of the first column is ones."""
    structure = Hadamard(power)
    methods = {m.name: m for m in structure.methods()}
    x = np.random.default_rng(0).integers(-99, 99, (2,) + (2,) * power)
    results = []
    for name in ("butterfly", "grouped"):
        program = applied(methods[name], structure.operator(), (2,), I64, PLUS_TIMES)
        results.append(interpret(program, {"x": x})[program.outputs[0]])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0].reshape(2, -1)[:, 0], x.reshape(2, -1).sum(1))


def test_an_operand_with_a_unit_axis_keeps_it() -> None:
    """With one row in the batch x is a generator with a further axis: every candidate reads it as it is stored."""
    inputs = "input x: f64[1, 5]\ninput t: f64[9]\n"
    body = "y[b, i]: f64[1, 5] = einsum[plustimes, f64](j; t[i-j+4], x[b, j]) over b<1, i<5, j<5\nreturn y"
    program = parse_ir(inputs + body)
    arrays = _arrays(program, F64)
    wanted = interpret(program, arrays)["y"]
    bound = DEPTH * 10 * float(np.finfo(np.float64).eps)
    bound *= float(np.linalg.norm(arrays["t"]) * np.linalg.norm(arrays["x"]))
    methods = set()
    for finding in recognise(program):
        for method, other in rewritten(program, finding, {}):
            check_program(other)
            assert np.abs(interpret(other, arrays)["y"] - wanted).max() <= bound
            methods.add((finding.argument, method.split()[-1]))
    assert {("x", "fft"), ("t", "fft")} <= methods
