"""Chains in slices: found where an index passes through, chosen by price, and never visible in a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.cpu import program as bound_programs
from stein.backends.cpu.calibration import DEFAULTS, Rates
from stein.backends.cpu.machine import Machine
from stein.backends.cpu.native_record import Layout
from stein.backends.cpu.program import CpuProgram
from stein.backends.cpu.slices import Chain, Slices, cut, slices
from stein.ir.text import parse_ir
from stein.ir.types import F32
from stein.tests.random_programs import random_text
from stein.tests.test_programs_random import check, outcome

MACHINE = Machine("", "", 32, 16, True, 32 << 10, 1 << 20)
SLOW = replace(DEFAULTS, bandwidth={**DEFAULTS.bandwidth, "level3": 10.0, "memory": 5.0})
KRONECKER = """
input A: f32[64, 64]
input B: f32[64, 64]
input x: f32[n, 64, 64]
z[b, i, l]: f32[n, 64, 64] = einsum[plustimes, f32](k; A[i, k], x[b, k, l]) over b<n, i<64, l<64, k<64
y[b, i, j]: f32[n, 64, 64] = einsum[plustimes, f32](l; B[j, l], z[b, i, l]) over b<n, i<64, j<64, l<64
return y
"""


def chains_of(text: str) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(equations, indices) of each chain."""
    program = CpuProgram(parse_ir(text))
    names = [t.equation.name for t in program.templates]
    return {(tuple(names[k] for k in c.positions), c.indices) for c in program.chains}


def chosen(text: str, rates: Rates = SLOW, machine: Machine = MACHINE, **sizes: int) -> tuple[Slices, ...]:
    """The slices at some sizes for one thread."""
    program = CpuProgram(parse_ir(text))
    layouts = {
        name: Layout.dense(t.dtype, tuple(s.evaluate(sizes) for s in t.shape))
        for name, t in program.program.tensors.items()
    }
    return slices(program.chains, program.templates, sizes, layouts, machine, lambda: rates, 1)


def test_chains_follow_an_index() -> None:
    assert chains_of(KRONECKER) == {(("z", "y"), ("b", "b")), (("z", "y"), ("i", "i"))}
    renamed = KRONECKER.replace("y[b, i, j]", "y[p, q, j]").replace("z[b, i, l])", "z[p, q, l])")
    renamed = renamed.replace("over b<n, i<64, j<64", "over p<n, q<64, j<64")
    assert chains_of(renamed) == {(("z", "y"), ("b", "p")), (("z", "y"), ("i", "q"))}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return y", "return y, z"),  # a result of the program has to be whole
        ("B[j, l], z[b, i, l])", "B[j, l], z[l, i, b])"),  # the index is summed, and the other one turned
        ("B[j, l], z[b, i, l])", "B[j, l], z[b, i, l], z[b, i, j])"),  # fine: both reads take the slice
        ("z[b, i, l]: f32[n, 64, 64] =", "z[b + 1, i, l]: f32[n + 1, 64, 64] ="),  # a gap in front
    ],
)
def test_what_is_no_chain(before: str, after: str) -> None:
    text = KRONECKER.replace(before, after)
    if "l, i, b" in after:
        text = text.replace("input x: f32[n, 64, 64]", "input x: f32[64, 64, 64]").replace("n, ", "64, ")
        text = text.replace("b<n", "b<64")
        assert chains_of(text) == {(("z", "y"), ("i", "i")), (("z", "y"), ("l", "b"))}
    elif "z[b, i, j]" in after:
        assert (("z", "y"), ("b", "b")) in chains_of(text)
    elif "return" in after:
        assert chains_of(text) == set()
    else:
        assert (("z", "y"), ("b", "b")) not in chains_of(text)


def test_two_readers_end_a_chain() -> None:
    text = KRONECKER.replace(
        "return y", "w[b]: f32[n] = einsum[plustimes, f32](i, l; z[b, i, l]) over b<n, i<64, l<64\n"
    )
    assert chains_of(text + "return y, w") == set()


def test_slices_pay_where_the_intermediate_leaves_the_cache() -> None:
    assert chosen(KRONECKER, n=8) == ()  # 128 KB fit
    (found,) = chosen(KRONECKER, n=1024)
    assert found.chain.indices == ("b", "b") and found.extent == 1024
    assert 8 <= found.length <= 1024 // 16  # 3 times 16 KB for each b, in 0.6 of a MB
    fast = replace(DEFAULTS, bandwidth=dict.fromkeys(DEFAULTS.bandwidth, 100.0))
    assert chosen(KRONECKER, fast, n=1024) == ()  # a memory as quick as the cache: nothing to save
    dear = replace(SLOW, launch=1e7)
    assert chosen(KRONECKER, dear, n=1024) == ()


def test_a_bound_program_runs_the_chain_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intermediate is as small as a slice, also where the last one is shorter."""
    program = CpuProgram(parse_ir(KRONECKER))
    monkeypatch.setattr(bound_programs, "slices", lambda *_: (Slices(program.chains[0], 20, 8),))
    layouts = {
        i.name: Layout.dense(i.dtype, tuple(s.evaluate({"n": 20}) for s in i.shape)) for i in program.program.inputs
    }
    bound = program.bind({"n": 20}, layouts)
    assert program.chains[0].indices == ("b", "b")
    assert [(s.equation, s.times) for s in bound.steps] == [("z", 3), ("y", 3)]
    assert "3 slices of 8 of b, z and y in turn for each" in bound.steps[0].slices
    assert max(bound.executable.temporaries) == 8 * 64 * 64 * 4


def forced(found: Sequence[Chain], templates: Any, sizes: Any, layouts: Any, *_: object) -> tuple[Slices, ...]:
    """Every chain that can be cut, in pieces of two or three."""
    taken: set[int] = set()
    out = []
    for chain in found:
        name = templates[chain.positions[0]].equation.name
        extent = layouts[name].shape[chain.dims[0]]
        span = set(range(chain.positions[0], chain.positions[-1] + 1))
        single = all(len(templates[k].contractions(sizes, dict(layouts))) == 1 for k in chain.positions)
        if extent > 1 and single and taken.isdisjoint(span):
            taken |= span
            out.append(Slices(chain, extent, 2 + len(out) % 2))
    CUT.extend(out)
    return tuple(out)


CUT: list[Slices] = []


@pytest.mark.parametrize(
    ("text", "shapes", "wanted"),
    [
        (
            "z[b,i] = A[i,j] * x[b,j]; y[b,k] = B[k,i] * z[b,i]",
            {"A": (24, 25), "B": (23, 24), "x": (27, 25)},
            "ij,ki,bj->bk",
        ),
        (
            "z[b,i] = A[i,j] * x[j,b]; y[k,c] = B[k,i] * z[c,i]",
            {"A": (24, 25), "B": (23, 24), "x": (25, 27)},
            "ij,ki,jb->kb",
        ),
        ("z[b,i] = A[b,i] * x[b,i]; y[b,c] = z[b,i] * A[c,i]", {"A": (36, 35), "x": (36, 35)}, "bi,bi,ci->bc"),
        ("z[i,j] = x[i,k] * x[j,k]; y[i,l] = z[i,j] * A[j,l]", {"A": (35, 33), "x": (35, 34)}, "ik,jk,jl->il"),
    ],
)
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_results_do_not_depend_on_slices(
    text: str, shapes: dict[str, tuple[int, ...]], wanted: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integers are exact, and the numbers are small enough for f32 to be so too."""
    rng = np.random.default_rng(0)
    arrays = {n: rng.integers(-5, 5, s).astype(dtype) for n, s in shapes.items()}
    CUT.clear()
    monkeypatch.setattr(bound_programs, "slices", forced)
    got = stein.compile(text, **arrays)(**arrays)
    assert CUT, "nothing was cut"
    letters = wanted.partition("->")[0].split(",")
    order = {"ik,jk,jl->il": "xxA", "bi,bi,ci->bc": "AxA"}.get(wanted, "ABx")
    assert len(letters) == len(order)
    np.testing.assert_array_equal(got, np.einsum(wanted, *(arrays[n] for n in order)))


def test_random_programs_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs with pads, conditions, several types and outputs: what can be cut is cut, and nobody sees it."""
    CUT.clear()
    monkeypatch.setattr(bound_programs, "slices", forced)
    for seed in range(40):
        drawn = random_text(seed)
        check(drawn, outcome(drawn, drawn.arguments), outcome(drawn, drawn.arguments, target="reference"))
    assert len(CUT) > 3


def test_a_slice_knows_which_operands_still_begin_together() -> None:
    """x x' is symmetric, its rows from the third on are not: who believes it computes half of the wrong thing."""
    text = "input x: f32[9, 4]\nz[i, j]: f32[9, 9] = einsum[plustimes, f32](k; x[i, k], x[j, k]) over i<9, j<9, k<4\n"
    (template,) = CpuProgram(parse_ir(text + "return z")).templates
    layouts = {"x": Layout.dense(F32, (9, 4)), "z": Layout.dense(F32, (9, 9))}
    (step,) = template.contractions({}, layouts)
    assert step.problem.sources == (0, 0)
    later = cut(step, template, "i", frozenset(), 2, 3)
    assert later.problem.sources == ()
    assert [o.offset for o in later.operands] == [2 * 36, 2 * 16, 0]
    assert [o.offset for o in cut(step, template, "i", frozenset({"z"}), 2, 3).operands] == [0, 2 * 16, 0]
    assert [a.extent for a in later.problem.axes] == [3, 9, 4]
