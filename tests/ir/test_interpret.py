"""The interpreter against NumPy, against hand-written loops, and against a second interpreter."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stein.ir import interpret as module
from stein.ir.check import check_program
from stein.ir.errors import DTypeError, ShapeError
from stein.ir.expr import Einsum, Equation, Input, Program, Read
from stein.ir.index import Affine, Index
from stein.ir.interpret import interpret, interpret_all
from stein.ir.semiring import SEMIRINGS, Semiring
from stein.ir.size import Size
from stein.ir.text import parse_ir
from stein.ir.types import BF16, DTYPES, F32, F64, I64, DType, accumulation_type
from stein.tests.ir.pointwise import pointwise
from stein.tests.strategies import arguments, random_program, sizes_of

TYPES = tuple(DTYPES.values())


def einsum_program(spec: str, dtype: DType = F64, semiring: Semiring = SEMIRINGS["plustimes"]) -> Program:
    """A classic spec with explicit output as a program with inputs op0, op1, ..."""
    left, out = spec.split("->")
    terms = left.split(",")
    inputs = tuple(Input(f"op{k}", tuple(map(Size.name, t)), dtype) for k, t in enumerate(terms))
    labels = sorted(set(left) - {","})
    reads = tuple(Read(f"op{k}", tuple(map(Affine.of, t)), dtype) for k, t in enumerate(terms))
    bound = tuple(x for x in labels if x not in out)
    indices = tuple(Index(x, Size.name(x)) for x in labels)
    body = Einsum(bound, reads, dtype, accumulation_type(dtype), semiring)
    shape = tuple(map(Size.name, out))
    y = Equation("y", tuple(map(Affine.of, out)), shape, indices, body, dtype, semiring)
    program = Program(inputs, (y,), ("y",))
    check_program(program)
    return program


def run(
    text: str, *, semirings: dict[str, Semiring] | None = None, sizes: dict[str, int] | None = None, **arrays: Any
) -> Any:
    """The one output of an IR text."""
    program = parse_ir(text, semirings)
    check_program(program)
    (result,) = interpret(program, arrays, sizes).values()
    return result


def whole(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> Any:
    """Small whole numbers, so that sums and products are exact."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


SPECS = (
    "ij,jk->ik", "ij,jk->ki", "ij,kj->ik", "i,i->", "i,j->ij", "ij->ji", "ij->", "ij->i", "ii->i", "ii->", "iij->j",
    "ij,ij->ij", "bij,bjk->bik", "ij,jk,kl->il", "ia,ib,ic->abc", "ij,j,i->", "a,ab,b,->", "->", "i->i", ",i->i",
    "abcd,cdef->abef", "i,i,i,i->i",
)  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_classic_specs_agree_with_numpy(spec: str) -> None:
    extents = {x: 2 + k for k, x in enumerate("ijkablmncdef")}
    terms = spec.split("->")[0].split(",")
    arrays = [whole(tuple(extents[x] for x in t), k) for k, t in enumerate(terms)]
    got = interpret(einsum_program(spec), {f"op{k}": a for k, a in enumerate(arrays)})["y"]
    np.testing.assert_array_equal(got, np.einsum(spec, *arrays))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type(dtype: DType) -> None:
    a, b = whole((3, 4), 1).astype(dtype.numpy), whole((4, 2), 2).astype(dtype.numpy)
    got = interpret(einsum_program("ij,jk->ik", dtype), {"op0": a, "op1": b})["y"]
    assert got.dtype == dtype.numpy
    work = accumulation_type(dtype).numpy  # sums of at most 36 are exact in every type
    np.testing.assert_array_equal(got, (a.astype(work) @ b.astype(work)).astype(dtype.numpy))


@pytest.mark.parametrize("name", ["i8", "u8", "i16", "u32", "i64", "u64"])
def test_integers_wrap(name: str) -> None:
    dtype = DTYPES[name]
    high = np.iinfo(dtype.numpy).max
    a = np.array([high, high, 7], dtype.numpy)
    got = interpret(einsum_program("i,i->", dtype), {"op0": a, "op1": a})["y"]
    exact = (int(high) ** 2 * 2 + 49) % (1 << dtype.bits)
    assert int(got) % (1 << dtype.bits) == exact


def test_half_precision_is_accumulated_in_single() -> None:
    a = np.full(4096, 1, BF16.numpy)  # in bf16 the sum would stop at 256
    assert float(interpret(einsum_program("i,i->", BF16), {"op0": a, "op1": a})["y"]) == 4096.0
    text = "input a: bf16[n]\ny: bf16 = einsum[plustimes, bf16](i; a[i]) over i<n\nreturn y"
    assert float(run(text, a=a)) == 4096.0


PLAIN: dict[str, tuple[Any, Any, Any]] = {
    "plustimes": (lambda a, b: a + b, lambda a, b: a * b, 0.0),
    "maxplus": (max, lambda a, b: a + b, -np.inf),
    "minplus": (min, lambda a, b: a + b, np.inf),
    "logsumexp": (np.logaddexp, lambda a, b: a + b, -np.inf),
    "boolean": (lambda a, b: bool(a) or bool(b), lambda a, b: bool(a) and bool(b), False),
    "maxmin": (max, min, -np.inf),
    "maxtimes": (max, lambda a, b: a * b, 0.0),
}


@pytest.mark.parametrize("name", SEMIRINGS)
@pytest.mark.parametrize("inner", [0, 1, 5])
def test_every_semiring_agrees_with_python_loops(name: str, inner: int) -> None:
    add, mul, zero = PLAIN[name]
    dtype = DTYPES["bool" if name == "boolean" else "f64"]
    a, b = whole((3, inner), 3).astype(dtype.numpy), whole((inner, 4), 4).astype(dtype.numpy)
    if name == "maxtimes":  # its zero is 0: the values are those from 0 up
        a, b = abs(a), abs(b)
    want = np.full((3, 4), zero, dtype.numpy)
    for i in range(3):
        for k in range(4):
            for j in range(inner):
                want[i, k] = add(want[i, k], mul(a[i, j], b[j, k]))
    got = interpret(einsum_program("ij,jk->ik", dtype, SEMIRINGS[name]), {"op0": a, "op1": b})["y"]
    # logaddexp: each of the 5 steps is a log1p and an exp, 3 eps of a value below 10
    np.testing.assert_allclose(got, want, rtol=0, atol=5 * 3 * 10 * 2.0**-52 if name == "logsumexp" else 0)


def test_user_semiring_by_function_names() -> None:
    gcd_like = Semiring("minmax", "minimum", "maximum", "inf", "-inf")
    text = "input a: i32[n, m]\ny[i]: i32[n] = einsum[minmax, i32](j; a[i, j], 2:i32) over i<n, j<m in minmax\nreturn y"
    a = whole((3, 4), dtype=np.int32)
    np.testing.assert_array_equal(run(text, semirings={"minmax": gcd_like}, a=a), np.maximum(a, 2).min(1))
    assert run(text, semirings={"minmax": gcd_like}, a=a[:, :0])[0] == np.iinfo(np.int32).max


def test_reductions_prod_and_all() -> None:
    text = "input a: {t}[n, m]\ny[i]: {t}[n] = einsum[{s}, {t}](j; a[i, j]) over i<n, j<m\nreturn y"
    a = whole((3, 4))
    np.testing.assert_array_equal(run(text.format(t="f64", s="prod"), a=a), a.prod(1))
    np.testing.assert_array_equal(run(text.format(t="bool", s="all"), a=a > 0), (a > 0).all(1))
    np.testing.assert_array_equal(run(text.format(t="f64", s="prod"), a=a[:, :0]), np.ones(3))


@pytest.mark.parametrize(("pad", "mode"), [("0.0", {"constant_values": 0}), ("-inf", {"constant_values": -np.inf}),
                                           ("edge", {"mode": "edge"}), ("wrap", {"mode": "wrap"})])  # fmt: skip
def test_pads_agree_with_numpy_pad(pad: str, mode: dict[str, Any]) -> None:
    text = f"input x: f64[n]\ny[i]: f64[n+4] = x[i-2; pad={pad}] over i<n+4\nreturn y"
    x = whole((5,))
    np.testing.assert_array_equal(run(text, x=x), np.pad(x, 2, **({"mode": "constant"} | mode)))


def test_a_number_pads_an_empty_tensor_and_an_infinity_an_integer() -> None:
    text = "input x: i16[n]\ny[i]: i16[3] = x[i; pad=-inf] over i<3\nreturn y"
    np.testing.assert_array_equal(run(text, x=np.zeros(0, np.int16)), np.full(3, -32768))


def test_modulus_is_never_negative() -> None:
    text = "input c: f64[n]\ny[i, j]: f64[n, n] = c[(i-j) mod {n}] over i<n, j<n\nreturn y"
    c = whole((4,))
    np.testing.assert_array_equal(run(text, c=c), [[c[(i - j) % 4] for j in range(4)] for i in range(4)])


def test_toeplitz_and_strided_convolution() -> None:
    toeplitz = """
        input t: f64[2*n-1]
        input x: f64[n]
        y[i]: f64[n] = einsum[plustimes, f64](j; t[i-j+{n-1}], x[j]) over i<n, j<n
        return y
    """
    t, x = whole((7,), 1), whole((4,), 2)
    want = [sum(t[i - j + 3] * x[j] for j in range(4)) for i in range(4)]
    np.testing.assert_array_equal(run(toeplitz, t=t, x=x), want)
    strided = """
        input x: f64[2*p+u]
        input w: f64[u]
        y[p]: f64[p] = einsum[plustimes, f64](u; x[2*p+u], w[u]) over p<p, u<u
        return y
    """
    x, w = whole((11,), 3), whole((3,), 4)
    np.testing.assert_array_equal(run(strided, x=x, w=w), [x[2 * p : 2 * p + 3] @ w for p in range(4)])


def test_outputs_on_diagonals_with_gaps_and_collisions() -> None:
    v, w = whole((4,), 1), whole((3,), 2)
    assert (run("input v: f64[n]\ny[i, i]: f64[n, n] = v[i] over i<n\nreturn y", v=v) == np.diag(v)).all()
    got = run("input v: f64[n]\ny[2*i+1]: f64[2*n] = v[i] over i<n in maxplus\nreturn y", v=v)
    np.testing.assert_array_equal(got[::2], -np.inf)
    np.testing.assert_array_equal(got[1::2], v)
    product = """
        input v: f64[n]
        input w: f64[m]
        y[i+j]: f64[n+m-1] = einsum[plustimes, f64](; v[i], w[j]) over i<n, j<m
        return y
    """
    np.testing.assert_array_equal(run(product, v=v, w=w), np.convolve(v, w))
    rolled = "input v: f64[n]\ny[(i+1) mod {n}]: f64[n] = v[i] over i<n\nreturn y"
    np.testing.assert_array_equal(run(rolled, v=v), np.roll(v, 1))
    flat = "input a: f64[n, m]\ny[i+{n}*k]: f64[n*m] = a[i, k] over i<n, k<m\nreturn y"
    a = whole((2, 3))
    np.testing.assert_array_equal(run(flat, a=a), a.T.ravel())


def test_colliding_half_precision_is_summed_in_single() -> None:
    text = "input v: f16[2, n]\ny[(i) mod 1]: f16[1] = einsum[plustimes, f32](; v[0, i]):f16 over i<n\nreturn y"
    assert run(text, v=np.ones((2, 4096), np.float16))[0] == 4096  # in f16 the sum would stop at 2048


def test_updates_add_in_the_semiring_and_leave_the_argument() -> None:
    text = "input x: f64[n]\nz[2*i]: f64[n] = 5.0:f64 over i<2 in maxplus updating x\nreturn z"
    x = np.array([7.0, 1, 2, 3])
    np.testing.assert_array_equal(run(text, x=x), [7, 1, 5, 3])
    np.testing.assert_array_equal(run(text.replace(" in maxplus", ""), x=x), [12, 1, 7, 3])
    np.testing.assert_array_equal(x, [7, 1, 2, 3])


def test_bool_factors_select() -> None:
    body = "einsum[{s}, f64](j; ge(at(i), at(j)), a[i, j])"
    text = "input a: f64[n, n]\ny[i]: f64[n] = " + body + " over i<n, j<n in {s}\nreturn y"
    a = whole((4, 4))
    np.testing.assert_array_equal(run(text.format(s="plustimes"), a=a), np.tril(a).sum(1))
    np.testing.assert_array_equal(run(text.format(s="maxplus"), a=a), [a[i, : i + 1].max() for i in range(4)])


def test_positions_sizes_and_numbers() -> None:
    text = "input x: f32[n, m]\ny[i]: f32[n] = div(x[i, 0], sqrt(cast[f32](size(n*m+1)))) over i<n\nreturn y"
    x = whole((3, 5), dtype=np.float32)
    np.testing.assert_array_equal(run(text, x=x), x[:, 0] / np.float32(4))
    text = "input z: c64[n]\ny[i, l]: c128[n, 4] = pow(z[i], at(l)) over i<n, l<4\nreturn y"
    z = np.array([1 + 1j, 2], np.complex64)
    want = np.array([[1, 1 + 1j, 2j, -2 + 2j], [1, 2, 4, 8]])
    np.testing.assert_allclose(run(text, z=z), want, rtol=0, atol=8 * 6 * 2.0**-52)  # 3 complex products below 8


def test_functions_of_integers_are_computed_in_double() -> None:
    text = "input x: i8[n]\ny[i]: f64[n] = {}(x[i]) over i<n\nreturn y"
    x = np.arange(1, 5, dtype=np.int8)
    np.testing.assert_array_equal(run(text.format("exp"), x=x), np.exp(x.astype(np.float64)))
    np.testing.assert_array_equal(run(text.format("sqrt"), x=x), np.sqrt(x.astype(np.float64)))


def test_functions_of_half_precision_are_computed_in_single() -> None:
    text = "input x: bf16[n]\ny[i]: bf16[n] = sigmoid(x[i]) over i<n\nreturn y"
    x = np.arange(-4, 4).astype(BF16.numpy)
    single = x.astype(np.float32)
    want = np.where(single >= 0, 1 / (1 + np.exp(-abs(single))), np.exp(-abs(single)) / (1 + np.exp(-abs(single))))
    np.testing.assert_array_equal(run(text, x=x), want.astype(BF16.numpy))


def test_softmax() -> None:
    text = "input x: f32[n, m]\ny[i, j]: f32[n, m] = softmax[j](x[i, j]) over i<n, j<m\nreturn y"
    x = whole((3, 5), dtype=np.float32) * 100
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_array_equal(run(text, x=x), e / e.sum(1, keepdims=True))
    assert run(text, x=x[:, :0]).shape == (3, 0)
    constant = "y[j]: f64[4] = softmax[j](2.0:f64) over j<4\nreturn y"
    np.testing.assert_array_equal(run(constant), np.full(4, 0.25))


@pytest.mark.filterwarnings("error")
def test_casts_are_astype() -> None:
    text = "input x: {a}[n]\ny[i]: {b}[n] = cast[{b}](x[i]) over i<n\nreturn y"
    x = np.array([2.7, -2.7, 300.0])
    np.testing.assert_array_equal(run(text.format(a="f64", b="i16"), x=x), [2, -2, 300])
    np.testing.assert_array_equal(run(text.format(a="f64", b="bool"), x=np.array([0.0, np.nan])), [False, True])
    z = np.array([0j, 3 + 4j, 4j])
    np.testing.assert_array_equal(run(text.format(a="c128", b="f32"), x=z), [0, 3, 0])
    np.testing.assert_array_equal(run(text.format(a="c128", b="bool"), x=z), [False, True, True])
    small = np.array([1, 2], BF16.numpy)
    np.testing.assert_array_equal(run(text.format(a="bf16", b="c64"), x=small), [1, 2])


def test_mixed_types_are_promoted_before_the_product() -> None:
    text = """
        input a: bool[a, b]
        input v: bool[a]
        input c: f64[c]
        y: f64 = einsum[plustimes, f64](a, b, c; a[a, b], v[a], c[c]) over a<a, b<b, c<c
        return y
    """
    assert run(text, a=np.ones((3, 4), bool), v=np.ones(3, bool), c=np.ones(2)) == 24.0


def test_an_index_without_factor_counts() -> None:
    text = "input x: f64[n]\ny: f64 = einsum[plustimes, f64](i, k; x[i]) over i<n, k<5\nreturn y"
    assert run(text, x=np.ones(3)) == 15.0
    assert run("y: f64 = einsum[plustimes, f64](i; ) over i<n\nreturn y", sizes={"n": 6}) == 6.0


@pytest.mark.parametrize("spec", ["ij,jk->ik", "ijk->", "ijk->jk", "ii->i", "i,j,k->kji"])
@pytest.mark.parametrize("name", ["plustimes", "maxplus"])
def test_slicing_a_large_space_changes_nothing(spec: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = einsum_program(spec, I64, SEMIRINGS[name])
    arrays = {t.name: whole((3,) * len(t.shape), k, np.int64) for k, t in enumerate(program.inputs)}
    want = interpret(program, arrays)["y"]
    monkeypatch.setattr(module, "SPACE_LIMIT", 4)
    np.testing.assert_array_equal(interpret(program, arrays)["y"], want)


def test_more_axes_than_numpy_has() -> None:
    labels = [chr(0x100 + k) for k in range(80)]
    spec = ",".join(a + b for a, b in pairwise(labels)) + "->" + labels[0]
    program = einsum_program(spec)
    arrays = {t.name: np.full((1, 1), 2.0) for t in program.inputs}
    assert interpret(program, arrays)["y"] == 2.0**79


def test_random_programs_agree_with_the_pointwise_interpreter() -> None:
    for seed in range(250):
        program = random_program(random.Random(seed), exact=True)
        sizes, arrays = sizes_of(seed), arguments(program, seed)
        got, want = interpret_all(program, arrays, sizes), pointwise(program, arrays, sizes)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=f"{seed} {name}")


def test_outputs_are_fresh_arrays() -> None:
    program = Program((Input("x", (Size.name("n"),), F32),), (), ("x",))
    x = np.ones(3, np.float32)
    assert not np.shares_memory(interpret(program, {"x": x})["x"], x)


def test_mistakes_in_the_arguments() -> None:
    program = einsum_program("ij,jk->ik", F32)
    a, b = whole((2, 3), dtype=np.float32), whole((3, 4), dtype=np.float32)
    with pytest.raises(DTypeError, match="no array is given for 'op1'"):
        interpret(program, {"op0": a})
    with pytest.raises(DTypeError, match="'op1' is f32, the array has float64"):
        interpret(program, {"op0": a, "op1": b.astype(np.float64)})
    with pytest.raises(ShapeError, match="axis 0 of op1 is 4, but j = 3"):
        interpret(program, {"op0": a, "op1": b.T})
    with pytest.raises(ShapeError, match="op0 has 2 axes, the argument has 1"):
        interpret(program, {"op0": a[0], "op1": b})
    assert interpret(program, {"op0": a.tolist(), "op1": b})["y"].dtype == np.float32


def test_sizes_are_solved_in_rounds_and_constraints_checked() -> None:
    text = """
        input x: f64[n+m]
        input w: f64[2*m-1]
        y: i64 = size(n)
        require 2 divides n, code="even", sentence="{n} is odd: {0}", help="drop {left}", values=[3*n]
        return y
    """
    assert run(text, x=np.zeros(6), w=np.zeros(3)) == 4
    with pytest.raises(ShapeError, match=r"even: 5 is odd: 15") as caught:
        run(text, x=np.zeros(7), w=np.zeros(3))
    assert caught.value.help == "drop 2"
    with pytest.raises(ShapeError, match=r"axis 0 of w is 2\*m-1, but no m makes that 4"):
        run(text, x=np.zeros(6), w=np.zeros(4))


def test_sizes_that_no_shape_determines_are_given() -> None:
    text = """
        input x: f64[n+m]
        y[i]: f64[n] = x[i+{m}] over i<n
        require m >= 2, code="least", sentence="{n}, {m}: {0}", values=[m]
        return y
    """
    x = np.arange(5.0)
    np.testing.assert_array_equal(run(text, sizes={"m": 2}, x=x), [2, 3, 4])
    np.testing.assert_array_equal(run(text, sizes={"m": 2, "n": 3, "unused": 7}, x=x), [2, 3, 4])
    with pytest.raises(ShapeError, match="1, 1: 1"):
        run(text.replace("n+m", "n").replace("x[i+{m}]", "x[i]"), sizes={"m": 1}, x=x[:1])
    with pytest.raises(ShapeError, match="n is given as 4, the arguments say 5"):
        run(text.replace("n+m", "n").replace("x[i+{m}]", "x[i]"), sizes={"m": 2, "n": 4}, x=x)
    with pytest.raises(ShapeError, match="no argument determines 'q'"):
        run("y[i]: i64[q] = at(i) over i<q\nreturn y")


def test_reads_and_writes_outside_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"x\[3\] lies outside"):
        run("input x: f64[n]\ny[i]: f64[n] = x[i+{m}] over i<n\nreturn y", sizes={"m": 1}, x=np.zeros(3))
    with pytest.raises(ShapeError, match="'y' is written outside"):
        run("input x: f64[n]\ny[i+{m}]: f64[n] = x[i] over i<n\nreturn y", sizes={"m": 1}, x=np.zeros(3))
