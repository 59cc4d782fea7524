"""The messages of the language page, word for word: `pytest tests/errors --update-golden` rewrites them.

Numbers are those of the page; what belongs to running programs (verified structure, CKKS parameters) is tested there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stein
from stein.frontend.classic import check_shapes, elaborate_spec, parse_interleaved, parse_spec
from stein.frontend.declare import Declaration, parse_structure
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.bind import bind_sizes
from stein.ir.errors import (
    DTypeError,
    EinsumSyntaxError,
    EncryptionError,
    ShapeError,
    SingularError,
    SteinError,
    StructureError,
)
from stein.ir.types import F16, F32, F64, I8

Shape = tuple[int | str, ...]


def program(text: str, **shapes: Shape) -> Callable[[], Any]:
    return lambda: elaborate(parse_program(text), {n: Declaration(s, None) for n, s in shapes.items()})


def typed(text: str, **declarations: Declaration) -> Callable[[], Any]:
    return lambda: elaborate(parse_program(text), declarations)


def call(text: str, **shapes: tuple[int, ...]) -> Callable[[], Any]:
    return lambda: bind_sizes(elaborate(parse_program(text), {}), shapes)


def classic(spec: str, *shapes: tuple[int, ...], names: bool = False) -> Callable[[], Any]:
    return lambda: check_shapes(parse_spec(spec, names), shapes)


def repeated_output() -> Any:
    return elaborate_spec(parse_spec("i->ii"), (1,), ((False,),), (F64,))


def broken(declared: str) -> Callable[[], Any]:
    """A structure that is declared and does not hold, found by a call with `check=True`."""
    values = np.array([[2.0, 5.0, 6.0], [1.0, 3.0, 5.0], [0.5, 1.0, 2.0]])
    text = f"W: f64[n,n] {declared}; y[i] = W[i,j]*x[j]"
    return lambda: stein.compile(text, check=True)(W=values, x=np.ones(3))


def run(text: str, **arrays: np.ndarray) -> Callable[[], Any]:  # type: ignore[type-arg]
    """A call that fails for its values."""
    return lambda: stein.compile(text)(**arrays)


def secret(text: str, **declarations: Any) -> Callable[[], Any]:
    """An encrypted program that is refused when it is compiled, before there are keys."""
    return lambda: stein.compile(text, target="ckks", **declarations)


S, H, D, T, E = EinsumSyntaxError, ShapeError, DTypeError, StructureError, EncryptionError
CASES: dict[str, tuple[type[SteinError], Callable[[], Any]]] = {
    "01-size": (H, classic("ij,jk->ik", (2, 3), (4, 5))),
    "01-size-turned": (H, classic("ij,jk->ik", (2, 3), (5, 3))),
    "01-size-named": (H, call("y[i] = A[i,k]*x[k]", A=(2, 3), x=(4,))),
    "01-size-declared": (H, program("y[i] = A[i,k]*x[k]", A=(2, 3), x=(4,))),
    "01-size-names": (H, call("A: f64[n,m]; x: f64[m]\ny[i] = A[i,k]*x[k]", A=(2, 3), x=(4,))),
    "02-output-label": (S, classic("ij,jk->il")),
    "03-operands": (H, classic("ij,jk->ik", (2, 3))),
    "03-too-many": (H, classic("ij->i", (2, 3), (2,))),
    "04-axes": (H, classic("ijk->i", (2, 3))),
    "04-axes-more": (H, classic("ij->i", (2, 3, 4))),
    "05-diagonal": (H, classic("ii->i", (2, 3))),
    "06-dots": (S, classic("i..j->ij")),
    "07-label": (S, classic("i%j->ij")),
    "07-label-names": (S, classic("row 2col->row", names=True)),
    "08-arrow": (S, classic("ij->i->j")),
    "08-comma": (S, classic("ij->i,j")),
    "09-repeated-output": (S, repeated_output),
    "10-ellipsis": (H, classic("...i,...i->...", (2, 4), (3, 4))),
    "10-second-ellipsis": (S, classic("...i...->i")),
    "11-bracket": (S, program("y[i] = A[i,k * x[k]", A=(2, 3), x=(3,))),
    "11-operator": (S, program("y[i] = A[i] + * b[i]")),
    "11-end": (S, program("y[i] = A[i] +")),
    "12-lonely": (S, program("y[i] = A[i,k]*x[k] + b[k]", A=(2, 3), x=(3,), b=(3,))),
    "13-nonlinear": (S, program("y[i] = relu(A[i,k]*x[k])", A=(2, 3), x=(3,))),
    "14-no-range": (H, program("y[i,j] = A[i,k]*x[k]", A=(2, 3), x=(3,))),
    "15-range": (H, program("t: f32[n]; x: f32[n]\ny[i] = t[i-j]*x[j]")),
    "15-range-known": (H, program("y[i] = t[i-j]*x[j]", t=(4,), x=(4,))),
    "15-range-called": (H, call("y[i] = x[i+j]*w[j]", x=(3,), w=(5,))),
    "15-negative": (H, program("y[i] = A[i,-1]", A=(3, 3))),
    "16-affine": (S, program("y[i] = x[i*j]", x=(4,))),
    "17-twice": (S, program("y[i] = A[i,j]*x[j]\ny[i] = b[i]", A=(2, 3), x=(3,), b=(2,))),
    "18-unknown": (S, program("y[i] = A[i,j]*z[j]", A=(2, 3), x=(3,))),
    "18-scalar": (S, program("y[i] = alpha*x[i]", x=(3,))),
    "18-before": (S, program("p[i] = q[i]*2\nq[i] = x[i]", x=(3,))),
    "19-axes": (H, program("A: f32[n,m]; y[i] = A[i,j,k]")),
    "20-block": (T, program("W: bsr(block=32)\ny = W @ x", W=(100, 64), x=(64,))),
    "20-block-called": (T, call("W: f64[m,n] bsr(block=32); y[i] = W[i,j]*x[j]", W=(100, 64), x=(64,))),
    "21-toeplitz": (T, broken("toeplitz")),
    "21-lower": (T, broken("lower")),
    "21-permutation": (T, broken("permutation")),
    "21-banded": (T, broken("banded(lo=1, hi=0)")),
    "21-orthogonal": (T, broken("orthogonal")),
    "21-hadamard": (T, broken("hadamard")),
    "21-lowrank": (T, broken("lowrank(r=1)")),
    "21-vandermonde": (T, broken("vandermonde")),
    "21-psd": (T, broken("psd")),
    "21-doubly-stochastic": (T, broken("doubly_stochastic")),
    "21-square": (H, program("W: f64[3,4] symmetric; y[i] = W[i,j]*x[j]")),
    "21-square-called": (H, call("W: f64[n,m] circulant; y[i] = W[i,j]*x[j]", W=(3, 4), x=(4,))),
    "21-axes": (T, program("W: f64[n] toeplitz; y[i] = W[i]")),
    "22-kron-one": (S, program("K = kron(A)", A=(2, 3))),
    "22-kron-order": (S, program("K = kron(A, t)", A=(2, 3), t=(2, 3, 2))),
    "23-ring": (S, program("d[i,j] = A[i,k]*B[k,j] - C[i,j] over maxplus", A=(2, 3), B=(3, 2), C=(2, 2))),
    "23-semiring": (S, program("d[i] = A[i,k] over maxplux", A=(2, 3))),
    "24-max": (E, program("x: encrypted f64[n]; y = max[i] x[i]")),
    "24-function": (E, program("x: encrypted f64[n]; y[i] = exp(x[i])")),
    "24-compare": (E, program("x: encrypted f64[n]; y[i] = (x[i] > 0)*x[i]")),
    "24-semiring": (E, secret("y[i] = A[i,k]*x[k] over maxplus", A=(2, 3), x=stein.encrypted(3))),
    "24-complex": (E, secret("y[i] = 2j*x[i]", x=stein.encrypted(3))),
    "24-complex-input": (E, secret("y[i] = 2*x[i]", x=stein.encrypted(3, "complex128"))),
    "24-rounding": (E, secret("y[i] = i32(x[i])", x=stein.encrypted(3))),
    "24-pad": (E, secret("x: encrypted f64[3] pad=edge; y[i] = x[i-1] for i in 0..3")),
    "24-softmax": (E, secret("y[i] = softmax[i](x[i])", x=stein.encrypted(3))),
    "24-size": (H, secret("x: encrypted f64[n]; y[i] = 2*x[i]")),
    "24-clear": (E, secret("y[i] = A[i,j]*x[j]", A=(2, 3), x=(3,))),
    "25-depth": (
        E,
        secret(
            "x: encrypted f64[8]; a[i] = x[i]^2; b[i] = a[i]*x[i]; c[i] = b[i]*a[i]\n"
            "d[i] = c[i]*b[i]; e[i] = d[i]*c[i]; y[i] = e[i]*d[i]",
            rings=8192,
        ),
    ),
    "25-depth-approx": (
        E,
        secret(
            "x: encrypted f64[8]; h[i] = approx(tanh, degree=15, range=-4..4)(sum[j] A[i,j]*x[j])\ny[i] = h[i]^3",
            A=(8, 8),
            rings=8192,
        ),
    ),
    "26-division": (E, typed("y[i] = x[i]/s[i]", x=Declaration((3,)), s=Declaration((3,), encrypted=True))),
    "28-lossy": (D, typed("y: i8[4]\ny[i] = A[i]*x[i]", A=Declaration((4,), F32), x=Declaration((4,), F32))),
    "28-literal": (D, typed("y[i] = 300*x[i]", x=Declaration((4,), I8))),
    "29-first-argument": (D, lambda: parse_interleaved([5, "A"])),
    "29-label": (D, lambda: parse_interleaved(["A", [0.5, 1]])),
    "28-padding": (D, typed("x: i8[n] pad=300; y[i] = x[i-1] for i in 0..n")),
    "30-option": (T, program("W: bsr(blok=32)", W=(64, 64))),
    "30-option-keyword": (T, lambda: parse_structure("bsr(blok=32)")),
    "30-structure": (T, program("W: f64[n,n] toeplits\ny = W @ x", x=("n",))),
    "31-type": (S, program("x: f46[n]; y[i] = x[i]")),
    "31-reserved": (S, program("for = x", x=(3,))),
    "31-name-clash": (S, program("x: f64[n]; y[n] = n*x[n]")),
    "31-deep": (S, program("y = " + "(" * 10_000 + "x" + ")" * 10_000)),
    "31-transposed-vector": (H, program("y = x' @ A", x=(3,), A=(3, 3))),
    "31-mod": (S, program("c, x: f64[n]; y[i] = c[i-j mod n]*x[j]")),
    "31-composite": (H, call("y[i,j] = x[(i j)]*a[i]", x=(7,), a=(2,))),
    "31-number": (S, program("y[i] = 2x[i]", x=(3,))),
    "31-update": (H, call("C[i+2] += x[i]", C=(4,), x=(3,))),
    "31-size": (H, program("y[i] = x[i] for i in 0..m", x=(3,))),
    "32-not-square": (H, program("y = solve(A, b)", A=(3, 4), b=(3,))),
    "32-not-square-kron": (H, program("l = logdet(kron(A, B))", A=(3, 4), B=(2, 2))),
    "32-not-square-called": (H, call("A: f64[m,n]; X = inv(A)", A=(3, 4))),
    "32-rows": (H, program("y = solve(A, b)", A=(3, 3), b=(4,))),
    "32-right": (H, program("y = solve(A, B)", A=(3, 3), B=(3, 2, 2))),
    "32-vector": (H, program("y = inv(2*x)", x=(3,))),
    "32-power": (H, program("P = powm(A, B)", A=(3, 3), B=(3, 3))),
    "32-power-complex": (D, program("P = powm(A, 2j)", A=(3, 3))),
    "32-arity": (S, program("y = solve(A)", A=(3, 3))),
    "32-integer": (D, typed("y = solve(A, b)", A=Declaration((3, 3), I8), b=Declaration((3,), I8))),
    "32-half": (D, typed("y = inv(A' @ A)", A=Declaration((3, 3), F16))),
    "32-encrypted": (E, program("A: f64[n,n]; x: encrypted f64[n]; y = solve(A, x)")),
    "32-semiring": (S, program("y = solve(A, b) over maxplus", A=(3, 3), b=(3,))),
    "32-indexed": (S, program("y[i] = solve(A[i,j], b[j])", A=(3, 3), b=(3,))),
    "32-singular": (
        SingularError,
        run("z = 2*x\ny = solve(kron(A, B), z)", A=np.eye(2), B=np.ones((2, 2)), x=np.ones(4)),
    ),
    "32-singular-diagonal": (SingularError, run("A: f64[n,n] diag; X = inv(A)", A=np.diag([1.0, 0.0]))),
    "32-negative": (SingularError, run("R = powm(A, 0.5)", A=np.diag([1.0, -2.0]))),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, golden: Callable[[str, str], None]) -> None:
    kind, act = CASES[name]
    with pytest.raises(kind) as caught:
        act()
    error = caught.value
    assert error.code and error.code == error.code.lower() and " " not in error.code
    assert isinstance(error, ValueError | TypeError)
    text = str(error)
    golden(f"{name}.txt", (text if len(text) < 2000 else "\n".join(line[:100] for line in text.split("\n"))) + "\n")


def test_no_golden_file_is_left_over(request: pytest.FixtureRequest) -> None:
    files = {p.stem for p in (request.path.parent / "golden").glob("*.txt")}
    assert files == set(CASES)
