"""`x[J[s]]` and `y[I[s]] = ...`: lists of positions in slots, as short forms of comparisons."""

from __future__ import annotations

import numpy as np
import pytest

import stein
from stein.frontend.lists import written_out
from stein.frontend.parser import parse_program
from stein.ir.errors import EinsumSyntaxError, ShapeError

N = np.array

CASES = [
    ("J: i64[S]\ny[s,b] = x[J[s],b]", "J: i64[S]\ny[s,b] = sum[q](x[q,b]*(q == J[s]))"),
    ("J: i64[S]\ny[s] = exp(x[J[s]]) + x[s]", "J: i64[S]\ny[s] = exp(sum[q](x[q]*(q == J[s]))) + x[s]"),
    ("J: i64[S]\ny[s] = x[J[s]+1]", "J: i64[S]\ny[s] = sum[q](x[q]*(q == J[s]+1))"),
    ("J: i64[S]\ny[s] = x[2*J[s]-s]", "J: i64[S]\ny[s] = sum[q](x[q]*(q == 2*J[s]-s))"),
    ("J: i64[S]; y: f64[4]\ny[J[s]] = x[s]", "J: i64[S]\ny[q] = (q == J[s])*x[s] for q in 0..4"),
    ("J: i64[S]; y: f64[4]\ny[J[s]] = x[s] + 2*x[s]", "J: i64[S]\ny[q] = (q == J[s])*(x[s] + 2*x[s]) for q in 0..4"),
    ("J: i64[S]; y: f64[4]\ny[J[s]] = x[J[s]]", "J: i64[S]\ny[q] = (q == J[s])*sum[t](x[t]*(t == J[s])) for q in 0..4"),
    ("J: i64[S]\nx[J[s]] += 2*z[s]", "J: i64[S]\nx[q] += (q == J[s])*2*z[s]"),
    ("J: i64[S]\ny[s] = x[J[J[s]]]", "J: i64[S]\ny[s] = sum[q](x[q]*(q == sum[t](J[t]*(t == J[s]))))"),
    ("J: i64[S]\ny[s] = x[J[s]] over maxplus", "J: i64[S]\ny[s] = sum[q](x[q]*(q == J[s])) over maxplus"),
    ("J: i64[S]\ny[b] = z[s]*x[J[s]+b]", "J: i64[S]\ny[b] = z[s]*sum[q](x[q]*(q == J[s]+b)) for b in 0..3"),
]  # fmt: skip


@pytest.mark.parametrize("short, long", CASES, ids=[c[0].splitlines()[1] for c in CASES])
def test_short_and_long_form_agree(short: str, long: str) -> None:
    if "for b" in long:
        short += " for b in 0..3"
    arguments = {"J": N([1, 0, 3, 5, -1, 2, 1]), "x": np.arange(1.0, 8.0) ** 2, "z": np.arange(7.0)}
    if "[J[s],b]" in short:
        arguments["x"] = np.arange(28.0).reshape(7, 4)
    results = []
    for text in (short, long):
        f = stein.compile(text)
        results.append(f(**{n: arguments[n] for n in f.signature.parameters}))
    assert np.array_equal(*results)


def test_meaning_in_numpy() -> None:
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 5, 9), rng.integers(0, 6, 9)
    b, x = rng.standard_normal((9, 3, 4)), rng.standard_normal((6, 4, 7))
    f = stein.compile("y: f64[5,p,n]\ny[I[s],a,c] = B[s,a,b]*x[J[s],b,c]")
    wanted = np.zeros((5, 3, 7))
    np.add.at(wanted, i, b @ x[j])
    assert list(f.signature.parameters) == ["I", "B", "x", "J"]
    assert np.allclose(f(I=i, J=j, B=b, x=x), wanted, rtol=1e-13, atol=1e-13)


def test_permutations() -> None:
    p, x = np.random.default_rng(1).permutation(50), np.arange(50.0)
    assert np.array_equal(stein.compile("y[i] = x[P[i]]")(P=p, x=x), x[p])
    back = stein.compile("y, x: f64[n]\ny[P[i]] = x[i]")
    assert np.array_equal(back(P=p, x=x[p]), x)


def test_positions_outside_select_nothing() -> None:
    x = N([1.0, 2.0, 3.0])
    assert np.array_equal(stein.compile("y[s] = x[J[s]]")(J=N([3, -1, 2, 99]), x=x), [0, 0, 3, 0])
    add = stein.compile("z[J[s]] += x[s]")
    assert np.array_equal(add(J=N([3, -1, 2]), x=x, z=np.zeros(3)), [0, 0, 3])


@pytest.mark.parametrize(
    "text, error, sentence",
    [
        ("y[I[s]] = v[s]", ShapeError, "how far 'I[s]' may go is not known: y has no size"),
        ("x: f64[J[3]]; y[s] = x[s]", EinsumSyntaxError, "a size is no element of a tensor"),
        ("y[s] = x[J[s] mod 3]", EinsumSyntaxError, "a position that a tensor holds has no modulus here"),
        ("y[s] = x[s] for s in 0..J[2]", EinsumSyntaxError, "a size is no element of a tensor"),
        ("J: i64[n]; y[s] = x[J[s,s]]", Exception, "J has 1 axis, 2 indices given"),
    ],
)
def test_errors(text: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as raised:
        stein.compile(text)
    assert sentence in str(raised.value)


def test_names_are_new() -> None:
    tree = parse_program("p1: f64[n]\ny[s] = p1[J[s]]*p2[K[s]]")
    text = str(tree.statements[1])
    assert "'p3'" in text and "'p4'" in text
    assert written_out(tree) is tree
