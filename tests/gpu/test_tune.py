"""Tuning: what is left to measure, what is kept, and that a damaged file does no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stein.backends.gpu.ahead import Facts
from stein.backends.gpu.nodes import Kernel, Load, Map, Outer, Tensor, Tile
from stein.backends.gpu.roofline import H200
from stein.backends.gpu.tune import MOST, Tuner, Winners, key_of, prune, variants
from stein.ir.errors import BackendError
from stein.ir.types import BF16

X, A, Y = (
    Tensor("x", ("b", "k"), BF16, (64, 1)),
    Tensor("a", ("k", "j"), BF16, (64, 1)),
    Tensor("y", ("b", "j"), BF16, (64, 1)),
)
BODY = Load("a", (("k",), ("j",)), Tile("y", ("x", "a"), ("b", "j"), ("k",)))
KERNEL = Kernel((X, A, Y), (("b", "n_b"), ("k", 64), ("j", 64)), Outer((("b", 64),), BODY, 528, 3))


def facts(kernel: Kernel, **changes: object) -> Facts:
    found = Facts("sm_90", kernel.warps, 80, 16_384 * kernel.stages, 0, 3, 8, 4, (("HGMMA", 8),))
    return replace(found, **changes)  # type: ignore[arg-type]


def test_at_most_eight_are_left_and_the_first_stays_first() -> None:
    every = variants(KERNEL)
    assert len(every) > MOST
    left = prune(every, facts, H200, 1 << 28, 1 << 34, H200.half)
    assert len(left) == MOST
    assert left[0].kernel == KERNEL


def test_spills_and_too_much_shared_memory_are_left_out() -> None:
    def inspect(kernel: Kernel) -> Facts:
        if kernel.warps == 8:
            return facts(kernel, instructions=(("STL", 3),))
        return facts(kernel, shared=1 << 18 if kernel.stages == 4 else 1 << 14)

    left = prune(variants(KERNEL), inspect, H200, 1 << 28, 1 << 34, H200.half)
    assert left
    assert all(c.kernel.warps == 4 and c.kernel.stages != 4 for c in left)


def test_what_cannot_be_assembled_is_left_out() -> None:
    def inspect(kernel: Kernel) -> Facts:
        if kernel.stages == 2:
            raise BackendError("no", code="kernel-not-assembled")
        return facts(kernel)

    assert all(c.kernel.stages != 2 for c in prune(variants(KERNEL), inspect, H200, 1, 1, H200.half))


def test_equal_code_is_measured_once() -> None:
    same = facts(KERNEL)
    plain = replace(KERNEL, nest=Outer((("b", 64),), Map("y", "x")))
    assert len(prune(variants(plain), lambda _: same, H200, 1, 1, H200.half)) == 1


def test_the_fastest_wins_and_is_not_measured_again(tmp_path: Path) -> None:
    measured: list[Kernel] = []
    told: list[tuple[int, int, float]] = []

    def timer(kernel: Kernel) -> float:
        measured.append(kernel)
        return 10.0 - len(measured)  # the later, the faster

    path = tmp_path / "deep" / "tuned.json"
    tuner = Tuner(Winners.at(path), H200, facts, timer, lambda *seen: told.append(seen))
    best = tuner.best(KERNEL, 1 << 28, 1 << 34, H200.half)
    assert best == measured[-1] != KERNEL
    assert [t[:2] for t in told] == [(n + 1, MOST) for n in range(MOST)]
    again = Tuner(Winners.at(path), H200, facts, timer)
    assert again.best(KERNEL, 1 << 28, 1 << 34, H200.half) == best
    assert len(measured) == MOST


def test_without_a_gpu_the_first_choice_runs_and_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    assert Tuner(Winners.at(path), H200, facts).best(KERNEL, 1, 1, 1.0) == KERNEL
    assert not path.exists()


def test_one_candidate_is_not_timed(tmp_path: Path) -> None:
    def timer(kernel: Kernel) -> float:
        raise AssertionError("nothing to compare")

    tuner = Tuner(Winners.at(tmp_path / "tuned.json"), H200, lambda _: facts(KERNEL), timer)
    plain = replace(KERNEL, nest=Outer((("b", 64),), Map("y", "x")))
    assert tuner.best(plain, 1, 1, H200.half) == plain


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0, "winners": {}}', '{"format": 1, "winners": {"k": 3}}'])
def test_a_damaged_file_counts_as_empty(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text, encoding="utf-8")
    winners = Winners.at(path)
    assert winners.known == {}
    winners.keep("k", KERNEL)
    assert Winners.at(path).find("k", KERNEL) == KERNEL
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.json"]


def test_two_processes_keep_what_both_found(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    one, other = Winners.at(path), Winners.at(path)
    one.keep("a", KERNEL)
    other.keep("b", replace(KERNEL, warps=8))
    assert set(json.loads(path.read_text(encoding="utf-8"))["winners"]) == {"a", "b"}


def test_a_winner_belongs_to_one_kernel_and_one_device() -> None:
    other = replace(KERNEL, nest=Outer((("b", 128),), BODY, 528, 3))
    assert len({key_of(KERNEL, "H200"), key_of(KERNEL, "H100"), key_of(other, "H200")}) == 3
