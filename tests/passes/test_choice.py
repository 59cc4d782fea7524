"""The choice: every candidate of every structure computes the same, prices decide, and the table is what it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import pytest

from stein.backends.cpu.calibration import DEFAULTS
from stein.backends.cpu.machine import machine_of
from stein.backends.cpu.native import Layout, execute
from stein.backends.cpu.target import CpuTarget
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.expr import Einsum, Equation, Input, Program, Read
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret
from stein.ir.size import Size
from stein.ir.structures import Structure, Toeplitz, samples
from stein.ir.structures.build import Builder, Method, Value
from stein.ir.structures.operator import Atom, Term
from stein.ir.structures.slot import slot, var
from stein.ir.target import Cost
from stein.ir.types import C128, F32, F64, DType
from stein.passes.base import Context
from stein.passes.candidates import BEST, DENSE, WRITTEN, Candidate, can_only_contract
from stein.passes.choice import Choice, choose
from stein.runtime.expression import Expression
from stein.tests.structures.oracle import random_inputs

FIXED = CpuTarget(machine_of("any", "+avx2,+fma,+f16c"), DEFAULTS, 1)
SAMPLES = samples()
DEPTH = 16  # sums in a chain, in any method
BATCH = 3
Array = Any


def dense_spelling(structure: Structure, dtype: DType) -> Program:
    """W = the structure; y[b, rows] = sum over the columns of W x[b, cols]."""
    matrix = structure.dense(dtype)
    operator = structure.operator()
    rows, cols = operator.shape
    sizes = [*(("b", BATCH),), *((f"r{k}", n) for k, n in enumerate(rows)), *((f"c{k}", n) for k, n in enumerate(cols))]
    extents = {n: Size.of(size) for n, size in sizes}
    r, c = [f"r{k}" for k in range(len(rows))], [f"c{k}" for k in range(len(cols))]
    w = Read(matrix.outputs[0], tuple(map(Affine.of, r + c)), dtype)
    x = Read("x", tuple(map(Affine.of, ["b", *c])), dtype)
    indices = tuple(Index(n, s) for n, s in extents.items())
    shape = tuple(extents[n] for n in ["b", *r])
    y = Equation("y", tuple(map(Affine.of, ["b", *r])), shape, indices, Einsum(tuple(c), (w, x), dtype, dtype), dtype)
    argument = Input("x", tuple(extents[n] for n in ["b", *c]), dtype)
    return Program((*matrix.inputs, argument), (*matrix.equations, y), ("y",))


def typed_inputs(program: Program, seed: int = 0) -> dict[str, Array]:
    """Random inputs in the types of the program."""
    rng = np.random.default_rng(seed)
    found = random_inputs(program, seed)
    for i in program.inputs:
        value = found[i.name]
        if i.dtype.kind == "c" and not i.structure:
            value = value + 1j * rng.standard_normal(value.shape)
        found[i.name] = value.astype(i.dtype.numpy)
    return found


def table_of(program: Program, sizes: Mapping[str, int] | None = None) -> Choice:
    return choose(program, Context(sizes=dict(sizes or {})), FIXED)


def interpreted(candidate: Candidate, given: Mapping[str, Array]) -> Array:
    """The value of a planned candidate by definition, formulas included."""
    check_program(candidate.program)
    made = interpret(candidate.made, {}, {})
    return interpret(candidate.program, {**given, **made}, {})[candidate.program.outputs[0]]


def run(expression: Expression, candidate: Candidate, given: Mapping[str, Array]) -> Array:
    """The value of a candidate, computed by the CPU backend."""
    arrays = [given[i.name] for i in expression.arguments]
    layouts = {i.name: Layout.of(a) for i, a in zip(expression.arguments, arrays, strict=True)}
    (result,) = execute(expression.made(candidate, {}).cpu.bind({}, layouts).executable, arrays)
    return result


def bound_of(structure: Structure, program: Program, given: Mapping[str, Array], dtype: DType) -> float:
    """As in the laws: |error| <= DEPTH * n * eps * |W| |x|, on norms, for each of two evaluations."""
    names = {i.name for i in structure.dense(dtype).inputs}
    w = interpret(structure.dense(dtype), {n: a for n, a in given.items() if n in names})
    (matrix,) = w.values() if len(w) == 1 else (w[structure.dense(dtype).outputs[0]],)
    rows, cols = structure.operator().size
    norm = np.abs(matrix.reshape(rows, cols)).sum(1).max(initial=0) * np.abs(given["x"]).sum()
    return float(2 * DEPTH * max(1, cols) * np.finfo(dtype.numpy).eps * norm)


def wrong(structure: Structure, dtype: DType, limit: int | None = None) -> list[str]:
    """Candidates of y = W x whose value is not that of the program."""
    program = dense_spelling(structure, dtype)
    check_program(program)
    given = typed_inputs(program)
    wanted = interpret(program, given)["y"]
    bound = bound_of(structure, program, given, dtype)
    found = table_of(program).candidates
    return [c.name for c in found[:limit] if not np.abs(interpreted(c, given) - wanted).max(initial=0) <= bound]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_candidate_of_every_structure_is_right(name: str) -> None:
    assert not wrong(SAMPLES[name], F64)


@pytest.mark.parametrize("dtype", [F32, C128], ids=str)
@pytest.mark.parametrize("name", ["kronecker", "toeplitz", "batch_toeplitz", "householder", "hadamard", "dplr"])
def test_other_types(name: str, dtype: DType) -> None:
    assert not wrong(SAMPLES[name], dtype)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_chosen_runs_and_so_does_what_uses_the_structure(name: str) -> None:
    structure = SAMPLES[name]
    program = dense_spelling(structure, F64)
    given = typed_inputs(program)
    wanted = interpret(program, given)["y"]
    expression = Expression(program, target=FIXED)
    choice = expression.candidates({})
    structured = [c for c in choice.candidates if c.draft.finding is not None]
    for candidate in {c.name: c for c in (choice.chosen, *structured[-1:])}.values():
        got = run(expression, candidate, given)
        assert np.abs(got - wanted).max(initial=0) <= bound_of(structure, program, given, F64), candidate.name


def test_a_wrong_method_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(b: Builder, x: Value) -> Value:
        (batch,) = b.indices(x.shape[:-1]) if len(x.shape) > 1 else ("",)
        i, j = b.indices((6, 5))
        lead = [var(batch)] if batch else []
        t = Atom("t", (slot([(i, 1), (j, -1)], 5),))
        return b.let((*x.shape[:-1], 6), [*lead, var(i)], [Term(1, (t, Atom(x.name, (*lead, var(j)))))])

    monkeypatch.setattr(Toeplitz, "extra", lambda self: (Method("broken", off_by_one),))
    assert wrong(SAMPLES["toeplitz"], F64) == ["toeplitz, broken"]


# --- the table --------------------------------------------------------------------------------------------------------

TABLES = {
    "kronecker": "A: f32[64,64]; B: f32[64,64]; x: f32[256,64,64]; y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]",
    "flat_kronecker": "A: f32[64,64]; B: f32[64,64]; x: f32[256,4096]; K[(i k),(j l)] = A[i,j] * B[k,l]; "
    "y[b,m] = K[m,n] * x[b,n]",
    "toeplitz": "t: f32[8191]; x: f32[256,4096]; y[b,i] = t[i-j+4095] * x[b,j]",
    "lora": "W: f32[1024,1024]; U: f32[1024,16]; V: f32[16,1024]; x: f32[128,1024]; c: f32[1024]; "
    "y[b,i] = W[i,j]*x[b,j] + U[i,r]*V[r,j]*x[b,j] + c[i]",
    "two_layers": "A: f32[48,48]; B: f32[48,48]; C: f32[64,64]; D: f32[36,36]; x: f32[32,2304]; "
    "K[(i k),(j l)] = A[i,j] * B[k,l]; z[b,m] = relu(sum[n] K[m,n]*x[b,n]); L[(i k),(j l)] = C[i,j] * D[k,l]; "
    "y[b,p] = L[p,q] * z[b,q]",
}


def program_of(text: str) -> Program:
    return elaborate(parse_program(text.replace("; ", "\n")), {})


def table_text(choice: Choice) -> str:
    """Findings and candidates. Times have two digits, and decide the order as far as these tell."""
    lines = [f"{f.value} is {f.kind} in {f.argument or '-'} ({f.number})" for f in choice.findings]
    rows = sorted(
        ((float(f"{c.cost.nanoseconds / 1e3:.2g}"), c.cost.launches, c.name, c) for c in choice.candidates),
        key=lambda row: row[:3],
    )
    for time, launches, name, c in rows:
        also = "".join(f" = {other}" for other in c.also)
        lines.append(
            f"{time:9g} us {c.cost.flops:12d} flops {c.cost.bytes:12d} bytes {launches:3d} kernels  {name}{also}"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", TABLES)
def test_golden_tables(name: str, golden: Callable[[str, str], None]) -> None:
    text = table_text(table_of(program_of(TABLES[name])))
    assert "dense" in text
    golden(f"choice_{name}.txt", text)


def test_the_cheapest_is_chosen_and_dense_is_there() -> None:
    for text in TABLES.values():
        choice = table_of(program_of(text))
        times = [c.cost.nanoseconds for c in choice.candidates]
        assert times == sorted(times) and choice.chosen is choice.candidates[0]
        names = {n for c in choice.candidates for n in (c.name, *c.also)}
        assert {BEST, WRITTEN} <= names and any(DENSE in n for n in names)


def test_doubles_are_dropped() -> None:
    choice = table_of(program_of(TABLES["kronecker"]))
    assert len({c.program for c in choice.candidates}) == len(choice.candidates)
    assert WRITTEN in next(c for c in choice.candidates if c.name == BEST).also


def test_equal_times_are_decided_by_what_is_stored() -> None:
    class Flat:
        name = "flat"

        def price(self, program: Program, sizes: Mapping[str, int]) -> Cost:
            return Cost(nanoseconds=1.0)

    choice = choose(program_of(TABLES["toeplitz"]), Context(), Flat())
    stored = [c.stored for c in choice.candidates]
    assert stored == sorted(stored) and stored[0] == 0 < stored[-1]


def toeplitz(n: int, batch: int) -> Program:
    return program_of(f"t: f32[{2 * n - 1}]; x: f32[{batch},{n}]; y[b,i] = t[i-j+{n - 1}] * x[b,j]")


def test_the_choice_changes_with_the_sizes() -> None:
    small, large = (table_of(toeplitz(n, 4)).chosen for n in (16, 1 << 15))
    assert small.name == BEST and small.draft.finding is None
    assert large.draft.finding is not None and large.draft.finding.kind == "toeplitz" and large.name != "toeplitz"
    assert large.cost.flops < 2 * 4 * (1 << 30) / 8


def test_a_saving_in_flops_alone_does_not_decide() -> None:
    """A Kronecker product of two tiny factors on a large batch: one product with the formed matrix is faster."""
    text = "A: f32[4,4]; B: f32[4,4]; x: f32[4096,16]; K[(i k),(j l)] = A[i,j]*B[k,l]; y[b,m] = K[m,n] * x[b,n]"
    choice = table_of(program_of(text))
    factored = next(c for c in choice.candidates if c.name == "kronecker")
    assert choice.chosen.name in (BEST, DENSE) and factored.cost.flops < choice.chosen.cost.flops


# --- programs that are more than one product --------------------------------------------------------------------------

MIXED = {
    "bias": "t: f64[13]; x: f64[3,7]; c: f64[7]; y[b,i] = t[i-j+6]*x[b,j] + c[i]",
    "dense plus toeplitz": "W: f64[7,7]; t: f64[13]; x: f64[3,7]; y[b,i] = W[i,j]*x[b,j] + t[i-j+6]*x[b,j]",
    "a function of another operand": "t: f64[13]; x: f64[7]; c: f64[7]; "
    "y[i] = sum[j] t[i-j+6]*x[j]*exp(c[i]) + exp(c[i])",
    "two terms with methods": "t: f64[13]; u: f64[13]; W: f64[7,7]; x: f64[7]; "
    "y[i] = t[i-j+6]*x[j] - 2*u[i+j]*x[j] + W[i,j]*x[j]",
    "lets": "A: f64[3,3]; B: f64[4,4]; x: f64[2,12]; K[(i k),(j l)] = A[i,j]*B[k,l]; "
    "z[b,m] = relu(sum[n] K[m,n]*x[b,n]); y[b,p] = K[p,q]*z[b,q]",
    "two results": "t: f64[13]; x: f64[7]; y[i] = t[i-j+6]*x[j]; z[i] = y[i] + t[j-i+6]*x[j]",
    "mixed types": "t: f32[13]; x: f64[7]; y[i] = t[i-j+6]*x[j]",
    "half": "A: f16[3,3]; B: f16[4,4]; x: f16[12]; K[(i k),(j l)] = A[i,j]*B[k,l]; y[m] = K[m,n]*x[n]",
    "integers": "t: i32[13]; x: i32[7]; c: i32[7]; y[i] = t[i-j+6]*x[j] + c[i]",
    "maxplus": "t: f64[13]; x: f64[7]; y[i] = t[i-j+6]*x[j] over maxplus",
    "adding": "t: f64[13]; x: f64[7]; y[i] = x[i]; y[i] += t[i-j+6]*x[j]",
    "gated": "A: f64[3,3]; B: f64[4,4]; C: f64[3,3]; D: f64[4,4]; g: f64[2]; x: f64[3,4]; "
    "y[i,k] = g[0]*A[i,j]*B[k,l]*x[j,l] + g[1]*C[i,j]*D[k,l]*x[j,l]",
    "one row": "t: f64[7]; x: f64[7]; y[i] = t[i-j+6]*x[j] for i in 0..1",
    "size one": "t: f64[1]; x: f64[1]; y[i] = t[i-j]*x[j]",
}


@pytest.mark.parametrize("name", MIXED)
def test_candidates_of_mixed_programs_are_right(name: str) -> None:
    program = program_of(MIXED[name])
    given = typed_inputs(program)
    if any(i.dtype.kind == "i" for i in program.inputs):
        rng = np.random.default_rng(1)
        given = {i.name: rng.integers(-9, 9, given[i.name].shape, i.dtype.numpy) for i in program.inputs}
    wanted = interpret(program, given)
    for candidate in table_of(program).candidates:
        made = interpret(candidate.made, {}, {})
        check_program(candidate.program)
        got = interpret(candidate.program, {**given, **made}, {})
        for output in program.outputs:
            dtype = program.tensors[output].dtype
            # entries are sums of at most 40 products of at most 4 deviates below 8 and an exponential, twice rounded
            eps = 0.0 if dtype.kind == "i" else float(np.finfo(dtype.numpy).eps)
            error = np.abs(got[output].astype(float) - wanted[output].astype(float)).max(initial=0)
            assert error <= 2 * DEPTH * 40 * 8**3 * eps, (candidate.name, output)


def names_of(text: str) -> set[str]:
    return {n for c in table_of(program_of(text)).candidates for n in (c.name, *c.also)}


def test_a_value_with_an_offset_and_terms_of_a_sum_are_replaced() -> None:
    assert any("fft" in n for n in names_of(MIXED["bias"]))
    assert any("fft" in n for n in names_of(MIXED["dense plus toeplitz"]))
    assert any("fft" in n for n in names_of(MIXED["two terms with methods"]))
    assert any("fft" in n for n in names_of(MIXED["mixed types"]))
    assert any("fft" in n for n in names_of(MIXED["adding"]))
    assert not any("fft" in n for n in names_of(MIXED["maxplus"]) | names_of(MIXED["integers"]))


def test_several_values_are_replaced_together() -> None:
    chosen = table_of(program_of(TABLES["two_layers"])).chosen
    assert "y: kronecker" in chosen.name and "z.inner: kronecker" in chosen.name
    shapes = [prod(s.evaluate({}) for s in e.shape) for e in chosen.program.equations]
    assert max(shapes) <= 32 * 2304  # neither matrix is stored


# --- what needs no choice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A: f32[n,m]; x: f32[m]; y[i] = A[i,j] * x[j]", True),
        ("A: f32[n,m]; B: f32[m,k]; x: f32[k]; t[i] = B[i,j] * x[j]; y[i] = A[i,j] * t[j]", True),
        ("A: f32[n,n]; y[i] = A[i,i]", True),
        ("A: f32[n,m]; S[i,k] = A[i,j] * A[k,j]", False),
        ("t: f32[2*n-1]; x: f32[n]; y[i] = t[i-j+n-1] * x[j]", False),
        ("x: f32[n,m]; y[(i j)] = x[i,j]", False),
        ("x: f32[n]; y[i] = exp(x[i])", False),
        ("W: f32[n,n] diag; x: f32[n]; y[i] = W[i,j] * x[j]", False),
        ("A: f32[n,m]; x: f32[m]; c: f32[n]; y[i] = A[i,j] * x[j] + c[i]", False),
    ],
)
def test_what_can_only_be_a_contraction(text: str, answer: bool) -> None:
    assert can_only_contract(program_of(text)) is answer
