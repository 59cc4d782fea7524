"""Declared structure: terms read from the stored array, found through products and sums, right in every program.

Bounds are normwise: a result is a sum of n products through a chain of at most `DEPTH` sums (Fourier methods add
factors of log n, which stay below that), so |error| <= DEPTH * n * eps * |W| |x|.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

import stein
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.check import check_program
from stein.ir.expr import Program
from stein.ir.interpret import interpret
from stein.ir.semiring import MAX_PLUS, PLUS_TIMES, Semiring
from stein.ir.structures import Banded, Structure, Triangular
from stein.ir.structures.build import Run
from stein.ir.structures.declared import StoredVandermonde, stated
from stein.ir.structures.slot import Slot
from stein.ir.types import C128, F32, F64, I64, DType
from stein.passes.recognise import Declared, Finding, Proved, near_misses, recognise
from stein.passes.structured import rewritten
from stein.runtime.verify import sylvester

Array = Any
DEPTH = 32


def conforming(kind: str, n: int, m: int, seed: int = 0, dtype: DType = F64) -> Array:
    """A random matrix with the structure."""
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> Array:
        if dtype.kind in "iu":
            return rng.integers(1, 9, shape).astype(dtype.numpy)
        value = rng.standard_normal(shape)
        return (value + 1j * rng.standard_normal(shape) if dtype.kind == "c" else value).astype(dtype.numpy)

    i, j = np.indices((n, m))
    t, dense = random(n + m), random(n, m)
    name, _, options = kind.partition("(")
    if name == "banded":
        lo, hi = (int(part.split("=")[1]) for part in options[:-1].split(","))
        return dense * ((i - j <= lo) & (j - i <= hi))
    if name == "blockdiag":
        p, q = (int(v) for v in options[len("block=") : -1].strip("()").split(","))
        return dense * (i // p == j // q)
    made = {
        "diag": lambda: dense * (i == j),
        "lower": lambda: dense * (i >= j),
        "upper": lambda: dense * (i <= j),
        "toeplitz": lambda: t[i - j + m],
        "hankel": lambda: t[i + j],
        "circulant": lambda: t[(i - j) % n],
        "hadamard": lambda: sylvester(n),
        "vandermonde": lambda: rng.uniform(0.5, 1, (n, 1)) ** np.arange(m),
        "permutation": lambda: np.eye(n)[rng.permutation(n)],
        "orthogonal": lambda: np.linalg.qr(rng.standard_normal((n, n)))[0],
        "symmetric": lambda: dense + dense.T,
        "mask": lambda: rng.integers(0, 2, (n, m)),
        "lowrank": lambda: random(n, 2) @ random(2, m),
        "monarch": lambda: np.kron(random(n // 2, m // 2), random(2, 2)),
        "bsr": lambda: dense * rng.integers(0, 2, (n // 2, m // 2)).repeat(2, 0).repeat(2, 1),
        "psd": lambda: dense @ dense.T,
        "doubly_stochastic": lambda: np.eye(n) / 2 + np.eye(n)[::-1] / 2,
    }
    return np.asarray(made[name]()).astype(dtype.numpy)


def term(kind: str, n: int, m: int) -> Structure | None:
    """The term of a declaration."""
    structure = elaborate(parse_program(f"W: f64[{n},{m}] {kind}; y[i,j] = W[i,j]"), {}).inputs[0].structure[0]
    options: dict[str, tuple[int, ...]] = {}
    for key, value in structure.options:
        options[key] = (*options.get(key, ()), value.evaluate({}))
    return stated({structure.name: options}, (n, m), "W")


def broken(structure: Structure, w: Array, dtype: DType, semiring: Semiring = PLUS_TIMES) -> list[str]:
    """The methods (and "dense") that are not the matrix w, by the interpreter."""
    dense = structure.dense(dtype, semiring)
    check_program(dense)
    operands = {i.name: w for i in dense.inputs}
    found = interpret(dense, operands)[dense.outputs[0]].reshape(w.shape if not _turned(structure) else w.T.shape)
    w = w.T if _turned(structure) else w
    bad = [] if np.array_equal(found, w) else ["dense"]
    x = conforming("lowrank(r=2)", 3, w.shape[1], 7, dtype)
    for method, program in zip(structure.methods(), structure.applies((3,), dtype, semiring), strict=False):
        check_program(program)
        given = {i.name: operands.get(i.name, x.reshape(3, *structure.operator().shape[1])) for i in program.inputs}
        y = interpret(program, given)[program.outputs[0]].reshape(3, -1)
        if semiring == MAX_PLUS:
            right = np.array_equal(y, (x[:, None, :] + w).max(-1))
        elif dtype.kind == "i":
            right = np.array_equal(y, x @ w.T)
        else:
            scale = np.abs(w).sum(1).max() * np.abs(x).max()
            right = np.abs(y - x @ w.T).max() <= DEPTH * w.shape[1] * np.finfo(dtype.numpy).eps * scale
        if not right:
            bad.append(method.name)
    return bad


def _turned(structure: Structure) -> bool:
    return bool(getattr(structure, "turned", False))


SQUARES = [1, 2, 5, 8, 13]
SHAPES = [(1, 1), (1, 5), (5, 1), (7, 4), (4, 7), (8, 8), (13, 11)]
STATED = {
    "diag": [(n, n) for n in SQUARES],
    "circulant": [(n, n) for n in SQUARES],
    "toeplitz": SHAPES,
    "hankel": SHAPES,
    "banded(lo=1, hi=0)": [(7, 4), (4, 7), (8, 8), (13, 11), (40, 37)],
    "banded(lo=0, hi=0)": [(8, 8), (7, 4)],
    "banded(lo=2, hi=3)": [(8, 8), (13, 11), (37, 40)],
    "blockdiag(block=(2,2))": [(4, 4), (8, 8)],
    "blockdiag(block=(2,3))": [(4, 6), (10, 15)],
    "blockdiag(block=(1,1))": [(5, 5)],
    "lower": SHAPES,
    "upper": SHAPES,
}


@pytest.mark.parametrize("dtype", [F32, F64, C128, I64], ids=str)
@pytest.mark.parametrize("kind", STATED)
def test_laws(kind: str, dtype: DType) -> None:
    for n, m in STATED[kind]:
        structure = term(kind, n, m)
        assert structure is not None, (n, m)
        assert not broken(structure, conforming(kind, n, m, 1, dtype), dtype), (n, m)


@pytest.mark.parametrize("kind", ["toeplitz", "hankel", "circulant"])
def test_equal_entries_need_no_ring(kind: str) -> None:
    for n, m in STATED[kind]:
        structure = term(kind, n, m)
        assert structure is not None
        assert not broken(structure, np.round(conforming(kind, n, m) * 8), F64, MAX_PLUS)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_vandermonde_laws(shape: tuple[int, int], turned: bool) -> None:
    w = conforming("vandermonde", *shape)
    structure = StoredVandermonde(*shape, "W", turned)
    assert not broken(structure, w, F64)
    assert not broken(structure, np.asarray(np.arange(1, shape[0] + 1)[:, None] ** np.arange(shape[1])), I64)


def test_no_term_where_it_does_not_fit_or_saves_nothing() -> None:
    assert stated({"circulant": {}}, (3, 4), "W") is None
    assert stated({"diag": {}}, (3, 4), "W") is None
    assert stated({"banded": {"lo": (3,), "hi": (4,)}}, (8, 8), "W") is None
    assert stated({"blockdiag": {"block": (3,)}}, (8, 8), "W") is None
    assert stated({"blockdiag": {"block": (8,)}}, (8, 8), "W") is None
    assert stated({"toeplitz": {}}, (0, 4), "W") is None
    assert stated({"symmetric": {}, "mask": {}}, (4, 4), "W") is None


def test_two_declarations_of_one_matrix() -> None:
    both = stated({"lower": {}, "banded": {"lo": (2,), "hi": (5,)}}, (8, 8), "W")
    assert both is not None and both.of.upper == 0  # type: ignore[attr-defined]


# --- planted ----------------------------------------------------------------------------------------------------------


def test_a_broken_method_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = term("banded(lo=1, hi=1)", 37, 40)
    w = conforming("banded(lo=1, hi=1)", 37, 40)
    assert structure is not None and not broken(structure, w, F64)
    good = Banded._blocked

    def off(self: Banded, size: int) -> Run:
        return good(Banded(self.rows, self.cols, self.lower + 1, self.upper - 1, self.name, self.by_rows), size)

    monkeypatch.setattr(Banded, "_blocked", off)
    assert broken(structure, w, F64) == [m.name for m in structure.methods() if "blocks" in m.name]


def test_a_triangle_with_the_wrong_guard_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = Triangular(8, 8, False, "W")
    w = np.tril(conforming("toeplitz", 8, 8))

    def strict(self: Triangular, i: Slot, j: Slot) -> Slot:
        return i.plus(j, -1).plus(Slot((), -1))

    extra = structure.extra()
    monkeypatch.setattr(Triangular, "_guard", strict)
    assert "dense" in broken(structure, w, F64)
    monkeypatch.undo()
    monkeypatch.setattr(Triangular, "_squares", lambda self, b, x, count, size: None)
    assert len(broken(structure, w, F64)) == len(extra)


def test_wrong_generators_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    structure = term("toeplitz", 5, 7)
    assert structure is not None
    wrong = conforming("toeplitz", 5, 7)
    wrong[2, 3] += 1  # not conforming: the term is another matrix
    assert "dense" in broken(structure, wrong, F64)


# --- in programs ------------------------------------------------------------------------------------------------------


def program(text: str) -> Program:
    return elaborate(parse_program(text), {})


def whole(text: str) -> list[Finding]:
    """What is found of y as a whole, as a function of x."""
    return [f for f in recognise(program(text), "x") if f.number is None and f.term is not None]


EXPECTED = {
    "diag": ("diagonal", ()),
    "toeplitz": ("toeplitz", ("fft",)),
    "hankel": ("hankel", ("fft",)),
    "circulant": ("circulant", ("fft",)),
    "banded(lo=1, hi=1)": ("banded", ("diagonals", "blocks of 8 rows")),
    "blockdiag(block=(2,2))": ("block_diagonal", ()),
    "lower": ("lower", ("halved 1 time", "halved 2 times")),
    "upper": ("upper", ("halved 1 time", "halved 2 times")),
    "hadamard": ("hadamard", ("reshaped butterfly",)),
    "vandermonde": ("vandermonde", ("powers of powers",)),
    "permutation": ("permutation", ()),
}
TURNED = {"lower": "upper", "upper": "lower"}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", EXPECTED)
def test_found_with_evidence_at_the_declaration(kind: str, turned: bool) -> None:
    text = f"W: f64[16,16] {kind}; x: f64[16]; y = {'W' + chr(39) if turned else 'W'} @ x"
    found = whole(text)[0]
    wanted, methods = EXPECTED[kind]
    assert found.kind == (TURNED.get(wanted, wanted) if turned else wanted)
    assert found.term is not None
    assert set(methods) <= {m.name for m in found.term.methods()}
    assert isinstance(found.evidence, Declared)
    if kind != "permutation":
        span = found.evidence.span
        assert text[span.start : span.end] == kind


def test_what_follows_from_the_expression_is_proved() -> None:
    text = "A: f64[2,3]; B: f64[4,5]; S: f64[4,4] symmetric; x: f64[3,5]; y[i,k] = A[i,j]*B[k,l]*x[j,l]"
    assert isinstance(whole(text)[0].evidence, Proved)


@pytest.mark.parametrize("kind", ["lowrank(r=2)", "monarch(b=2)", "bsr(block=2)"])
def test_what_needs_a_factorisation_is_a_near_miss_with_the_reason(kind: str) -> None:
    text = f"W: f64[8,8] {kind}; x: f64[8]; y = W @ x"
    assert not whole(text)
    assert any("a constant only" in n.reason for n in near_misses(program(text), "x"))


def test_under_another_semiring_zeros_are_no_zeros() -> None:
    for kind in ("diag", "banded(lo=1, hi=1)", "lower", "blockdiag(block=2)", "permutation"):
        head = f"W: f64[8,8] {kind}; x: f64[8]; y[i] = W[i,j]*x[j]"
        assert not whole(f"{head} over maxplus"), kind
        assert whole(f"{head} over maxtimes") or kind == "permutation", kind
    assert whole("W: f64[8,8] toeplitz; x: f64[8]; y[i] = W[i,j]*x[j] over maxplus")[0].kind == "toeplitz"
    assert whole("W: bool[8,8] diag; x: bool[8]; y[i] = W[i,j]*x[j] over boolean")[0].kind == "diagonal"


def check_rewritten(text: str, given: dict[str, Array], wanted: Array, least: int = 1) -> set[str]:
    """Every program that a finding offers computes `wanted`; gives the names of the methods."""
    p, names = program(text), set[str]()
    scale = prod(max(1.0, float(np.abs(v).sum(-1).max())) for v in given.values())
    size = max(v.shape[-1] for v in given.values())
    for finding in recognise(p, "x"):
        if finding.term is not None:
            for name, other in rewritten(p, finding):
                check_program(other)
                got = interpret(other, given)[other.outputs[0]]
                assert np.abs(got - wanted).max() <= DEPTH * size * np.finfo(float).eps * scale, name
                names.add(name)
    assert len(names) >= least, "no program came of it"
    return names


FORMS = {
    "y = W @ x": (lambda w, x: w @ x[0], "16"),
    "y = W' @ x": (lambda w, x: w.T @ x[0], "16"),
    "y = 3*W @ x": (lambda w, x: 3 * w @ x[0], "16"),
    "y[b,i] = W[i,j]*x[b,j]": (lambda w, x: x @ w.T, "3,16"),
    "y[i,b] = W[j,i]*x[b,j]": (lambda w, x: (x @ w).T, "3,16"),
    "y[b,(i k)] = W[(i k),(j l)]*x[b,j,l] for i in 0..4, k in 0..4": (lambda w, x: x @ w.T, "3,4,4"),
    "y[b,i] = W[i,j]*x[b,j] + x[b,i]": (lambda w, x: x @ w.T + x, "3,16"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", EXPECTED)
def test_every_form_of_a_product(kind: str, form: str) -> None:
    w = conforming(kind, 16, 16)
    x = np.random.default_rng(1).standard_normal((3, 16))
    value, shape = FORMS[form]
    given = {"W": w, "x": x[0] if shape == "16" else x.reshape([int(n) for n in shape.split(",")])}
    text = f"W: f64[16,16] {kind}; x: f64[{shape}]; {form}"
    check_rewritten(text, given, value(w, x))
    f = stein.compile(text)
    scale = DEPTH * 16 * np.finfo(float).eps * np.abs(w).sum(1).max() * np.abs(x).max() * 4
    assert np.abs(f(**given) - value(w, x)).max() <= scale


@pytest.mark.parametrize("kind", [k for k in EXPECTED if k not in ("hadamard", "vandermonde", "permutation")])
def test_a_batch_of_matrices(kind: str) -> None:
    w = np.stack([conforming(kind, 16, 16, seed) for seed in range(3)])
    x = np.random.default_rng(1).standard_normal((3, 16))
    for slots, value in (("i,j", np.einsum("gij,gj->gi", w, x)), ("j,i", np.einsum("gji,gj->gi", w, x))):
        text = f"W: f64[3,16,16] {kind}; x: f64[3,16]; y[g,i] = W[g,{slots}]*x[g,j]"
        check_rewritten(text, {"W": w, "x": x}, value)
        f = stein.compile(text)
        assert np.abs(f(W=w, x=x) - value).max() <= DEPTH * 16 * np.finfo(float).eps * np.abs(w).sum(-1).max() * 4


PAIRS = [
    "diag",
    "toeplitz",
    "circulant",
    "banded(lo=1, hi=0)",
    "blockdiag(block=(2,2))",
    "lower",
    "upper",
    "hadamard",
    "permutation",
    "dense",
]


@pytest.mark.parametrize("first", PAIRS)
def test_products_sums_and_kroneckers_of_two_stay_structured(first: str) -> None:
    n = 8
    rng = np.random.default_rng(2)
    for second in PAIRS:
        if (first, second) == ("dense", "dense"):
            continue
        words = ["" if k == "dense" else k for k in (first, second)]
        kinds = ["lowrank(r=2)" if k == "dense" else k for k in (first, second)]
        a, b = (conforming(k, n, n, s) for s, k in enumerate(kinds))
        x, z = rng.standard_normal(n), rng.standard_normal(n * n)
        head = f"A: f64[{n},{n}] {words[0]}; B: f64[{n},{n}] {words[1]}; "
        check_rewritten(f"{head}x: f64[{n}]; y = A @ B @ x", {"A": a, "B": b, "x": x}, a @ (b @ x))
        check_rewritten(f"{head}x: f64[{n}]; y = A' @ B @ x", {"A": a, "B": b, "x": x}, a.T @ (b @ x))
        check_rewritten(f"{head}x: f64[{n * n}]; y = kron(A, B) @ x", {"A": a, "B": b, "x": z}, np.kron(a, b) @ z)
        text = f"{head}x: f64[{n}]; y = (2*A - B) @ x"
        check_rewritten(text, {"A": a, "B": b, "x": x}, 2 * (a @ x) - b @ x)


KINDS_OF_PRODUCTS = [
    ("diag", "banded(lo=1, hi=1)", "banded"),
    ("banded(lo=1, hi=0)", "banded(lo=0, hi=1)", "banded"),
    ("lower", "lower", "lower"),
    ("diag", "lower", "lower"),
    ("circulant", "circulant", "circulant"),
    ("blockdiag(block=2)", "blockdiag(block=2)", "block_diagonal"),
    ("diag", "blockdiag(block=2)", "block_diagonal"),
    ("permutation", "permutation", "permutation"),
    ("diag", "diag", "diagonal"),
    ("lower", "upper", "product"),
]


@pytest.mark.parametrize(("first", "second", "kind"), KINDS_OF_PRODUCTS)
def test_kinds_of_products(first: str, second: str, kind: str) -> None:
    text = f"A: f64[8,8] {first}; B: f64[8,8] {second}; x: f64[8]; y = A @ B @ x"
    found = whole(text)
    assert found[0].kind == kind and isinstance(found[0].evidence, Declared)


def test_only_what_the_structure_has_is_read() -> None:
    """Entries that a structure says nothing of may be anything: no method of a finding reads them."""
    n = 16
    i, j = np.indices((n, n))
    x = np.random.default_rng(4).standard_normal(n)
    read = {
        "diag": i == j,
        "banded(lo=1, hi=1)": abs(i - j) <= 1,
        "blockdiag(block=(2,2))": i // 2 == j // 2,
        "toeplitz": (i == 0) | (j == 0),
        "hankel": (i == n - 1) | (j == 0),
        "circulant": j == 0,
    }
    for kind, inside in read.items():
        w = conforming(kind, n, n)
        p = program(f"W: f64[{n},{n}] {kind}; x: f64[{n}]; y = W @ x")
        (finding,) = [f for f in recognise(p, "x") if f.number is None and f.term is not None]
        for name, other in rewritten(p, finding):
            got = interpret(other, {"W": np.where(inside, w, np.nan), "x": x})["y"]
            assert np.abs(got - w @ x).max() <= DEPTH * n * np.finfo(float).eps * np.abs(w).sum(1).max() * 4, (
                kind,
                name,
            )


def test_sizes_that_the_call_gives() -> None:
    for kind in ("toeplitz", "banded(lo=1, hi=1)", "lower", "diag", "circulant", "blockdiag(block=2)"):
        f = stein.compile(f"W: f64[n,n] {kind}; y[b,i] = W[i,j]*x[b,j]", dtype="f64")
        for n in (2, 6, 40, 0) if kind != "blockdiag(block=2)" else (2, 6, 40):
            w = conforming(kind.replace("=2", "=(2,2)"), n, n) if n else np.zeros((0, 0))
            x = np.random.default_rng(n).standard_normal((5, n))
            bound = DEPTH * n * np.finfo(float).eps * (np.abs(w).sum(1).max() * np.abs(x).max() if n else 0)
            assert np.abs(f(W=w, x=x) - x @ w.T).max(initial=0) <= bound, (kind, n)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "i4", "i8"])
@pytest.mark.parametrize(
    "kind", ["toeplitz", "circulant", "banded(lo=2, hi=1)", "lower", "diag", "hadamard", "blockdiag(block=(2,2))"]
)
def test_element_types(kind: str, dtype: str) -> None:
    kinds = {"f": F64, "c": C128, "i": I64}
    w = conforming(kind, 32, 32, 3, kinds[dtype[0]]).astype(dtype)
    x = conforming("lowrank(r=2)", 5, 32, 4, kinds[dtype[0]]).astype(dtype)
    f = stein.compile(
        f"W: f64[32,32] {kind}; x: f64[5,32]; y[b,i] = W[i,j]*x[b,j]".replace("f64", np.dtype(dtype).name)
    )
    got, wanted = f(W=w, x=x), x @ w.T
    if dtype[0] == "i":
        assert np.array_equal(got, wanted)
    else:
        scale = np.abs(w).sum(1).max() * np.abs(x).max()
        assert np.abs(got - wanted).max() <= DEPTH * 32 * np.finfo(dtype).eps * scale


def test_a_declaration_is_trusted_and_never_crashes() -> None:
    rng = np.random.default_rng(9)
    w, x = rng.standard_normal((16, 16)), rng.standard_normal((3, 16))
    for kind in [*EXPECTED, "lowrank(r=2)", "monarch(b=4)", "bsr(block=4)", "orthogonal", "psd", "mask"]:
        f = stein.compile(f"W: f64[16,16] {kind}; x: f64[3,16]; y[b,i] = W[i,j]*x[b,j]")
        assert f(W=w, x=x).shape == (3, 16)


@pytest.mark.parametrize("word", ["identity", "zeros", "ones"])
def test_matrices_that_are_known_without_a_value(word: str) -> None:
    known = {"identity": np.eye(6), "zeros": np.zeros((6, 6)), "ones": np.ones((6, 6))}[word]
    a, x = np.arange(36.0).reshape(6, 6), np.arange(6.0)
    f = stein.compile(f"I: {word} f64[6,6]; A: f64[6,6]; x: f64[6]; y = (A + 2*I) @ x; z[i] = I[i,j]*x[j]")
    got = f(A=a, x=x)
    assert np.array_equal(got["y"], (a + 2 * known) @ x) and np.array_equal(got["z"], known @ x)


def test_findings_hold_for_every_size_that_fits_the_declaration() -> None:
    for kind in ("toeplitz", "banded(lo=1, hi=1)", "lower", "diag", "circulant", "blockdiag(block=4)"):
        found = whole(f"W: f64[n,n] {kind}; x: f64[n]; y = W @ x")
        assert found and found[0].kind == {"blockdiag(block=4)": "block_diagonal", "diag": "diagonal"}.get(
            kind, kind.partition("(")[0]
        )


def test_facts_of_declared_operands_reach_the_value() -> None:
    kinds = {
        f.kind
        for f in recognise(program("Q: f64[4,4] orthogonal; P: f64[4,4] permutation; x: f64[4]; y = Q @ P @ x"), "x")
    }
    assert "orthogonal" in kinds
    stochastic = (
        "A: f64[2,2] doubly_stochastic; B: f64[3,3] doubly_stochastic; x: f64[2,3]; y[i,k] = A[i,j]*B[k,l]*x[j,l]"
    )
    assert "doubly_stochastic" in {f.kind for f in recognise(program(stochastic), "x")}
    unit = "v: f64[8] unit; x: f64[8]; y[i] = x[i] - 2*v[i]*v[j]*x[j]"
    assert whole(unit)[0].kind == "householder"
