"""What the GPU backend makes of equations: kernels, products by torch, chunks, scatters, complex parts, prices."""

from __future__ import annotations

import pytest

import stein
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.precision import relative_error
from stein.backends.gpu.program import Bound, bind
from stein.backends.gpu.steps import Drop, Make, Part, Product
from stein.backends.gpu.target import GpuTarget
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.ir.types import BF16, F16, F32
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan


def planned(text: str, dtype: str = "float32", **shapes: object) -> Program:
    program: Program = stein.compile(text, dtype=dtype, target="reference", **shapes).program
    return plan(Draft(BEST, program), Context(sizes={})).program


def steps(
    text: str, dtype: str = "float32", settings: Settings = Settings(), library: bool = True,
    strides: dict[str, tuple[int, ...]] | None = None, **shapes: object,
) -> Bound:  # fmt: skip
    """The steps of a program of fixed sizes, for dense operands or ones with the `strides` given."""
    program = planned(text, dtype, **shapes)
    layouts = {}
    for i in program.inputs:
        layouts[i.name] = Layout.dense(tuple(n.evaluate({}) for n in i.shape), i.dtype)
        if strides and i.name in strides:
            layouts[i.name] = Layout(layouts[i.name].shape, strides[i.name], i.dtype)
    return bind(program, {}, layouts, settings, library)


def kinds(found: Bound) -> list[str]:
    return [type(s).__name__ for s in found.steps if not isinstance(s, Make | Drop)]


# --- products by torch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("y[i,k] = A[i,j] * B[j,k]", {"A": (30, 40), "B": (40, 50)}),
        ("y[i,k] = A[j,i] * B[k,j]", {"A": (40, 30), "B": (50, 40)}),
        ("y[k,i] = A[i,j] * B[j,k]", {"A": (30, 40), "B": (40, 50)}),
        ("y[b,i,k] = A[b,i,j] * B[b,j,k]", {"A": (3, 30, 40), "B": (3, 40, 50)}),
        ("y[b,c,i] = x[b,c,j] * W[i,j]", {"x": (3, 30, 40), "W": (50, 40)}),
        ("y[i,k] = A[i,j,l] * B[j,l,k]", {"A": (30, 4, 10), "B": (4, 10, 50)}),
    ],
)
def test_products_of_matrices_as_they_lie_go_to_torch(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64", "complex64"):
        assert "Product" in kinds(steps(text, dtype, **shapes)), dtype
    found = steps(text, "float32", **shapes)
    (product,) = [s for s in found.steps if isinstance(s, Product)]
    assert product.left.shape[-1] == product.right.shape[-2] == 40
    assert "torch.matmul" in found.text


@pytest.mark.parametrize(
    ("text", "dtype", "shapes"),
    [
        ("y[a,b,d,c] = x[a,e,b,f] * w[d,f,c,e]", "float16", {"x": (4, 6, 5, 7), "w": (3, 7, 8, 6)}),  # needs copies
        ("y[i,k] = A[i,j] * B[j,k]", "int32", {"A": (30, 40), "B": (40, 50)}),
        ("y[i,k] = A[i,j] * B[j,k] over maxplus", "float32", {"A": (30, 40), "B": (40, 50)}),
        ("y[i,k] = exp(sum[j] A[i,j] * B[j,k])", "float32", {"A": (30, 40), "B": (40, 50)}),  # fused with the function
        ("y[i] = A[i,j] * x[j]", "float32", {"A": (30, 40), "x": (40,)}),
    ],
)
def test_other_products_are_kernels_of_ours(text: str, dtype: str, shapes: dict[str, tuple[int, ...]]) -> None:
    assert set(kinds(steps(text, dtype, **shapes))) == {"Launch"}


def test_operands_that_blas_would_copy_stay_here() -> None:
    shapes = {"A": (30, 40), "B": (40, 50)}
    text = "y[i,k] = A[i,j] * B[j,k]"
    assert kinds(steps(text, strides={"A": (1, 30)}, **shapes)) == ["Product"]
    assert kinds(steps(text, strides={"A": (80, 2)}, **shapes)) == ["Launch"]
    assert kinds(steps(text, strides={"A": (0, 1)}, **shapes)) == ["Launch"]


def test_another_precision_is_no_business_of_torch() -> None:
    """Its own flags decide how torch multiplies f32; ours is part of the plan."""
    shapes = {"A": (64, 64), "B": (64, 64)}
    found = steps("y[i,k] = A[i,j] * B[j,k]", settings=Settings("tf32"), **shapes)
    assert kinds(found) == ["Launch"] and 'input_precision="tf32"' in found.source
    found = steps("y[i,k] = A[i,j] * B[j,k]", settings=Settings("bf16"), **shapes)
    assert found.source.count(".to(tl.bfloat16)") == 2


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_transposition_moves_square_tiles() -> None:
    """Reads are contiguous along one axis, writes along the other."""
    (chosen,) = steps("y[j,i] = A[i,j]", A=(1000, 1000)).kernels
    assert dict(chosen.blocks) == {"i": 64, "j": 64}
    (chosen,) = steps("y[i,j] = A[i,j] * x[j]", A=(1000, 1001), x=(1001,)).kernels
    assert dict(chosen.blocks) == {"i": 1, "j": 1024}


def test_blocks_of_products_fill_the_gpu() -> None:
    """Tiles for Hopper's wide instructions; smaller ones where there would be fewer programs than processors."""
    (large,) = steps("y[i,k] = A[i,j] * B[j,k]", "float16", library=False, A=(4096, 4096), B=(4096, 4096)).kernels
    (small,) = steps("y[i,k] = A[i,j] * B[j,k]", "float16", library=False, A=(512, 512), B=(512, 512)).kernels
    assert dict(large.blocks) == {"i": 128, "k": 128, "j": 64} and large.kernel.warps == 8
    assert dict(small.blocks)["i"] * dict(small.blocks)["k"] < 128 * 128
    assert min(dict(small.blocks)[a] for a in "ik") >= 16


# --- rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dtype", "fused"),
    [
        ("y[i] = A[i,j] * x[j]", "float32", True),
        ("y[i] = A[i,j] * x[j]", "float16", True),  # the sum is converted at its end
        ("y[i] = A[i,j] * x[j]", "float64", True),
        ("y[i] = A[i,j] * x[j]", "int32", False),
        ("y[i] = A[i,j] * x[j] over maxplus", "float32", False),
        ("y[i] = 2 * (sum[j] A[i,j] * x[j]) + 1", "float32", False),  # what follows has a rounding for each operation
        ("y[i] = sum[j] floor(A[i,j] * x[j] + 0.5)", "float32", False),  # so has what jumps
        ("y[i] = x[i] * x[i] - 2 * x[i]", "float32", False),
    ],
)
def test_sums_of_products_take_fused_multiply_adds_and_nothing_else_does(text: str, dtype: str, fused: bool) -> None:
    shapes = {"A": (30, 40), "x": (40,)} if "A" in text else {"x": (40,)}
    (chosen,) = steps(text, dtype, library=False, **shapes).kernels
    assert chosen.kernel.fuse_multiply_add is fused
    assert ("fused multiply-adds" in steps(text, dtype, library=False, **shapes).text) is fused


# --- sums in chunks ---------------------------------------------------------------------------------------------------


def test_a_long_sum_is_shared_among_processors() -> None:
    found = steps("y = 2 * (sum[i] x[i])", x=(10**7,))
    first, second = found.kernels
    assert first.programs > 100 and second.programs == 1
    assert "tl.range(i_chunk0 * l_i" in found.source
    assert [s.name for s in found.steps if isinstance(s, Make)] == ["y.chunks", "y"]
    assert "Drop(names=('y.chunks',))" in repr(found.steps[-1])


def test_short_sums_and_full_grids_are_not_cut() -> None:
    assert len(steps("y = sum[i] x[i]", x=(40000,)).kernels) == 1
    assert len(steps("y[i] = sum[j] A[i,j]", A=(20000, 20000)).kernels) == 1
    assert len(steps("y[i,k] = A[i,j] * B[j,k]", "float16", library=False, A=(64, 64), B=(64, 64)).kernels) == 1


def test_split_k_for_a_small_result() -> None:
    found = steps("y[i,k] = A[i,j] * B[j,k]", "float16", library=False, A=(64, 100_000), B=(100_000, 64))
    assert found.kernels[0].dot and found.kernels[0].programs > 50 and not found.kernels[1].dot


# --- results ----------------------------------------------------------------------------------------------------------


def test_values_that_meet_are_added_atomically_in_a_type_that_can() -> None:
    found = steps("y[i+j] = x[i] * z[j]", "float16", x=(20,), z=(9,))
    assert kinds(found)[-2:] == ["Launch", "Copy"] and "tl.atomic_add" in found.source
    zeroed = next(s for s in found.steps if isinstance(s, Make) and s.fill == 0)
    assert zeroed.layout.dtype == F32
    assert kinds(steps("y[i+j] = x[i] * z[j]", "float32", x=(20,), z=(9,))) == ["Launch"]


def test_places_that_are_not_written_hold_zero() -> None:
    (buffer,) = [s for s in steps("y[2*i+1] = x[i]", x=(20,)).steps if isinstance(s, Make)]
    assert buffer.fill == 0
    (buffer,) = [s for s in steps("y[i] = x[i]", x=(20,)).steps if isinstance(s, Make)]
    assert buffer.fill is None


def test_an_update_of_everything_needs_no_copy() -> None:
    assert kinds(steps("y[i] += x[i]", x=(20,), y=(20,))) == ["Launch"]
    assert kinds(steps("y[2*i] += x[i]", x=(20,), y=(40,))) == ["Copy", "Launch"]


def test_intermediates_are_dropped_after_their_last_use() -> None:
    found = steps("u[i] = exp(x[i]); v = sum[i] u[i]; y[i] = u[i] / v\nreturn y", x=(10**6,))
    dropped = [n for s in found.steps if isinstance(s, Drop) for n in s.names]
    made = [s.name for s in found.steps if isinstance(s, Make)]
    assert sorted(dropped) == sorted(set(made) - {"y"})
    assert found.peak_memory < sum(4 * 10**6 for n in made)


def test_complex_numbers_are_pairs_in_place() -> None:
    found = steps("y[i] = exp(x[i])", "complex64", x=(20,))
    assert next(s for s in found.steps if isinstance(s, Part)) == Part("x.re", "x", 0)
    assert found.layouts["y.im"].strides == (2,) and found.layouts["y.im"].dtype == F32
    assert len(found.kernels) == 2


def test_what_there_is_no_kernel_for() -> None:
    with pytest.raises(stein.BackendError, match="meet at one place") as caught:
        steps("y[i+j] = x[i] * z[j] over logsumexp", x=(5,), z=(6,))
    assert "target='cpu'" in caught.value.help
    with pytest.raises(stein.BackendError, match="complex"):
        steps("y[i] = tanh(x[i])", "complex64", x=(5,))


def test_empty_results() -> None:
    assert kinds(steps("y[i] = x[i]", x=(0,))) == []
    found = steps("y[i] = sum[j] A[i,j]", A=(3, 0))
    assert kinds(found) == ["Launch"], "sums of nothing are 0"


# --- prices -----------------------------------------------------------------------------------------------------------


def test_prices_follow_the_roofline() -> None:
    target = GpuTarget()
    product = planned("y[i,k] = A[i,j] * B[j,k]", "float16", A=(8192, 8192), B=(8192, 8192))
    copy = planned("y[i] = x[i] + 1", "float16", x=(2**29,))
    cost = target.price(product, {})
    assert cost.nanoseconds == pytest.approx(1e9 * cost.flops / 790e12, rel=0.01)
    cost = target.price(copy, {})
    assert cost.nanoseconds == pytest.approx(1e9 * 2 * 2**30 / 4.3e12, rel=0.01)
    exact, rounded = (GpuTarget(precision=p) for p in ("ieee", "tf32"))
    single = planned("y[i,k] = A[i,j] * B[j,k]", "float32", A=(8192, 8192), B=(8192, 8192))
    assert exact.price(single, {}).nanoseconds > 5 * rounded.price(single, {}).nanoseconds


def test_fused_chains_are_priced_as_such() -> None:
    """Two factors of a Kronecker product: the intermediate costs nothing."""
    shapes = {"A": (64, 64), "B": (64, 64), "x": (4096, 64, 64)}
    program = planned("y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", "float16", **shapes)
    cost = GpuTarget().price(program, {})
    assert cost.launches == 1 and cost.bytes == pytest.approx(2 * 2 * 4096 * 4096, rel=0.01)


def test_bounds_by_precision() -> None:
    exact = relative_error(1000, F32, F32, F32)
    assert exact < relative_error(1000, F32, F32, F32, "tf32x3") < relative_error(1000, F32, F32, F32, "tf32")
    assert relative_error(10, F32, F16, F16) < relative_error(10, F32, BF16, BF16)


def test_every_kind_of_step_is_shown() -> None:
    texts = [
        steps("y[i,k] = A[i,j] * B[j,k]", A=(30, 40), B=(40, 50)).text,
        steps("y[2*i] += x[i]", x=(20,), y=(40,)).text,
        steps("y[i] = exp(x[i])", "complex64", x=(20,)).text,
    ]
    assert all(w in "\n".join(texts) for w in ("torch.matmul", "copy y to y.1", "kernel y", "buffer y", "imaginary"))
