"""Gradients of functions of matrices: `solve`, `inv`, `logdet`, and whole powers of `powm`.

With g the gradient by the value, ^H the conjugate transpose (M. Giles, Collected Matrix Derivative Results for Forward
and Reverse Mode, 2008): x = solve(A, b) gives b the w = solve(A^H, g) and A the -w x^H; y = inv(A) gives
-y^H g y^H; logdet(A) gives g inv(A)^H; the power p >= 1 the sum over k of (A^H)^k g (A^H)^(p-1-k).

Of a matrix that is declared triangular the other triangle is not looked at, and gets the gradient 0. Other declared
properties are promises about the values: the gradient is that of the function of all entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.expr import Const, Equation, Expr, Linalg, Position, Read, Structure
from ..ir.index import Affine, Index
from ..ir.size import Size
from .derivatives import call, conjugate

if TYPE_CHECKING:
    from .gradient_rules import Reverse

_SELF_TRANSPOSED = ("symmetric", "spd", "psd", "diagonal", "identity", "unitary", "orthogonal")


def of_linalg(reverse: Reverse, equation: Equation, node: Linalg, incoming: str) -> None:
    """Hand the gradient `incoming` by the value of a function of matrices on to its arguments."""
    if not any(reverse.wants(a) for a in node.args):
        return
    rules = {"solve": _solve, "inv": _inv, "logdet": _logdet, "powm": _powm}
    if node.function not in rules:
        reverse.refuse(f"'{node.function}' has no derivative here", equation)
    rules[node.function](reverse, equation, node, incoming)


def _solve(reverse: Reverse, equation: Equation, node: Linalg, incoming: str) -> None:
    matrix, right = node.args
    assert isinstance(matrix, Read) and isinstance(right, Read)
    shape = reverse.tensors[matrix.tensor].shape
    rank, columns = len(shape), len(equation.shape) == len(shape)
    turned = _turned(reverse, matrix.tensor, matrix.dtype)
    solved = _apply(reverse, "solve", (turned, incoming), equation.shape, node)
    batch = [f"b{k}" for k in range(rank - 2)]
    row, column, each = [*batch, "i"], [*batch, "j"], (["c"] if columns else [])
    if reverse.wants(right):
        axes = [*row, *each]
        extents = dict(zip(axes, equation.shape, strict=True))
        reverse.deposit(_read(right.tensor, axes, right), (_read(solved, axes, right),), axes, extents, node.dtype)
    if reverse.wants(matrix):
        extents = dict(zip([*row, "j"], shape, strict=True))
        if columns:
            extents["c"] = equation.shape[-1]
        value = conjugate(_read(equation.name, [*column, *each], right))
        minus = call("neg", _read(solved, [*row, *each], right))
        factors = (minus, value, *_known(node))
        reverse.deposit(_read(matrix.tensor, [*row, "j"], matrix), factors, [*row, "j", *each], extents, node.dtype)


def _inv(reverse: Reverse, equation: Equation, node: Linalg, incoming: str) -> None:
    (matrix,) = node.args
    assert isinstance(matrix, Read)
    shape = equation.shape
    batch = [f"b{k}" for k in range(len(shape) - 2)]
    axes = [*batch, "i", "j", "k", "l"]
    extents = dict(zip(axes, (*shape, shape[-1], shape[-1]), strict=True))
    value = [conjugate(_read(equation.name, [*batch, *pair], matrix)) for pair in ("ki", "jl")]
    factors = (call("neg", value[0]), _read(incoming, [*batch, "k", "l"], matrix), value[1], *_known(node))
    reverse.deposit(_read(matrix.tensor, [*batch, "i", "j"], matrix), factors, axes, extents, node.dtype)


def _logdet(reverse: Reverse, equation: Equation, node: Linalg, incoming: str) -> None:
    (matrix,) = node.args
    assert isinstance(matrix, Read)
    shape = reverse.tensors[matrix.tensor].shape
    inverse = _apply(reverse, "inv", (matrix.tensor,), shape, replace(node, dtype=matrix.dtype))
    batch = [f"b{k}" for k in range(len(shape) - 2)]
    axes = [*batch, "i", "j"]
    extents = dict(zip(axes, shape, strict=True))
    gradient = Read(incoming, tuple(map(Affine.of, batch)), node.dtype)
    factors = (gradient, conjugate(_read(inverse, [*batch, "j", "i"], matrix)), *_known(node))
    reverse.deposit(_read(matrix.tensor, axes, matrix), factors, axes, extents, matrix.dtype)


def _powm(reverse: Reverse, equation: Equation, node: Linalg, incoming: str) -> None:
    matrix, power = node.args
    assert isinstance(matrix, Read)
    whole = isinstance(power, Const) and not isinstance(power.value, complex) and float(power.value).is_integer()
    if not whole or not isinstance(power, Const) or float(power.value) < 1:  # type: ignore[arg-type]
        reverse.refuse("'powm' has a derivative here for the powers 1, 2, 3, ... only", equation)
    number = int(power.value)  # type: ignore[arg-type]
    shape = equation.shape
    batch = [f"b{k}" for k in range(len(shape) - 2)]
    axes = [*batch, "i", "j", "k", "l"]
    extents = dict(zip(axes, (*shape, shape[-1], shape[-1]), strict=True))
    powers = {1: matrix.tensor}
    for p in range(2, number):
        exponent = replace(power, value=float(p) if power.dtype.kind == "f" else p)
        powers[p] = _apply(reverse, "powm", (matrix.tensor, exponent), shape, node)
    for k in range(number):
        left, right = k, number - 1 - k
        factors: list[Expr] = list(_known(node))
        names = {"row": "k" if left else "i", "column": "l" if right else "j"}
        if left:
            factors.append(conjugate(_read(powers[left], [*batch, "k", "i"], matrix)))
        factors.append(_read(incoming, [*batch, names["row"], names["column"]], matrix))
        if right:
            factors.append(conjugate(_read(powers[right], [*batch, "j", "l"], matrix)))
        over = [*batch, "i", "j", *(["k"] if left else []), *(["l"] if right else [])]
        reverse.deposit(_read(matrix.tensor, [*batch, "i", "j"], matrix), tuple(factors), over, extents, node.dtype)


# --- parts ------------------------------------------------------------------------------------------------------------


def _read(tensor: str, axes: Sequence[str], like: Read) -> Read:
    return Read(tensor, tuple(map(Affine.of, axes)), like.dtype)


def _known(node: Linalg) -> tuple[Expr, ...]:
    """The condition that entry i, j of the matrix is looked at."""
    names = {s.name for s in node.assume}
    found: list[Expr] = []
    for name, comparison in (("lower", "ge"), ("upper", "le")):
        if name in names:
            found.append(call(comparison, Position(Affine.of("i")), Position(Affine.of("j"))))
    return tuple(found)


def _turned(reverse: Reverse, matrix: str, dtype: object) -> str:
    """The conjugate transpose of a matrix, as a tensor."""
    tensor = reverse.tensors[matrix]
    axes = [f"b{k}" for k in range(len(tensor.shape) - 2)] + ["i", "j"]
    turned = [*axes[:-2], "j", "i"]
    extents = dict(zip(axes, tensor.shape, strict=True))
    value = conjugate(Read(matrix, tuple(map(Affine.of, turned)), tensor.dtype))
    return reverse.define(f"{matrix}.turned", axes, value, extents, tensor.dtype).tensor


def _apply(reverse: Reverse, function: str, args: Sequence[str | Const], shape: tuple[Size, ...], node: Linalg) -> str:
    """The value of a function of whole tensors, as a tensor of `shape`."""
    reads: list[Expr] = []
    indices: list[Index] = []
    bound: list[str] = []
    for k, arg in enumerate(args):
        if isinstance(arg, Const):
            reads.append(arg)
            continue
        sizes = _shape_of(reverse, arg, shape)
        names = [f"a{k}.{n}" for n in range(len(sizes))]
        indices += [Index(n, e) for n, e in zip(names, sizes, strict=True)]
        bound += names
        reads.append(Read(arg, tuple(map(Affine.of, names)), node.dtype))
    result = tuple(f"r.{n}" for n in range(len(shape)))
    indices += [Index(n, e) for n, e in zip(result, shape, strict=True)]
    assume = node.assume if function != "solve" else _transposed(node.assume)
    value = Linalg(function, result, tuple(bound), tuple(reads), node.dtype, assume)
    made = Equation(
        reverse.names.numbered(f"grad.{function}"), tuple(map(Affine.of, result)), shape, tuple(indices), value,
        node.dtype,
    )  # fmt: skip
    reverse.equations.append(made)
    return made.name


def _shape_of(reverse: Reverse, tensor: str, default: tuple[Size, ...]) -> tuple[Size, ...]:
    if tensor in reverse.tensors:
        return reverse.tensors[tensor].shape
    return next((e.shape for e in reverse.equations if e.name == tensor), default)


def _transposed(assume: tuple[Structure, ...]) -> tuple[Structure, ...]:
    """What holds of the conjugate transpose of a matrix of which `assume` holds."""
    other = {"lower": "upper", "upper": "lower"}
    turned = []
    for structure in assume:
        if structure.name in other:
            turned.append(replace(structure, name=other[structure.name]))
        elif structure.name in _SELF_TRANSPOSED:
            turned.append(structure)
    return tuple(turned)
