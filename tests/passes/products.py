"""Random products over several semirings, and what the tests of the passes do with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import log, prod
from typing import Any

import numpy as np
import pytest

from stein.ir.check import check_program
from stein.ir.expr import Einsum, Equation, Expr, Input, Program, Read, free_indices, walk
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret, interpret_all
from stein.ir.rewrite import Scope
from stein.ir.semiring import BOOLEAN, LOGSUMEXP, MAX_MIN, MAX_PLUS, MAX_TIMES, MIN_PLUS, PLUS_TIMES, Semiring
from stein.ir.size import Size
from stein.ir.text import parse_ir
from stein.ir.types import BOOL, F64, DType
from stein.passes.base import Context
from stein.passes.plan import plan
from stein.passes.tools import rebuilt

MIN_MAX = Semiring("minmax", "minimum", "maximum", "inf", "-inf", idempotent=True)  # as users register them
MIN_TIMES = Semiring("mintimes", "minimum", "mul", "inf", 1, idempotent=True)  # of the numbers from 0 up
SEMIRINGS = (PLUS_TIMES, MAX_PLUS, MIN_PLUS, BOOLEAN, MAX_TIMES, MAX_MIN, LOGSUMEXP)
SIZES = {"na": 2, "nb": 3, "nc": 1, "nd": 4, "ne": 2}
LABELS = "abcde"
Arrays = dict[str, "np.ndarray[Any, Any]"]


def dtype_of(semiring: Semiring) -> DType:
    """The type that a semiring's tests compute in. Small whole numbers in f64 are exact, and -inf is there."""
    return BOOL if semiring == BOOLEAN else F64


def extents(labels: str = LABELS) -> dict[str, Size]:
    """The extent of each label."""
    return {c: Size.name("n" + c) for c in labels}


def read(tensor: str, labels: str, dtype: DType) -> Read:
    """tensor[a, b, ...] for labels "ab..."."""
    return Read(tensor, tuple(Affine.of(c) for c in labels), dtype)


def product(
    semiring: Semiring,
    factors: Mapping[str, str],
    output: str,
    extra: tuple[Expr, ...] = (),
    dtype: DType | None = None,
) -> Program:
    """y[output] = the product of the named factors and `extra`, summed over every other label."""
    dtype, sizes = dtype_of(semiring) if dtype is None else dtype, extents()
    labels = dict.fromkeys("".join(factors.values()))
    einsum = Einsum(
        tuple(c for c in labels if c not in output),
        (*(read(t, s, dtype) for t, s in factors.items()), *extra),
        dtype,
        dtype,
        semiring,
    )
    inputs = tuple(Input(t, tuple(sizes[c] for c in s), dtype) for t, s in factors.items())
    slots, shape = tuple(Affine.of(c) for c in output), tuple(sizes[c] for c in output)
    indices = tuple(Index(c, sizes[c]) for c in labels)
    program = Program(inputs, (Equation("y", slots, shape, indices, einsum, dtype, semiring),), ("y",))
    check_program(program)
    return program


def random_product(
    choose: random.Random,
    semiring: Semiring,
    most: int = 4,
    repeats: bool = True,
    dtype: DType | None = None,
    extra: tuple[Expr, ...] = (),
) -> Program:
    """A product of up to `most` tensors of up to three axes, labels repeating inside and between them."""
    factors = {}
    for k in range(choose.randrange(1, most + 1)):
        count = choose.randrange(4)
        factors[f"t{k}"] = "".join(choose.choices(LABELS, k=count) if repeats else choose.sample(LABELS, count))
    labels = sorted({c for s in factors.values() for c in s})
    kept = [c for c in labels if choose.random() < 0.4]
    choose.shuffle(kept)
    if repeats and kept and choose.random() < 0.2:
        kept.append(kept[0])
    return product(semiring, factors, "".join(kept), extra, dtype)


def arguments(program: Program, seed: int, sizes: Mapping[str, int] = SIZES) -> Arrays:
    """Small whole numbers of both signs (from 0 up in max-times and for unsigned types, true and false for bool), so
    that every semiring computes exactly, but logsumexp.
    """
    values = np.random.default_rng(seed)
    least = 0 if semirings_of(program) & {MAX_TIMES, MIN_TIMES} else -3

    def array(tensor: Input) -> np.ndarray[Any, Any]:
        shape, low = [s.evaluate(sizes) for s in tensor.shape], 0 if tensor.dtype.kind in "bu" else least
        whole = np.asarray(values.integers(low, 4, shape))
        if tensor.dtype.kind == "c":
            whole = whole + 1j * values.integers(low, 4, shape)
        return whole > 1 if tensor.dtype == BOOL else whole.astype(tensor.dtype.numpy)

    return {i.name: array(i) for i in program.inputs}


def assert_same(before: Program, after: Program, seed: int, sizes: Mapping[str, int] = SIZES) -> None:
    """Both programs give the same outputs: equal to the last bit, but for logsumexp."""
    arrays = arguments(before, seed, sizes)
    given = {i.name: arrays[i.name] for i in after.inputs}
    every, got = interpret_all(before, arrays, sizes), interpret(after, given, sizes)
    for name in before.outputs:
        assert got[name].dtype == every[name].dtype
        if LOGSUMEXP in semirings_of(before):
            np.testing.assert_allclose(got[name], every[name], rtol=0, atol=logsumexp_bound(before, every, sizes))
        else:
            np.testing.assert_array_equal(got[name], every[name])


def semirings_of(program: Program) -> set[Semiring]:
    """The semirings of all sums of products."""
    return {e.semiring for q in program.equations for e in walk(q.expr) if isinstance(e, Einsum)}


def logsumexp_bound(program: Program, tensors: Arrays, sizes: Mapping[str, int]) -> float:
    """How far two orders of evaluation of sums of exponentials may lie apart.

    log(e^a + e^b) passes errors on by a factor of at most 1 and adds less than 4*u*M, with u half an epsilon and M > 1
    the largest magnitude on the way: the difference of a and b, e^ and log1p of numbers up to 1, and one sum. a + b
    adds the errors and one u*M. So F factors and a sum of S terms turn an error d of every factor into
    F*d + (F + 4*S)*u*M.
    """
    finite = [float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in tensors.values()]
    error = 0.0
    for equation in program.equations:
        terms = prod(i.extent.evaluate(sizes) for i in equation.indices) + 1
        factors = max((len(e.factors) for e in walk(equation.expr) if isinstance(e, Einsum)), default=0) + 1
        largest = factors * max([1.0, *finite]) + log(terms)
        error = factors * error + (factors + 4 * terms) * 2**-53 * largest
    return 2 * error


def rewritten(program: Program, rule: Callable[[Einsum, Scope], Expr | None]) -> Program | None:
    """The program with a rule applied to its first equation's right side; None where it does not fire."""
    equation = program.equations[0]
    scope = Scope(program, equation)
    assert isinstance(equation.expr, Einsum)
    new = rule(equation.expr, scope)
    if new is None:
        return None
    after = replace(program, equations=(rebuilt(equation, new, scope.extents), *program.equations[1:]))
    check_program(after)
    return after


def planned(program: Program, **options: Any) -> Program:
    """The program after all passes, checked."""
    options.setdefault("sizes", {"n" + c: 50 for c in LABELS})
    after, _ = plan(program, Context(**options))
    check_program(after, "planned")
    return after


each_semiring = pytest.mark.parametrize("semiring", SEMIRINGS, ids=lambda s: s.name)
CASES = 25  # random products for each rule and semiring


def products(semiring: Semiring, repeats: bool = True) -> list[tuple[int, random.Random, Program]]:
    out = []
    for seed in range(CASES):
        choose = random.Random(seed)
        out.append((seed, choose, random_product(choose, semiring, repeats=repeats)))
    return out


def root(program: Program) -> Einsum:
    expr = program.equations[0].expr
    assert isinstance(expr, Einsum)
    return expr


def scope_of(program: Program) -> Scope:
    return Scope(program, program.equations[0])


def check_rule(semiring: Semiring, rule: Callable[[Einsum, Scope], Expr | None]) -> int:
    """The rule on random products: the same values; the number of times that it changed something."""
    fired = 0
    for seed, _, program in products(semiring):
        after = rewritten(program, rule)
        if after is not None and after != program:
            fired += 1
            assert_same(program, after, seed)
    return fired


def ir(*lines: str) -> Program:
    """The program of these lines of IR text, whose result is y."""
    program = parse_ir("\n".join((*lines, "return y")))
    check_program(program)
    return program


def random_network(choose: random.Random, semiring: Semiring) -> Program:
    """Products of products: up to four equations, each multiplying inputs and earlier results, some on diagonals."""
    dtype, sizes = dtype_of(semiring), extents()
    inputs: list[Input] = []
    equations: list[Equation] = []
    for number in range(choose.randrange(1, 5)):
        factors: list[Expr] = []
        for _ in range(choose.randrange(1, 4)):
            if equations and choose.random() < 0.5:
                old = choose.choice(equations)
                fitting = [[c for c in LABELS if sizes[c] == n] for n in old.shape]
                labels = "".join(choose.choice(f) for f in fitting)
                factors.append(read(old.name, labels, dtype))
            else:
                labels = "".join(choose.choices(LABELS, k=choose.randrange(4)))
                inputs.append(Input(f"t{len(inputs)}", tuple(sizes[c] for c in labels), dtype))
                factors.append(read(inputs[-1].name, labels, dtype))
        labels_used = sorted({n for f in factors for n in free_indices(f)})
        kept = [c for c in labels_used if choose.random() < 0.5]
        choose.shuffle(kept)
        left = [*kept, kept[0]] if kept and choose.random() < 0.2 else kept
        bound = tuple(c for c in labels_used if c not in kept)
        name = f"r{number}"
        equations.append(
            Equation(
                name,
                tuple(Affine.of(c) for c in left),
                tuple(sizes[c] for c in left),
                tuple(Index(c, sizes[c]) for c in labels_used),
                Einsum(bound, tuple(factors), dtype, dtype, semiring),
                dtype,
                semiring,
            )
        )
    names = [e.name for e in equations]
    outputs = {names[-1], *(n for n in names if choose.random() < 0.25)}
    program = Program(tuple(inputs), tuple(equations), tuple(n for n in names if n in outputs))
    check_program(program)
    return program
