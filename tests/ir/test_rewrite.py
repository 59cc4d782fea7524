"""Rewriting: to a fixpoint, children first, in a fixed order, with every step in the trace."""

from __future__ import annotations

import pytest

from stein.ir.check import IRError, check_program
from stein.ir.expr import Const, Einsum, Expr, Map, Read
from stein.ir.index import Affine
from stein.ir.rewrite import Rule, Scope, Trace, rewrite
from stein.ir.size import Size
from stein.ir.text import parse_ir, print_program
from stein.ir.types import F32

TEXT = "input x: f32[n]\ny[i]: f32[n] = {} over i<n\nreturn y\n"


def fold(e: Expr, scope: Scope) -> Expr | None:
    """a + b of two numbers."""
    match e:
        case Map("add", (Const(a), Const(b)), dtype):
            return Const(a + b, dtype)
    return None


def drop_zero(e: Expr, scope: Scope) -> Expr | None:
    """x + 0."""
    match e:
        case Map("add", (a, Const(0))):
            return a
    return None


FOLD, DROP = Rule("fold", fold), Rule("drop-zero", drop_zero)


def test_to_a_fixpoint_from_the_leaves() -> None:
    program = parse_ir(TEXT.format("add(x[i], add(add(1:f32, 2:f32), add(-4:f32, 1:f32)))"))
    trace = Trace()
    result = rewrite(program, (DROP, FOLD), trace)
    assert print_program(result) == TEXT.format("x[i]")
    assert [(s.rule, s.equation) for s in trace.steps] == [("fold", "y")] * 3 + [("drop-zero", "y")]
    assert str(trace.steps[0]) == "y: fold: add(1:f32, 2:f32) -> 3:f32"
    first = program.equations[0].expr
    assert isinstance(first, Map)
    assert trace.steps[-1].span == first.span != trace.steps[0].span  # where it was written
    assert len(trace) == 4
    assert str(trace).count("\n") == 3


def test_what_does_not_change_is_the_same_object() -> None:
    program = parse_ir(TEXT.format("x[i]"))
    trace = Trace()
    assert rewrite(program, (DROP, FOLD), trace) is program
    assert not trace.steps


def test_a_rule_that_returns_an_equal_expression_has_not_fired() -> None:
    program = parse_ir(TEXT.format("x[i]"))
    assert (
        rewrite(program, (Rule("same", lambda e, scope: parse_ir(TEXT.format("x[i]")).equations[0].expr),)) is program
    )


def test_the_first_rule_that_fires_wins() -> None:
    one = Rule("one", lambda e, s: Const(1, F32) if e == Const(0, F32) else None)
    two = Rule("two", lambda e, s: Const(2, F32) if e == Const(0, F32) else None)
    program = parse_ir(TEXT.format("0:f32"))
    assert rewrite(program, (one, two)).equations[0].expr == Const(1, F32)
    assert rewrite(program, (two, one)).equations[0].expr == Const(2, F32)


def test_rules_that_undo_each_other_are_stopped() -> None:
    up = Rule("up", lambda e, s: Const(e.value + 1, F32) if isinstance(e, Const) else None)
    trace = Trace()
    with pytest.raises(IRError, match="the rule 'up' fires without end"):
        rewrite(parse_ir(TEXT.format("0:f32")), (up,), trace, limit=50)
    assert len(trace) == 50


def test_fresh_indices_are_added_and_unused_ones_dropped() -> None:
    def expand(e: Expr, scope: Scope) -> Expr | None:
        if isinstance(e, Read) and not isinstance(scope.equation.expr, Einsum):
            name = scope.fresh("i", Size.of(1))
            assert name == "i1"
            return Einsum((name,), (Read("x", (Affine.of("i") + Affine.of(name),), F32, 0), Const(1, F32)), F32, F32)
        return None

    once = Rule("expand", lambda e, s: expand(e, s) if e == Read("x", (Affine.of("i"),), F32) else None)
    program = rewrite(parse_ir(TEXT.format("x[i]")), (once,))
    assert [(i.name, str(i.extent)) for i in program.equations[0].indices] == [("i", "n"), ("i1", "1")]
    check_program(program)
    back = Rule("back", lambda e, s: Const(1, F32) if isinstance(e, Einsum) else None)
    assert [i.name for i in rewrite(program, (back,)).equations[0].indices] == ["i"]
