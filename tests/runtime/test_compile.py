"""`stein.compile`: arguments, types, sizes, constants, outputs, and what a compiled program can show."""

from __future__ import annotations

import numpy as np
import pytest

import stein

RNG = np.random.default_rng(2)


def test_by_name_in_order_and_out() -> None:
    f = stein.compile("y[i,k] = A[i,j] * B[j,k]", A=("m", 4), B=(4, "p"), dtype="float64")
    a, b = RNG.random((3, 4)), RNG.random((4, 5))
    for y in (f(A=a, B=b), f(a, b), f(a, B=b), f(B=b, A=a)):
        np.testing.assert_allclose(y, a @ b)
    out = np.zeros((3, 5))
    assert f(a, b, out=out) is out
    np.testing.assert_allclose(out, a @ b)


def test_each_call_decides_the_types_that_nobody_declared() -> None:
    f = stein.compile("y[i] = A[i,j] * x[j]")
    for dtype in ("f4", "f8", "i4", "c8"):
        a, x = np.ones((2, 3), dtype), np.ones(3, dtype)
        assert f(a, x).dtype == np.dtype(dtype)


def test_declared_types_take_what_loses_nothing() -> None:
    f = stein.compile("x: f64[n]; y[i] = 2*x[i]")
    assert f(x=np.arange(3, dtype="f4")).tolist() == [0, 2, 4]
    assert f(x=[1, 2]).tolist() == [2, 4]
    g = stein.compile("x: f32[n]; y[i] = 2*x[i]")
    with pytest.raises(stein.DTypeError, match="astype"):
        g(x=np.arange(3.0))


def test_several_results_come_by_name() -> None:
    f = stein.compile("s[i] = A[i,j]*x[j]; t[j] = A[i,j]*z[i]", dtype="f64")
    a, x, z = RNG.random((2, 3)), RNG.random(3), RNG.random(2)
    for _ in range(3):
        found = f(A=a, x=x, z=z)
        np.testing.assert_allclose(found["s"], a @ x)
        np.testing.assert_allclose(found["t"], z @ a)


def test_constants_are_folded_ahead() -> None:
    a, b = RNG.random((20, 20)), RNG.random((20, 20))
    f = stein.compile("y[i] = A[i,j]*B[j,k]*x[k]", A=stein.constant(a), B=stein.constant(b), x=(20,), dtype="f64")
    x = RNG.random(20)
    np.testing.assert_allclose(f(x), a @ (b @ x))
    assert str(f.signature) == "(x: 'f64[20]')"
    with pytest.raises(stein.DTypeError, match="constant"):
        f(x=x, A=a)


def test_arguments_that_are_wrong() -> None:
    f = stein.compile("y[i] = A[i,j]*x[j]", A=(2, 3), x=(3,), dtype="f64")
    a, x = np.ones((2, 3)), np.ones(3)
    with pytest.raises(stein.DTypeError, match="missing"):
        f(a)
    with pytest.raises(stein.DTypeError, match="no argument 'z'"):
        f(a, x, z=1)
    with pytest.raises(stein.DTypeError, match="twice"):
        f(a, x, A=a)
    with pytest.raises(stein.DTypeError, match="3 arguments"):
        f(a, x, x)
    with pytest.raises(stein.ShapeError):
        f(a, np.ones(4))
    with pytest.raises(stein.ShapeError):
        f(a, np.ones((3, 1)))


def test_targets() -> None:
    f = stein.compile("y[i] = A[i,j]*x[j]", dtype="f64", target="reference")
    np.testing.assert_allclose(f(np.ones((2, 3)), np.ones(3)), [3, 3])
    with pytest.raises(stein.BackendError, match="tpu"):
        stein.compile("y = 2*x", target="tpu")


def test_einsum_strings_compile_too() -> None:
    f = stein.compile("ij,jk->ik", (3, 4), (4, 5), dtype="f32")
    a, b = RNG.random((3, 4), dtype="f4"), RNG.random((4, 5), dtype="f4")
    np.testing.assert_allclose(f(a, b), a @ b, rtol=1e-5)
    with pytest.raises(stein.ShapeError):
        f(np.ones((4, 4), "f4"), b)


def test_everything_can_be_seen() -> None:
    f = stein.compile("y[i,j,c] = A[i,k] * B[j,l] * x[k,l,c]", A=(8, 8), B=(8, 8), x=(8, 8, 3), dtype="f32")
    assert "A[i, k]" in f.ir("elaborated")
    assert f.ir("planned").count("einsum") == 2
    assert "define" in f.source("llvm")
    assert f.source("asm")
    text = str(f.explain())
    assert "flops" in text
    assert f.explain()._repr_html_()
    assert f.stats["flops"] > 0
    with pytest.raises(stein.BackendError):
        f.source("fortran")
    with pytest.raises(stein.BackendError):
        f.ir("nowhere")


def test_a_returned_argument_is_a_copy() -> None:
    f = stein.compile("y[i] = 2*x[i]; return x, y", dtype="f64")
    x = np.arange(3.0)
    found = f(x)
    assert len(found) == 2
    first = next(iter(found.values()))
    np.testing.assert_array_equal(first, x)
    assert not np.shares_memory(first, x)


def test_whole_tensors_of_unknown_rank_are_compiled_when_called() -> None:
    f = stein.compile("y = kron(h, h, h) @ x")
    h, x = np.array([[1.0, 1], [1, -1]]), RNG.random(8)
    with pytest.raises(stein.BackendError, match="only when the program is called"):
        f.ir()
    want = np.kron(np.kron(h, h), h)
    for _ in range(2):
        np.testing.assert_allclose(f(h=h, x=x), want @ x)
    np.testing.assert_allclose(f(h, np.stack([x, x], axis=1)), want @ np.stack([x, x], axis=1))
    assert str(f.signature) == "(h, x)"
    assert "kron" in str(f.explain())
    with pytest.raises(stein.DTypeError, match="the arguments are"):
        f(h, z=x)
    with pytest.raises(stein.ShapeError):
        f(h, np.ones(7))
    assert stein.compile("y = A' @ x", dtype="f32")(A=np.eye(2, dtype="f4"), x=[1, 2]).dtype == np.float32
