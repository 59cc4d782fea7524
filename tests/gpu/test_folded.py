"""Copies for pads and moduli that are not made: which, when they pay, and what `explain` says of them.

`test_interpreted` computes such programs (padded convolutions, circulants, turned axes).
"""

from __future__ import annotations

import pytest

import stein
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.folded import folded
from stein.backends.gpu.program import Bound, bind
from stein.backends.gpu.steps import Launch
from stein.backends.gpu.target import GpuTarget
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.ir.text import parse_ir
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan


def planned(text: str, dtype: str = "float32", **shapes: object) -> Program:
    program: Program = stein.compile(text, dtype=dtype, target="reference", **shapes).program
    return plan(Draft(BEST, program), Context(sizes={})).program


def steps(program: Program, library: bool = True) -> Bound:
    layouts = {i.name: Layout.dense(tuple(n.evaluate({}) for n in i.shape), i.dtype) for i in program.inputs}
    return bind(program, {}, layouts, Settings(), library)


@pytest.mark.parametrize(
    ("text", "shapes", "shown"),
    [
        ("x: pad=0\ny[p] = x[p+u-1] * w[u] for p in 0..400", {"x": (400,), "w": (3,)}, "x_position >= 0"),
        ("x: pad=edge\ny[i] = x[i+1] + x[i-1] for i in 0..300", {"x": (300,)}, "tl.minimum(tl.maximum("),
        ("x: pad=wrap\ny[i] = exp(x[i+1]) for i in 0..300", {"x": (300,)}, "% m_x_0"),
        ("y[i] = x[(i+3) mod 60] * z[i]", {"x": (60,), "z": (60,)}, "% m_x_0"),
        (
            "x: pad=0\ny[o,p,q] = x[c,p+u-1,q+v-1] * w[o,c,u,v] for p in 0..32, q in 0..32",
            {"x": (16, 32, 32), "w": (32, 16, 3, 3)},
            "tl.dot(x_tile",
        ),
    ],
)
def test_pads_and_moduli_are_part_of_the_load(text: str, shapes: dict[str, tuple[int, ...]], shown: str) -> None:
    program = planned(text, **shapes)
    assert any(".copy" in e.name for e in program.equations)
    found = steps(program)
    (launch,) = (s for s in found.steps if isinstance(s, Launch))
    assert launch.output == "y" and shown in found.source
    assert all(reader == "y" for _, reader in found.folded) and found.folded


def test_a_copy_stays_where_it_makes_a_product_of_matrices() -> None:
    """One copy, and cuBLAS does the rest."""
    program = planned("y[i,k] = x[(i+5) mod 4000, j] * W[j,k]", "float16", x=(4000, 4000), W=(4000, 4000))
    kinds = [type(s).__name__ for s in steps(program).steps if type(s).__name__ in ("Launch", "Product")]
    assert kinds == ["Launch", "Product"]
    assert steps(program).folded == ()


def test_a_copy_stays_where_its_elements_are_used_often() -> None:
    """A remainder at each of n * n loads takes longer than a copy of n elements."""
    text = "y[b,i] = c[(i-j) mod {n}] * x[b,j] for i in 0..{n}"
    few, many = (planned(text.format(n=n), c=(n,), x=(64, n)) for n in (128, 16384))
    assert steps(few).folded == (("c.copy", "y"),)
    assert steps(many).folded == ()


COPY = "input x: f32[n] pad=0.0\nc[e]: f32[n+2] = x[e-1; pad=0.0] over e<n+2\n"


@pytest.mark.parametrize(
    "rest",
    [
        "y[i]: f32[n] = exp(c[i]) over i<n\nreturn y, c",  # a result itself
        "y[i]: f32[n] = c[i+3; pad=1.0] over i<n\nreturn y",  # padded again
        "y[i]: f32[n] = c[(i+3) mod 1000] over i<n\nreturn y",
    ],
)
def test_what_is_no_plain_read_of_a_copy_keeps_it(rest: str) -> None:
    program = parse_ir(COPY + rest)
    assert folded(program, {"n": 1000}) == (program, ())


def test_fused_plans_keep_what_they_read() -> None:
    program = parse_ir(COPY + "y[i]: f32[n] = exp(c[i+1]) over i<n\nreturn y")
    assert folded(program, {"n": 1000})[1] == (("c", "y"),)
    assert folded(program, {"n": 1000}, kept={"y"}) == (program, ())


def test_prices_and_explanations_count_what_is_done() -> None:
    text = "x: pad=0\ny[p] = x[p+u-1] * w[u] for p in 0..400"
    program = planned(text, x=(400,), w=(3,))
    assert GpuTarget().price(program, {}).launches == 1
    f = stein.compile(text, dtype="float32", target="cuda", x=(400,), w=(3,))
    assert f.stats["launches"] == 1
    copy, product = f.explain().steps
    assert (copy.name, copy.kernel, copy.family) == ("x.copy", "in the loads of y", "not made")
    assert product.kernel.count("kernel y") == 1
