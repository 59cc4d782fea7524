"""Under autocast einsum, programs and layers compute in the type that PyTorch's own einsum and Linear compute in."""

from __future__ import annotations

from typing import Any

import pytest

import stein

torch = pytest.importorskip("torch")

SIZES = dict(zip("bijkl", (2, 3, 3, 4, 5), strict=True))
SPECS = (
    "ij,jk->ik", "bij,bjk->bik", "ij,jk,kl->il", "i,i->", "ij,ij->", "ij,jk->k", "ij,kj->i", "i,ij,j->",  # contracted
    "ij->i", "ij->ji", "ii->", "ii->i", "ij,ij->ij", "i,j->ij", "ij,k->k", "ij,j->ij", "ij,jk->ijk", "ij,jk->j",
)  # fmt: skip


def operands(spec: str, dtype: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = [[SIZES[c] for c in term] for term in spec.split("->")[0].split(",")]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


@pytest.mark.parametrize("spec", SPECS)
def test_einsum_has_the_type_that_torch_gives_it(spec: str) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        given = operands(spec, dtype)
        with torch.autocast("cpu", torch.bfloat16):
            wanted, found = torch.einsum(spec, *given), stein.einsum(spec, *given)
        assert found.dtype == wanted.dtype, dtype
        # Operands, up to one value in between and the result are rounded to 8 bits, each sum has at most 12 terms.
        scale = torch.einsum(spec, *(t.double().abs() for t in given))
        rounding = {torch.float64: 2.0**-50, torch.float32: 2.0**-21, torch.float16: 2.0**-8}.get(found.dtype, 2.0**-5)
        assert torch.all((found.double() - wanted.double()).abs() <= rounding * scale)


def test_what_is_no_matrix_product_keeps_its_type() -> None:
    a, b = operands("ij,jk->ik", torch.float32)
    functions = stein.compile("y[i] = exp(sum[j] A[i,j] * x[j])", target="reference")
    products = stein.compile("y[i,k] = A[i,j] * B[j,k]", target="reference")
    scaled = stein.compile("y[i,j] = 2 * A[i,j]", target="reference")
    declared = stein.compile("y[i,k] = A[i,j] * B[j,k]", dtype="float32", target="reference")
    with torch.autocast("cpu", torch.bfloat16):
        assert products(A=a, B=b).dtype == torch.bfloat16
        assert functions(A=a, x=b[:, 0]).dtype == torch.float32
        assert scaled(A=a).dtype == torch.float32
        assert declared(A=a, B=b).dtype == torch.float32
        assert stein.einsum("ij,jk->ik", a, b, semiring="maxplus").dtype == torch.float32
        assert stein.einsum("ij,jk->ik", a, b, dtype="float32").dtype == torch.float32
        assert stein.einsum("ij,jk->ik", a[:, :1], b[:1]).dtype == torch.float32  # one term, as in torch
        with torch.autocast("cpu", enabled=False):
            assert stein.einsum("ij,jk->ik", a, b).dtype == torch.float32


def test_gradients_come_back_in_the_type_of_their_tensor() -> None:
    a, b = (t.requires_grad_() for t in operands("ij,jk->ik", torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        y = stein.einsum("ij,jk->ik", a, b)
    y.sum().backward()
    assert a.grad.dtype == b.grad.dtype == torch.float32


def test_layers_are_lowered_as_linear_is() -> None:
    x = operands("ij,jk->ik", torch.float32)[1][:, :4]  # 3 x 4
    for dtype in (torch.float32, torch.float64, torch.complex64):
        layer, linear = stein.nn.Monarch(4, 4, dtype=dtype), torch.nn.Linear(4, 4, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x.to(dtype)).dtype == linear(x.to(dtype)).dtype
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(stein.DTypeError, match="the parameters are"):
        stein.nn.Monarch(4, 4)(x.double())
