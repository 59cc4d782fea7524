"""Whatever the text, the front end answers with a program or a `SteinError`, and a program it gives computes."""

import re
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.frontend.declare import Declaration
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.bind import bind_sizes
from stein.ir.errors import SteinError
from stein.ir.interpret import interpret

TEXT = """
x y A B n m i j k d = += : ; + - * / @ ^ ' ( ) [ ] , .. ... mod for in over maxplus logsumexp return sum[k] max[j]
softmax[k] any[i] exp relu where max kron approx solve f32 f64[n] f64[n,m] const encrypted pad=0 bsr(block=2) identity
0 1 2 2.5 2j < == 1e400 -1 pi inf += y[i] A[i,k] x[k] x[i] B[j,i]
"""
TOKENS = [*TEXT.split(), "\n"]
PROGRAMS = [
    "y[i] = A[i,k]*x[k] + b[i]",
    "x: f64[b,n]; t: f64[2*n-1]\ny[b,i] = t[i-j+n-1]*x[b,j]",
    "c, x: f64[n]; y[i] = c[(i-j) mod n]*x[j]",
    "y[b,(i k)] = L[k,i,j]*R[j,k,m]*x[b,(j m)]",
    "w: f64[-2..3]; x: f64[n] pad=0\ny[i] = w[d]*x[i+d] for i in 0..n",
    "a[i,j] = softmax[j](sum[d] Q[i,d]*K[j,d]/sqrt(2)); o[i,d] = a[i,j]*V[j,d]",
    "A, B: f64[n,n]; x: f64[n]; y = A' @ x + 2*x - (B @ x)/3",
    "d[i,j] = A[i,k]*B[k,j] over maxplus; d[i,j] += A[i,j] over maxplus",
    "x: encrypted f64[n]; h[i] = approx(sigmoid, degree=3, range=-8..8)(sum[j] A[i,j]*x[j] + b[i])",
    "y[2*p] = x[2*p+u]*w[u]; z[i] = where(i < 2, y[i], max(y[i], 0))^2",
]


def attempt(text: str, declarations: dict[str, Declaration]) -> SteinError | dict[str, Any]:
    """The error that refuses a program, or its arguments' shapes, or else its outputs on ones."""
    try:
        program = elaborate(parse_program(text), declarations)
    except SteinError as error:
        return error
    names = sorted({n for i in program.inputs for size in i.shape for n in size.names})
    sizes = {n: 2 + k % 3 for k, n in enumerate(names)}
    shapes = {i.name: tuple(max(0, n.evaluate(sizes)) for n in i.shape) for i in program.inputs}
    try:
        bind_sizes(program, shapes)
    except SteinError as error:
        return error
    results = interpret(program, {i.name: np.ones(shapes[i.name], i.dtype.numpy) for i in program.inputs})
    assert tuple(results) == program.outputs
    return results


def answers(text: str, declarations: dict[str, Declaration]) -> bool:
    """Whether the answer is well formed: an error with a sentence and a place in the text, or arrays."""
    result = attempt(text, declarations)
    if isinstance(result, SteinError):
        return bool(str(result)) and 1 <= result.line <= text.count("\n") + 1 and result.col >= 1
    return all(isinstance(value, np.ndarray) for value in result.values())


@given(st.lists(st.sampled_from(TOKENS), max_size=25).map(" ".join) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_random_tokens(text: str) -> None:
    assert answers(text, {})


@given(st.sampled_from(PROGRAMS), st.data())
@settings(max_examples=300, deadline=None)
def test_programs_with_one_thing_changed(text: str, data: st.DataObject) -> None:
    pieces = re.findall(r"\w+|\s+|[^\w\s]", text)
    at = data.draw(st.integers(0, len(pieces) - 1))
    new = data.draw(st.sampled_from([*TOKENS, *pieces, ""]))
    pieces[at : at + data.draw(st.integers(0, 1))] = [new]
    shape = data.draw(st.sampled_from([None, ("n",), ("n", "m"), (3,), (3, 3), (), ("2*n-1",)]))
    assert answers("".join(pieces), {"x": Declaration(shape)} if data.draw(st.booleans()) else {})


def test_the_programs_themselves_compute() -> None:
    for text in PROGRAMS:
        results = attempt(text, {})
        assert isinstance(results, dict) and results, text
