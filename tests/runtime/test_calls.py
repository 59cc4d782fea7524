"""Calls of compiled programs at the edges: names that clash, `out=`, values without room, sizes, odd declarations."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.cpu.objects import ObjectStore

TWO = "ma[a] = sum[c] F[a,b]*G[b,c]; mc[c] = sum[a] F[a,b]*G[b,c]"
F, G = np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(4, 3) - 5


def test_results_go_to_the_arrays_of_their_names_in_any_order() -> None:
    f = stein.compile(TWO, dtype="f64")
    want, out = f(F, G), {"mc": np.zeros(3), "ma": np.zeros(3)}
    assert f(F, G, out=out) is out
    for name in want:
        np.testing.assert_array_equal(out[name], want[name])


@pytest.mark.parametrize(
    ("out", "code"),
    [
        (dict.fromkeys(("ma", "mc"), np.zeros(3)), "out-overlap"),
        ({"ma": np.zeros(3), "mc": [0.0, 0.0, 0.0]}, "not-an-array"),
        ({"ma": np.zeros(3), "mc": np.zeros(4)}, "out-shape"),
        ({"ma": np.zeros(3), "mc": np.zeros(3, int)}, "casting"),
        ({"ma": np.zeros(3), "x": np.zeros(3)}, "out-names"),
        (np.zeros(3), "out-names"),
    ],
)
@pytest.mark.parametrize("target", ["cpu", "reference"])
def test_a_wrong_out_changes_nothing(out: Any, code: str, target: str) -> None:
    with pytest.raises(stein.SteinError) as caught:
        stein.compile(TWO, dtype="f64", target=target)(F, G, out=out)
    assert caught.value.code == code
    assert all(not np.any(a) for a in (out.values() if isinstance(out, dict) else [out]))


def test_out_in_another_byte_order_is_written() -> None:
    out = np.zeros(3, ">f8")
    stein.compile("y[i] = F[i,j]*x[j]")(F, np.ones(4), out=out)
    np.testing.assert_array_equal(out, F.sum(1))


@pytest.mark.parametrize("name", ["self", "args", "op0", "program", "values", "lambda", "class"])
def test_an_argument_may_have_nearly_any_name(name: str) -> None:
    for text in (f"y[i] = {name}[i]*2", f"y = {name}*2"):
        f = stein.compile(text)
        np.testing.assert_array_equal(f(**{name: np.ones(2)}), [2, 2])
        np.testing.assert_array_equal(f(np.ones(2)), [2, 2])


def test_only_out_is_refused_as_an_argument_but_not_as_a_result() -> None:
    for text in ("y[i] = out[i]", "y = out @ x", "out[i] += x[i]"):
        with pytest.raises(stein.SteinError, match="cannot be called 'out'"):
            stein.compile(text)
    np.testing.assert_array_equal(stein.compile("out[i] = x[i]*2")(np.ones(2)), [2, 2])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": (3,)}, "bad-option"),
        ({"check": (3,)}, "bad-option"),
        ({"strict": np.ones(3)}, "bad-option"),
        ({"semirings": (3,)}, "bad-option"),
        ({"semiring": "maxplus"}, "classic-option"),
        ({"names": True}, "classic-option"),
        ({"xx": (3,)}, "unused-declaration"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(stein.SteinError) as caught:
        stein.compile("y[i] = x[i]", **options)
    assert caught.value.code == code


def test_numbers_convert_only_where_they_fit() -> None:
    f = stein.compile("x: i8[n]; y[i] = x[i]*2")
    np.testing.assert_array_equal(f([1, -2]), [2, -4])
    assert f([]).shape == (0,)
    for wrong in ([300], [-129], [1.5]):
        with pytest.raises(TypeError):
            f(wrong)
    np.testing.assert_array_equal(stein.compile("x: u8[n]; y[i] = x[i]*2")([1, 2]), [2, 4])


def test_a_compiled_program_is_its_own_copy_and_shows_its_signature() -> None:
    for f in (stein.compile("y[i] = A[i,j]*x[j]"), stein.compile("y = A @ x")):
        assert copy.copy(f) is f
        assert copy.deepcopy(f) is f
        assert list(inspect.signature(f).parameters) == ["A", "x"]
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(f)
    assert "optimize" in inspect.signature(stein.einsum).parameters


def test_sizes_of_an_einsum_string_hold() -> None:
    with pytest.raises(stein.ShapeError, match="axis 1 of op0 is 3, but n = 2"):
        stein.compile("ij->ij", ("n", "n"))(np.ones((2, 3)))
    with pytest.raises(stein.ShapeError, match="declared 6"):
        stein.compile("(a b)b->ab", (6, 2))(np.ones((8, 2)))
    with pytest.raises(stein.ShapeError):
        stein.compile("ij->ij", (2, "-3"))


def test_adding_to_an_argument_leaves_its_axes_alone() -> None:
    square, row = np.ones((4, 4)), np.arange(4.0)
    want = square.copy()
    want[0] += row
    for target in ("cpu", "reference"):
        np.testing.assert_array_equal(stein.compile("C[0,i] += x[i]", target=target)(square, row), want)
        np.testing.assert_array_equal(stein.compile("C += 1", target=target)(square), square + 1)
    with pytest.raises(stein.ShapeError, match=r"leaves axis 0 of C, 0\.\.3"):
        stein.compile("C[i+2,j] += A[i,j]")(square, np.ones((3, 4)))


def test_axes_under_an_ellipsis_may_come_with_the_call() -> None:
    f = stein.compile("y[...,i] = T[...,i]*x[i]")
    for shape in ((4,), (2, 4), (3, 1, 4)):
        np.testing.assert_array_equal(f(np.ones(shape), np.arange(4.0)), np.ones(shape) * np.arange(4.0))


@pytest.mark.parametrize("pad", ["edge", "wrap"])
@pytest.mark.parametrize("target", ["cpu", "reference"])
def test_an_empty_tensor_has_no_value_to_pad_with(pad: str, target: str) -> None:
    f = stein.compile(f"x: f64[n] pad={pad}; y[i] = x[i-1] for i in 0..m; z: f64[m]; w[i] = z[i]", target=target)
    with pytest.raises(stein.ShapeError, match="no value to repeat"):
        f(x=np.zeros(0), z=np.zeros(4))
    assert f(x=np.zeros(0), z=np.zeros(0))["y"].shape == (0,)


@pytest.mark.parametrize("dtype", ["i64", "u8", "bool"])
def test_infinite_padding_of_integers_is_their_last_value(dtype: str) -> None:
    kind = {"i64": np.int64, "u8": np.uint8, "bool": np.bool_}[dtype]
    low = {"i64": np.iinfo(np.int64).min, "u8": 0, "bool": False}[dtype]
    for target in ("cpu", "reference"):
        f = stein.compile(f"x: {dtype}[n] pad=-inf; y[i] = x[i-1] for i in 0..n", target=target)
        np.testing.assert_array_equal(f(np.ones(2, kind)), np.array([low, 1], kind))
    with pytest.raises(TypeError, match=r"padding 2\.5 does not fit"):
        stein.compile(f"x: {dtype}[n] pad=2.5; y[i] = x[i-1] for i in 0..n")


def test_what_no_memory_holds_is_refused() -> None:
    for text in ("y[i] = 3 for i in 0..99999999999999999999", "s = max[i] i for i in 0..99999999999999999999"):
        with pytest.raises(stein.ShapeError):
            stein.compile(text)()


def test_more_axes_than_numpy_has_and_wrong_limits_are_refused() -> None:
    wide, more = np.ones((1,) * 60), np.ones((1,) * 40)
    with pytest.raises(stein.ShapeError, match="100 axes"):
        stein.einsum(wide, list(range(60)), more, list(range(60, 100)), list(range(100)))
    with pytest.raises(stein.DTypeError, match="memory_limit"):
        stein.einsum("ij,jk->ik", np.eye(2), np.eye(2), memory_limit="foo")
    with pytest.raises(stein.DTypeError, match="complex"):
        stein.einsum("ij,jk->ik", np.eye(2) + 0j, np.eye(2), semiring="maxplus")
    with pytest.raises(stein.DTypeError, match="does not fit i64"):
        stein.compile("x: i64[n]; y[i] = x[i]*99999999999999999999")


def test_a_long_chain_of_statements_is_cut() -> None:
    steps = "; ".join(f"y{k}[i] = tanh(y{k - 1}[i])" for k in range(1, 150))
    got = stein.compile(f"y0[i] = x[i]; {steps}", dtype="f64")(np.array([0.5, -2.0]))
    want = np.array([0.5, -2.0])
    for _ in range(149):
        want = np.tanh(want)
    # tanh has a slope of at most 1, so each step adds at most its own error (4 ulp here, 1 in NumPy)
    np.testing.assert_allclose(got, want, rtol=0, atol=149 * 5 * np.finfo(float).eps)


def test_a_cached_object_under_a_wrong_name_is_not_run(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    store.save("first", b"code of first")
    (tmp_path / "second.o").write_bytes((tmp_path / "first.o").read_bytes())
    assert store.load("first") == b"code of first"
    assert store.load("second") is None


def test_programs_are_called_by_the_dispatcher_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where machine code cannot take the calls, a function of Python does, and is not handed the program itself."""
    from stein.backends.cpu import native

    monkeypatch.setattr(native, "available", lambda: False)
    one, two = stein.compile("y[i] = F[i,j] * x[j]", dtype="f64"), stein.compile(TWO, dtype="f64")
    for _ in range(2):
        np.testing.assert_array_equal(one(F, x=np.ones(4)), F.sum(1))
        np.testing.assert_array_equal(two(F=F, G=G)["mc"], F.sum(0) @ G)
