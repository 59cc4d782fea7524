"""Tuning of calls, with a stand-in for the clock: run by `test_called` in a process with Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from triton.runtime.errors import OutOfResources

import stein
from stein.backends.gpu.ahead import Facts
from stein.backends.gpu.nodes import Kernel, Loop, Outer, walk
from stein.backends.gpu.program import Bound
from stein.backends.gpu.reblock import blocks_of
from stein.backends.gpu.roofline import H200
from stein.backends.gpu.steps import Launch, Origin
from stein.backends.gpu.tune import Tuner
from stein.backends.gpu.winners import Winners
from stein.runtime import gpu, gpu_tuning
from stein.runtime.gpu_tuning import Tuning, capturing, enabled, microseconds, tuning_of
from stein.tests.gpu.interpreter import repair  # first: it asks for the interpreter

assert callable(repair)

Tunings = Callable[..., Tuning]


def facts(kernel: Kernel) -> Facts:
    """What a compiler might say: every configuration is another one."""
    stages = sum(n.stages for n in walk(kernel.nest) if isinstance(n, Outer | Loop)) + kernel.stages
    return Facts("sm_90", kernel.warps, 40, 1024 * stages, 0, 1, 8, 4, ())


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tunings:
    """A function that puts a stand-in in place of the GPU's clock; it runs each candidate twice."""

    def put(name: str = "stand-in", times: Callable[[int], float] = lambda n: 100.0 - n) -> Tuning:
        timed: list[float] = []

        def clock(thunk: Callable[[], None]) -> float:
            thunk()
            thunk()
            timed.append(times(len(timed)))
            return timed[-1]

        found = Tuning(Tuner(Winners.at(tmp_path / "kernels.json"), H200, name, facts), clock)
        found.timed = timed  # type: ignore[attr-defined]
        monkeypatch.setattr(gpu, "tuning_of", lambda device: found)
        return found

    return put


def count(tuning: Tuning) -> int:
    """How many candidates were timed."""
    return len(tuning.timed)  # type: ignore[attr-defined]


def compiled(text: str, dtype: str = "float32", **options: object) -> stein.Compiled:
    found: stein.Compiled = stein.compile(text, dtype=dtype, target="cuda", **options)
    return found


def bound(f: Any) -> Bound:
    """The steps of the last call."""
    expression, sizes = f._last
    found: Bound = f.gpu(expression).dense_steps(sizes)
    return found


PRODUCT = "y[i,k] = exp(0.1 * (sum[j] A[i,j] * B[j,k]))"


def test_the_first_call_times_and_later_ones_do_not(tuning: Tunings) -> None:
    clock, f = tuning(), compiled(PRODUCT)
    a, b = torch.randn(33, 40), torch.randn(40, 50)
    torch.testing.assert_close(f(a, b), torch.exp(0.1 * (a @ b)))
    once = count(clock)
    assert 2 <= once <= 8
    (launch,) = (s for s in bound(f).steps if isinstance(s, Launch))
    assert launch.origin.how == "timed" and launch.origin.candidates == once and bound(f).settled
    assert (launch.chosen.kernel.warps, launch.chosen.kernel.stages) != (4, 3), "the last one was the fastest"
    (step,) = f.explain().steps
    assert f"configuration timed: {101 - once} us, the fastest of {once}; 100 us as first chosen" in step.kernel
    torch.testing.assert_close(f(a, b), torch.exp(0.1 * (a @ b)))
    assert count(clock) == once


def test_what_was_timed_is_kept_for_other_processes_on_the_same_device(tuning: Tunings) -> None:
    a, b = torch.randn(33, 40), torch.randn(40, 50)
    clock, f = tuning(), compiled(PRODUCT)
    f(a, b)
    again, g = tuning(), compiled(PRODUCT)  # as another process would find it
    torch.testing.assert_close(g(a, b), torch.exp(0.1 * (a @ b)))
    assert count(clock) > 0 == count(again)
    (one,), (other,) = ([s for s in bound(h).steps if isinstance(s, Launch)] for h in (f, g))
    assert one.chosen == other.chosen and other.origin.how == "kept"
    moved, h = tuning("another device"), compiled(PRODUCT)
    h(a, b)
    assert count(moved) == count(clock)


def test_other_blocks_may_be_the_fastest(tuning: Tunings) -> None:
    """They run, they are right, `explain` says them, and another process finds them."""
    text, a = "y[j,i] = A[i,j]", torch.randn(70, 150)
    tuning(times=lambda n: 100.0)
    model = compiled(text)
    model(a)
    (first,) = (s for s in bound(model).steps if isinstance(s, Launch))
    clock, f = tuning("another device", times=lambda n: 100.0 - (n == 1)), compiled(text)  # the first one beside it
    assert torch.equal(f(a), a.t())
    (launch,) = (s for s in bound(f).steps if isinstance(s, Launch))
    before, after = dict(first.chosen.blocks), dict(launch.chosen.blocks)
    changed = {n: b for n, b in before.items() if after[n] != b}
    assert before == {"j": 64, "i": 64} and dict(launch.origin.blocks) == changed != {}
    assert launch.chosen.blocks == tuple(blocks_of(launch.chosen.kernel).items())
    assert launch.chosen.programs == prod(-(-{"i": 70, "j": 150}[n] // b) for n, b in launch.chosen.blocks)
    cut = ", ".join(f"{n} {b}" for n, b in launch.chosen.blocks)
    was = ", ".join(f"{n} {b}" for n, b in changed.items())
    (step,) = f.explain().steps
    assert f"blocks {cut}, " in step.kernel and f"100 us as first chosen, in blocks {was}" in step.kernel
    assert torch.equal(f(a), a.t()) and count(clock) <= 8
    again, g = tuning("another device"), compiled(text)
    assert torch.equal(g(a), a.t())
    (other,) = (s for s in bound(g).steps if isinstance(s, Launch))
    assert count(again) == 0 and other.chosen == launch.chosen and other.origin == replace(launch.origin, how="kept")


def test_kernels_are_assembled_by_several_threads_where_triton_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= gpu_tuning.assemblers() <= gpu_tuning.MOST_ASSEMBLERS
    monkeypatch.setattr(gpu_tuning, "find_spec", lambda name: None)
    assert gpu_tuning.assemblers() == 1


def test_a_fused_kernel_is_timed_with_its_persistent_programs(tuning: Tunings) -> None:
    clock = tuning(times=lambda n: float(n != 7))
    f = compiled("y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", "float16", A=(32, 32), B=(64, 64), x=("b", 32, 64))
    a, b, x = (torch.randn(*s).half() / 8 for s in ((32, 32), (64, 64), (5, 32, 64)))
    torch.testing.assert_close(f(a, b, x), torch.einsum("ik,jl,bkl->bij", a, b, x), rtol=2e-2, atol=2e-3)
    assert count(clock) == 8
    (launch,) = (s for s in bound(f).steps if isinstance(s, Launch))
    assert launch.origin.microseconds == 0.0 and launch.chosen.programs <= 5, "no more programs than blocks"


def test_the_model_counts_matrix_units_in_fused_kernels(tuning: Tunings, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    clock = tuning()

    def best(kernel: Kernel, numbers: object, moved: int, flops: int, rate: float, timer: object) -> object:
        rates.append(rate)
        return kernel, Origin()

    monkeypatch.setattr(clock.tuner, "best", best)
    f = compiled("y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", "float16", A=(32, 32), B=(64, 64), x=("b", 32, 64))
    f(*(torch.zeros(*s).half() for s in ((32, 32), (64, 64), (5, 32, 64))))
    compiled("y[i] = exp(x[i])")(torch.zeros(50))
    assert rates == [H200.half, H200.single]


@pytest.mark.parametrize(
    "text",
    [
        "y[i+j] = x[i] * z[j]",  # added to by atomic operations
        "u[i] = exp(x[i]); y[i+j] = u[i] * z[j]\nreturn y",
        "z[j] += x[j]",
    ],
)
def test_timing_leaves_no_trace_in_results(text: str, tuning: Tunings) -> None:
    x, z = torch.randn(20), torch.randn(20)
    want = stein.compile(text, dtype="float32", target="cpu")(x=x, z=z)
    clock = tuning()
    found = compiled(text)(x=x, z=z)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    assert count(clock) > 0


def test_complex_parts_are_timed_in_memory_of_their_own_strides(tuning: Tunings) -> None:
    clock, f = tuning(), compiled("y[i] = x[i] * z[i]", "complex64")
    x, z = torch.randn(50, dtype=torch.complex64), torch.randn(50, dtype=torch.complex64)
    torch.testing.assert_close(f(x, z), x * z)
    assert count(clock) > 0


def test_nothing_is_timed_while_a_graph_is_captured(tuning: Tunings, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, f = tuning(), compiled(PRODUCT)
    a, b = torch.randn(33, 40), torch.randn(40, 50)
    monkeypatch.setattr(gpu, "capturing", lambda device: True)
    torch.testing.assert_close(f(a, b), torch.exp(0.1 * (a @ b)))
    assert count(clock) == 0 and not bound(f).settled
    monkeypatch.setattr(gpu, "capturing", lambda device: False)
    f(a, b)
    assert count(clock) > 0 and bound(f).settled


def test_without_memory_for_a_second_result_the_first_choice_runs(
    tuning: Tunings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> object:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu_tuning, "spared", full)
    clock, f = tuning(), compiled(PRODUCT)
    f(torch.randn(33, 40), torch.randn(40, 50))
    assert count(clock) == 0 and bound(f).settled
    assert "configuration by the model" in f.explain().steps[0].kernel


def test_when_there_is_something_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    assert tuning_of(None) is None and tuning_of(torch.device("cpu")) is None
    assert tuning_of(device) is None, "the interpreter's times say nothing"
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setenv("STEIN_TUNE", "off")
    assert tuning_of(device) is None and not enabled()
    monkeypatch.setenv("STEIN_TUNE", "")
    assert enabled() and not capturing(torch.device("cpu"))


class FakeGpu:
    """What torch says of a GPU that is not in the table."""

    def __init__(self, name: str, capability: tuple[int, int]) -> None:
        self.name, self.capability = name, capability

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        properties = type("Properties", (), {"multi_processor_count": 77})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: self.name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: self.capability)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)


def test_winners_are_kept_under_what_the_driver_calls_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setenv("STEIN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("STEIN_TUNE", "")
    labels = []
    for name, capability in (("NVIDIA H200", (9, 0)), ("NVIDIA L40S", (8, 9)), ("NVIDIA RTX 5090", (12, 0))):
        FakeGpu(name, capability).install(monkeypatch)
        gpu_tuning._tuning.cache_clear()
        gpu_tuning.winners.cache_clear()
        found = tuning_of(torch.device("cuda", 0))
        assert found is not None and found.tuner.winners.path == tmp_path / "gpu-kernels.json"
        labels.append((found.tuner.name.split("-triton_")[0], found.tuner.device.architecture))
        assert found.tuner.device.multiprocessors == (132 if "H200" in name else 77)
    assert labels == [
        ("NVIDIA_H200-sm_90", "sm_90"), ("NVIDIA_L40S-sm_89", "sm_89"), ("NVIDIA_RTX_5090-sm_89", "sm_89"),
    ]  # fmt: skip
    gpu_tuning._tuning.cache_clear()
    gpu_tuning.winners.cache_clear()


def test_what_the_gpu_has_no_room_for_takes_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton.testing

    monkeypatch.setattr(triton.testing, "do_bench", lambda thunk, **options: thunk() or 0.25)
    assert microseconds(lambda: None) == 250.0

    def too_large() -> None:
        raise OutOfResources(300_000, 232_448, "shared memory")

    assert microseconds(too_large) == float("inf")
