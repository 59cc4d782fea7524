"""Random matrices of kron, @, ', + and declared operands: whatever solver is chosen, the answers are the dense ones.

A program is drawn as text; the dense answer is NumPy's on the interpreter's M. Where the matrix is close to singular
nothing is compared. What a solver refuses (a singular part) must be refused in so many words.
"""

import random
from typing import Any

import numpy as np
import pytest

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.errors import EinsumSyntaxError, ShapeError, SingularError
from stein.ir.expr import Input, Program
from stein.ir.interpret import interpret
from stein.passes.solve import solve_structured
from stein.tests.passes.solve_cases import Array, Arrays, value

DECLARED = ("", "", "", "symmetric", "lower", "upper", "diag", "permutation", "orthogonal", "circulant")
PROGRAMS, BATCH = 120, 12


class Drawing:
    """One random program: declarations, and the expression of a square matrix."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.declared: dict[str, str] = {}
        self.kind = self.r.choice(("f64", "f64", "c128"))
        self.size = self.r.choice((2, 3, 4, 6, 8, 12, 12))
        self.body = self.matrix(self.size, self.r.choice((1, 2, 3)))

    def operand(self, n: int) -> str:
        same = [d for d in self.declared if d.startswith("A") and d.endswith(f"_{n}")]
        if same and self.r.random() < 0.4:
            return self.r.choice(same)
        name = f"A{len(self.declared)}_{n}"
        self.declared[name] = f"{name}: {self.kind}[{n},{n}] {self.r.choice(DECLARED)}"
        return name

    def matrix(self, n: int, depth: int) -> str:
        choice = self.r.random() if depth else 0.75 + self.r.random() / 4
        splits = [a for a in range(2, n) if n % a == 0]
        if choice < 0.35 and splits:
            a = self.r.choice(splits)
            return f"kron({self.matrix(a, depth - 1)}, {self.matrix(n // a, depth - 1)})"
        if choice < 0.5:
            return f"({self.matrix(n, depth - 1)} + {self.matrix(n, depth - 1)})"
        if choice < 0.6:
            return f"({self.matrix(n, depth - 1)} @ {self.matrix(n, depth - 1)})"
        if choice < 0.7:
            return f"({self.matrix(n, depth - 1)})'"
        if choice < 0.75:
            return f"{self.r.choice(('2', '-0.5', 's'))}*{self.matrix(n, depth - 1)}"
        if choice < 0.85:
            self.declared[f"I{n}"] = f"I{n}: identity {self.kind}[{n},{n}]"
            return f"I{n}"
        if choice < 0.9:
            self.declared[f"U{n}"] = f"U{n}: {self.kind}[{n},1]"
            return f"(U{n} @ U{n}')"
        return self.operand(n)

    def program(self, *statements: str) -> Program:
        head = f"s: {self.kind}; x: {self.kind}[{self.size},2]\n" + "\n".join(self.declared.values())
        return elaborate(parse_program(f"{head}\nM = {self.body}\n" + "\n".join(statements)), {})


def values(rng: np.random.Generator, tensor: Input) -> Array:
    shape = tuple(s.evaluate({}) for s in tensor.shape)
    name = tensor.structure[0].name if tensor.structure else ""
    plain: Any = value(rng, shape, np.dtype(float) if name == "orthogonal" else tensor.dtype.numpy)
    made = {
        "symmetric": lambda: plain + plain.T,
        "lower": lambda: np.tril(plain),
        "upper": lambda: np.triu(plain),
        "diag": lambda: np.diag(np.diag(plain)),
        "permutation": lambda: np.eye(shape[0])[rng.permutation(shape[0])],
        "orthogonal": lambda: np.linalg.qr(plain)[0],
        "circulant": lambda: np.array([np.roll(plain[:, 0], k) for k in range(shape[0])]).T,
    }
    return np.asarray(made[name]() if name else plain).astype(tensor.dtype.numpy)


def compare(seed: int) -> str:
    """What became of one program: "structured", "dense", "skipped", or "part" where a singular part was refused."""
    drawing = Drawing(seed)
    try:
        plain = drawing.program("return M, s, x")
    except (EinsumSyntaxError, ShapeError):  # `@` of a scaled identity and the like is not always a statement
        return "skipped"
    rng = np.random.default_rng(seed)
    arrays: Arrays = {i.name: values(rng, i) for i in plain.inputs}
    matrix = interpret(plain, arrays)["M"]
    kappa = float(np.linalg.cond(matrix))
    if not kappa < 1e4:
        return "skipped"
    wanted = {
        "solve(M, x)": np.linalg.solve(matrix, arrays["x"]),
        "logdet(M)": np.linalg.slogdet(matrix)[1],
        "inv(M)": np.linalg.inv(matrix),
        "powm(M, 2)": matrix @ matrix,
    }
    outcome = "dense"
    for call, right in wanted.items():
        old = drawing.program(f"y = {call}", "return y, s, x")
        new, notes = solve_structured(old)
        check_program(new)
        try:
            found = interpret(new, arrays)["y"]
        except SingularError as error:
            assert "solved in parts" in str(error), f"{seed}: {error}"
            return "part"
        # a wrong rule is off by the order of the values; this is far above rounding (16 n eps kappa is 4e-14 kappa),
        # with room for parts of a sum that are worse conditioned than the sum
        limit = 1e-11 * max(1.0, kappa**1.5)
        error = float(np.max(np.abs(found - right), initial=0.0))
        assert error <= limit * max(1.0, float(np.max(np.abs(right)))), (seed, call, notes[0].method, drawing.body)
        outcome = "structured" if notes[0].structured else outcome
    return outcome


@pytest.mark.parametrize("start", range(0, PROGRAMS, BATCH))
def test_random_matrices(start: int) -> None:
    outcomes = [compare(seed) for seed in range(start, start + BATCH)]
    assert outcomes.count("skipped") < BATCH


def test_random_matrices_have_structure_and_lack_it() -> None:
    outcomes = [compare(seed) for seed in range(PROGRAMS, PROGRAMS + 30)]
    assert outcomes.count("structured") >= 10 and outcomes.count("dense") >= 2
