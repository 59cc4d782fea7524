"""The operator under everything that PyTorch does with operators: transforms, many gradients at once, fake tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein

torch = pytest.importorskip("torch")

MLP = "h[n,i] = tanh(sum[k] W[i,k] * x[n,k])\ny[n,j] = V[j,i] * h[n,i] + c[j]"


def normal(*shape: int, seed: int = 0, grad: bool = False) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def arguments(grad: bool = False) -> dict[str, Any]:
    shapes = {"W": (3, 4), "x": (2, 4), "V": (5, 3), "c": (5,)}
    return {n: normal(*s, seed=k, grad=grad) for k, (n, s) in enumerate(shapes.items())}


def in_torch(W: Any, x: Any, V: Any, c: Any) -> Any:
    return torch.tanh(x @ W.T) @ V.T + c


def close(found: Any, wanted: Any) -> None:
    # Some hundred operations on numbers near 1: their roundings stay far below this.
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.fixture(scope="module")
def program() -> Any:
    return stein.compile(MLP, target="reference")


def test_the_operator_passes_the_checks_of_pytorch() -> None:
    from stein.ir.text import print_program
    from stein.runtime.torch_op import operator

    compiled = stein.compile(MLP, target="reference")
    text = print_program(compiled.program)
    tensors = [arguments(grad=True)[i.name] for i in compiled.program.inputs]
    found = torch.library.opcheck(operator(), (text, '{"target": "reference"}', tensors))
    assert len(found) >= 4 and set(found.values()) == {"SUCCESS"}


def test_gradients_of_einsum_are_those_of_torch() -> None:
    a, b = normal(3, 4, grad=True), normal(4, 5, seed=1, grad=True)
    y = stein.einsum("ij,jk->ik", a, b)
    weight = normal(3, 5, seed=2)
    close(torch.autograd.grad((y * weight).sum(), (a, b)), (weight @ b.detach().T, a.detach().T @ weight))


def test_only_the_gradients_that_are_needed_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from stein.runtime import torch_op

    programs: list[str] = []
    compute = torch_op.compute
    monkeypatch.setattr(torch_op, "compute", lambda text, *rest: programs.append(text) or compute(text, *rest))
    a, b = normal(3, 4, grad=True), normal(4, 5, seed=1)
    stein.einsum("ij,jk->ik", a, b).sum().backward()
    assert len(programs) == 2 and programs[-1].count("return") == 1
    (result,) = programs[-1].splitlines()[-1].removeprefix("return ").split(", ")
    assert result.startswith("grad.op0") and "grad.op1" not in programs[-1]


def test_nothing_is_recorded_without_need() -> None:
    a = normal(3, 3, grad=True)
    with torch.no_grad():
        assert not stein.einsum("ij,jk->ik", a, a).requires_grad
    assert stein.einsum("ij->ji", a.detach()).data_ptr() == a.data_ptr()  # plain tensors are still viewed


def test_dear_values_are_kept_and_cheap_ones_recomputed(program: Any) -> None:
    from stein.passes.gradient import with_residuals

    source = program.program
    kept = with_residuals(source, ["W", "x", "V", "c"]).outputs
    assert kept == ("y", "h")  # tanh needs its own value only
    assert with_residuals(source, ["c"]) is source


def test_integers_and_unread_inputs_have_no_gradient(program: Any) -> None:
    f = stein.compile("y[s] = x[J[s]]\nn[i] = floor(z[i])", J=stein.tensor(("s",), "i64"), target="reference")
    x, z = normal(3, grad=True), normal(2, grad=True)
    found = f(x=x, J=torch.tensor([2, 0, 2]), z=z)
    found["y"].sum().backward()
    close(x.grad, torch.tensor([1.0, 0.0, 2.0]).double())
    assert z.grad is None


def test_what_has_no_derivative_is_refused_at_its_place() -> None:
    f = stein.compile("y = powm(A, 0.5)", A=("n", "n"), dtype="float64", target="reference")
    with pytest.raises(stein.DTypeError, match="no gradient passes") as caught:
        f(A=torch.eye(2).double().requires_grad_())
    assert (caught.value.line, caught.value.col) == (1, 5) and "^^^^" in str(caught.value)
    f(A=torch.eye(2).double())


def test_an_argument_of_another_type_is_refused(program: Any) -> None:
    f = stein.compile("y[i] = A[i,j] * x[j]", dtype="float32", target="reference")
    with pytest.raises(stein.DTypeError, match="declared torch"):
        f(A=normal(2, 2, grad=True), x=normal(2))
    with pytest.raises(stein.DTypeError, match="out takes no result"):
        stein.einsum("ij->i", normal(2, 2, grad=True), out=np.zeros(2))


def test_vmap_of_the_program(program: Any) -> None:
    given = arguments()
    xs = normal(6, 2, 4, seed=9)
    found = torch.func.vmap(lambda x: program(**{**given, "x": x}))(xs)
    close(found, torch.stack([in_torch(**{**given, "x": x}) for x in xs]))
    along = torch.func.vmap(lambda x, c: program(**{**given, "x": x, "c": c}), in_dims=(2, 0), out_dims=1)
    close(along(xs.movedim(0, 2), given["c"].expand(6, 5)), found.movedim(0, 1))


@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian"])
def test_transforms_of_torch_func(program: Any, transform: str) -> None:
    given, x = arguments(), arguments()["x"]

    def applied(function: Any) -> Any:
        scalar = transform in ("grad", "hessian")
        inner = lambda x: function(**{**given, "x": x})  # noqa: E731
        return getattr(torch.func, transform)((lambda x: torch.sin(inner(x)).sum()) if scalar else inner)(x)

    close(applied(program), applied(in_torch))


def test_gradients_for_each_sample(program: Any) -> None:
    given = arguments()

    def loss(function: Any) -> Any:
        one = lambda W, x: function(**{**given, "W": W, "x": x[None]}).pow(2).sum()  # noqa: E731
        return torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(given["W"], given["x"])

    close(loss(program), loss(in_torch))


def test_vmap_of_solve() -> None:
    f = stein.compile("y = solve(A, b)", A=("n", "n"), b=("n",), target="reference")
    A, b = normal(4, 3, 3) / 4 + torch.eye(3).double(), normal(3, seed=3)
    close(torch.func.vmap(lambda A: f(A=A, b=b))(A), torch.linalg.solve(A, b.expand(4, 3)))


def test_directional_derivatives(program: Any) -> None:
    given, direction = arguments(), normal(3, 4, seed=5)
    found = torch.func.jvp(lambda W: program(**{**given, "W": W}), (given["W"],), (direction,))
    close(found, torch.func.jvp(lambda W: in_torch(**{**given, "W": W}), (given["W"],), (direction,)))


def test_many_gradients_at_once(program: Any) -> None:
    given = arguments(grad=True)
    names, values = list(given), list(given.values())
    seeds = normal(3, 2, 5, seed=8)

    def batched(function: Any) -> Any:
        first = torch.autograd.grad(
            function(**dict(zip(names, values, strict=True))), values, seeds, is_grads_batched=True, create_graph=True
        )
        total = sum(g.pow(2).sum() for g in first)
        return (*first, *torch.autograd.grad(total, values, allow_unused=True, materialize_grads=True))

    for found, wanted in zip(batched(program), batched(in_torch), strict=True):
        close(found, wanted)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_jacobians_at_once(program: Any, strategy: str) -> None:
    given, x = arguments(), arguments()["x"]
    jacobian = torch.autograd.functional.jacobian
    found = jacobian(lambda x: program(**{**given, "x": x}), x, vectorize=True, strategy=strategy)
    close(found, jacobian(lambda x: in_torch(**{**given, "x": x}), x))


def test_batches_of_gradients_within_each_other() -> None:
    """The two levels of PyTorch's older vmap are taken off one after the other, also by einsum of bare tensors."""
    from torch._vmap_internals import _vmap

    A, x = normal(2, 3, 4), normal(5, 4, seed=1)
    found = _vmap(lambda A: _vmap(lambda x: stein.einsum("ij,j->i", A, x))(x))(A)
    close(found, torch.einsum("aij,xj->axi", A, x))


def test_a_semiring_of_ones_own_has_gradients() -> None:
    own = stein.Semiring("highest", "maximum", "add", "-inf", 0, idempotent=True)
    a = normal(3, 4, grad=True)
    y = stein.einsum("ij,j->i", a, torch.zeros(4).double(), semiring=own)
    close(torch.autograd.grad(y.sum(), a)[0], torch.nn.functional.one_hot(a.argmax(1), 4).double())


def test_ties_share_a_gradient_as_in_torch() -> None:
    x = torch.tensor([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    f = stein.compile("y[i] = max[j](x[i,j])", target="reference")
    close(torch.autograd.grad(f(x=x).sum(), x), torch.autograd.grad(x.amax(1).sum(), x))


def test_constants_and_programs_of_unknown_rank() -> None:
    W, x = normal(3, 4), normal(4, seed=1, grad=True)
    f = stein.compile("y[i] = W[i,j] * x[j]", W=stein.constant(W.numpy()), target="reference")
    close(torch.autograd.grad(f(x=x).sum(), x)[0], W.sum(0))
    g = stein.compile("y = A @ x", target="reference")
    close(torch.autograd.grad(g(A=W, x=x).sum(), x)[0], W.sum(0))


def test_complex_gradients_are_those_of_torch() -> None:
    a, b = (torch.randn(3, 3, dtype=torch.complex128, requires_grad=True) for _ in range(2))
    found = stein.einsum("ij,jk->ik", a, b).abs().sum()
    close(torch.autograd.grad(found, (a, b)), torch.autograd.grad((a @ b).abs().sum(), (a, b)))


def test_shapes_without_values(program: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        y = stein.einsum("bij,jk->bik", torch.empty(2, 3, 4), torch.empty(4, 5))
    assert tuple(y.shape) == (2, 3, 5) and y.dtype == torch.float32
