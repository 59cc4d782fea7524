"""Lookups: gathers, scatters, block lists, coordinate lists, against the reference interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stein
from stein.backends.cpu import scatter
from stein.ir.types import parse_dtype

Array = np.ndarray[Any, Any]

# program, extents, range of each list of integers
BLOCKS = "y[i,a,c] = (i == I[s])*B[s,a,b]*(j == J[s])*x[j,b,c] for i in 0..5"
PROGRAMS: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "blocks": (
        f"I, J: i64[S]; B: T[S,p,q]; x: T[m,q,n]\n{BLOCKS}",
        {"S": 17, "p": 7, "q": 9, "m": 6, "n": 13}, {"I": 5, "J": 6},
    ),
    "blocks, batch first": (
        "I, J: i32[S]; B: T[S,p,q]; x: T[n,m,q]\ny[c,i,a] = (i == I[s])*B[s,a,b]*(J[s] == j)*x[c,j,b] for i in 0..5",
        {"S": 17, "p": 7, "q": 9, "m": 6, "n": 13}, {"I": 5, "J": 6},
    ),
    "blocks, transposed": (
        "I, J: i64[S]; B: T[S,p,q]; x: T[m,p,n]\ny[j,b,c] = (i == I[s])*B[s,a,b]*(j == J[s])*x[i,a,c] for j in 0..6",
        {"S": 17, "p": 7, "q": 9, "m": 5, "n": 33}, {"I": 5, "J": 6},
    ),
    "rows": ("J: i64[S]; x: T[m,n]\ny[s,b] = (j == J[s])*x[j,b]", {"S": 11, "m": 5, "n": 3}, {"J": 5}),
    "neighbours": (
        "J: i64[S,k]; v: T[S,k]; x: T[m,n]\ny[s,b] = v[s,t]*(j == J[s,t])*x[j,b]",
        {"S": 11, "k": 4, "m": 5, "n": 3}, {"J": 5},
    ),
    "permutation": ("P: i64[n]; x: T[n]\ny[i] = sum[p]((p == P[i])*x[p])", {"n": 23}, {"P": 23}),
    "permutation, scattered": ("P: u8[n]; x: T[n]\ny[p] = (p == P[i])*x[i] for p in 0..n", {"n": 23}, {"P": 23}),
    "sampled": (
        "I, J: i64[S]; u, w: T[m,k]\nv[s] = (i == I[s])*u[i,t]*(j == J[s])*w[j,t]",
        {"S": 31, "m": 5, "k": 37}, {"I": 5, "J": 5},
    ),
    "sampled blocks": (
        "I, J: i64[S]; u: T[m,p,k]; w: T[m,q,k]\nv[s,a,b] = (i == I[s])*u[i,a,t]*(j == J[s])*w[j,b,t]",
        {"S": 13, "m": 5, "k": 19, "p": 3, "q": 18}, {"I": 5, "J": 5},
    ),
    "coordinates": (
        "R, C: i64[S]; v: T[S]; x: T[m]\ny[r] = (r == R[s])*v[s]*(c == C[s])*x[c] for r in 0..8",
        {"S": 4000, "m": 9}, {"R": 8, "C": 9},
    ),
    "coordinates, batch": (
        "R, C: i16[S]; v: T[S]; x: T[m,n]\ny[r,b] = (r == R[s])*v[s]*(c == C[s])*x[c,b] for r in 0..8",
        {"S": 700, "m": 9, "n": 21}, {"R": 8, "C": 9},
    ),
    "to a table": (
        "R, C: i64[S]; v: T[S]\nA[r,c] = (r == R[s])*(c == C[s])*v[s] for r in 0..8, c in 0..3",
        {"S": 40}, {"R": 8, "C": 3},
    ),
    "from a table": (
        "R, C: i64[S]; A: T[m,n]\nv[s] = (r == R[s])*(c == C[s])*A[r,c]", {"S": 40, "m": 8, "n": 3}, {"R": 8, "C": 3},
    ),
    "chain": (
        "J: i64[k]; K: i64[S]; x: T[m,n]; v: T[S]\ny[b] = v[s]*(t == K[s])*(j == J[t])*x[j,b]",
        {"S": 40, "m": 9, "k": 5, "n": 4}, {"K": 5, "J": 9},
    ),
    "chain, scattered": (
        "J: i64[k]; K: i64[S]; v: T[S,n]\ny[j,b] = v[s,b]*(t == K[s])*(j == J[t]) for j in 0..9",
        {"S": 40, "k": 5, "n": 4}, {"K": 5, "J": 9},
    ),
    "twice": (
        "J: i64[S]; v: T[S]; x, z: T[m,n]\ny[b,c] = v[s]*(j == J[s])*x[j,b]*z[j,c]",
        {"S": 11, "m": 5, "n": 3}, {"J": 5},
    ),
    "and a product": (
        "I, J: i64[S]; B: T[S,p,q]; x: T[m,q,n]; C: T[n,k]\n"
        "y[i,a,d] = (i == I[s])*B[s,a,b]*(j == J[s])*x[j,b,c]*C[c,d] for i in 0..5",
        {"S": 17, "p": 7, "q": 9, "m": 6, "n": 13, "k": 5}, {"I": 5, "J": 6},
    ),
    "in place of itself": ("I: i64[S]; v: T[S]; x: T[m]\ny[i] = (i == I[s])*v[s]*x[i]", {"S": 17, "m": 6}, {"I": 6}),
    "two conditions": (
        "I, K: i64[S]; v: T[S]; x: T[m]\ny = (i == I[s])*v[s]*x[i]*(i == K[s])", {"S": 17, "m": 6}, {"I": 6, "K": 6},
    ),
    "one hot": ("I: i64[S]; v: T[S]\ny[i,s] = (i == I[s])*v[s] for i in 0..7", {"S": 17}, {"I": 7}),
    "one hot, several": (
        "I: i64[S,k]; v: T[S,k]\ny[i,s] = (i == I[s,t])*v[s,t] for i in 0..7", {"S": 17, "k": 3}, {"I": 7},
    ),
    "computed": ("J: i64[S]; x: T[m]\ny[s] = (j == J[s]+1)*x[j]", {"S": 17, "m": 4}, {"J": 4}),
    "one row": ("K: i64; x: T[m,n]\ny[b] = (j == K)*x[j,b]", {"m": 5, "n": 7}, {"K": 5}),
    "added": ("I: i64[S]; v: T[S,n]; z: T[k,n]\nz[i,b] += (i == I[s])*v[s,b]", {"S": 17, "n": 20, "k": 6}, {"I": 7}),
}  # fmt: skip
IN_SEMIRINGS = (
    "blocks",
    "neighbours",
    "permutation",
    "sampled",
    "coordinates",
    "to a table",
    "chain, scattered",
    "twice",
)
SEMIRINGS = ("maxplus", "minplus", "maxmin", "maxtimes", "logsumexp", "boolean")
TYPES = ("f32", "f64", "c64", "c128", "f16", "i8", "i64", "u32")
# Roundings of a sum of at most S*q products of size about 10, in units of the type, with much room below a wrong term.
TOLERANCE = {"f16": 0.05, "f32": 2e-4, "c64": 4e-4}


def arrays(
    f: Any, sizes: dict[str, int], ints: dict[str, int], rng: np.random.Generator, positive: bool
) -> dict[str, Array]:
    """Arguments; lists hold values outside of their range too."""
    out = {}
    for name, parameter in f.signature.parameters.items():
        text, _, dims = parameter.annotation.partition("[")
        shape = tuple(sizes[d.strip()] for d in dims.rstrip("]").split(",") if d.strip())
        dtype = parse_dtype(text)
        assert dtype is not None
        if name in ints:
            array = rng.integers(-1 if dtype.kind == "i" else 0, ints[name] + 2, shape)
        elif dtype.kind == "b":
            array = rng.random(shape) < 0.3
        elif dtype.kind in "iu":
            array = rng.integers(0, 5, shape)
        else:
            array = rng.standard_normal(shape)
            array = np.abs(array) if positive else array
            array = array + 1j * rng.standard_normal(shape) if dtype.kind == "c" else array
        out[name] = np.asarray(array).astype(dtype.numpy)
    return out


def misfits(
    text: str, sizes: dict[str, int], ints: dict[str, int], tolerance: float = 1e-9, positive: bool = False
) -> list[str]:
    """In what the compiled program differs from the interpreter; nothing where they agree."""
    f = stein.compile(text)
    given_ = arrays(f, sizes, ints, np.random.default_rng(0), positive)
    wanted = np.asarray(stein.compile(text, target="reference")(**given_))
    found = np.asarray(f(**given_))
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return [f"{found.dtype} {found.shape} for {wanted.dtype} {wanted.shape}"]
    if wanted.dtype.kind in "biu":
        return [] if np.array_equal(found, wanted) else ["values"]
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(found[~finite], wanted[~finite]):
        return ["infinities"]
    scale = max(1.0, float(np.abs(wanted[finite]).max(initial=0)))
    error = float(np.abs(found[finite] - wanted[finite]).max(initial=0))
    return [] if error <= tolerance * scale else [f"off by {error}, scale {scale}"]


@pytest.fixture(params=["chosen", "each", "runs"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to run a list, whatever the price says; `runs` also without a look at the data."""
    kind: str = request.param
    in_runs = scatter._in_runs
    if kind == "each":
        monkeypatch.setattr(scatter, "_in_runs", lambda *_: None)
    elif kind == "runs":

        def forced(*args: Any) -> Any:
            found = in_runs(*args)
            return found and replace(found, cycles=-1e9)

        monkeypatch.setattr(scatter, "_in_runs", forced)
    yield kind


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, form: str) -> None:
    text, sizes, ints = PROGRAMS[name]
    assert misfits(text.replace("T[", "f64["), sizes, ints) == []


@pytest.mark.parametrize(("name", "empty"), [(n, e) for n in PROGRAMS for e in "Snmqpk" if e in PROGRAMS[n][1]])
def test_empty_extents(name: str, empty: str) -> None:
    text, sizes, ints = PROGRAMS[name]
    assert misfits(text.replace("T[", "f64["), {**sizes, empty: 0}, ints) == []


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["blocks", "rows", "neighbours", "coordinates", "sampled", "to a table", "added"])
def test_types(name: str, dtype: str) -> None:
    text, sizes, ints = PROGRAMS[name]
    assert (
        misfits(text.replace("T[", f"{dtype}["), {**sizes, "S": 30}, ints, tolerance=TOLERANCE.get(dtype, 1e-9)) == []
    )


@pytest.mark.parametrize("semiring", SEMIRINGS)
@pytest.mark.parametrize("name", IN_SEMIRINGS)
def test_semirings(name: str, semiring: str) -> None:
    text, sizes, ints = PROGRAMS[name]
    text = f"{text} over {semiring}".replace("sum[p]", "").replace("T[", "bool[" if semiring == "boolean" else "f64[")
    if name == "permutation":
        text = text.replace("((", "(").replace("p])", "p]")
    assert misfits(text, sizes, ints, positive=semiring == "maxtimes") == []  # a semiring on the numbers from 0 on


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 60), st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_collisions_of_any_sizes(blocks: int, rows: int, p: int, q: int, n: int, ordered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    i, j = rng.integers(-2, rows + 2, blocks), rng.integers(0, 4, blocks)
    i = np.sort(i) if ordered else i
    b, x = rng.integers(-9, 9, (blocks, p, q)), rng.integers(-9, 9, (4, q, n))
    text = "I, J: i64[S]; B: i64[S,p,q]; x: i64[m,q,n]; z: i64[k]\n"
    text += "y[i,a,c] = (i == I[s])*B[s,a,b]*(j == J[s])*x[j,b,c]*(z[i] == z[i])"
    f = stein.compile(text.replace("*(z[i] == z[i])", " for i in 0..k"))
    wanted = np.zeros((rows, p, n), np.int64)
    good = (i >= 0) & (i < rows)
    np.add.at(wanted, i[good], (b @ x[j])[good])
    arguments = {"I": i, "J": j, "B": b, "x": x, "z": np.zeros(rows, np.int64)}
    assert np.array_equal(f(**{n: arguments[n] for n in f.signature.parameters}), wanted)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("n", [1, 5, 64])
def test_threads_leave_the_bits(ordered: bool, n: int) -> None:
    rng = np.random.default_rng(5)
    r, c = rng.integers(0, 500, 60_000), rng.integers(0, 300, 60_000)
    r = np.sort(r) if ordered else r
    v, x = rng.standard_normal(60_000).astype(np.float32), rng.standard_normal((300, n)).astype(np.float32)
    text = "R, C: i64[S]; v: f32[S]; x: f32[m,n]\ny[r,b] = (r == R[s])*v[s]*(c == C[s])*x[c,b] for r in 0..500"
    before, results = stein.get_threads(), []
    try:
        for threads in (1, 2):
            stein.set_threads(threads)
            results.append(stein.compile(text)(R=r, C=c, v=v, x=x))
    finally:
        stein.set_threads(before)
    assert np.array_equal(*results)
    wanted = np.zeros((500, n))
    np.add.at(wanted, r, v[:, None].astype(float) * x[c])
    # about 120 terms of size up to 20 in a sum: (terms + 2) roundings of their absolute sum
    assert np.abs(results[0] - wanted).max() <= 250 * 2.0**-24 * 120 * 20


def test_negative_and_wide_strides() -> None:
    rng = np.random.default_rng(6)
    i, j = np.repeat(rng.integers(0, 5, 20), 2)[::-2], rng.integers(0, 6, (20, 3))[:, 1]
    b = rng.standard_normal((20, 9, 14))[:, ::-1, ::2]
    x = np.asfortranarray(rng.standard_normal((6, 7, 26)))[..., ::-2]
    f = stein.compile(f"I, J: i64[S]; B: f64[S,p,q]; x: f64[m,q,n]\n{BLOCKS}")
    wanted = np.zeros((5, 9, 13))
    np.add.at(wanted, i, b @ x[j])
    assert np.allclose(f(I=i, J=j, B=b, x=x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"])
def test_values_outside_of_the_range_select_nothing(dtype: str) -> None:
    """Also the least and greatest values of a type: no address is ever formed from them."""
    kind = np.dtype(parse_dtype(dtype).numpy)  # type: ignore[union-attr]
    info = np.iinfo(kind)
    p = np.array([0, 4, 5, info.max, info.min, 2], kind)
    x = np.arange(1.0, 6.0)
    gathered = stein.compile(f"P: {dtype}[S]; x: f64[m]\ny[s] = (p == P[s])*x[p]")(P=p, x=x)
    assert np.array_equal(gathered, [1, 5, 0, 0, x[0] if info.min == 0 else 0, 3])
    scattered = stein.compile(f"P: {dtype}[S]; x: f64[S]\ny[p] = (p == P[s])*x[s] for p in 0..5")(P=p, x=np.ones(6))
    assert np.array_equal(scattered, [1 + (info.min == 0), 0, 1, 0, 1])


def test_a_gather_does_not_touch_what_it_does_not_name() -> None:
    """Zeros of a selection are structural: NaN and infinities elsewhere stay there."""
    x = np.array([1.0, np.nan, np.inf, 4.0])
    f = stein.compile("J: i64[S]; x: f64[m]\ny[s] = (j == J[s])*x[j]")
    assert np.array_equal(f(J=np.array([3, 0, -1]), x=x), [4.0, 1.0, 0.0])


def test_only_stored_blocks_are_counted() -> None:
    f = stein.compile(f"I, J: i64[S]; B: f32[S,p,q]; x: f32[m,q,n]\n{BLOCKS}")
    s, p, q, n = 10, 16, 24, 32
    f(I=np.zeros(s, int), J=np.zeros(s, int), B=np.ones((s, p, q), np.float32), x=np.ones((6, q, n), np.float32))
    assert f.stats["flops"] == 2 * s * p * q * n


def test_lists_change_between_calls() -> None:
    f = stein.compile("R, C: i64[S]; v: f64[S]; x: f64[m]\ny[r] = (r == R[s])*v[s]*(c == C[s])*x[c] for r in 0..50")
    rng = np.random.default_rng(7)
    for ordered in (True, False, True):
        for count in (1, 5, 3000):
            r, c = rng.integers(0, 50, count), rng.integers(0, 40, count)
            r = np.sort(r) if ordered else r
            v, x = rng.standard_normal(count), rng.standard_normal(40)
            assert np.allclose(f(R=r, C=c, v=v, x=x), np.bincount(r, v * x[c], 50), rtol=1e-9, atol=1e-9)
