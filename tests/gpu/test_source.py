"""The printed Triton: golden texts, names, order of arguments, masks. Neither Triton nor PyTorch is needed."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

import stein
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.nodes import Apply, Kernel, Load, Local, Loop, Map, Outer, Seq, Tensor, Tile
from stein.backends.gpu.program import Bound, bind
from stein.backends.gpu.source import arguments, grid, source
from stein.backends.gpu.views import Layout, Names
from stein.ir.expr import Program
from stein.ir.semiring import MAX_PLUS
from stein.ir.types import F16, F32
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan


def bound(text: str, sizes: dict[str, int], settings: Settings = Settings(), **shapes: object) -> Bound:
    """The steps of a program for dense operands."""
    program: Program = stein.compile(text, dtype="float16", target="reference", **shapes).program
    planned = plan(Draft(BEST, program), Context(sizes=sizes)).program
    layouts = {i.name: Layout.dense(tuple(n.evaluate(sizes) for n in i.shape), i.dtype) for i in planned.inputs}
    return bind(planned, sizes, layouts, settings, library=False)


GOLDEN: dict[str, Callable[[], Bound]] = {
    "matrix_product.py.txt": lambda: bound(
        "y[i,k] = relu((sum[j] A[i,j] * B[j,k]) + c[k])", {"n": 500, "m": 300, "p": 200},
        A=("n", "p"), B=("p", "m"), c=("m",),
    ),
    "max_plus.py.txt": lambda: bound(
        "y[i,k] = A[i,j] * B[j,k] over maxplus", {}, Settings(specialise=True), A=(96, 64), B=(64, 80)
    ),
    "scatter_gather.py.txt": lambda: bound(
        "I: i32[s]; J: i32[s]\ny[i,a] = (i == I[s]) * w[s,a,c] * x[J[s],c] for i in 0..6", {"s": 10, "m": 5},
        w=("s", 8, 9), x=("m", 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_kernels(name: str, golden: Callable[[str, str], None]) -> None:
    text = GOLDEN[name]().source
    ast.parse(text)
    golden(name, text)


def test_the_same_kernel_serves_all_sizes_of_a_kind() -> None:
    text = "y[i,k] = A[i,j] * B[j,k]"
    shapes = {"A": ("n", "p"), "B": ("p", "m")}
    found = [bound(text, {"n": n, "p": p, "m": m}, **shapes) for n, p, m in ((500, 300, 200), (777, 500, 301))]
    kernels = [b.kernels[0].kernel for b in found]
    assert kernels[0] == kernels[1]
    assert dict(found[0].kernels[0].numbers) != dict(found[1].kernels[0].numbers)
    fixed = bound(text, {"n": 500, "p": 300, "m": 200}, Settings(specialise=True), **shapes)
    assert fixed.kernels[0].numbers == ()


def test_contiguous_axes_are_loaded_without_masks_where_blocks_fit() -> None:
    fixed = bound("y[i,k] = A[i,j] * B[j,k]", {}, Settings(specialise=True), A=(128, 64), B=(64, 128))
    assert "mask" not in fixed.source
    odd = bound("y[i,k] = A[i,j] * B[j,k]", {}, Settings(specialise=True), A=(128, 63), B=(63, 128))
    assert odd.source.count("mask=") == 2, "only the summed axis goes beyond its end"


def test_names_are_those_of_the_program() -> None:
    found = bound("λ[i] = lambda_[i] * tl[i] + pid[i]", {"n": 9}, lambda_=("n",), tl=("n",), pid=("n",))
    text = found.source
    ast.parse(text)
    assert "def kernel_x955(lambda_, tl_, pid_, x955, n_i)" in text
    names = Names()
    assert len({names.of(w) for w in ("a", "a", "a_2", "a0", "a", "for", "x.1", "x_1", "7")}) == 9


def test_operands_are_exchanged_for_warp_groups() -> None:
    """M = 32 rows would miss Hopper's wide instructions: the transposed product has 128."""
    x, w = Tensor("x", ("i", "k"), F16), Tensor("w", ("k", "j"), F16)
    y = Tensor("y", ("i", "j"), F16)
    tile = Tile("y", ("x", "w"), ("i", "j"), ("k",))
    text = source(Kernel((x, w, y), (("i", 32), ("k", 64), ("j", 128)), Outer((), tile)))
    assert "tl.dot(w_tile, x_tile)" in text
    assert "tl.load(x + r64[:, None] + r32[None, :] * 64)" in text
    loop = Loop("k", 32, tile, reduced=True)
    text = source(Kernel((x, w, y), (("i", 32), ("k", 64), ("j", 128)), Outer((), loop)))
    assert "sum_y = tl.full([128, 32]" in text and "sum_y = tl.dot(w_tile, x_tile, sum_y)" in text


def test_a_value_between_products_stays_in_registers() -> None:
    """Both factors of a Kronecker product in one kernel: nothing is stored in between."""
    tensors = (
        Tensor("x", ("b", "p", "q"), F16), Tensor("a", ("r", "p"), F16), Tensor("c", ("s", "q"), F16),
        Tensor("y", ("b", "r", "s"), F16),
    )  # fmt: skip
    first = Tile("u", ("a", "x"), ("r", "q"), ("p",))
    second = Tile("y", ("u", "c"), ("r", "s"), ("q",))
    nest = Load("a", (("r",), ("p",)), Local("u", F16, Seq((first, second))))
    sizes = (("b", "n_b"), ("p", 64), ("q", 64), ("r", 64), ("s", 64))
    kernel = Kernel(tensors, sizes, Outer((("b", 1),), nest, share=528))
    text = source(kernel)
    assert text.count("tl.store(") == 1 and text.count("tl.dot(") == 2
    assert "tl.reshape" not in text and "tl.trans" not in text
    assert text.index("a_tile = tl.load") < text.index("for step in") < text.index("x_tile = tl.load")
    assert grid(kernel, {"b": 1000}) == (528,) and grid(kernel, {"b": 7}) == (7,)
    assert arguments(kernel) == ("x", "a", "c", "y", "n_b")


def test_a_sum_masks_what_is_beyond_an_end() -> None:
    """In max-plus, and where a factor is computed, 0 at the end of memory is not neutral."""
    x = Tensor("x", ("i", "k"), F32, (100, 1))
    y = Tensor("y", ("i",), F32, (1,))
    nest = Loop("k", 32, Tile("y", (Apply("exp", ("x",), F32),), ("i",), ("k",)), reduced=True)
    sizes = (("i", "n_i"), ("k", "n_k"))
    assert "tl.where(k_in" in source(Kernel((x, y), sizes, Outer((("i", 16),), nest)))
    nest = Loop("k", 32, Tile("y", ("x",), ("i",), ("k",), MAX_PLUS), reduced=True)
    assert 'tl.where(k_in[None, :], x_tile, float("-inf"))' in source(Kernel((x, y), sizes, Outer((("i", 16),), nest)))


def test_large_tensors_have_wide_addresses() -> None:
    text = "y[j,i] = A[i,j]"
    small = bound(text, {"n": 1000, "m": 1000}, A=("n", "m"))
    large = bound(text, {"n": 70000, "m": 70000}, A=("n", "m"))
    assert not small.kernels[0].kernel.wide and large.kernels[0].kernel.wide
    assert ".to(tl.int64)" in large.source and ".to(tl.int64)" not in small.source


def test_reversed_repeated_and_diagonal_axes_are_strides() -> None:
    found = bound("y[i] = A[i,i] * x[9-i]", {}, Settings(specialise=True), A=(10, 10), x=(10,))
    assert "* 11" in found.source and "* -1" in found.source
    assert "%" not in found.source.replace("pid %", "")


def test_axes_that_run_on_are_one() -> None:
    found = bound("y[i,j,k] = exp(x[i,j,k])", {"a": 30, "b": 40, "c": 50}, x=("a", "b", "c"))
    (chosen,) = found.kernels
    assert [a for a, _ in chosen.blocks] == ["i_j_k"] and dict(chosen.numbers) == {"n_i_j_k": 60000}


def test_map_outside_of_a_kernel_has_its_own_shape() -> None:
    x, s = Tensor("x", ("i", "j"), F32), Tensor("s", ("i",), F32)
    y = Tensor("y", ("i", "j"), F32)
    text = source(Kernel((x, s, y), (("i", 16), ("j", 32)), Outer((), Map("y", Apply("mul", ("s", "x"), F32)))))
    assert "s_tile[:, None] * x_tile" in text
