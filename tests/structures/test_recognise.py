"""Findings beyond the public cases: near misses, facts, declared structure, regions, sizes, and random networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.expr import Program
from stein.passes.canonical import views
from stein.passes.facts import rank_bound
from stein.passes.network import networks
from stein.passes.recognise import Declared, Finding, Proved, near_misses, recognise
from stein.tests.structures import cases, judge, oracle, randoms

NETWORKS = 300  # in CI; `make structures` at length


def _program(text: str) -> Program:
    return elaborate(parse_program(text), {})


def _kinds(text: str, argument: str | None = "x") -> list[str]:
    return [f.kind for f in recognise(_program(text), argument)]


def test_random_networks() -> None:
    tally = judge.judge_networks(NETWORKS, 11)
    assert not tally.wrong, tally.wrong[0]
    assert sum(tally.judged.values()) > NETWORKS / 10


@pytest.mark.parametrize(
    ("seed", "number"),
    [
        (0, 100041), (0, 100076), (0, 100078), (0, 100344), (0, 201190), (0, 201359), (0, 201974), (7, 1011), (7, 4859),
    ],
)  # fmt: skip
def test_networks_that_once_were_judged_wrong(seed: int, number: int) -> None:
    """Batches inside of batches, guards beside outer products, a digit twice in the argument, deltas in sums."""
    tally = judge.Tally()
    judge.judge_network(randoms.numbered_network(seed, number), tally)
    assert not tally.wrong, tally.wrong[0]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        ("15-", "low_rank", "rank 5 saves nothing"),
        ("13-", "btt", "rank 9 is not below"),
        ("42-", "linear", "occurs 2 times"),
        ("6-", "kronecker", "i stands in A and B"),
        ("7-", "kronecker", "j stands in A and B"),
        ("11-", "kronecker", "j stands in L and R"),
        ("28-", "toeplitz", "t is read at i-j+6 and u at i+j"),
    ],
)
def test_near_misses_have_a_reason(number: str, kind: str, words: str) -> None:
    case = next(c for c in cases.CASES if c.number == number)
    found = [n for n in near_misses(case.program, case.argument) if n.kind == kind]
    assert found and words in found[0].reason


def test_an_argument_inside_of_a_function_is_refused() -> None:
    program = _program("A: f64[4,4]; x: f64[4]; y[i] = exp(x[i])*A[i,i]*x[i]")
    assert not [f for f in recognise(program, "x") if f.argument == "x"]
    assert "inside of a function" in near_misses(program, "x")[0].reason


def test_symmetric_results() -> None:
    gram = "A: f64[4,5]; B: f64[4,5]; y[i,k] = A[i,j]*{}[k,j]"
    assert "symmetric" in _kinds(gram.format("A"), None)
    assert "symmetric" not in _kinds(gram.format("B"), None)
    assert "symmetric" not in _kinds("A: f64[4,4]; y[i,k] = A[i,k] + A[k,i]*A[i,i]", None)
    assert "symmetric" in _kinds("A: f64[4,4]; y[i,k] = A[i,k] + A[k,i]", None)
    assert "symmetric" not in _kinds("A: f64[4,4]; x: f64[4]; y[i,k] = A[i,k]*x[k]*x[i]", None)


def test_facts() -> None:
    gram = "A: f64[4,9]; x: f64[9]; y[i] = A[k,i]*A[k,j]*x[j]"
    assert {"rank", "symmetric_operator", "psd"} <= set(_kinds(gram))
    assert "psd" not in _kinds("A: f64[4,9]; D: f64[4]; x: f64[9]; y[i] = A[k,i]*D[k]*A[k,j]*x[j]")
    head = "P: f64[3,3] orthogonal; Q: f64[4,4] orthogonal; R: f64[4,4]; x: f64[3,4]; "
    assert "orthogonal" in _kinds(head + "y[i,k] = P[i,j]*Q[k,l]*x[j,l]")
    assert "orthogonal" not in _kinds(head + "y[i,k] = P[i,j]*R[k,l]*x[j,l]")
    permutations = "P, Q: f64[4,4] permutation; x: f64[4]; y[i] = P[i,j]*Q[k,j]*x[k]"
    assert {"orthogonal", "doubly_stochastic", "permutation"} <= set(_kinds(permutations))


@pytest.mark.parametrize("seed", range(30))
def test_rank_bounds(seed: int) -> None:
    """The minimal cut bounds the numeric rank from above; generic operands mostly reach it."""
    program = randoms.numbered_network(5, seed)
    (network,) = networks(program)
    found = views(network, "x")
    judged = judge.Judge(program, Finding("y", "rank", None, Proved("minimal cut"), argument="x"))
    if not any(v.batch for v in found):
        assert judge.rank_of(judged.flat) <= sum(rank_bound(v, v.rows, v.cols) for v in found)


def test_rank_bound_is_reached_by_generic_operands() -> None:
    program = _program("A: f64[4,5,2]; B: f64[2,3,5,6]; x: f64[6,3]; y[i,j] = A[i,j,r]*B[r,s,j,k]*x[k,s]")
    (network,) = networks(program)
    (view,) = views(network, "x")
    judged = judge.Judge(program, Finding("y", "rank", None, Proved("minimal cut"), argument="x"))
    assert rank_bound(view, view.rows, view.cols) == judge.rank_of(
        judged.matrix(judged.slices[0], judged.names, judged.rows)
    )


def test_declared_structure_is_found_and_marked() -> None:
    program = _program("W: f64[5,5] toeplitz; B: f64[3,4]; x: f64[5,4]; y[i,k] = W[i,j]*B[k,l]*x[j,l]")
    found = recognise(program, "x")[0]
    assert found.kind == "kronecker" and found.options["factors"] == ("toeplitz", "dense")
    alone = recognise(_program("W: f64[5,6] toeplitz; x: f64[5]; y[i] = W[j,i]*x[j]"), "x")[0]
    assert alone.kind == "toeplitz" and isinstance(alone.evidence, Declared)
    assert alone.term is not None and len(alone.term.methods()) > 1
    rng = np.random.default_rng(0)
    given = {"W": np.array([[rng.standard_normal()] * 6] * 5), "x": rng.standard_normal(5)}
    diagonals = rng.standard_normal(10)
    given["W"] = np.array([[diagonals[i - j + 5] for j in range(6)] for i in range(5)])
    oracle.check_term(_program("W: f64[5,6] toeplitz; x: f64[5]; y[i] = W[j,i]*x[j]"), alone, given)


@pytest.mark.parametrize(("text", "kind"), [("y[i] = z[i]^j*x[j]", False), ("y[j] = z[i]^j*x[i]", True)])
def test_vandermonde(text: str, kind: bool) -> None:
    program = _program(f"z: f64[4]; x: f64[4]; {text} for i in 0..4, j in 0..4")
    found = recognise(program, "x")[0]
    assert found.kind == "vandermonde" and found.options.get("transposed", False) == kind
    oracle.check_term(program, found, oracle.random_inputs(program))


def test_multiples_of_the_identity_are_not_the_identity() -> None:
    for text in ("x: f64[4]; y[i] = 2*x[i]", "a: f64; x: f64[4]; y[i] = a*x[i]"):
        program = _program(text)
        found = recognise(program, "x")[0]
        assert found.kind == "scaled_identity"
        oracle.check_term(program, found, oracle.random_inputs(program))
    scaled = _program("a: f64; A: f64[2,3]; B: f64[4,5]; x: f64[3,5]; y[i,k] = a*A[i,j]*B[k,l]*x[j,l]")
    found = recognise(scaled, "x")[0]
    assert found.kind == "kronecker"
    oracle.check_term(scaled, found, oracle.random_inputs(scaled))


def test_block_sparse_is_found_in_any_order() -> None:
    text = "E: f64[4,5] mask; B: f64[5,3,2]; F: f64[6,5] mask; x: f64[6,2]; y[I,a] = B[s,a,b]*E[I,s]*F[J,s]*x[J,b]"
    program = _program(text)
    structure = next(i.structure[0] for i in program.inputs if i.name == "E")
    selection = (replace(structure, name="selection"),)
    inputs = (replace(i, structure=selection) if i.structure else i for i in program.inputs)
    found = recognise(replace(program, inputs=tuple(inputs)), "x")[0]
    assert found.kind == "block_sparse" and found.options["blocks"] == 5


def test_lists_of_places_are_selections() -> None:
    """Block lists, coordinate lists and gathers, as comparisons with index values."""
    head = "I, J: i64[5]; x: f64[3,4,2]; W: f64[5,2,2]; "
    blocks = head + "y[t,i,a] = (I[s] == i)*W[s,a,c]*(J[s] == j)*x[t,j,c] for i in 0..4"
    assert _kinds(blocks)[0] == "block_sparse"
    assert {f.argument for f in recognise(_program(blocks))} <= {"x", "W"}
    entries = "I, J: i64[5]; v: f64[5]; x: f64[3,4]; y[t,i] = (I[s] == i)*v[s]*(J[s] == j)*x[t,j] for i in 0..4"
    assert _kinds(entries)[0] == "sparse"
    gathers = "P: i64[6,4]; w: f64[6]; x: f64[4,5]; y[i,c] = w[p]*(P[p,i] == j)*x[j,c]"
    assert _kinds(gathers)[0] == "selection_sum_of"


def test_values_that_were_inlined_are_looked_at_where_nothing_else_is_found() -> None:
    head = "W: f64[8,3,4]; R: f64[3,4,4]; x: f64[5,3,4]; "
    program = _program(head + "z[t,g,i] = R[g,i,j]*x[t,g,j]; y[t,o] = W[o,g,i]*z[t,g,i]")
    found = {(f.value, f.argument, f.kind) for f in recognise(program) if f.term is not None}
    assert ("z", "x", "block_diagonal") in found
    monarch = "L: f64[4,6,3]; R: f64[3,4,5]; x: f64[3,5]; t[k,j] = R[k,j,i]*x[k,i]; y[l,j] = L[j,l,k]*t[k,j]"
    assert {f.value for f in recognise(_program(monarch), "x")} == {"y"}


def test_facts_follow_from_how_a_value_is_composed() -> None:
    text = "P: f64[3,3] orthogonal; Q: f64[4,4] permutation; x: f64[12]; y = kron(P, Q)' @ x"
    assert "orthogonal" in _kinds(text)
    assert "symmetric_operator" in _kinds(
        "S: f64[5,5] symmetric; A: f64[3,3] symmetric; x: f64[15]; y = kron(S, A) @ x"
    )
    band = "a: f64[-1..2,9]; x: f64[9] pad=0; y[i] = a[d,i]*x[i+d] for i in 0..9"
    assert "orthogonal" not in _kinds(band)
    assert "psd" not in _kinds("A: c128[4,9]; x: c128[9]; y[i] = A[k,i]*A[k,j]*x[j]")


def test_every_region_of_a_nonlinear_program_is_looked_at() -> None:
    text = (
        "A: f64[4,5]; B: f64[6,7]; V: f64[4,6,3,2]; x: f64[5,7]; "
        "z[i,k] = A[i,j]*B[k,l]*x[j,l]; h[i,k] = relu(z[i,k]); U: f64[9,2]; T: f64[2,24]; "
        "y[o] = U[o,r]*T[r,(i k)]*h[i,k]"
    )
    program = _program(text)
    found = {(f.value, f.argument): f.kind for f in recognise(program) if f.term is not None}
    assert found["z", "x"] == "kronecker"
    assert found["y", "h"] == "low_rank"


def test_sizes_that_are_not_known() -> None:
    """A claim holds for every size, or is not made."""
    assert _kinds("c, x: f64[n]; y[i] = c[(i-j) mod n]*x[j]") == ["circulant"]
    assert _kinds("c: f64[m]; x: f64[n]; y[i] = c[(i-j) mod m]*x[j] for i in 0..n") == ["toeplitz"]
    assert "kronecker" in _kinds("y[i,k] = A[i,j]*B[k,l]*x[j,l]")
    low = "U: f64[n,r]; V: f64[r,n]; x: f64[n]; y[i] = U[i,s]*V[s,j]*x[j]"
    assert "low_rank" not in _kinds(low)
    assert recognise(_program(low), "x", {"n": 64, "r": 4})[0].kind == "low_rank"


def test_the_primary_argument_comes_first() -> None:
    found = recognise(_program("U: f64[9,2]; V: f64[2,9]; x: f64[9]; y[i] = U[i,r]*V[r,j]*x[j]"))
    assert found[0].argument == "x" and found[0].kind == "low_rank"


def test_semirings() -> None:
    """Structure that needs no subtraction is found in every semiring."""
    assert _kinds("A: f64[2,3]; B: f64[4,5]; x: f64[3,5]; y[i,k] = A[i,j]*B[k,l]*x[j,l] over maxplus")[0] == "kronecker"


def test_what_is_read_on_a_diagonal_is_no_toeplitz_operand() -> None:
    text = "C: f64[6]; x: f64[3,3]; d: f64[3]; y[j] = C[k+j]*x[k,k]*d[k]"
    for finding in recognise(_program(text), "x"):
        assert finding.term is None or finding.term.operator().size == (4, 9), finding.kind
