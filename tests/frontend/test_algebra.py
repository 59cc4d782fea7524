"""solve, inv, logdet and powm of whole tensors: what text becomes which equations, with which types and sizes."""

import pytest

from stein.frontend.declare import Declaration
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.errors import ShapeError
from stein.ir.expr import Const, Linalg, Program, Read
from stein.ir.text import parse_ir, print_program
from stein.ir.types import C64, F32, F64, I32, DType

SHAPES = {"A": ("n", "n"), "B": ("n", "m"), "x": ("n",), "s": (), "K": ("m", "m")}


def program(text: str, **types: DType) -> Program:
    """The program, legal, and reading back from its own text."""
    found = elaborate(parse_program(text), {n: Declaration(s, types.get(n, F64)) for n, s in SHAPES.items()})
    check_program(found)
    assert parse_ir(print_program(found)).equations == found.equations
    return found


def leaves(found: Program) -> list[Linalg]:
    return [e.expr for e in found.equations if isinstance(e.expr, Linalg)]


@pytest.mark.parametrize(
    ("call", "shape", "arguments"),
    [
        ("solve(A, x)", "n", ["A", "x"]),
        ("solve(A, B)", "n m", ["A", "B"]),
        ("inv(A)", "n n", ["A"]),
        ("logdet(A)", "", ["A"]),
        ("powm(A, -0.25)", "n n", ["A", -0.25]),
        ("powm(A, +-2)", "n n", ["A", -2.0]),
        ("powm(A, s)", "n n", ["A", "s"]),
        ("solve(A', x)", "n", ["y.part1", "x"]),
        ("solve(A + 2*A, x)", "n", ["y.part1", "x"]),
    ],
)
def test_one_call_is_one_equation(call: str, shape: str, arguments: list[object]) -> None:
    found = program(f"y = {call}\nreturn y")
    (leaf,) = leaves(found)
    assert [a.tensor if isinstance(a, Read) else a.value if isinstance(a, Const) else 0 for a in leaf.args] == arguments
    assert " ".join(map(str, found.tensors["y"].shape)) == shape
    assert leaf.dtype == F64


def test_operands_in_place() -> None:
    """An expression around and inside: only what must be stored is."""
    found = program("y = 2*solve(A, solve(A, x) + x) - x\nreturn y")
    names = [e.name for e in found.equations]
    assert names == ["y.solve1", "y.part1", "y.solve2", "y"]
    identity = program("I: identity f64[n,n]; y = solve(I, x)\nreturn y")
    assert [e.name for e in identity.equations] == ["y.part1", "y.solve1", "y"]


def test_sums_inside_an_operand_take_names_of_their_own() -> None:
    for text in (
        "y = inv(A' @ A)",
        "y = logdet(A @ A @ A)",
        "y = solve(A' @ A, A' @ x) + A @ x",
        "y = A @ inv(A' @ A) @ x",
    ):
        assert len(leaves(program(f"{text}\nreturn y"))) == 1


def test_types_promote_and_stay() -> None:
    assert leaves(program("y = solve(A, x)\nreturn y", A=F32, x=F32))[0].dtype == F32
    mixed = program("y = solve(A, x)\nreturn y", A=F32, x=F64)
    assert leaves(mixed)[0].dtype == F64 and all(a.dtype == F64 for a in leaves(mixed)[0].args)
    assert leaves(program("y = solve(A, x)\nreturn y", x=I32))[0].dtype == F64
    assert leaves(program("y = logdet(A)\nreturn y", A=C64))[0].dtype == F32
    power = leaves(program("y = powm(A, s)\nreturn y", A=F32, s=F32))[0]
    assert power.dtype == F32 and power.args[1].dtype == F64


def test_sizes_are_solved_through_calls() -> None:
    found = elaborate(parse_program("A: f64[n,m]; y = solve(A, x)\nreturn y"), {"x": Declaration((5,), F64)})
    assert [s.constant for s in found.tensors["A"].shape] == [5, 5] or found.constraints
    text = "A: f64[n,n]; B: f64[m,m]; x: f64[k]; y = solve(kron(A, B), x)\nreturn y"
    product = elaborate(parse_program(text), {})
    assert product.constraints or str(product.tensors["y"].shape[0]) in ("m*n", "k")


def test_results_keep_their_place_in_the_program() -> None:
    found = program("y = solve(A, x); z = inv(A) @ y; y += z\nreturn z, y")
    assert found.outputs == ("z", "y")
    assert all("." in e.name for e in found.equations if isinstance(e.expr, Linalg))
    assert [i.name for i in found.inputs if i.name in ("A", "x")] == ["A", "x"]


def test_nothing_is_broadcast() -> None:
    with pytest.raises(ShapeError, match="differ"):
        program("y = solve(A, x) + B\nreturn y")
