"""First and second derivatives of programs, through PyTorch's autograd, against finite differences.

`gradcheck` and `gradgradcheck` compare with central differences in float64; their tolerances are PyTorch's. Values are
drawn away from corners by more than the steps that they take (1e-6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

import stein

torch = pytest.importorskip("torch")


@dataclass(frozen=True)
class Case:
    """A program with the shapes of its arguments; `declared` are keywords of `stein.compile`, `kinds` of values."""

    text: str
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)


def value(shape: tuple[int, ...], kind: str, number: int) -> Any:
    """A tensor: spread values without ties, positive ones, complex ones, indices, or a well-conditioned matrix."""
    generator = torch.Generator().manual_seed(7 + number)
    if kind == "index":
        return torch.randint(0, 3, shape, generator=generator)
    if kind == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    if kind == "complex":
        return torch.randn(shape, generator=generator, dtype=torch.complex128).requires_grad_()
    spread = (torch.randperm(max(1, int(torch.tensor(shape).prod())), generator=generator) + 1).reshape(shape)
    found = 0.15 * spread.to(torch.float64) + 0.1 * torch.rand(shape, generator=generator, dtype=torch.float64)
    if kind == "signed":
        sign = (torch.rand(shape, generator=generator) < 0.5).to(torch.float64) * 2 - 1
        found = sign * found
    elif kind == "matrix":
        found = torch.randn(shape, generator=generator, dtype=torch.float64) / 4 + torch.eye(shape[-1]).double()
    elif kind == "lower":
        found = torch.randn(shape, generator=generator, dtype=torch.float64).tril() / 4 + torch.eye(shape[-1]).double()
    return found.clone().requires_grad_()


N = {"A": (3, 4), "B": (4, 2), "x": (4,)}
CASES = (
    # products
    Case("y[i] = A[i,j] * x[j]", {"A": (3, 4), "x": (4,)}),
    Case("y[i,k] = A[i,j] * B[j,k]", {"A": (3, 4), "B": (4, 2)}),
    Case("y[b,i,k] = A[b,i,j] * B[b,j,k]", {"A": (2, 3, 4), "B": (2, 4, 2)}),
    Case("y[i,j] = a[i] * b[j]", {"a": (3,), "b": (2,)}),
    Case("y = sum[i,j] A[i,j] * B[i,j]", {"A": (3, 2), "B": (3, 2)}),
    Case("y[i] = sum[j] A[i,j]", {"A": (3, 4)}),
    Case("y = sum[i] A[i,i]", {"A": (3, 3)}),
    Case("y[i] = A[i,i] * x[i]", {"A": (3, 3), "x": (3,)}),
    Case("y[i,i] = x[i]", {"x": (3,)}),
    Case("y = sum[i,j] x[i] * A[i,j] * x[j]", {"A": (3, 3), "x": (3,)}),
    Case("y[i,k] = A[i,j] * A[k,j]", {"A": (2, 3)}),
    Case("y[a,b] = T[i,j,k] * U[i,a] * V[j,b] * w[k]", {"T": (2, 3, 2), "U": (2, 2), "V": (3, 2), "w": (2,)}),
    Case("y[n,i,j] = A[i,k] * B[j,l] * x[n,k,l]", {"A": (2, 3), "B": (2, 2), "x": (2, 3, 2)}),
    Case("y[(i j)] = A[i,k] * B[j,l] * x[(k l)]", {"A": (2, 2), "B": (2, 3), "x": (6,)}),
    Case("y[i] = sum[j] A[i,j] * z[j] * conj(z[j])", {"A": (2, 3), "z": (3,)}, {"z": "complex"}),
    Case("y[i,k] = A[i,j] * B[j,k]", {"A": (2, 3), "B": (3, 2)}, {"A": "complex", "B": "complex"}),
    Case("y[i] = A[i,j] * z[j]", {"A": (2, 3), "z": (3,)}, {"z": "complex"}),
    # affine slots, pads, lookups
    Case("y[i] = t[i-j+n-1] * x[j]", {"t": (7,), "x": (4,)}, declared={"t": ("2*n-1",), "x": ("n",)}),
    Case("y[i] = c[(i-j) mod n] * x[j]", {"c": (4,), "x": (4,)}, declared={"c": ("n",), "x": ("n",)}),
    Case("y[i+j] = a[i] * b[j]", {"a": (3,), "b": (2,)}),
    Case("y[i+j] += a[i] * b[j]", {"y": (4,), "a": (3,), "b": (2,)}),
    Case("y[p] = x[2*p+u] * w[u] for p in 0..3", {"x": (7,), "w": (3,)}),
    Case("w: f64[-1..2]; x: f64[n] pad=0\ny[p] = w[u] * x[p+u] for p in 0..n", {"w": (3,), "x": (4,)}),
    Case("w: f64[-1..2]; x: f64[n] pad=edge\ny[p] = w[u] * x[p+u] for p in 0..n", {"w": (3,), "x": (4,)}),
    Case("w: f64[-1..2]; x: f64[n] pad=wrap\ny[p] = w[u] * x[p+u] for p in 0..n", {"w": (3,), "x": (4,)}),
    Case("y[s,b] = x[J[s],b] * w[s]", {"x": (3, 2), "J": (4,), "w": (4,)}, {"J": "index"}),
    Case("y[p,b] = (p == J[s]) * x[s,b] for p in 0..3", {"x": (4, 2), "J": (4,)}, {"J": "index"}),
    # elementwise functions
    Case("y[i] = exp(x[i]) * log(z[i]) + sqrt(z[i])", {"x": (3,), "z": (3,)}, {"x": "signed"}),
    Case("y[i] = sin(x[i]) / (2 + cos(x[i]))", {"x": (3,)}, {"x": "signed"}),
    Case("y[i] = tanh(x[i]) * sigmoid(x[i])", {"x": (3,)}, {"x": "signed"}),
    Case("y[i] = gelu(x[i]) + silu(x[i]) + erf(x[i])", {"x": (3,)}, {"x": "signed"}),
    Case("y[i] = relu(x[i])^2 + abs(x[i]) - x[i]^3", {"x": (4,)}, {"x": "signed"}),
    Case("y[i] = z[i]^x[i]", {"x": (3,), "z": (3,)}),
    Case("y[i] = max(x[i], z[i]) * min(x[i], 2)", {"x": (3,), "z": (3,)}, {"x": "signed"}),
    Case("y[i] = clip(x[i], -0.4, 0.4) * x[i]", {"x": (4,)}, {"x": "signed"}),
    Case("y[i] = where(m[i], x[i] * z[i], z[i]^2)", {"x": (4,), "z": (4,), "m": (4,)}, {"m": "bool"}),
    Case("y[i] = where(x[i] > 0, x[i], 0.1 * x[i]) + floor(x[i])", {"x": (4,)}, {"x": "signed"}),
    Case("y[i] = real(z[i]) * imag(z[i]) + abs(z[i])", {"z": (3,)}, {"z": "complex"}),
    Case("y[i] = exp(z[i]) / (z[i] + 2) + x[i] * conj(z[i])", {"z": (2,), "x": (2,)}, {"z": "complex"}),
    Case("y[i] = (i + 1) * x[i] + n * x[i]", {"x": (3,)}, declared={"x": ("n",)}),
    # reductions and semirings
    Case("y[i] = max[j](A[i,j]) + min[j](A[i,j])", {"A": (3, 4)}, {"A": "signed"}),
    Case("y[i] = logsumexp[j](A[i,j] * x[j])", {"A": (2, 3), "x": (3,)}, {"A": "signed"}),
    Case("y[i] = prod[j](A[i,j])", {"A": (2, 3)}, {"A": "signed"}),
    Case("y[i,k] = A[i,j] * B[j,k] over maxplus", {"A": (2, 3), "B": (3, 2)}),
    Case("y[i,k] = A[i,j] * B[j,k] over logsumexp", {"A": (2, 3), "B": (3, 2)}),
    Case("y[i,k] = A[i,j] * B[j,k] over maxmin", {"A": (2, 3), "B": (3, 2)}, {"A": "signed"}),
    Case("y[i] = softmax[i](x[i] * x[i])", {"x": (4,)}),
    Case("s[q,k] = Q[q,d] * K[k,d]\ny[q,e] = softmax[k](s[q,k]) * V[k,e]", {"Q": (2, 2), "K": (3, 2), "V": (3, 2)}),
    # several statements and results
    Case(
        "h[i] = tanh(sum[k] W[i,k] * x[k])\ny[j] = V[j,i] * h[i]\nz = sum[i] h[i]^2",
        {"W": (3, 2), "x": (2,), "V": (2, 3)},
    ),
    Case("y[i] = x[i] * x[i]\nn = sum[i] (x[i] > 0.2)", {"x": (3,)}),
    # matrices
    Case("y = solve(A, b)", {"A": (3, 3), "b": (3,)}, {"A": "matrix"}, {"A": ("n", "n"), "b": ("n",)}),
    Case("y = solve(A, b)", {"A": (3, 3), "b": (3, 2)}, {"A": "matrix"}, {"A": ("n", "n"), "b": ("n", "m")}),
    Case("y = inv(A)", {"A": (3, 3)}, {"A": "matrix"}, {"A": ("n", "n")}),
    Case("y = logdet(A)", {"A": (3, 3)}, {"A": "matrix"}, {"A": ("n", "n")}),
    Case("y = powm(A, 3)", {"A": (2, 2)}, {"A": "matrix"}, {"A": ("n", "n")}),
)


def prepared(case: Case, target: str) -> tuple[Any, list[Any]]:
    """The program as a function of its arguments in order, returning a tuple, and the arguments."""
    values = {n: value(s, case.kinds.get(n, ""), k) for k, (n, s) in enumerate(case.shapes.items())}
    types = {n: stein.tensor(s, "bool") for n, s in case.shapes.items() if case.kinds.get(n) == "bool"}
    compiled = stein.compile(case.text, target=target, **case.declared, **types)

    def function(*args: Any) -> Any:
        found = compiled(**dict(zip(values, args, strict=True)))
        results = tuple(found.values()) if isinstance(found, dict) else (found,)
        return tuple(r for r in results if r.is_floating_point() or r.is_complex())

    return function, list(values.values())


def named(cases: tuple[Case, ...]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[c.text.replace("\n", "; ") for c in cases])


@named(CASES)
def test_first_and_second_derivatives(case: Case) -> None:
    # The target evaluates by definition, so that this is about the derivatives and costs no compilation.
    function, args = prepared(case, "reference")
    assert torch.autograd.gradcheck(function, args)
    assert torch.autograd.gradgradcheck(function, args, fast_mode=True)


@named(CASES[::6])
def test_forward_mode(case: Case) -> None:
    function, args = prepared(case, "reference")
    assert torch.autograd.gradcheck(function, args, check_forward_ad=True, check_backward_ad=False)


@named(CASES[1::3])
def test_kernels_compute_the_same(case: Case) -> None:
    gradients = []
    for target in ("reference", "cpu"):
        function, args = prepared(case, target)
        weighted = sum((torch.sin(r.abs() * r.abs())).sum() for r in function(*args))
        gradients.append(torch.autograd.grad(weighted, [a for a in args if a.requires_grad]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_derivatives_of_a_product_with_zeros(kind: str) -> None:
    """Up to the third they are those of the polynomial, however many factors are 0."""
    from itertools import product

    rows = [[1.3 * (k + 1) * (-1) ** k * there for k, there in enumerate(one)] for one in product((0, 1), repeat=4)]
    x = torch.tensor(rows, dtype=torch.float64)
    x = (x if kind == "real" else x * (0.6 + 0.8j)).requires_grad_()
    compiled = stein.compile("y[i] = prod[j](A[i,j])", target="reference")

    def multiplied(A: Any) -> Any:
        return A[:, 0] * A[:, 1] * A[:, 2] * A[:, 3]

    def derivatives(function: Any) -> list[Any]:
        generator = torch.Generator().manual_seed(0)
        found = [function(x)]
        for _ in range(3):
            weights = torch.randn(found[-1].shape, generator=generator, dtype=x.dtype)
            found += torch.autograd.grad((found[-1] * weights).sum().real, x, create_graph=True)
        return found

    for found, wanted in zip(derivatives(lambda x: compiled(A=x)), derivatives(multiplied), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)  # a few operations on numbers up to 100
