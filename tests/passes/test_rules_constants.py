"""Rules R8, R9 and R22 of language.md: ones, zeros and equal summands, where each holds and where it must not fire."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.ir.check import check_program
from stein.ir.expr import Const, Einsum, Expr, Map, Program, SizeValue, substitute, walk
from stein.ir.functions import FUNCTIONS
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret
from stein.ir.rewrite import Rule, Trace, rewrite
from stein.ir.semiring import (
    BOOLEAN,
    LOGSUMEXP,
    MAX_MIN,
    MAX_PLUS,
    MAX_TIMES,
    MIN_PLUS,
    PLUS_TIMES,
    Semiring,
)
from stein.ir.size import Size
from stein.ir.types import BOOL, F64, I8, I16, I64, U8, DType
from stein.passes import rules
from stein.passes.base import Context
from stein.passes.normalise import normalise
from stein.tests.passes.products import (
    MIN_MAX,
    MIN_TIMES,
    SEMIRINGS,
    SIZES,
    arguments,
    assert_same,
    dtype_of,
    each_semiring,
    ir,
    planned,
    product,
    random_product,
    read,
    rewritten,
    root,
    scope_of,
)

quick = settings(max_examples=15, deadline=None)
choices = st.randoms(use_true_random=False)


def shuffled(choose: random.Random, program: Program) -> Program:
    """The product with its factors in another order."""
    factors = choose.sample(root(program).factors, len(root(program).factors))
    return with_root(program, replace(root(program), factors=tuple(factors)))


def with_root(program: Program, expr: Expr, *more: Index) -> Program:
    equation = program.equations[0]
    after = replace(program, equations=(replace(equation, expr=expr, indices=(*equation.indices, *more)),))
    check_program(after)
    return after


# --- R8 ---------------------------------------------------------------------------------------------------------------


@each_semiring
@quick
@given(choices, st.integers(1, 3), st.booleans())
def test_r8_ones_go(semiring: Semiring, choose: random.Random, count: int, selected: bool) -> None:
    dtype = dtype_of(semiring)
    ones = (*(Const(semiring.one_of(dtype), dtype) for _ in range(count)), *([Const(True, BOOL)] if selected else []))
    program = shuffled(choose, random_product(choose, semiring, extra=ones))
    after = rewritten(program, rules.drop_ones)
    assert after is not None
    assert not any(isinstance(f, Const) for f in root(after).factors)
    assert len(root(after).factors) == len(root(program).factors) - len(ones)
    assert_same(program, after, choose.randrange(1000))


@each_semiring
def test_r8_other_constants_stay(semiring: Semiring) -> None:
    dtype = dtype_of(semiring)
    others = {Const(v, dtype) for s in SEMIRINGS for v in (s.zero_of(dtype), s.one_of(dtype))}
    others -= {Const(semiring.one_of(dtype), dtype)}
    assert others
    for other in others:
        program = product(semiring, {"A": "ab"}, "a", (other,))
        assert rewritten(program, rules.drop_ones) is None
        assert_same(program, normalise(program, Context(), Trace()), 1)


def fold(semiring: Semiring, dtype: DType, count: int) -> Any:
    """The sum of `count` ones, by the definition."""
    add, to = FUNCTIONS[semiring.add].numpy, dtype.numpy.type
    with np.errstate(over="ignore"):
        return reduce(lambda a, b: to(add(a, b)), [to(semiring.one_of(dtype))] * count, to(semiring.zero_of(dtype)))


@pytest.mark.parametrize("semiring", (*SEMIRINGS, MIN_MAX), ids=lambda s: s.name)
@quick
@given(st.integers(0, 7), st.booleans())
def test_r8_a_symbol_of_ones_alone_is_the_n_fold_sum_of_one(semiring: Semiring, count: int, known: bool) -> None:
    dtype = dtype_of(semiring)
    extent = Size.of(count) if known else Size.name("ne")
    program = with_root(product(semiring, {"A": "a"}, "a"), Const(True, BOOL), Index("e", extent))
    ones = Einsum(("e",), (Const(semiring.one_of(dtype), dtype),), dtype, dtype, semiring)
    program = with_root(program, replace(ones, factors=(*ones.factors, read("A", "a", dtype))))
    after = normalise(program, Context(), Trace())
    multiplied = any(isinstance(e, SizeValue) for e in walk(after.equations[0].expr))
    assert multiplied == (semiring == PLUS_TIMES and extent != Size.of(1))
    left = any(isinstance(e, Einsum) and e.bound for e in walk(after.equations[0].expr))
    gone = semiring == PLUS_TIMES or (known and (count == 1 or (count > 1 and semiring.idempotent)))
    assert left == (not gone)
    sizes = SIZES | {"ne": count}
    assert_same(program, after, count, sizes)
    summed = ir(f"y: {dtype} = einsum[plustimes, {dtype}](; 1:{dtype})")
    summed = with_root(summed, ones, Index("e", extent))
    for form in (summed, normalise(summed, Context(), Trace())):
        got = interpret(form, {}, sizes if not known else {})["y"]
        np.testing.assert_allclose(got, fold(semiring, dtype, count), rtol=0, atol=4 * count * 2**-52)


@pytest.mark.parametrize("dtype", [I8, U8, I16, I64, BOOL], ids=str)
@quick
@given(st.integers(0, 700))
def test_r8_counts_in_the_ring_of_the_type(dtype: DType, count: int) -> None:
    one = Einsum(("e",), (Const(dtype == BOOL or 1, dtype),), dtype, dtype)
    program = with_root(ir(f"y: {dtype} = einsum[plustimes, {dtype}](; 1:{dtype})"), one, Index("e", Size.of(count)))
    after = normalise(program, Context(), Trace())
    bound = [e.bound for e in walk(after.equations[0].expr) if isinstance(e, Einsum) and e.bound]
    assert bound == ([("e",)] if dtype == BOOL and not count else [])  # an empty or is false
    assert interpret(after, {})["y"] == interpret(program, {})["y"] == fold(PLUS_TIMES, dtype, count)


# --- R9 ---------------------------------------------------------------------------------------------------------------

EXACT = [
    *((s, t) for s in (PLUS_TIMES, MAX_PLUS, MIN_PLUS, MAX_MIN, MIN_MAX, MAX_TIMES) for t in (I64, I8, U8)),
    (BOOLEAN, BOOL),
    (PLUS_TIMES, BOOL),
]


@pytest.mark.parametrize(("semiring", "dtype"), EXACT, ids=lambda v: v.name)
@quick
@given(choices, st.booleans())
def test_r9_a_zero_makes_the_product_zero(
    semiring: Semiring, dtype: DType, choose: random.Random, selected: bool
) -> None:
    zero = Const(False, BOOL) if selected else Const(semiring.zero_of(dtype), dtype)
    program = shuffled(choose, random_product(choose, semiring, dtype=dtype, extra=(zero,)))
    after = rewritten(program, rules.zero_factor)
    assert after is not None
    assert after.equations[0].expr == Const(semiring.zero_of(dtype), dtype)
    assert_same(program, after, choose.randrange(1000))


@pytest.mark.parametrize("semiring", (*SEMIRINGS, MIN_MAX, MIN_TIMES), ids=lambda s: s.name)
def test_r9_not_in_floating_point(semiring: Semiring) -> None:
    if semiring == BOOLEAN:
        semiring = replace(PLUS_TIMES, idempotent=True)
    zero = semiring.zero_of(F64)
    values = np.array([np.nan, np.inf, -np.inf, 0.0, zero])
    constants = [Const(zero, F64), Const(False, BOOL), *([Const(0, I64)] if zero == 0 else [])]
    for constant in constants:
        program = product(semiring, {"A": "a"}, "a", (constant,))
        assert rewritten(program, rules.zero_factor) is None
        got = interpret(planned(program), {"A": values})["y"]
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(got, FUNCTIONS[semiring.mul].numpy(values, zero))
        assert np.isnan(got[0])


@each_semiring
def test_r9_an_observed_zero_is_no_structure(semiring: Semiring) -> None:
    """What arrays hold decides nothing: beside NaN a stored 0 counts, in the plan as in the definition."""
    program = product(semiring, {"A": "ab", "B": "bd"}, "ad")
    arrays = arguments(program, 0)
    if semiring != BOOLEAN:
        arrays["A"][:] = semiring.zero_of(F64)
        arrays["B"][0, 0] = np.nan
    want, got = interpret(program, arrays)["y"], interpret(planned(program), arrays)["y"]
    np.testing.assert_array_equal(got, want)
    assert semiring == BOOLEAN or (np.isnan(want[:, 0]).all() and not np.isnan(want[:, 1:]).any())


def test_r9_other_constants_are_no_zeros() -> None:
    for semiring, dtype in EXACT:
        for value in (0, 1, semiring.one_of(dtype), MAX_PLUS.zero_of(dtype), MIN_PLUS.zero_of(dtype)):
            if value != semiring.zero_of(dtype):
                program = product(semiring, {"A": "ab"}, "a", (Const(value, dtype),), dtype)
                assert rewritten(program, rules.zero_factor) is None, (semiring.name, value)
                assert_same(program, normalise(program, Context(), Trace()), 2)
    lawless = product(MIN_TIMES, {"A": "ab"}, "a", (Const(MIN_TIMES.zero_of(I64), I64),), I64)
    assert rewritten(lawless, rules.zero_factor) is None  # the greatest integer times 2 wraps
    nothing = product(MIN_TIMES, {"A": "ab"}, "a", (Const(0, I64),), I64)
    assert rewritten(nothing, rules.zero_factor) is None  # 0 is not the zero of (min, x)


# --- R22 --------------------------------------------------------------------------------------------------------------

IDEMPOTENT = (MAX_PLUS, MIN_PLUS, BOOLEAN, MAX_TIMES, MAX_MIN, MIN_MAX, MIN_TIMES)


def summands(semiring: Semiring, choose: random.Random, functions: int) -> tuple[Program, int]:
    """A sum of `functions` + 1 terms in any nesting, some of them equal up to names and order; how many differ."""
    dtype = dtype_of(semiring)
    first = Einsum(("b",), (read("A", "ab", dtype), read("B", "bd", dtype)), dtype, dtype, semiring)
    second = replace(first, factors=(read("A", "ab", dtype), read("C", "bd", dtype)))
    forms: list[tuple[int, Expr]] = [(2, read("D", "ad", dtype))]
    for number, term in enumerate((first, second)):
        forms += [(number, term), (number, replace(term, factors=term.factors[::-1]))]
    chosen = [choose.choice(forms) for _ in range(functions + 1)]
    terms = [substitute(e, {"b": Affine.of(f"b{k}")}) for k, (_, e) in enumerate(chosen)]  # each sum has its own index
    while len(terms) > 1:
        k = choose.randrange(len(terms) - 1)
        terms[k : k + 2] = [Map(semiring.add, (terms[k], terms[k + 1]), dtype)]
    sides = {"A": "ab", "B": "bd", "C": "bd", "D": "ad"}
    base = product(semiring, sides, "ad")
    equation = base.equations[0]
    bound = [i for e in walk(terms[0]) if isinstance(e, Einsum) for i in e.bound]
    kept = [i for i in equation.indices if i.name != "b"]
    indices = (*kept, *(Index(n, Size.name("nb")) for n in bound))
    program = replace(base, equations=(replace(equation, expr=terms[0], indices=indices),))
    check_program(program)
    return program, len({n for n, _ in chosen})


def count_terms(expr: Expr, function: str) -> int:
    if isinstance(expr, Map) and expr.function == function:
        return sum(count_terms(a, function) for a in expr.args)
    return 1


@pytest.mark.parametrize("semiring", IDEMPOTENT, ids=lambda s: s.name)
@quick
@given(choices, st.integers(1, 5))
def test_r22_equal_summands_count_once(semiring: Semiring, choose: random.Random, functions: int) -> None:
    program, different = summands(semiring, choose, functions)
    after = rewrite(program, (Rule("R22", rules.drop_duplicates),))
    assert count_terms(after.equations[0].expr, semiring.add) == different
    assert (after is program) == (different == functions + 1)
    assert_same(program, after, choose.randrange(1000))


@pytest.mark.parametrize("semiring", (PLUS_TIMES, LOGSUMEXP), ids=lambda s: s.name)
@quick
@given(choices, st.integers(1, 5))
def test_r22_duplicates_count_where_sums_are_not_idempotent(
    semiring: Semiring, choose: random.Random, functions: int
) -> None:
    program, _ = summands(semiring, choose, functions)
    assert rewrite(program, (Rule("R22", rules.drop_duplicates),)) is program
    after = planned(program)
    assert_same(program, after, choose.randrange(1000))


@pytest.mark.parametrize("function", ["maximum", "minimum", "logical_or", "logical_and"])
def test_r22_terms_of_other_types_or_extents_stay(function: str) -> None:
    dtype = BOOL if function.startswith("logical") else F64
    term = Einsum(("b",), (read("A", "ab", dtype),), dtype, dtype, BOOLEAN if dtype == BOOL else MAX_PLUS)
    scope = scope_of(product(PLUS_TIMES, {"A": "ab"}, "a"))
    scope.extents["e"] = Size.name("other")
    longer = substitute(term, {"b": Affine.of("e")})
    assert rules.drop_duplicates(Map(function, (term, longer), dtype), scope) is None
    assert rules.drop_duplicates(Map(function, (term, term), dtype), scope) == term
    assert rules.drop_duplicates(Map(function, (Map("cast", (term,), I64), term), dtype), scope) is None
