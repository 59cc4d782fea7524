"""Constants that are declared low rank or Monarch stand as products, where their values bear it out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.passes.constant_factors import with_factors
from stein.passes.recognise import Declared, recognise

Array = Any
TYPES = ["f4", "f8", "c8", "c16"]


def _random(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    value = rng.standard_normal(shape)
    return (value + 1j * rng.standard_normal(shape) if dtype[0] == "c" else value).astype(dtype)


def _low_rank(n: int, m: int, rank: int, dtype: str = "f8") -> Array:
    wide = dtype.replace("4", "8") if dtype == "f4" else "c16" if dtype == "c8" else dtype
    return (_random((n, rank), wide, 1) @ _random((rank, m), wide, 2)).astype(dtype)


def _monarch(n: int, m: int, b: int, dtype: str = "f8") -> Array:
    outer, inner = _random((b, n // b, b), dtype, 1), _random((b, b, m // b), dtype, 2)
    return np.einsum("jlk,jki->ljki", outer, inner).reshape(n, m)


def _program(shape: tuple[int, int], structure: str, dtype: str = "f8") -> Program:
    n, m = shape
    kind = np.dtype(dtype).name
    return elaborate(
        parse_program(f"W: const {kind}[{n},{m}] {structure}; x: {kind}[3,{m}]; y[b,i] = W[i,j]*x[b,j]"), {}
    )


def _right(got: Array, w: Array, x: Array) -> bool:
    """W was rounded, and so were its factors: n eps of the norms, twice for the two products."""
    wide = np.complex128 if w.dtype.kind == "c" else np.float64
    bound = 4 * max(w.shape) * np.finfo(w.dtype).eps * np.linalg.norm(w) * np.linalg.norm(x)
    return bool(np.abs(got - x.astype(wide) @ w.astype(wide).T).max() <= bound)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(16, 16), (31, 17), (17, 31), (40, 8)])
def test_low_rank(shape: tuple[int, int], dtype: str) -> None:
    program, w = _program(shape, "lowrank(r=3)", dtype), _low_rank(*shape, 3, dtype)
    made, constants = with_factors(program, {"W": w})
    check_program(made)
    assert constants["W.left"].shape == (shape[0], 3) and constants["W.right"].shape == (3, shape[1])
    assert constants["W.left"].dtype == w.dtype
    x = _random((3, shape[1]), dtype, 3)
    assert _right(interpret(made, constants | {"x": x})["y"], w, x)
    found = recognise(made, "x")[0]
    assert found.kind == "low_rank" and found.options["rank"] == 3 and isinstance(found.evidence, Declared)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shape", "b"), [((16, 16), 4), ((24, 18), 3), ((18, 24), 3), ((30, 20), 5)])
def test_monarch(shape: tuple[int, int], b: int, dtype: str) -> None:
    program, w = _program(shape, f"monarch(b={b})", dtype), _monarch(*shape, b, dtype)
    made, constants = with_factors(program, {"W": w})
    check_program(made)
    assert "W" not in [r for e in made.equations if e.name == "y" for r in _tensors(e.expr)]
    x = _random((3, shape[1]), dtype, 3)
    assert _right(interpret(made, constants | {"x": x})["y"], w, x)
    found = recognise(made, "x")[0]
    assert found.kind == "monarch" and isinstance(found.evidence, Declared)


def _tensors(expr: Any) -> list[str]:
    from stein.ir.expr import reads

    return [r.tensor for r in reads(expr)]


def test_zero_blocks_and_ranks_below_the_declared_one() -> None:
    w = _monarch(16, 16, 4)
    w[::4] = 0
    x = _random((3, 16), "f8", 3)
    for structure, value in (
        ("monarch(b=4)", w),
        ("lowrank(r=3)", _low_rank(16, 16, 1)),
        ("lowrank(r=3)", np.zeros((16, 16))),
    ):
        made, constants = with_factors(_program((16, 16), structure), {"W": value})
        assert len(constants) == 3
        assert _right(interpret(made, constants | {"x": x})["y"], value, x)


@pytest.mark.parametrize(
    ("structure", "value"),
    [
        ("lowrank(r=3)", _random((16, 16), "f8", 1)),  # it has not that rank
        ("lowrank(r=3)", _low_rank(16, 16, 3) + 1e-9 * _random((16, 16), "f8", 5)),
        ("lowrank(r=3)", np.full((16, 16), np.nan)),
        ("lowrank(r=8)", _low_rank(16, 16, 8)),  # the factors are as large as W
        ("monarch(b=4)", _random((16, 16), "f8", 1)),
        ("monarch(b=1)", _low_rank(16, 16, 2)),
        ("monarch(b=16)", _random((16, 16), "f8", 1)),
        ("symmetric", np.ones((16, 16))),
    ],
)
def test_what_is_not_so_or_saves_nothing_stays(structure: str, value: Array) -> None:
    program = _program((16, 16), structure)
    assert with_factors(program, {"W": value}) == (program, {"W": value})


def test_other_semirings_and_types_stay() -> None:
    text = "W: const f64[16,16] lowrank(r=1); x: f64[16]; y[i] = W[i,j]*x[j] over maxplus"
    program = elaborate(parse_program(text), {})
    assert with_factors(program, {"W": np.ones((16, 16))})[0] is program
    whole = elaborate(parse_program(text.replace("f64", "i64").replace(" over maxplus", "")), {})
    assert with_factors(whole, {"W": np.ones((16, 16), np.int64)})[0] is whole


@pytest.mark.parametrize(
    ("structure", "value"), [("lowrank(r=2)", _low_rank(64, 64, 2)), ("monarch(b=8)", _monarch(64, 64, 8))]
)
def test_through_the_compiler(structure: str, value: Array) -> None:
    x = _random((3, 64), "f8", 3)
    f = stein.compile(
        f"W: {structure}; y[b,i] = W[i,j]*x[b,j]", W=stein.constant(value), x=(3, 64), dtype="f64", check=True
    )
    assert _right(f(x=x), value, x)
    g = stein.compile(f"W: {structure}; y = x @ W' + 2*x", W=stein.constant(value), x=(3, 64), dtype="f64")
    assert _right(g(x=x) - 2 * x, value, x)
    broken = value.copy()
    broken[0, 0] += 1
    with pytest.raises(stein.StructureError, match="W is declared"):
        stein.compile(f"W: {structure}; y[b,i] = W[i,j]*x[b,j]", W=stein.constant(broken), x=(3, 64), check=True)
    h = stein.compile(f"W: {structure}; y[b,i] = W[i,j]*x[b,j]", W=stein.constant(broken), x=(3, 64), dtype="f64")
    assert _right(h(x=x), broken, x)  # a constant is looked at: what it is not is not made of it
