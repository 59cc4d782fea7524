"""`benchmarks/gpu.py` without a GPU: its plans, its rivals, its goals, and all of its logic in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import stein

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))  # its files import neighbours by name

import gpu
import gpu_check
from gpu_bench import bench_row, plan_of
from gpu_budget import Budget, OutOfTime
from gpu_check import Outcome, Wrong, errors, outcome, same
from gpu_machine import Cuda, StandIn, poisoned
from gpu_report import (
    COPY,
    DENSE,
    MISSED,
    OURS,
    REACHED,
    Result,
    Times,
    judge,
    line,
    read,
    write,
    wrong_of,
)
from gpu_rows import ROWS, Row, Scale, given_and_places, lists, operands

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {r.name: r for r in ROWS}
TINY = Scale(64, 2, "float16")
OPTIONS = f"--size {TINY.n} --batch {TINY.batch} --dtype {TINY.dtype}"
every = pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)


@every
def test_a_row_gets_the_kernels_that_it_promises(row: Row) -> None:
    """As a user writes it, at full size; the goals are set for these kernels."""
    plan = plan_of(row, Scale())
    assert tuple(p.structure for p in plan.bound.plans) == row.plans
    assert sum(p.moved_bytes for p in plan.bound.plans) <= row.traffic * plan.bytes
    assert row.plans or {*plan.text.split(", ")} <= {"torch.matmul", "a kernel of its own"}


@pytest.mark.parametrize(
    ("name", "microseconds", "bound"),
    [
        ("kronecker 64x64", 62.4, "memory"), ("hadamard", 62.4, "memory"), ("low rank 64", 62.7, "memory"),
        ("monarch 64", 62.7, "memory"), ("block sparse 90 %", 69.3, "compute"), ("toeplitz", 62.4, "memory"),
        ("dense", 695.9, "compute"), ("kronecker, int8", 46.8, "memory"),
    ],
)  # fmt: skip
def test_floors_are_those_of_the_roofline(name: str, microseconds: float, bound: str) -> None:
    """Inputs and results once at 4.3 TB/s, or the operations of the plan at 790 TF."""
    from stein.backends.gpu.roofline import H200

    found, kind = plan_of(BY_NAME[name], Scale()).floor(BY_NAME[name], Scale(), H200)
    assert found == pytest.approx(microseconds, rel=0.01) and kind == bound


@every
def test_rivals_compute_the_row(row: Row) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    scale = row.at(Scale(256, 6, "float32"))
    given = operands(row, torch, scale, "cpu")
    every = given_and_places(row, torch, scale, "cpu", given)
    exact = row.exact(torch, {n: t.double() if t.is_floating_point() else t for n, t in every.items()})
    for rival in row.rivals:
        found = rival.make(torch, every)()
        if isinstance(found, tuple):  # numbers of 8 bits and their scale
            found = found[0] * found[1]
        found = found.double().reshape(exact.shape)
        assert float((found - exact).norm() / exact.norm()) <= row.tolerance("float32", scale.n), rival.name


@every
def test_the_program_of_a_row_is_its_definition(row: Row) -> None:
    """By the meaning of the language: `check` holds results of a GPU against the definition."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    scale = row.at(Scale(64, 6, "float32"))
    constants = {n: stein.constant(a) for n, a in lists(row, scale).items()}
    shapes: dict[str, Any] = {**constants, **row.shapes(scale)}
    run = stein.compile(row.source(scale), dtype=scale.dtype, target="reference", **shapes)
    given = operands(row, torch, scale, "cpu")
    found = run(**{n: t.numpy() for n, t in given.items()})
    several = isinstance(found, dict)
    tensors = {n: torch.as_tensor(a) for n, a in found.items()} if several else torch.as_tensor(found)
    item, element = errors(row, torch, scale, given, tensors)
    assert item <= 1 and element <= 1


# --- what is wrong is seen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["nan", "element", "item", "shape"])
def test_damage_is_seen(damage: str) -> None:
    """One element among all is enough."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    row, scale = BY_NAME["dense"], Scale(256, 20, "bfloat16")
    given = operands(row, torch, scale, "cpu")
    found = (given["x"].double() @ given["W"].double().t()).bfloat16()
    assert max(errors(row, torch, scale, given, found)) <= 1
    if damage == "nan":
        found[19, 255] = float("nan")
    elif damage == "element":
        found[19, 255] += 1
    elif damage == "item":
        found[3] *= 1.05
    else:
        with pytest.raises(Wrong, match="shape"):
            errors(row, torch, scale, given, found.t())
        return
    assert max(errors(row, torch, scale, given, found)) > 1


def test_results_that_differ_in_a_bit_are_not_the_same() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    y = torch.ones(5)
    assert same({"y": y}, {"y": y.clone()}, "") == (0, 0)
    with pytest.raises(Wrong, match="other"):
        same(y, y * (1 + 2**-23), "other")


def test_memory_is_poisoned_for_a_while() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    filled, strict = torch.utils.deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
    with poisoned(torch):
        assert torch.empty((64, 64)).isnan().all() and (torch.empty(9, dtype=torch.int8) == 127).all()
    assert torch.utils.deterministic.fill_uninitialized_memory == filled
    assert torch.are_deterministic_algorithms_enabled() == strict


def test_an_outcome_tells_what_was_raised() -> None:
    def raising() -> tuple[float, float]:
        raise ValueError("\n  no good\nmore")

    found = outcome("row", "what", raising)
    assert not found.right and found.text == "ValueError: no good"
    assert not Outcome("row", "what", 1.5).right and Outcome("row", "what", 0.5, 0.9).right
    assert wrong_of([found, replace(found, what="too"), Outcome("row", "fine")]) == ["what, too: ValueError: no good"]


# --- goals, files, time -----------------------------------------------------------------------------------------------


def timed(**microseconds: float) -> Result:
    """A result with these times."""
    result = Result("row")
    result.times = {n.replace("_", " "): Times([t + 9, t, t + 1], [t, t, t - 1]) for n, t in microseconds.items()}
    return result


def test_goals_are_about_the_lesser_time() -> None:
    times = Times([9.0, 10.0, 11.0], [5.0, 6.0, 4.0])
    assert times.best == 5 and times.spread == pytest.approx(0.4) and Times([3.0]).best == 3


@pytest.mark.parametrize(
    ("times", "missed"),
    [
        ({"stein": 68, "copy": 64, "dense": 700, "torch.einsum": 260, "two matmuls": 130}, []),
        ({"stein": 70, "copy": 64, "dense": 700, "torch.einsum": 260, "two matmuls": 130}, ["us <= 69: 70"]),
        ({"stein": 68, "copy": 64, "dense": 650, "torch.einsum": 260, "two matmuls": 130}, ["x dense >= 10: 9.56"]),
        ({"stein": 68, "copy": 64, "dense": 700, "torch.einsum": 260}, ["x two matmuls >= 1.8: not measured"]),
        ({"stein": 68, "copy": 61, "dense": 700, "torch.einsum": 260, "two matmuls": 130}, ["of a copy <= 1.1: 1.11"]),
    ],
)
def test_goals(times: dict[str, float], missed: list[str]) -> None:
    row, result = replace(BY_NAME["kronecker 64x64"], against_copy=1.1), Result("row")
    result.times = {n: Times([float(t)]) for n, t in times.items()}
    judge(row, result, microseconds=True)
    assert [v.text for v in result.goals if not v.reached] == missed
    assert result.status == (MISSED if missed else REACHED)
    assert all(m in line(result) for m in missed)


def test_microseconds_count_only_where_they_were_set() -> None:
    result = Result("row", times={n: Times([t]) for n, t in ((OURS, 99.0), (DENSE, 990.0), (COPY, 62.0))})
    judge(replace(BY_NAME["hadamard"], against_copy=None), result, microseconds=False)
    assert result.status == REACHED and len(result.goals) == 1


def test_files_hold_whole_rows(tmp_path: Path) -> None:
    path, result = tmp_path / "out.json", timed(stein=68, two_matmuls=130)
    judge(replace(BY_NAME["low rank 64"], against_dense=None), result, microseconds=False)
    outcomes = [Outcome("nn.Kronecker", "small", 0.5, 0.25), Outcome("a", "b", sentence="c")]
    write(path, {"seconds": 3.5}, [result], outcomes, ["late"])
    assert read(path) == ([result], outcomes, 3.5)
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"] and json.loads(path.read_text())["left_out"] == ["late"]


def test_a_row_may_take_twice_its_share() -> None:
    budget = Budget(10, earlier=60)
    assert 60 <= budget.spent < 600 and budget.share(8) == pytest.approx(2 / 9 * budget.left, rel=0.1)
    assert Budget(1, earlier=90).left == 0


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGALRM"), reason="this system has no such signal")
def test_what_takes_too_long_is_ended() -> None:
    budget = Budget(10)
    spent: dict[str, float] = {}
    with pytest.raises(OutOfTime), budget.limited(0.01), budget.phase("sleep", spent):
        time.sleep(60)
    with pytest.raises(OutOfTime), budget.limited(0.01), budget.limited(60):  # the earliest end counts
        time.sleep(60)
    with budget.limited(60), pytest.raises(OutOfTime), budget.limited(0.01):
        time.sleep(60)
    time.sleep(0.02)  # nothing of it is left
    assert set(spent) == {"sleep"} == set(budget.spent_on)


def test_tuning_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is measured in the configurations of the model, and says so."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")

    class Tuned:
        """A program that is tuned for a minute."""

        def __call__(self, x: Any, U: Any, V: Any) -> Any:
            if os.environ.get("STEIN_TUNE") != "off":
                time.sleep(60)
            return x @ V.t() @ U.t()

        def explain(self) -> Any:
            return SimpleNamespace(steps=())

    plan_of(BY_NAME["low rank 64"], TINY)  # so that all is loaded when time counts
    with poisoned(torch):
        pass
    monkeypatch.setattr(gpu_check, "compiled", lambda row, scale: Tuned())
    monkeypatch.delenv("STEIN_TUNE", raising=False)
    row = replace(BY_NAME["low rank 64"], rivals=())
    result = bench_row(StandIn(torch), row, Scale(64, 2, "float32"), Budget(0.1), 1)
    assert result.status == "measured", result
    assert "configurations are those of the model" in result.problems["tuning"]
    assert "STEIN_TUNE" not in os.environ


def test_a_gpu_that_answers_no_more_is_left_to_another_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")

    class Dead(StandIn):
        def alive(self) -> bool:
            return False

    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "bench", "--only", "low"])
    run = gpu.Run(Console(quiet=True), Dead(torch), gpu.parsed(["bench", "--only", "low"]), [])
    run.results.append(timed(stein=68))
    run.go_on()
    ((_, *arguments),) = calls
    assert arguments[:-1] == ["gpu.py", "bench", "--only", "low", "--resume", "--json"]
    following = gpu.Run(Console(quiet=True), StandIn(torch), gpu.parsed(arguments[1:]), [])
    assert following.results == run.results and following.budget.earlier > 0


class Driver:
    """What `Cuda` asks of torch.cuda, written down; it fails where a test wants that."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.seen = fails, list[str]()
        self.CUDAGraph = lambda: SimpleNamespace(replay=lambda: self.seen.append("replay"))

    def __getattr__(self, name: str) -> Any:
        def called(*arguments: Any) -> Any:
            self.seen.append(name)
            if name == self.fails:
                raise RuntimeError(name)
            return 0 if name == "current_device" else f"<{name}>"

        return called

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.seen.append("begin")
        yield
        self.seen.append("end")

    def get_device_properties(self, device: Any) -> Any:
        return SimpleNamespace(name="NVIDIA H200", multi_processor_count=132, total_memory=1 << 37)


def cuda(driver: Driver) -> Any:
    """The machine on a driver of the test."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which runs this for real")
    versions = SimpleNamespace(cuda="13.0", hip=None)
    return Cuda(SimpleNamespace(cuda=driver, device=torch.device, version=versions, __version__="2"))


def test_a_call_is_recorded_and_replayed() -> None:
    driver = Driver()
    captured = cuda(driver).captured(lambda: driver.seen.append("call") or 3)
    captured.replay()
    order = [n for n in driver.seen if n in ("synchronize", "begin", "call", "end", "set_stream", "replay")]
    assert captured.result == 3 and order == ["synchronize", "begin", "call", "end", "set_stream", "replay"]


def test_a_recording_that_fails_leaves_the_stream_as_it_was() -> None:
    driver = Driver()
    with pytest.raises(ZeroDivisionError):
        cuda(driver).captured(lambda: 1 // 0)
    assert "end" not in driver.seen and driver.seen[-1] == "set_stream"


def test_facts_of_a_gpu() -> None:
    driver = Driver()
    machine = cuda(driver)
    facts = machine.facts()
    assert facts["device"] == "NVIDIA H200" and facts["rates"] == "H200" and facts["cuda"] == "13.0"
    assert facts["torch"] == "2" and {"driver", "triton", "stein", "python"} <= set(facts)
    machine.tidy()
    assert driver.seen[-1] == "empty_cache"


def test_a_gpu_that_answers_no_more_is_noticed() -> None:
    assert not cuda(Driver(fails="synchronize")).alive()
    cuda(Driver(fails="empty_cache")).tidy()  # nothing of it is said here


# --- the script -------------------------------------------------------------------------------------------------------


def dry_run(*commands: str) -> list[tuple[str, int]]:
    """The output and the exit status of each command of the script, in the interpreter."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")
    command = [sys.executable, "-m", "stein.tests.benchmarks.gpu_dry_run", *commands]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT.parent, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = done.stdout.split("exit status ")
    return [(text, int(status.split()[0])) for text, status in pairwise(parts)]


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of results by name."""
    return {r["name"]: r for r in json.loads(path.read_text(encoding="utf-8"))["rows"]}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int]]]:
    """The file of results, and what the commands printed: all rows, no time, two rows, these gone on with."""
    folder = tmp_path_factory.mktemp("gpu")
    every = " ".join(f"--only {n.split(' ')[0]}" for n in ("fails", "wrong", "rivalled", *BY_NAME))
    some = f"bench {OPTIONS} --only dense --only low --json {folder}/some.json"
    found = dry_run(
        f"bench {OPTIONS} --json {folder}/all.json {every}",
        f"bench {OPTIONS} --minutes 0.1 --only slow --only low",
        f"{some} --only fails",
        f"{some} --only hadamard --resume",
    )
    return folder, found


def test_bench_goes_through_all_rows(benches: tuple[Path, list[tuple[str, int]]]) -> None:
    folder, ((text, status), *_) = benches
    rows = rows_of(folder / "all.json")
    assert list(rows) == ["fails", "wrong", "rivalled", *BY_NAME] and status == 1
    bad = {n: r["sentence"] for n, r in rows.items() if r["status"] == "failed"}
    assert set(bad) == {"fails", "wrong"}
    assert bad["fails"].startswith("EinsumSyntaxError:") and "times what is allowed" in bad["wrong"]
    for name in BY_NAME:
        row = rows[name]
        assert row["status"] == "measured", "times of the interpreter are held against no goal"
        assert 0 < row["item"] <= 1 and row["floor"] > 0
        assert {"stein", "copy", *(["dense"] if BY_NAME[name].product else [])} <= set(row["times"])
        assert all(len(row["times"]["stein"][way]) == 1 for way in ("called", "replayed"))
        rivals = [r.name for r in BY_NAME[name].rivals]
        assert all(r in row["times"] or r in row["problems"] for r in rivals)
        assert set(row["seconds"]) >= {"compiling", "tuning", "checking", "timing"}
        assert name in text
    assert "torch.compile" in rows["dense"]["times"] and rows["low rank 64"]["plans"]


def test_a_broken_rival_is_told_and_the_others_go_on(benches: tuple[Path, list[tuple[str, int]]]) -> None:
    row = rows_of(benches[0] / "all.json")["rivalled"]
    assert row["problems"]["broken"] == "RuntimeError: this rival is broken"
    assert {"torch.einsum", "two matmuls"} <= set(row["times"])


def test_a_row_that_takes_too_long_is_ended_and_the_rest_is_left_out(
    benches: tuple[Path, list[tuple[str, int]]],
) -> None:
    text, status = benches[1][1]
    assert "slow: FAILED, it took longer than" in text
    assert "left out, as the time was over: low rank 64, low rank 64, batch 16" in text and status == 1


def test_a_run_is_gone_on_with(benches: tuple[Path, list[tuple[str, int]]]) -> None:
    (before, status), (after, _) = benches[1][2:]
    assert "low rank 64: " in before and status == 1
    assert "hadamard: " in after and "low rank 64: " not in after.replace("low rank 64: by the model", "")
    assert {"low rank 64", "fails", "hadamard"} <= set(rows_of(benches[0] / "some.json"))


def test_check_goes_through_rows_and_layers(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    chosen = " ".join(f"--only {n}" for n in ("fails", "wrong", "monarch", "gated", "nn"))
    ((text, status),) = dry_run(f"check {OPTIONS} {chosen} --json {path}")
    found = json.loads(path.read_text(encoding="utf-8"))["checks"]
    outcomes = [Outcome(**o) for o in found]
    wrong = {(o.row, o.what) for o in outcomes if not o.right}
    assert {r for r, _ in wrong} == {"fails", "wrong"} and status == 1
    assert ("wrong", "small") in wrong and ("wrong", "full") in wrong and ("wrong", "captured") not in wrong
    kinds = {o.what for o in outcomes if o.row == "monarch 64"}
    assert kinds == {"small", "captured", "stream", "transposed", "with gaps", "unaligned", "gradients", "full"}
    layers = {(o.row, o.what) for o in outcomes if o.row.startswith("nn.")}
    assert ("nn.BlockSparse", "gradients") in layers and ("nn.Toeplitz", "autocast") in layers
    assert ("nn.all in one model", "fullgraph") in layers
    assert "nn.Kronecker" in text


def test_without_a_gpu_there_are_plans_and_a_sentence() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'stein[gpu]'")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"}
    script = str(ROOT / "benchmarks" / "gpu.py")
    command = [sys.executable, script, "bench", "--only", "kronecker 64x64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 and "there is no GPU here" in done.stdout and "in 1 kernel" in done.stdout


def test_a_name_that_no_row_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["bench", "--only", "nonsense"]) == 2
    assert "no row begins with nonsense; there are kronecker 64x64" in capsys.readouterr().err
