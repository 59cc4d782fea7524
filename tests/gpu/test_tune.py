"""Tuning: what is left to measure, what is kept, and that a damaged file does no harm. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stein.backends.gpu.ahead import Facts
from stein.backends.gpu.configurations import variants, with_pointers
from stein.backends.gpu.nodes import Kernel, Load, Loop, Map, Outer, Tensor, Tile
from stein.backends.gpu.reblock import blocks_of, differing
from stein.backends.gpu.roofline import H200
from stein.backends.gpu.steps import Origin
from stein.backends.gpu.tune import ASSEMBLED, MOST, Candidate, Job, Tuner, key_of, prune, shortlist
from stein.backends.gpu.winners import Winner, Winners
from stein.ir.errors import BackendError
from stein.ir.types import BF16, F32

X, A, Y = (
    Tensor("x", ("b", "k"), BF16, (64, 1)),
    Tensor("a", ("k", "j"), BF16, (64, 1)),
    Tensor("y", ("b", "j"), BF16, (64, 1)),
)
BODY = Load("a", (("k",), ("j",)), Tile("y", ("x", "a"), ("b", "j"), ("k",)))
KERNEL = Kernel((X, A, Y), (("b", "n_b"), ("k", 64), ("j", 64)), Outer((("b", 64),), BODY, 528, 3))


def depth(kernel: Kernel) -> int:
    """The stages of the loop of persistent programs."""
    return (kernel.nest.stages if isinstance(kernel.nest, Outer) else 0) or kernel.stages


def facts(kernel: Kernel, **changes: object) -> Facts:
    found = Facts("sm_90", kernel.warps, 80, 16_384 * depth(kernel), 0, 3, 8, 4, (("HGMMA", 8),))
    return replace(found, **changes)  # type: ignore[arg-type]


JOB = Job({"n_b": 16384}, 1 << 28, 1 << 34, H200.half)


def candidates(kernel: Kernel = KERNEL) -> tuple[Candidate, ...]:
    """What is assembled of a kernel."""
    return shortlist(kernel, JOB, H200)


def left(inspect: Callable[[Kernel], Facts] = facts, kernel: Kernel = KERNEL) -> tuple[Candidate, ...]:
    """What is measured of a kernel."""
    return prune(candidates(kernel), inspect, JOB, H200)


def test_few_are_assembled_and_at_most_eight_are_left_the_first_one_first() -> None:
    assert len(variants(KERNEL, JOB.numbers, H200)) > ASSEMBLED == len(candidates())
    assert len(left()) == MOST
    assert candidates()[0].kernel == left()[0].kernel == KERNEL


def test_the_first_choice_stays_however_slow_it_seems() -> None:
    """Two rows a program in place of 64: the model would not have it among the best."""
    slow = replace(KERNEL, nest=Outer((("b", 2),), BODY, 528, 3))
    assert candidates(slow)[0].kernel == left(kernel=slow)[0].kernel == slow
    assert candidates(slow)[0].estimate > 2 * candidates(slow)[1].estimate


def test_what_is_assembled_and_what_is_left_is_of_all_kinds() -> None:
    """Warps, numbers of programs, the blocks of the first and others; by their time after the first."""
    for found, shares in ((candidates(), {264, 528, 1056}), (left(), {264, 528, 1056})):
        assert {c.kernel.warps for c in found} == {4, 8}
        assert {c.share for c in found} == shares
        assert {blocks_of(c.kernel)["b"] == 64 for c in found} == {True, False}
        times = [c.estimate for c in found[1:]]
        assert times == sorted(times)


def test_what_is_like_another_comes_after_other_kinds() -> None:
    """Estimates that are equal but for one part in a thousand: each block and each number of warps once, then again."""

    def alike(kernel: Kernel) -> Facts:
        return facts(kernel, barriers=depth(kernel))

    first = [(c.kernel.warps, c.share, blocks_of(c.kernel)["b"]) for c in left(alike)]
    assert len(set(first)) >= 6


def test_hopeless_kinds_have_no_place() -> None:
    """Blocks of 64 x 64 with exact products of f32 do not get the registers of larger ones."""
    x, w, y = (Tensor(n, tuple(a), F32, (4096, 1)) for n, a in (("x", "ik"), ("w", "kj"), ("y", "ij")))
    body = Loop("k", 32, Tile("y", ("x", "w"), ("i", "j"), ("k",)), reduced=True)
    kernel = Kernel((x, w, y), tuple((a, 4096) for a in "ijk"), Outer((("i", 64), ("j", 64)), body))
    exact = shortlist(kernel, Job({}, 3 << 26, 1 << 37, H200.single), H200)
    rounded = shortlist(replace(kernel, precision="tf32"), Job({}, 3 << 26, 1 << 37, H200.tf32), H200)
    sums = [max(blocks_of(c.kernel)["i"] * blocks_of(c.kernel)["j"] / c.kernel.warps for c in found)
            for found in (exact, rounded)]  # fmt: skip
    assert sums == [64 * 32, 128 * 32]


def test_spills_and_too_much_shared_memory_are_left_out() -> None:
    def inspect(kernel: Kernel) -> Facts:
        if kernel.warps == 8:
            return facts(kernel, instructions=(("STL", 3),))
        return facts(kernel, shared=1 << 18 if depth(kernel) == 4 else 1 << 14)

    found = left(inspect)
    assert found
    assert all(c.kernel.warps == 4 and depth(c.kernel) != 4 for c in found)


def test_what_cannot_be_assembled_is_left_out() -> None:
    def inspect(kernel: Kernel) -> Facts:
        if depth(kernel) == 4:
            raise BackendError("no", code="kernel-not-assembled")
        return facts(kernel)

    assert any(depth(c.kernel) == 4 for c in candidates())
    assert all(depth(c.kernel) != 4 for c in left(inspect))

    def never_assembled(kernel: Kernel) -> Facts:
        raise BackendError("no", code="kernel-not-assembled")

    assert left(never_assembled) == ()


def test_several_may_be_assembled_at_a_time() -> None:
    told: list[tuple[str, int, int]] = []
    alone = prune(candidates(), facts, JOB, H200)
    assert prune(candidates(), facts, JOB, H200, lambda *seen: told.append(seen), workers=3) == alone
    assert told == [("assembling", n + 1, ASSEMBLED) for n in range(ASSEMBLED)]


def test_equal_code_is_measured_once() -> None:
    """Stages that make no difference to it: once for each block, for each number of programs."""
    same = facts(KERNEL)
    found = left(lambda _: same)
    assert len({(c.share, c.blocks) for c in found}) == len(found)


def tuner(path: Path | None, name: str = "H200", inspect: Callable[[Kernel], Facts] = facts) -> Tuner:
    return Tuner(Winners.at(path), H200, name, inspect)


WORK = ({"n_b": 16384}, 1 << 28, 1 << 34, H200.half)  # numbers, bytes, operations, rate
TIMED = Origin("timed", 8, 40.0, 50.0)


def never(kernel: Kernel) -> float:
    raise AssertionError("nothing is to be timed")


def test_the_fastest_wins_and_is_not_measured_again(tmp_path: Path) -> None:
    measured: list[Kernel] = []
    told: list[tuple[str, int, int]] = []

    def timer(kernel: Kernel) -> float:
        measured.append(kernel)
        return 10.0 - len(measured)  # the later, the faster

    path = tmp_path / "deep" / "tuned.json"
    first = Tuner(Winners.at(path), H200, "H200", facts, lambda *seen: told.append(seen))
    best, origin = first.best(KERNEL, *WORK, timer)
    assert best == measured[-1] != KERNEL
    assert origin == Origin("timed", MOST, 10.0 - MOST, 9.0, differing(KERNEL, best))
    assert [t for t in told if t[0] == "timing"] == [("timing", n + 1, MOST) for n in range(MOST)]
    assert sum(t[0] == "assembling" for t in told) == ASSEMBLED
    again, known = tuner(path).best(KERNEL, *WORK, never)
    assert again == best and known == replace(origin, how="kept")


def test_without_anything_kept_there_is_nothing_to_find(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    assert tuner(path).kept(KERNEL, WORK[0]) is None
    assert not path.exists()


def test_one_candidate_is_not_timed(tmp_path: Path) -> None:
    plain = replace(KERNEL, nest=Outer((("b", 1),), Map("y", "x")))
    same = tuner(tmp_path / "tuned.json", inspect=lambda _: facts(KERNEL))
    assert same.best(plain, *WORK, never) == (plain, Origin("alone", 1))
    assert same.kept(plain, WORK[0]) == (plain, Origin("kept", 1))


def test_what_cannot_be_launched_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    assert tuner(path).best(KERNEL, *WORK, lambda _: float("inf")) == (KERNEL, Origin())
    assert not path.exists()
    best, origin = tuner(path).best(KERNEL, *WORK, lambda k: float("inf") if k == KERNEL else 5.0)
    assert best != KERNEL and origin.first == 0.0 and origin.microseconds == 5.0


def test_descriptors_are_compared_with_pointers(tmp_path: Path) -> None:
    bulk = replace(KERNEL, tensors=tuple(replace(t, descriptor=True) for t in KERNEL.tensors))
    numbers = WORK[0]
    pointers = {k for k in variants(bulk, numbers, H200) if not k.tensors[0].descriptor}
    assert pointers == set(variants(KERNEL, numbers, H200))
    path = tmp_path / "tuned.json"

    def inspect(kernel: Kernel) -> Facts:
        moves = ("UTMALDG", 4) if kernel.tensors[0].descriptor else ("LDG", 16)
        return facts(kernel, instructions=(("HGMMA", 8), moves))

    best, _ = tuner(path, inspect=inspect).best(bulk, *WORK, lambda k: 1.0 if k == with_pointers(k) else 2.0)
    found = tuner(path).kept(bulk, WORK[0])
    assert found is not None and found[0] == best == with_pointers(best)


LINE = {"blocks": {"b": 64}, "warps": 4, "stages": 3, "share": 0, "loop_stages": 0, "descriptors": False,
        "candidates": 8, "microseconds": 40.0, "first": 50.0}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 0, "winners": {}}', '{"format": 3, "winners": {"k": 3}}', '{"format": 3}',
     *(json.dumps({"format": 3, "winners": {"k": LINE | odd}})
       for odd in ({"warps": 3}, {"stages": 99}, {"share": -1}, {"microseconds": float("nan")}, {"more": 1},
                   {"descriptors": 1}, {"warps": "4"}, {"blocks": {"b": 48}}, {"blocks": {"b": "64"}},
                   {"blocks": {"b": True}}, {"blocks": {"b": -64}}, {"blocks": [64]}, {"blocks": 64}))],
)  # fmt: skip
def test_a_damaged_file_counts_as_empty(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text, encoding="utf-8")
    winners = Winners.at(path)
    assert winners.known == {}
    winners.keep("k", KERNEL, TIMED)
    assert Winners.at(path).find("k", KERNEL) == (KERNEL, replace(TIMED, how="kept"))
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.json"]


def test_one_damaged_line_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"format": 3, "winners": {"a": LINE, "b": LINE | {"warps": 0}}}), encoding="utf-8")
    assert Winners.at(path).known == {"a": Winner((("b", 64),), 4, 3, 0, 0, False, 8, 40.0, 50.0)}


def test_blocks_are_kept_with_the_rest(tmp_path: Path) -> None:
    """What is read back is the kernel that was timed, to the block; the explanation says what the blocks were."""
    path = tmp_path / "tuned.json"
    wanted = next(c.kernel for c in candidates() if blocks_of(c.kernel) == {"b": 128} and c.share == 1056)
    best, origin = tuner(path).best(KERNEL, *WORK, lambda k: 1.0 if blocks_of(k)["b"] == 128 else 2.0)
    assert blocks_of(best) == {"b": 128} and origin.blocks == (("b", 64),)
    assert "as first chosen, in blocks b 64" in str(origin)
    known = tuner(path).kept(KERNEL, WORK[0])
    assert known == (best, replace(origin, how="kept"))
    winners = Winners.at(path)
    winners.keep("k", wanted, TIMED)
    found = Winners.at(path).find("k", KERNEL)
    assert found is not None and found[0] == wanted


@pytest.mark.parametrize(
    "blocks",
    [{"q": 64}, {"k": 32}, {"b": 1}, {"b": 1 << 20}, {}],
    ids=["an axis of another kernel", "an axis held whole", "one position", "a block of no use", "none"],
)
def test_blocks_that_cannot_be_count_as_nothing(blocks: dict[str, int], tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"format": 3, "winners": {"k": LINE | {"blocks": blocks}}}), encoding="utf-8")
    found = Winners.at(path).find("k", KERNEL)
    assert (found is None) == bool(blocks)


def test_two_processes_keep_what_both_found(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    one, other = Winners.at(path), Winners.at(path)
    one.keep("a", KERNEL, TIMED)
    other.keep("b", replace(KERNEL, warps=8), TIMED)
    assert set(Winners.at(path).known) == {"a", "b"}


WRITER = """
import sys
from pathlib import Path
from stein.backends.gpu.steps import Origin
from stein.backends.gpu.winners import Winners
from stein.tests.gpu.test_tune import KERNEL, TIMED
for n in range(40):
    Winners.at(Path(sys.argv[1])).keep(f"{sys.argv[2]}{n}", KERNEL, TIMED)
"""


def test_two_writers_at_a_time_leave_a_whole_file(tmp_path: Path) -> None:
    """One may miss a line of the other, which is then found again; what is there is sound."""
    path = tmp_path / "tuned.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
    assert [w.wait() for w in writers] == [0, 0]
    known = Winners.at(path).known
    assert len(known) >= 40 and len({*known.values()}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.json"]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    winners = Winners.at(blocked / "tuned.json")
    winners.keep("k", KERNEL, TIMED)
    assert winners.find("k", KERNEL) is not None
    nowhere = Winners.at(None)
    nowhere.keep("k", KERNEL, TIMED)
    assert nowhere.find("k", KERNEL) is not None


def test_a_winner_belongs_to_one_kernel_one_device_and_one_range_of_sizes(tmp_path: Path) -> None:
    other = replace(KERNEL, nest=Outer((("b", 128),), BODY, 528, 3))
    few, many = {"n_b": 5}, {"n_b": 5000}
    keys = [key_of(KERNEL, "H200", few), key_of(KERNEL, "H100", few), key_of(other, "H200", few)]
    assert len({*keys, key_of(KERNEL, "H200", many), key_of(replace(KERNEL, warps=8), "H200", few)}) == 5
    path = tmp_path / "tuned.json"
    tuner(path, "H200").best(KERNEL, *WORK, lambda k: k.warps)
    assert tuner(path, "H200").kept(KERNEL, WORK[0]) is not None
    assert tuner(path, "H100").kept(KERNEL, WORK[0]) is None
