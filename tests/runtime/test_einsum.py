"""`stein.einsum`, the drop-in: values, layouts, aliasing, keywords, libraries, threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import stein

RNG = np.random.default_rng(1)


def test_the_same_call_again_and_with_other_sizes() -> None:
    for n in (1, 2, 3, 3, 17, 4, 17):
        a, b = RNG.random((n, 5)), RNG.random((5, n))
        np.testing.assert_allclose(stein.einsum("ij,jk->ik", a, b), a @ b, rtol=1e-13)


def test_a_later_call_leaves_an_earlier_result_alone() -> None:
    a = RNG.random((6, 6))
    first = stein.einsum("ij,jk->ik", a, a)
    kept = first.copy()
    stein.einsum("ij,jk->ik", a + 1, a)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("spec", ["ij->ij", "ij->ji", "ii->i", "...->...", "iij->ji"])
def test_views_as_numpy_gives_them(spec: str) -> None:
    a = np.zeros((3, 3, 4)) if spec == "iij->ji" else np.zeros((3, 3))
    view = stein.einsum(spec, a)
    assert np.shares_memory(view, a)
    view[...] = 1
    assert a.any()


@pytest.mark.parametrize("order", ["C", "F", "A", "K"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_order_is_numpys(order: str, layout: str) -> None:
    a, b = np.array(RNG.random((3, 4, 5)), order=layout), np.array(RNG.random((5, 4)), order=layout)
    for spec in ("ijk,kl->ijl", "ijk,kj->ji", "ijk,kl->lij"):
        ours, theirs = stein.einsum(spec, a, b, order=order), np.einsum(spec, a, b, order=order)
        np.testing.assert_allclose(ours, theirs)
        assert ours.strides == theirs.strides, spec


def test_out_of_every_layout() -> None:
    a, b = RNG.random((4, 5)), RNG.random((5, 6))
    big = np.zeros((8, 12))
    for out in (np.zeros((4, 6)), np.zeros((6, 4)).T, big[::2, ::2], big[3::-1, 5::-1]):
        assert stein.einsum("ij,jk->ik", a, b, out=out) is out
        np.testing.assert_allclose(out, a @ b)


def test_out_that_is_an_operand() -> None:
    a = RNG.random((5, 5))
    want = a @ a
    stein.einsum("ij,jk->ik", a, a, out=a)
    np.testing.assert_allclose(a, want)


def test_out_0d_and_mismatches() -> None:
    a = np.arange(4.0)
    out = np.zeros(())
    assert stein.einsum("i,i->", a, a, out=out) is out
    assert out == 14
    with pytest.raises(stein.ShapeError):
        stein.einsum("i,i->", a, a, out=np.zeros(1))
    with pytest.raises(stein.DTypeError):
        stein.einsum("i->i", a, out=np.zeros(4, "i4"))


def test_mixed_types_promote_before_the_first_contraction() -> None:
    ones, more = np.ones((3, 4), bool), np.ones(3, bool)
    assert stein.einsum("ab,a,c->", ones, more, np.ones(2)) == 24.0
    hundred = np.full((3, 4), 100, np.int8)
    assert stein.einsum("ab,a,c->", hundred, np.full(3, 100, np.int8), np.ones(2)) == 240000.0


def test_dtype_and_casting() -> None:
    a = np.arange(6, dtype="i4").reshape(2, 3)
    assert stein.einsum("ij->i", a, dtype="f8").dtype == np.float64
    with pytest.raises(stein.DTypeError):
        stein.einsum("ij->i", a.astype("f8"), dtype="i4")
    assert stein.einsum("ij->i", a.astype("f8"), dtype="i4", casting="unsafe").tolist() == [3, 12]


def test_scalars_come_back_as_scalars() -> None:
    a = np.arange(3.0)
    for _ in range(3):
        assert isinstance(stein.einsum("i,i->", a, a), np.float64)


def test_lists_numbers_and_array_likes() -> None:
    class Wrapped:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.arange(3.0)

    assert stein.einsum("i,->i", [1, 2, 3], 2).tolist() == [2, 4, 6]
    assert stein.einsum("i,i->", Wrapped(), [1.0, 1, 1]) == 3.0


def test_strides_of_every_kind() -> None:
    base = RNG.random((20, 20))
    for a in (base[::2, ::-1][:8, :8], base.T[:8, 3:11], np.broadcast_to(base[0, :8], (8, 8)), base[5:13, 5:13]):
        np.testing.assert_allclose(stein.einsum("ij,jk->ki", a, a), (a @ a).T)
    raw = np.zeros(8 * 9 + 1, np.uint8)
    unaligned = raw[1:].view("f8")
    unaligned[:] = np.arange(9)
    np.testing.assert_allclose(stein.einsum("i,i->i", unaligned, unaligned), np.arange(9.0) ** 2)
    swapped = np.arange(4.0).astype(">f8")
    np.testing.assert_allclose(stein.einsum("i,i->", swapped, swapped), 14.0)


@pytest.mark.parametrize(
    ("name", "add", "mul"), [("maxplus", np.max, np.add), ("minplus", np.min, np.add), ("maxmin", np.max, np.minimum)]
)
def test_semirings(name: str, add: object, mul: object) -> None:
    a, b = RNG.random((5, 6)), RNG.random((6, 7))
    want = add(mul(a[:, :, None], b[None]), axis=1)  # type: ignore[operator]
    np.testing.assert_array_equal(stein.einsum("ij,jk->ik", a, b, semiring=name), want)


def test_a_semiring_of_ones_own() -> None:
    least_times = stein.Semiring("mintimes", "minimum", "mul", "inf", 1, idempotent=True)
    a, b = RNG.random((5, 6)), RNG.random((6, 7))
    want = (a[:, :, None] * b[None]).min(axis=1)
    np.testing.assert_array_equal(stein.einsum("ij,jk->ik", a, b, semiring=least_times), want)


def test_extensions_of_the_string() -> None:
    a, b = RNG.random((3, 4)), RNG.random((4, 5))
    np.testing.assert_allclose(stein.einsum("row mid, mid col -> col row", a, b, names=True), (a @ b).T)
    np.testing.assert_array_equal(stein.einsum("i->ii", np.arange(3.0), diagonal_output=True), np.diag(np.arange(3.0)))
    np.testing.assert_array_equal(stein.einsum("ij->(i j)", a), a.ravel())
    with pytest.raises(stein.EinsumSyntaxError, match="twice in the output"):
        stein.einsum("i->ii", np.arange(3.0))


def test_objects_and_extended_precision() -> None:
    a = np.array([1, 2, 10**30], dtype=object)
    assert stein.einsum("i,i->", a, a) == 10**60 + 5
    x = np.arange(3, dtype=np.longdouble)
    assert stein.einsum("i,i->", x, x).dtype == np.longdouble


def test_threads_share_one_expression() -> None:
    a = [RNG.random((n, n)) for n in (3, 8, 33, 64)]
    wrong = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            x = a[rng.integers(len(a))]
            if not np.allclose(stein.einsum("ab,bc->ac", x, x), x @ x):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_number_of_threads_changes_no_bit() -> None:
    a, b = RNG.random((300, 400), dtype=np.float32), RNG.random((400, 350), dtype=np.float32)
    before = stein.get_threads()
    try:
        results = []
        for n in (1, 2, 3):
            stein.set_threads(n)
            results.append([stein.einsum(s, a, b) for s in ("ij,jk->ik", "ij,jk->ki", "ij,jk->i", "ij,jk->")])
        for other in results[1:]:
            for x, y in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(x, y)
    finally:
        stein.set_threads(before)


def test_torch_in_torch_out() -> None:
    torch = pytest.importorskip("torch")
    a = torch.arange(6.0).reshape(2, 3)
    y = stein.einsum("ij,kj->ik", a, a)
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y, a @ a.T)
    half = a.to(torch.bfloat16)
    assert stein.einsum("ij,kj->ik", half, half).dtype == torch.bfloat16
    assert stein.einsum("ij->i", a.clone().requires_grad_()).requires_grad


def test_jax_in_jax_out() -> None:
    jax = pytest.importorskip("jax")
    a = jax.numpy.arange(6.0).reshape(2, 3)
    y = stein.einsum("ij,kj->ik", a, a)
    assert isinstance(y, jax.Array)
    np.testing.assert_allclose(np.asarray(y), np.asarray(a @ a.T))


def test_what_is_no_operand() -> None:
    for bad in (None, "text", {}):
        with pytest.raises(TypeError):
            stein.einsum("i", bad)
    with pytest.raises(TypeError, match="first argument"):
        stein.einsum(5, np.ones(3))
    with pytest.raises(TypeError, match="did you mean 'optimize'"):
        stein.einsum("i", np.ones(3), optimise=True)


def test_a_hot_call_gets_a_kernel_of_its_own_sizes() -> None:
    from stein.frontend.classic import parse_spec
    from stein.runtime.einsum import _EXPRESSIONS, binding_key, find_expression
    from stein.runtime.settings import PLAIN

    a, b = RNG.random((3, 5)), RNG.random((5, 4))
    spec = "hu,uw->hw"
    want = stein.einsum(spec, a, b)
    expression = find_expression(parse_spec(spec), [a, b], PLAIN)
    assert len(_EXPRESSIONS)
    record = expression.records.find(binding_key([a, b]))
    assert record is not None
    assert not record.expired
    while not record.expired:
        for _ in range(10_000):
            stein.einsum(spec, a, b)
    np.testing.assert_allclose(stein.einsum(spec, a, b), want, rtol=1e-15)
    newer = expression.records.find(binding_key([a, b]))
    assert newer is not None
    assert newer is not record
    assert not newer.expired


def test_a_semiring_that_complex_numbers_lack() -> None:
    for dtype in ("c8", "c16"):
        with pytest.raises(stein.DTypeError, match="logsumexp of complex"):
            stein.einsum("ij->i", np.ones((2, 3), dtype), semiring="logsumexp")
    with pytest.raises(stein.DTypeError, match="complex"):
        stein.compile("y[i] = A[i,j]*x[j] over logsumexp", dtype="c64")


def test_three_types_promote_together() -> None:
    operands = np.array(2, "i1"), np.ones(3, "u2"), np.ones((3, 2), "c8")
    assert stein.einsum(",a,ab->a", *operands).dtype == np.einsum(",a,ab->a", *operands).dtype == np.complex64
