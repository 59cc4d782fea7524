"""Other blocks: which axes may have them, that kernels compute the same in all of them, and what a kernel is taken to
do in them before it is assembled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from math import prod
from typing import Any

import pytest

import stein
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.configurations import other_blocks, plain_product, with_pointers
from stein.backends.gpu.nodes import Index, Kernel, Load, Local, Loop, Map, Nest, Outer, Seq, Stream, Tensor, Tile
from stein.backends.gpu.predict import expected
from stein.backends.gpu.program import bind
from stein.backends.gpu.reblock import LARGEST, blocks_of, movable, reblocked
from stein.backends.gpu.roofline import H200
from stein.backends.gpu.tune import Job, shortlist
from stein.backends.gpu.views import Layout
from stein.backends.gpu.work import work_of
from stein.ir.semiring import MAX_PLUS
from stein.ir.types import BF16, F16, F32
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan
from stein.tests.gpu.requested import requested

SIZES = (("b", 8), ("row", 9), ("i", 256), ("j", 256), ("k", 128), ("s", 7), ("r", 64))
PRODUCT = Tile("y", ("x", "w"), ("i", "j"), ("k",))
LOOP = Loop("k", 32, PRODUCT, reduced=True)


def kernel(nest: Nest, *tensors: Tensor, **more: Any) -> Kernel:
    return Kernel(tensors, SIZES, nest, **more)


def outer(body: Nest, *axes: tuple[str, int], **more: Any) -> Outer:
    return Outer(axes or (("i", 64), ("j", 128)), body, **more)


@pytest.mark.parametrize(
    ("nest", "axes"),
    [
        (outer(LOOP), "ijk"),
        (outer(LOOP, ("b", 1), ("i", 64)), "ik"),  # b and j: at one position, and whole
        (outer(replace(LOOP, rows=("t", "row"), axis="s", block=2)), "ij"),  # a list says where its blocks begin
        (outer(Seq((Tile("m", ("x",), ("i",), ("j",), MAX_PLUS), Map("y", "m")))), "i"),  # a sum over a whole block
        (outer(Seq((LOOP, Loop("j", 32, Tile("m", ("y",), ("i",), ("j",))))), ("i", 64)), "ik"),  # a loop carries none
        (outer(Loop("k", 32, Stream("p", "x", ("k",), "g", "t"), reduced=True)), "ijk"),
        (outer(Loop("k", 32, Stream("p", "x", ("j",), "g", "t"), reduced=True)), "ik"),
        (outer(Seq((LOOP, replace(LOOP, block=64)))), "ij"),  # one number would not say both
        (outer(Seq((LOOP, LOOP))), "ijk"),
        (outer(Loop("j", 128, PRODUCT)), "i"),  # blocks within blocks
        (outer(Load("w", (("j",), ("k",)), LOOP), share=8), "i"),  # read once, whole, by each persistent program
        (outer(Load("w", (("j",), ("k",)), LOOP)), "ijk"),
        (outer(Index("b", "t", "row", Local("y", F32, LOOP)), ("row", 1), ("i", 64)), "ik"),
    ],
)
def test_blocks_that_mean_something_stay(nest: Nest, axes: str) -> None:
    w = Tensor("w", ("j", "k"), F32)
    assert set(movable(kernel(nest, w, tables=("t",)))) == set(axes)


def test_a_chunk_is_a_multiple_of_the_block() -> None:
    """Its length may be a number of run time: what divides the block divides it."""
    chunked = kernel(outer(replace(LOOP, chunk=("b", "l_k"), block=64), ("b", 1), ("i", 64), ("j", 64)))
    assert movable(chunked) == {"i": LARGEST, "j": LARGEST, "k": 64}
    assert reblocked(chunked, {"k": 128}) is None
    made = reblocked(chunked, {"k": 16, "i": 128})
    assert made is not None and blocks_of(made) == {"b": 1, "i": 128, "j": 64, "k": 16}


def test_blocks_are_changed_wherever_the_axis_stands() -> None:
    found = reblocked(
        kernel(outer(Local("h", F32, Seq((LOOP, Loop("r", 16, Map("y", "h")), LOOP))))), {"k": 64, "r": 8}
    )
    assert found is not None
    assert found.nest == outer(
        Local("h", F32, Seq((replace(LOOP, block=64), Loop("r", 8, Map("y", "h")), replace(LOOP, block=64))))
    )


@pytest.mark.parametrize(
    "blocks", [{"i": 48}, {"i": 1}, {"i": 0}, {"i": -64}, {"q": 64}, {"r": 64}, {"i": 2 * LARGEST}]
)
def test_what_is_no_block_is_refused(blocks: dict[str, int]) -> None:
    assert reblocked(kernel(outer(LOOP)), blocks) is None


def test_bulk_copies_have_their_own_limits() -> None:
    x, w = Tensor("x", ("i", "k"), F16, descriptor=True), Tensor("w", ("k", "j"), F16)
    bulk = kernel(outer(LOOP), x, w)
    assert reblocked(bulk, {"i": 256}) is not None
    assert reblocked(bulk, {"i": 512}) is None  # positions along an axis
    assert reblocked(bulk, {"k": 8}) is not None
    assert reblocked(bulk, {"k": 4}) is None  # bytes of a row
    assert reblocked(with_pointers(bulk), {"i": 512, "k": 4}) is not None


# --- which are worth a thought ----------------------------------------------------------------------------------------


def kernel_of(text: str, dtype: str = "float16", **shapes: tuple[int, ...]) -> tuple[Kernel, dict[str, int], int]:
    """The kernel of a program, its numbers, and the programs that it is launched as."""
    program = stein.compile(text, dtype=dtype, target="reference", **shapes).program
    planned = plan(Draft(BEST, program), Context(sizes={})).program
    layouts = {i.name: Layout.dense(tuple(n.evaluate({}) for n in i.shape), i.dtype) for i in planned.inputs}
    (chosen,) = bind(planned, {}, layouts, Settings(descriptors=True), library=False).kernels
    return chosen.kernel, dict(chosen.numbers), chosen.programs


def test_a_product_gets_the_usual_tiles_and_remains_one() -> None:
    found, numbers, _ = kernel_of("y[i,k] = A[i,j] * B[j,k]", A=(4096, 4096), B=(4096, 4096))
    assert plain_product(found) == ("i", "k", "j")
    tiles = {(b["i"], b["k"], b["j"]) for b in other_blocks(found, numbers, H200)}
    assert {(64, 64, 32), (128, 256, 64), (256, 128, 32), (128, 128, 128)} <= tiles
    assert (128, 128, 64) not in tiles, "that is the model's own"
    assert min(min(t) for t in tiles) >= 16


def test_a_small_product_gets_no_blocks_beyond_its_ends() -> None:
    found, numbers, _ = kernel_of("y[i,k] = relu(sum[j] A[i,j] * B[j,k])", A=(40, 48), B=(48, 56))
    now = blocks_of(found)
    every = list(other_blocks(found, numbers, H200))
    assert every
    assert all(blocks[a] <= max(64, now[a]) for blocks in every for a in blocks)


def test_what_is_multiplied_by_matrix_units_is_so_in_other_blocks() -> None:
    """A block of 8 of any side would be multiplied element by element."""
    found, numbers, _ = kernel_of("y[i,k] = relu(sum[j] A[i,j] * B[j,k])", A=(16, 48), B=(48, 16))
    for blocks in other_blocks(found, numbers, H200):
        made = reblocked(with_pointers(found), blocks)
        assert made is not None and len(work_of(made, numbers, H200).products) == 1


def test_many_blocks_have_a_place_where_the_estimate_hardly_tells_them_apart() -> None:
    """A product that waits for memory: the best of one block in all its forms would take all places otherwise."""
    found, numbers, _ = kernel_of("y[b,i,k] = A[b,i,j] * B[b,j,k]", A=(4096, 64, 64), B=(4096, 64, 64))
    job = Job(numbers, 3 * 4096 * 64 * 64 * 2, 2 * 4096 * 64**3, H200.half)
    assert len({c.blocks for c in shortlist(found, job, H200)}) >= 5


# --- what a kernel is taken to do -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("y[i,k] = A[i,j] * B[j,k]", {"A": (512, 512), "B": (512, 512)}),
        ("y[b,i,k] = A[b,i,j] * B[b,j,k]", {"A": (4, 256, 256), "B": (4, 256, 256)}),
        ("y[j,i] = A[i,j]", {"A": (512, 512)}),
        ("y[i] = sum[j] A[i,j]", {"A": (4096, 1024)}),
    ],
)
def test_bytes_are_those_that_the_programs_ask_for(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Counted in another way; in every choice of blocks whose runs fill whole sectors."""
    found, numbers, programs = kernel_of(text, **shapes)
    assert work_of(found, numbers, H200).blocks == programs
    count = 0
    for blocks in ({}, *other_blocks(found, numbers, H200)):
        made = reblocked(found, blocks)
        if made is not None and min(n for n in blocks_of(made).values() if n > 1) * 2 >= 32:
            count += 1
            assert work_of(made, numbers, H200).asked == sum(requested(made, numbers).values())
    assert count >= 4


def test_rows_of_two_bytes_are_asked_for_in_sectors() -> None:
    x, y = Tensor("x", ("i", "j"), F16, (256, 1)), Tensor("y", ("i", "j"), F16, (256, 1))
    wide, narrow = (kernel(outer(Map("y", "x"), ("i", 256 // n), ("j", n)), x, y) for n in (64, 2))
    assert work_of(wide, {}, H200).asked == 2 * 256 * 256 * 2
    assert work_of(narrow, {}, H200).asked == 8 * work_of(wide, {}, H200).asked


@pytest.mark.parametrize(
    ("rows", "columns", "warps", "precision", "dtype", "unit"),
    [
        (64, 64, 4, "ieee", BF16, "HGMMA"),
        (32, 64, 4, "ieee", BF16, "HGMMA"),  # exchanged
        (32, 32, 4, "ieee", BF16, "HMMA"),
        (64, 64, 2, "ieee", BF16, "HMMA"),
        (64, 64, 4, "tf32", F32, "HGMMA"),
        (64, 64, 4, "ieee", F32, ""),
    ],
)
def test_products_go_to_the_units_that_they_suit(
    rows: int, columns: int, warps: int, precision: str, dtype: Any, unit: str
) -> None:
    x, w, y = (Tensor(n, tuple(a), dtype, (256, 1)) for n, a in (("x", "ik"), ("w", "kj"), ("y", "ij")))
    nest = outer(LOOP, ("i", rows), ("j", columns))
    found = kernel(nest, x, w, y, warps=warps, precision=precision)
    work = work_of(found, {}, H200)
    assert [p.unit for p in work.products] == [unit]
    facts = expected(found, work, H200)
    assert facts.instructions == (((unit, 1),) if unit else ())
    step = 32 * (rows + columns) * dtype.itemsize
    assert (work.step, work.rounds, work.held) == (step, 4, rows * columns)
    assert facts.shared == (3 if unit == "HGMMA" else 2) * step


def test_a_product_of_a_batch_is_none_for_warp_groups() -> None:
    x, w, y = (Tensor(n, tuple(a), BF16) for n, a in (("x", "rik"), ("w", "rkj"), ("y", "rij")))
    tile = replace(PRODUCT, free=("r", "i", "j"))
    found = kernel(outer(replace(LOOP, body=tile), ("r", 4), ("i", 64), ("j", 64)), x, w, y)
    assert [p.unit for p in work_of(found, {}, H200).products] == ["HMMA"]


def test_what_a_loop_does_not_move_is_loaded_once() -> None:
    q, k, v = (Tensor(n, tuple(a), BF16) for n, a in (("q", "ir"), ("k", "jr"), ("v", "jr")))
    scores = Tile("scores", ("q", "k"), ("i", "j"), ("r",))
    sums = Tile("y", ("scores", "v"), ("i", "r"), ("j",))
    found = kernel(outer(Local("scores", BF16, Loop("j", 32, Seq((scores, sums)), reduced=True)), ("i", 64)), q, k, v)
    work = work_of(found, {}, H200)
    assert (work.once, work.step, work.rounds) == (2 * 64 * 64, 2 * 2 * 32 * 64, 8)


# --- the meaning ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What the process prints."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")
    command = [sys.executable, "-m", "stein.tests.gpu.reblocked", "few"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_kernels_compute_the_same_in_all_blocks(lines: list[dict[str, Any]]) -> None:
    """Within the bound that follows from precision and length, from buffers full of NaN."""
    wrong = [line for line in lines if not line["worst"] <= 1]
    assert not wrong, wrong[0]


def test_every_program_has_other_blocks(lines: list[dict[str, Any]]) -> None:
    others = {line["name"] for line in lines if line["blocks"]}
    assert others == {line["name"] for line in lines} and len(others) > 50
    moved = {axis for line in lines if line["name"] == "below the greatest" for axis in line["blocks"]}
    assert moved == {"i"}
    longer = [line["blocks"] for line in lines if line["name"] == "matrix_nt" and prod(line["blocks"].values()) > 1]
    assert len(longer) >= 3
