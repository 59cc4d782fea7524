"""Counts against opt_einsum's and against figures done by hand; the reference target."""

from __future__ import annotations

import numpy as np
import pytest
from opt_einsum.helpers import flop_count

from stein.backends.reference import ReferenceBackend
from stein.ir.count import count, count_program
from stein.ir.errors import BackendError, ShapeError
from stein.ir.target import Artifact, Backend, Cost, Target
from stein.ir.text import parse_ir, print_program

SIZES = {"i": 2, "j": 3, "k": 5, "n": 10, "m": 4}


@pytest.mark.parametrize(("bound", "labels"), [("j", "ijk"), ("", "ijk"), ("jk", "ijk")])
@pytest.mark.parametrize("terms", [2, 3, 5])
def test_products_count_as_in_opt_einsum(bound: str, labels: str, terms: int) -> None:
    kept = [x for x in labels if x not in bound]
    inputs = "".join(f"input a{t}: f32[i, j, k]\n" for t in range(terms))
    factors = ", ".join(f"a{t}[i, j, k]" for t in range(terms))
    slots = ", ".join(kept)
    body = f"einsum[plustimes, f32]({', '.join(bound)}; {factors})"
    text = f"{inputs}y[{slots}]: f32[{slots}] = {body} over i<i, j<j, k<k\nreturn y"
    flops = count(parse_ir(text).equations[0], SIZES).flops
    assert flops == flop_count(set(labels), bool(bound), terms, SIZES)


@pytest.mark.parametrize(("body", "flops", "size"), [
    ("x[i]", 0, 40 + 40),
    ("add(x[i], x[i])", 10, 40 + 40),  # a tensor is read once
    ("cast[f32](cast[f64](x[i]))", 0, 40 + 40),
    ("einsum[plustimes, f32](j; A[i, j])", 40, 160 + 40),
    ("relu(einsum[plustimes, f32](j; A[i, j], v[j]))", 80 + 10, 160 + 16 + 40),
    ("einsum[plustimes, f32](j; exp(A[i, j]))", 40 + 40, 160 + 40),
    ("softmax[i](x[i])", 50, 40 + 40),
    ("S[i, i]", 0, 40 + 40),  # only the diagonal is touched
    ("einsum[plustimes, f32](j; t[i+j])", 40, 13 * 4 + 40),
    ("einsum[plustimes, f32](j; t[(i+j) mod {m}])", 40, 4 * 4 + 40),
    ("2.0:f32", 0, 40),
])  # fmt: skip
def test_counts_by_hand(body: str, flops: int, size: int) -> None:
    inputs = "input x: f32[n]\ninput A: f32[n, m]\ninput v: f32[m]\ninput S: f32[n, n]\ninput t: f32[n+m-1]\n"
    program = parse_ir(f"{inputs}y[i]: f32[n] = {body} over i<n, j<m\nreturn y")
    assert count(program.equations[0], SIZES) == Cost(flops, size, 1)
    assert count_program(program, SIZES) == Cost(flops, size, 1)


def test_an_update_reads_and_adds() -> None:
    program = parse_ir("input x: f32[n]\ny[i]: f32[n] = 1.0:f32 over i<n updating x\nreturn y")
    assert count(program.equations[0], SIZES) == Cost(10, 80, 1)


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3, 4.0) + Cost(10, 20, 30, 40.0) == Cost(11, 22, 33, 44.0)
    assert Cost(6, 3).intensity == 2.0
    assert Cost(6).intensity == 0.0


TEXT = "input x: f32[n]\ny[i]: f32[n] = mul(x[i], cast[f32](size(m))) over i<n\nreturn y\n"


def test_the_reference_target_interprets() -> None:
    backend, program = ReferenceBackend(), parse_ir(TEXT)
    assert isinstance(backend, Backend)
    assert isinstance(backend, Target)
    assert backend.available() and not backend.missing()
    artifact = backend.compile(program, {"m": 3})
    assert isinstance(artifact, Artifact)
    np.testing.assert_array_equal(artifact.run({"x": np.arange(4, dtype=np.float32)})["y"], [0, 3, 6, 9])
    assert artifact.source("ir") == print_program(program) == TEXT
    with pytest.raises(BackendError, match="no 'llvm'"):
        artifact.source("llvm")
    with pytest.raises(ShapeError):
        artifact.run({"x": np.zeros((2, 2), np.float32)})


def test_the_reference_target_prices_by_counts() -> None:
    cost = ReferenceBackend().price(parse_ir(TEXT), SIZES)
    assert (cost.flops, cost.bytes, cost.nanoseconds) == (10, 80, 90.0)
