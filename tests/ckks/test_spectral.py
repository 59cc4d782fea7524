"""Convolutions between the client and itself: one product of polynomials, and only where it is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stein.backends.ckks.core.layout import COEFFICIENTS
from stein.backends.ckks.linear.diagonals import matrix_of
from stein.backends.ckks.linear.spectral import choices
from stein.backends.ckks.lowering.problem import EncryptedProgram, Linear
from stein.backends.ckks.planning.planner import plan
from stein.backends.ckks.planning.setting import context_of

sys.path.insert(0, str(Path(__file__).resolve().parent))
import linear_programs as programs
from linear_programs import at

RINGS = (8192,)


def _convolution(n: int, taps: int, sign: int) -> EncryptedProgram:
    column = (at(("i", 1), ("k", sign), offset=taps // 2),)
    step = programs.linear("y", "x", {"i": n, "k": taps}, "i", column, "h", "k")
    return programs.program({"x": (n,), "y": (n,)}, [step], h=(taps,))


def _image(n: int, taps: int) -> EncryptedProgram:
    """An image and a small kernel, zeros beyond the edge."""
    columns = tuple(at((a, 1), (b, 1), offset=-(taps // 2)) for a, b in ("ik", "jl"))
    step = programs.linear("y", "x", {"i": n, "j": n, "k": taps, "l": taps}, "ij", columns, "h", "kl")
    return programs.program({"x": (n, n), "y": (n, n)}, [step], h=(taps, taps))


def _circulant(n: int) -> EncryptedProgram:
    where = (at(("i", 1), ("j", -1), modulus=n),)
    step = programs.linear("y", "x", {"i": n, "j": n}, "i", "j", "t", where)
    return programs.program({"x": (n,), "y": (n,)}, [step], t=(n,))


def _biased(program: EncryptedProgram) -> EncryptedProgram:
    (step,) = program.steps
    assert isinstance(step, Linear)
    shapes = {i.name: tuple(n.constant or 0 for n in i.shape) for i in program.clear.inputs} | {
        "b": program.shapes["y"]
    }
    changed = Linear(step.name, step.argument, step.terms, "b")
    return EncryptedProgram(program.inputs, program.shapes, (changed,), program.outputs, programs.clear(shapes))


@pytest.mark.parametrize(
    "program",
    [
        programs.toeplitz(64, 64), programs.toeplitz(30, 50), programs.toeplitz(50, 30), _circulant(48),
        _convolution(100, 5, 1), _convolution(100, 5, -1), _image(12, 3), _biased(programs.toeplitz(16, 16)),
    ],
    ids=["toeplitz", "wide", "tall", "circulant", "correlation", "convolution", "image", "biased"],
)  # fmt: skip
def test_one_product_and_no_rotation(program: EncryptedProgram) -> None:
    found = plan(program, RINGS).best
    assert found.circuit.uploads["x"].kind == COEFFICIENTS
    counts = programs.checked(found)
    assert counts.get("rotate", 0) == 0 and counts["multiply plain"] == 1


@pytest.mark.parametrize(
    "program",
    [programs.dense(16, 16), programs.banded(64, 2), programs.outer_axis(8)],
    ids=["dense", "banded", "outer axis"],
)
def test_other_matrices_are_none(program: EncryptedProgram) -> None:
    """Coefficients that differ along a diagonal, and pairs that are missing from one."""
    found = plan(program, RINGS).best
    assert found.circuit.uploads["x"].kind != COEFFICIENTS
    programs.checked(found)


def test_nothing_may_wrap_round_onto_a_row() -> None:
    """Of 5000 x 5000 the product would have 9999 coefficients, in a ring of 8192."""
    where = (at(("i", 1), ("j", -1), offset=4999),)
    step = programs.linear("y", "x", {"i": 5000, "j": 5000}, "i", "j", "t", where)
    program = programs.program({"x": (5000,), "y": (5000,)}, [step], t=(9999,))
    for ring, wanted in ((8192, 0), (16384, 1)):
        context = context_of(program, ring, 1)
        assert len(list(choices(matrix_of(step, context), context))) == wanted


def test_in_the_middle_of_a_program_diagonals_are_used() -> None:
    first = programs.linear("h", "x", {"i": 8, "j": 8}, "i", "j", "t", (at(("i", 1), ("j", -1), offset=7),))
    second = programs.linear("y", "h", {"i": 8, "j": 8}, "i", "j", "W", "ij")
    program = programs.program(dict.fromkeys("xhy", (8,)), [first, second], t=(15,), W=(8, 8))
    found = plan(program, RINGS).best
    assert found.circuit.uploads["x"].kind != COEFFICIENTS
    programs.checked(found)
