"""IR text: what is printed reads back, and what does not read is refused at its place."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from stein.ir.errors import EinsumSyntaxError, SteinError
from stein.ir.expr import (
    Approx,
    Const,
    Constraint,
    Einsum,
    Equation,
    Input,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    Structure,
    walk,
)
from stein.ir.index import Affine, Index
from stein.ir.semiring import Semiring
from stein.ir.size import Size
from stein.ir.text import parse_ir, print_expr, print_program
from stein.ir.types import C64, DTYPES, F32, F64, I64
from stein.tests.strategies import ALL_TYPES, programs

BSR = Structure("bsr", (("block", Size.name("b")), ("pad", Size.of(1))))
MIN_MAX = Semiring("min max", "minimum", "maximum", "inf", "-inf")
SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(programs(dtypes=ALL_TYPES, user=(MIN_MAX,)))
def test_programs_read_back(program: Program) -> None:
    text = print_program(program)
    again = parse_ir(text, {MIN_MAX.name: MIN_MAX})
    assert again == program
    assert print_program(again) == text
    spans = [e.span for q in again.equations for e in walk(q.expr)]
    assert all(0 <= s.start < s.end <= len(text) for s in spans)


def expression(body: object, dtype: object = F32) -> Program:
    """A program with one equation of this right side (which may be illegal)."""
    y = Equation("y", (), (), (Index("i", Size.of(3)), Index("k", Size.name("n"))), body, dtype)  # type: ignore[arg-type]
    return Program((Input("x", (), F64),), (y,), ("y",))


J, K, N = Affine.of("j"), Affine.of("k"), Size.name("n")
EXPRESSIONS = (
    *(Const(v, F64) for v in (0, -1, True, False, 0.1, -1e-300, 1e22, float("inf"), float("-inf"), 10**30, -0.0)),
    Const(1j, C64), Const(complex(-0.0, -2.5), C64), Const(complex(float("inf"), 1), C64),
    SizeValue(N * N * 2 - N + 1), SizeValue(Size.of(0)), SizeValue(Size.of(-3)), SizeValue(N, F32),
    SizeValue((N + 1) // 2 * N), SizeValue(Size.least([N, Size.of(5), Size.name("m") * 2]) - 1),
    SizeValue(Size.greatest([N // 3, Size.name("min")])), SizeValue((N + 1) // Size.name("over") + Size.name("over")),
    Position(Affine(())), Position(J * -2 + K - 7),
    Position((J * N - K * 3 + N - 1).mod(N)), Position(J.mod(Size.of(4))),
    Position(J * (N * -1) + N * -1), Position(J.mod(N * N)), Position(J, F64),
    Read("x", (), F64), Read("x", (), F32), Read("unknown", (J, K + 1), I64), Read("x.1", (J,), F64, "wrap"),
    Read("a b\"c\\d\n", (J,), F64, "odd pad"), Read("einsum", (J,), F64, -2.5), Read("at", (J,), F64, 1),
    Read("x", (), F64, True), Read("inf", (J,), F64, float("inf")),
    Map("add", (Const(1, F32), Const(2.0, F64)), F64), Map("add", (Const(1, F32),), F64), Map("no such", (), I64),
    Map("cast", (Const(1, F32), Const(1, F32)), F64), Map("cast", (), F64), Map("exp", (Const(1, I64),), F64),
    Map("size", (Const(1, I64),), F64), Map("relu", (Const(1, F64),), F32),
    Map("sigmoid", (Const(1, F64),), F64, approx=Approx(3, -8.0, 8)), Map("cast", (), F64, approx=Approx(0, 0, 1.5)),
    Einsum((), (), F32, F32), Einsum(("i", "over"), (), F32, F64), Einsum((), (Const(1, F32),), F64, F32, MIN_MAX),
    Softmax(("i", "1"), Const(1, I64), F64), Softmax((), Const(1, F32), F64),
)  # fmt: skip


@pytest.mark.parametrize("body", EXPRESSIONS, ids=str)
def test_every_node_reads_back(body: object) -> None:
    program = expression(body)
    again = parse_ir(print_program(program), {MIN_MAX.name: MIN_MAX})
    assert again == program
    assert repr(again) == repr(program)  # 1, 1.0 and True are equal, but not the same


def test_every_field_reads_back() -> None:
    """A value other than the default in each compared field of the statements: a new field must be printed, too."""
    full: tuple[Any, ...] = (
        Input("W", (N, N * 2), C64, (BSR,), True, True, 0.5, (N, -N)),
        Equation("y", (J + K,), (N,), (Index("j", N), Index("k", N)), Const(2, F32), F64, MIN_MAX, "old"),
        Constraint(">=", N, Size.of(3), "code", 'says {left} "so"', "do", (N, N + 1)),
    )
    defaults: dict[Any, Any] = {
        Input: Input("W", (), F32),
        Equation: Equation("y", (), (), (), Const(1, F32), F32),
        Constraint: None,
    }
    for value in full:
        plain = defaults[type(value)]
        for f in fields(value):
            if f.compare and plain is not None:
                assert getattr(value, f.name) != getattr(plain, f.name) or f.name == "name", f.name
    program = Program(full[:1], full[1:2], ("y", "W"), full[2:])
    assert parse_ir(print_program(program), {MIN_MAX.name: MIN_MAX}) == program
    assert {f.name for f in fields(Map) if f.compare} == {"function", "args", "dtype", "approx"}, (
        "print and read the new field"
    )
    assert parse_ir("return") == Program((), (), ())


def test_the_text_of_a_product() -> None:
    text = (
        "input A: f32[m, n]\ninput B: f32[n, p]\n"
        "y[i, k]: f32[m, p] = einsum[plustimes, f32](j; A[i, j], B[j, k]) over i<m, j<n, k<p\nreturn y\n"
    )
    assert print_program(parse_ir(text)) == text
    assert print_expr(Read("A", (J, K * 2 - 1), F32)) == "A[j, 2*k-1]:f32"


def test_layout_of_the_text_is_free() -> None:
    text = """
    # a comment
    input x : f32 [ n ]   # another
    y[i]: f32[n] = add(
        x[i],
        1.0:f32
    ) over i < n

    return y"""
    assert print_program(parse_ir(text)).splitlines()[1] == "y[i]: f32[n] = add(x[i], 1.0:f32) over i<n"


GOOD = "input x: f32[n]\ny[i]: f32[n] = x[i] over i<n\nreturn y"
BAD = (
    (GOOD.replace("f32", "f31"), 1, 10, "a type expected"),
    (GOOD.replace("return y", ""), 3, 1, "no line says what to return"),
    (GOOD.replace("x[i]", "x[i"), 2, 20, "',' expected"),
    (GOOD.replace("x[i]", "x"), 2, 18, "'(' or '[' expected"),
    (GOOD.replace("x[i]", "z[i]"), 2, 16, "needs a type"),
    (GOOD.replace("x[i]", "1.0"), 2, 20, "':' expected"),
    (GOOD.replace("x[i]", "einsum[foo, f32](; )"), 2, 23, "no semiring is called 'foo'"),
    (GOOD.replace("x[i]", "x[(i+1) mod 3 mod 4]"), 2, 30, "',' expected"),
    (GOOD.replace("[n]", "[floordiv(n, 0)]"), 1, 14, "divided by 0"),
    (GOOD.replace("[n]", "[least(n)]"), 1, 14, "floordiv"),
    (GOOD.replace("x[i]", "$"), 2, 16, "no token"),
    (GOOD + " y", 3, 10, "end of the line"),
    (GOOD + "\nrequire n < 3", 4, 11, "'==', '>=' or 'divides'"),
    (GOOD.replace("return y", "return over"), 3, 8, "a name expected"),
    (GOOD.replace("input x", 'input "\\q"'), 1, 7, "JSON"),
)


@pytest.mark.parametrize(("text", "line", "col", "words"), BAD)
def test_bad_text_is_refused_at_its_place(text: str, line: int, col: int, words: str) -> None:
    with pytest.raises(EinsumSyntaxError) as caught:
        parse_ir(text)
    assert words in str(caught.value)
    assert (caught.value.line, caught.value.col) == (line, col), str(caught.value)


def test_deep_nesting_is_refused_cleanly() -> None:
    with pytest.raises(EinsumSyntaxError, match="too deeply"):
        parse_ir("y: f32 = " + "neg(" * 100_000)


WORDS = [*GOOD.split(" "), *"[]{}();:,<*+-", "1e9", "mod", "x", "require", "input", "y"]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
@example("return" + "1" * 5000)
@example("y: f32 = " + "1" * 5000 + ":i64\nreturn")
@example("y[" + "9" * 5000 + "]: f32 = 1:f32\nreturn")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        program = parse_ir(text)
    except SteinError as error:
        assert 1 <= error.line <= text.count("\n") + 1 and error.col >= 1 and str(error)
        return
    assert parse_ir(print_program(program)) == program


def test_every_type_has_its_name() -> None:
    for dtype in DTYPES.values():
        assert parse_ir(f"y: {dtype} = 1:{dtype}\nreturn y").equations[0].expr.dtype == dtype
