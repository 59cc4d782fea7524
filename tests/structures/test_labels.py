"""The canonical label: equal for what differs in spelling only, different for what differs; and quick."""

from __future__ import annotations

from typing import Any

import pytest

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.expr import Program
from stein.passes import canonical_label as canonical_label_module
from stein.passes.canonical import canonical_label, pinned_label
from stein.tests.structures import cases
from stein.tests.structures.variants import Subject, changed, subjects

PER_CASE = 8  # variants in CI; `make structures` at length


def _program(text: str) -> Program:
    return elaborate(parse_program(text), {})


def _label(text: str) -> str:
    return canonical_label(_program(text))


@pytest.mark.parametrize("subject", subjects(), ids=lambda s: s.name)
def test_variants(subject: Subject) -> None:
    """Names, order, storage order and nesting change neither the label nor what is found."""
    assert not [k for k in range(PER_CASE) if changed(subject, 7, k)]


def test_equal_cases_have_one_label() -> None:
    by_number = {c.number: canonical_label(c.program) for c in cases.CASES}
    assert by_number["1"] == by_number["2"] == by_number["4"]
    assert by_number["5"] == by_number["5b"]
    assert by_number["9"] == by_number["10"]
    assert len(set(by_number.values())) > len(by_number) - 12


HEAD = "A: f64[4,5]; B: f64[4,5]; x: f64[5,5]; "
TOEPLITZ = "t: f64[7]; x: f64[4]; "
SQUARE = "A, B: f64[4,4]; x: f64[4]; "


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (HEAD + "y[i,k] = A[i,j]*A[k,l]*x[j,l]", HEAD + "y[i,k] = A[i,j]*B[k,l]*x[j,l]"),
        (SQUARE + "y[i] = A[i,j]*A[j,k]*x[k]", SQUARE + "y[i] = A[i,j]*A[k,j]*x[k]"),
        (SQUARE + "y[i] = A[i,j]*x[j]", SQUARE + "y[i] = 2*A[i,j]*x[j]"),
        (SQUARE + "y[i] = A[i,j]*x[j]", "A: f64[4,3]; x: f64[3]; y[i] = A[i,j]*x[j]"),
        (SQUARE + "y[i] = A[i,j]*x[j]", SQUARE + "y[i] = A[i,j]*x[j] over maxplus"),
        (TOEPLITZ + "y[i] = t[i-j+3]*x[j] for i in 0..4", TOEPLITZ + "y[i] = t[i+j]*x[j] for i in 0..4"),
        (SQUARE + "z[i] = A[i,j]*x[j]; y[i] = relu(z[i])", SQUARE + "z[i] = A[i,j]*x[j]; y[i] = exp(z[i])"),
        (SQUARE + "z[i] = A[i,j]*x[j]; y[i] = relu(z[i])", SQUARE + "z[i] = A[i,j]*B[j,k]*x[k]; y[i] = relu(z[i])"),
    ],
)  # fmt: skip
def test_different(first: str, second: str) -> None:
    assert _label(first) != _label(second)


def test_names_of_what_is_not_linear() -> None:
    first = SQUARE + "z[i] = A[i,j]*x[j]; y[i] = relu(z[i])*B[i,i]"
    second = "C, D: f64[4,4]; v: f64[4]; w[k] = C[k,p]*v[p]; u[q] = D[q,q]*relu(w[q])"
    assert _label(first) == _label(second)


def test_pinned_labels_keep_names_and_storage() -> None:
    base = pinned_label(_program(SQUARE + "y[i] = A[i,j]*B[j,k]*x[k]"))
    assert base == pinned_label(_program(SQUARE + "y[p] = B[q,r]*x[r]*A[p,q]"))
    assert base != pinned_label(_program(SQUARE + "y[i] = B[i,j]*A[j,k]*x[k]"))
    assert base != pinned_label(_program(SQUARE + "y[i] = A[j,i]*B[j,k]*x[k]"))


def _refinements(program: Program, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the search for the label made a node special: what symmetry costs, without a clock."""
    made: list[int] = []
    special = canonical_label_module._Search.special

    def counted(self: Any, u: int, *rest: Any) -> Any:
        made.append(u)
        return special(self, u, *rest)

    monkeypatch.setattr(canonical_label_module._Search, "special", counted)
    canonical_label(program)
    return len(made)


TEN = "a,b,c,d,e,f,g,h,p,q"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (f"{TEN}: f64[5]; y = sum[i,j,k,l,m,n,o,r,s,t](a[i]*b[j]*c[k]*d[l]*e[m]*f[n]*g[o]*h[r]*p[s]*q[t])", 0),
        (f"{TEN}: f64[5,5]; y = a[i,j]*b[j,k]*c[k,l]*d[l,m]*e[m,n]*f[n,o]*g[o,r]*h[r,s]*p[s,t]*q[t,i]", 6),
        (
            f"{TEN}: f64[5,5,5]; y = a[i0,i5,i4]*b[i0,i6,i1]*c[i1,i7,i2]*d[i2,i8,i3]*e[i3,i9,i4]*f[i5,j0,j3]"
            "*g[i6,j1,j4]*h[i7,j2,j0]*p[i8,j3,j1]*q[i9,j4,j2]",  # Petersen's graph
            27,
        ),
        (f"{TEN}: f64[5,5]; y[i,t] = a[i,j]*b[j,k]*c[k,l]*d[l,m]*e[m,n]*f[n,o]*g[o,r]*h[r,s]*p[s,t]*q[t,t]", 0),
    ],
    ids=["vectors", "ring", "petersen", "chain"],
)
def test_search_is_short(text: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten operands: automorphisms cut the search (`benchmarks/labels.py` has the times)."""
    assert _refinements(_program(text), monkeypatch) <= limit
