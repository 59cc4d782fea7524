"""`opt_einsum.contract(..., backend="stein")`: pairwise steps of opt_einsum's path run here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein

opt_einsum = pytest.importorskip("opt_einsum")

EXPRESSIONS = (
    "ij,jk->ik",
    "ij,jk,kl->il",
    "ij,jk,kl,lm->im",
    "ij,kj->ik",
    "ji,jk->ki",
    "i,i->",
    "i,j->ij",
    "ij->ji",
    "ij->",
    "ii->i",
    "bij,bjk->bik",
    "ijk,jil->kl",
    "ijk,kl,lm->ijm",
    "abc,cd,be->ade",
    "abcd,cdef->abef",
    "ij,ij->ij",
    "ij,ij->i",
    "ab,bc,cd,da->",
    "ijk,ia,jb,kc->abc",
    "ir,jr,kr->ijk",
    "bqd,bkd->bqk",
)


def operands(expression: str) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal([2 + ord(c) % 3 for c in term]) for term in expression.split("->")[0].split(",")]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_contract(expression: str) -> None:
    arrays = operands(expression)
    found = opt_einsum.contract(expression, *arrays, backend="stein")
    assert isinstance(found, (np.ndarray, np.generic))
    # at most 4^4 products of up to 4 standard normals are summed: 256 roundings of numbers below 2^8
    np.testing.assert_allclose(found, np.einsum(expression, *arrays), rtol=1e-12, atol=256 * 2**8 * 2.0**-52)


def test_steps_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from opt_einsum.backends import dispatch

    seen: list[str] = []

    def counted(name: str) -> Any:
        function = getattr(stein, name)
        return lambda *args, **keywords: seen.append(name) or function(*args, **keywords)

    for name in ("einsum", "tensordot", "transpose"):
        monkeypatch.setitem(dispatch._cached_funcs, (name, "stein"), counted(name))
    opt_einsum.contract("ij,jk,kl->li", *operands("ij,jk,kl"), backend="stein")
    assert "tensordot" in seen


def test_torch_tensors_and_their_gradients() -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(a, requires_grad=True) for a in operands("ij,jk,kl->il")]
    found = opt_einsum.contract("ij,jk,kl->il", *tensors, backend="stein")
    wanted = torch.einsum("ij,jk,kl->il", *tensors)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), tensors), torch.autograd.grad(wanted.sum(), tensors))


@pytest.mark.parametrize("axes", [0, 1, 2, ([1], [0]), ((1, 2), (0, 1)), (-1, 1), ((0, 2), (1, -1))])
def test_tensordot(axes: Any) -> None:
    a, b = np.random.default_rng(1).standard_normal((2, 3, 3, 3))
    np.testing.assert_allclose(stein.tensordot(a, b, axes), np.tensordot(a, b, axes), rtol=1e-12, atol=1e-13)


def test_transpose_is_a_view() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    for axes in (None, (1, 2, 0), (0, -1, 1)):
        found = stein.transpose(a, axes)
        np.testing.assert_array_equal(found, np.transpose(a, axes))
        assert np.shares_memory(found, a)


def test_axes_that_mean_nothing() -> None:
    a = np.ones((2, 3))
    for axes in (3, ([0], [0, 1]), ([5], [0]), ([0, 0], [0, 0])):
        with pytest.raises(stein.ShapeError):
            stein.tensordot(a, a, axes)
    with pytest.raises(stein.ShapeError, match="no order"):
        stein.transpose(a, (0, 0))
