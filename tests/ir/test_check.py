"""The legality check: random programs pass, and each rule has a program that breaks it alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from stein.ir.check import STAGES, IRError, check_program
from stein.ir.expr import Const
from stein.ir.semiring import Semiring
from stein.ir.text import parse_ir
from stein.ir.types import I8
from stein.tests.strategies import ALL_TYPES, random_program

ODD = {"odd": Semiring("odd", "exp", "mul", 0, 1), "none": Semiring("none", "gcd", "mul", 0, 1)}
GOOD = """
    input x: f32[n, m]
    input z: f32[n]
    input b: bool[n]
    input c: c64[n]
    input h: f16[n]
    s: f32 = einsum[plustimes, f32](a; z[a]) over a<n
    y[i]: f32[n] = einsum[plustimes, f32](k; x[i, k], b[i]) over i<n, k<m
    return y
"""
INNER = "einsum[plustimes, f32](q; z[q])"
LINE = "y[i]: f32[n] = einsum[plustimes, f32](k; x[i, k], b[i]) over i<n, k<m"


def test_the_base_of_the_broken_programs_is_legal() -> None:
    assert LINE in GOOD
    for stage in STAGES:
        check_program(parse_ir(GOOD), stage)


def test_random_programs_are_legal() -> None:
    for seed in range(200):
        check_program(random_program(random.Random(seed), dtypes=ALL_TYPES))


BROKEN = (
    ("unique-names", GOOD.replace("input c", "input x")),
    ("unique-names", GOOD.replace("s: f32", "z: f32")),
    ("unique-names", GOOD.replace("return", "s: f32 = 1:f32\nreturn")),
    ("origin", GOOD.replace("z: f32[n]", "z: f32[n] origin=[1, 1]")),
    ("outputs", GOOD.replace("return y", "return w")),
    ("outputs", GOOD.replace("return y", "return y, y")),
    ("unique-indices", GOOD.replace("over i<n, k<m", "over i<n, k<m, i<n")),
    ("unknown-index", GOOD.replace("over i<n, k<m", "over k<m")),
    ("unknown-index", GOOD.replace("over i<n, k<m", "over i<n")),
    ("unknown-index", GOOD.replace(LINE, "y: i64 = at(i)")),
    ("unknown-index", GOOD.replace(LINE, "y: f32 = softmax[k](z[0])")),
    ("rank", GOOD.replace("y[i]: f32[n]", "y[i]: f32[n, 1]")),
    ("rank", GOOD.replace("x[i, k]", "x[i]")),
    ("range", GOOD.replace("x[i, k]", "x[i+1, k]")),
    ("range", GOOD.replace("x[i, k]", "x[i-1, k]")),
    ("range", GOOD.replace("x[i, k]", "x[i, {m}]")),
    ("range", GOOD.replace("y[i]: f32[n]", "y[2*i+1]: f32[2*n-1]")),
    ("equation-type", GOOD.replace("y[i]: f32[n]", "y[i]: f16[n]")),
    ("equation-type", GOOD.replace("y[i]: f32[n]", "y[i]: i64[n]")),
    ("semiring", GOOD.replace("over i<n, k<m", "over i<n, k<m in odd")),
    ("semiring", GOOD.replace("einsum[plustimes", "einsum[odd")),
    ("semiring", GOOD.replace("einsum[plustimes", "einsum[none")),
    ("semiring", GOOD.replace("einsum[plustimes", "einsum[prod")),
    ("unknown-tensor", GOOD.replace("x[i, k]", "w[i, k]:f32")),
    ("unknown-tensor", GOOD.replace("z[a]", "y[a]:f32")),
    ("unknown-tensor", GOOD.replace("over i<n, k<m", "over i<n, k<m updating w")),
    ("update", GOOD.replace("over i<n, k<m", "over i<n, k<m updating x")),
    ("update", GOOD.replace("y[i]: f32[n]", "y[i]: f32[n+1]").replace("k<m", "k<m updating z")),
    ("update", GOOD.replace("over i<n, k<m", "over i<n, k<m updating c")),
    ("bound-once", GOOD.replace(LINE, "y: f32 = add(einsum[prod, f32](k; z[k]), einsum[prod, f32](k; z[k])) over k<n")),
    ("bound-once", GOOD.replace("b[i])", "einsum[plustimes, f32](k; x[i, k]))")),
    ("bound-outside", GOOD.replace("y[i]: f32[n]", "y[i, k]: f32[n, m]")),
    ("bound-outside", GOOD.replace("(k; ", "(; ")),
    ("bound-outside", GOOD.replace(LINE, "y[i]: f32[n] = mul(einsum[plustimes, f32](k; x[i, k]), z[k]) over i<n, k<n")),
    ("const", GOOD.replace(LINE, "y: i8 = 128:i8")),
    ("const", GOOD.replace(LINE, "y: i8 = 1.5:i8")),
    ("const", GOOD.replace(LINE, "y: u8 = -1:u8")),
    ("const", GOOD.replace(LINE, "y: i64 = inf:i64")),
    ("const", GOOD.replace(LINE, "y: f64 = complex(1.0, 2.0):f64")),
    ("const", GOOD.replace(LINE, "y: bool = 2:bool")),
    ("value-type", GOOD.replace(LINE, "y: f64 = size(n):f64")),
    ("value-type", GOOD.replace(LINE, "y[i]: f64[n] = at(i):f64 over i<n")),
    ("read-type", GOOD.replace("x[i, k]", "x[i, k]:f64")),
    ("pad", GOOD.replace("x[i, k]", "x[i, k; pad=mirror]")),
    ("arity", GOOD.replace(LINE, "y: f32 = cast[f32](z[0], z[0])")),
    ("arity", GOOD.replace(LINE, "y: f32 = add(z[0]):f32")),
    ("unknown-function", GOOD.replace(LINE, "y: f32 = frobnicate(z[0]):f32")),
    ("map-type", GOOD.replace(LINE, "y: f64 = add(z[0], z[0]):f64")),
    ("map-type", GOOD.replace(LINE, "y: f32 = gt(z[0], z[0]):f32")),
    ("accumulate", GOOD.replace("z[a]", "c[a]")),
    ("accumulate", GOOD.replace("s: f32 =", "s: i64 =").replace("(a; z[a])", "(a; z[a]):i64")),
    ("softmax", GOOD.replace(LINE, "y[i]: i64[n] = softmax[i](at(i)):i64 over i<n")),
    ("softmax", GOOD.replace(LINE, "y: f32 = softmax[](z[0])")),
    ("softmax", GOOD.replace(LINE, "y[i]: f32[n] = softmax[k](einsum[prod, f32](k; x[i, k])) over i<n, k<m")),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), BROKEN)
def test_each_rule_catches_its_program(rule: str, text: str) -> None:
    assert text != GOOD
    with pytest.raises(IRError) as caught:
        check_program(parse_ir(text, ODD))
    assert caught.value.rule == rule, str(caught.value)


STAGED = (
    ("normal", "no-softmax", GOOD.replace(LINE, "y[i]: f32[n] = softmax[i](z[i]) over i<n")),
    ("ordered", "flat-factors", GOOD.replace("b[i])", f"exp({INNER}))").replace("k<m", "k<m, q<n")),
    ("ordered", "one-einsum", GOOD.replace(LINE, f"y: f32 = sub({INNER}, einsum[prod, f32](k; z[k])) over k<n, q<n")),
    ("planned", "copies", GOOD.replace("x[i, k]", "x[i, k; pad=0.0]")),
    ("planned", "copies", GOOD.replace("x[i, k]", "x[i, (k+1) mod {m}]")),
    ("planned", "affine-output", GOOD.replace("y[i]", "y[(i+1) mod {n}]")),
)  # fmt: skip


@pytest.mark.parametrize(("stage", "rule", "text"), STAGED)
def test_each_stage_adds_its_rules(stage: str, rule: str, text: str) -> None:
    program, level = parse_ir(text), STAGES.index(stage)
    check_program(program, STAGES[level - 1])
    for later in STAGES[level:]:
        with pytest.raises(IRError) as caught:
            check_program(program, later)
        assert caught.value.rule == rule


def test_copies_are_planned() -> None:
    for read in ("z[i-1; pad=0.0]", "z[(i+1) mod {n}]", "z[i-1; pad=wrap]"):
        check_program(parse_ir(GOOD.replace(LINE, f"y[i]: f32[n] = {read} over i<n")), "planned")


def test_ranges_are_refused_only_where_they_are_provably_wrong() -> None:
    check_program(parse_ir(GOOD.replace("x[i, k]", "x[i, k+{p}-1]").replace("k<m", "k<q")))
    check_program(parse_ir(GOOD.replace("x[i, k]", "x[i, k-1]").replace("k<m", "k<m-1")))  # k has no values if m is 1


def test_the_message_shows_the_node_and_the_equation() -> None:
    with pytest.raises(IRError) as caught:
        check_program(parse_ir(GOOD.replace("x[i, k]", "x[i+1, k]")))
    assert str(caught.value) == "range in 'y': the slot i+1 runs from 1 to n, the axis from 0 to n-1\n  x[i+1, k]"


def test_a_constant_beyond_its_type_is_caught_without_text() -> None:
    program = parse_ir(GOOD)
    broken = replace(program.equations[0], expr=Const(300, I8))
    with pytest.raises(IRError, match="300 is no value of type i8"):
        check_program(replace(program, equations=(broken, program.equations[1])))
