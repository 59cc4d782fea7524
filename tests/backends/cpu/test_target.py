"""Prices and their constants: what a price follows from, and that a measurement survives whatever befalls its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stein.backends.cpu import calibration
from stein.backends.cpu.calibration import DEFAULTS, FAMILIES, LEVELS, Rates, load, machine_key, save
from stein.backends.cpu.jit import is_compiled
from stein.backends.cpu.machine import host, machine_of
from stein.backends.cpu.target import CpuTarget, parts_in
from stein.ir.target import Target
from stein.ir.text import parse_ir
from stein.ir.types import BF16, C64, C128, F16, F32, F64, I64, DType

MACHINE = machine_of("any", "+avx2,+fma,+f16c")
FIXED = CpuTarget(MACHINE, DEFAULTS, 1)
GEMM = "input A: {0}[n, n]\ninput x: {0}[n, b]\ny[i, c]: {0}[n, b] = einsum[plustimes, {0}](j; A[i, j], x[j, c])"
GEMM += " over i<n, j<n, c<b\nreturn y"
COPY = "input x: f32[n]\ny[i]: f32[n] = mul(x[i], 2.0:f32) over i<n\nreturn y"


def gemm(n: int, b: int, dtype: DType = F32, target: CpuTarget = FIXED) -> float:
    return target.price(parse_ir(GEMM.format(dtype.name)), {"n": n, "b": b}).nanoseconds


def test_it_is_a_target() -> None:
    assert isinstance(FIXED, Target) and FIXED.name == "cpu"


def test_a_product_costs_its_arithmetic() -> None:
    assert 6 < gemm(512, 512) / gemm(256, 256) < 10  # eight times the work
    assert gemm(256, 256, F64) > 1.7 * gemm(256, 256, F32)  # half the lanes
    assert gemm(256, 256, C64) > 2 * gemm(256, 256, F32)
    faster = replace(DEFAULTS, steps={k: v / 2 for k, v in DEFAULTS.steps.items()})
    assert gemm(512, 512, target=replace(FIXED, rates=faster)) < 0.6 * gemm(512, 512)


def test_a_copy_costs_its_bytes_at_the_level_that_holds_them() -> None:
    program = parse_ir(COPY)
    each = [FIXED.price(program, {"n": n}).nanoseconds / n for n in (1 << 12, 1 << 16, 1 << 20, 1 << 25)]
    assert each == sorted(each) and each[-1] > 1.9 * each[0]
    slow = replace(DEFAULTS, bandwidth={**DEFAULTS.bandwidth, "memory": 1.0})
    there = FIXED.price(program, {"n": 1 << 25}).nanoseconds
    assert replace(FIXED, rates=slow).price(program, {"n": 1 << 25}).nanoseconds > 5 * there


def test_launches_are_counted_and_paid() -> None:
    chain = "input x: f64[4]\n"
    chain += "".join(f"y{k}[i]: f64[4] = exp({f'y{k - 1}' if k else 'x'}[i]) over i<4\n" for k in range(5))
    dear = replace(DEFAULTS, launch=1e4)
    cost = replace(FIXED, rates=dear).price(parse_ir(chain + "return y4"), {})
    assert cost.launches == 5 and cost.nanoseconds >= 5e4


def test_threads_share_large_work_only() -> None:
    four = replace(FIXED, threads=4)
    assert gemm(512, 512, target=four) < 0.4 * gemm(512, 512)
    assert gemm(8, 8, target=four) == gemm(8, 8)


def test_large_temporaries_cost_fresh_memory() -> None:
    text = "input x: f32[n]\nt[i]: f32[n] = exp(x[i]) over i<n\n"
    text += "y[]: f32[] = einsum[plustimes, f32](i; t[i], t[i]) over i<n\nreturn y"
    slow = replace(FIXED, rates=replace(DEFAULTS, fresh=0.01))
    small, large = ({"n": n} for n in (1 << 20, 1 << 26))
    program = parse_ir(text)
    assert slow.price(program, small).nanoseconds == FIXED.price(program, small).nanoseconds
    assert slow.price(program, large).nanoseconds > 2 * FIXED.price(program, large).nanoseconds


def test_pricing_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from stein.backends.cpu import jit

    monkeypatch.setattr(jit, "compile_kernel", lambda *_: pytest.fail("a kernel was compiled"))
    assert gemm(331, 17) > 0
    assert is_compiled is jit.is_compiled and parts_in.cache_info().maxsize


@pytest.mark.parametrize("dtype", [F32, F64, C64, C128, F16, BF16, I64], ids=str)
def test_every_type_has_a_rate(dtype: DType) -> None:
    assert DEFAULTS.step("direct", dtype) > 0 and DEFAULTS.step("packed", dtype) > 0
    assert DEFAULTS.step("serial", dtype) == DEFAULTS.step("direct", dtype)


def test_empty_and_scalar_programs_have_a_price() -> None:
    assert FIXED.price(parse_ir(COPY), {"n": 0}).nanoseconds == 0
    assert FIXED.price(parse_ir(COPY), {"n": 1}).nanoseconds > 0


# --- the file ---------------------------------------------------------------------------------------------------------

OTHER = replace(DEFAULTS, launch=77.0, measured=True)


def test_rates_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rates.json"
    assert load(path) is None
    save(path, OTHER)
    assert load(path) == OTHER and [p.name for p in path.parent.iterdir()] == ["rates.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "\0" * 100,
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "format": 0}),
        lambda text: json.dumps({**json.loads(text), "launch": -1}),
        lambda text: json.dumps({**json.loads(text), "fresh": "fast"}),
        lambda text: json.dumps({**json.loads(text), "steps": {}}),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "bandwidth"}),
        lambda text: text.replace("77.0", "NaN"),
    ],
)
def test_a_damaged_file_is_measured_again(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    save(path, OTHER)
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    assert load(path) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save(tmp_path / "file" / "rates.json", OTHER)
    assert load(tmp_path / "file" / "rates.json") is None
    assert (tmp_path / "file").read_text() == ""


def test_rates_come_from_the_folder_and_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def measure(machine: object) -> Rates:
        asked.append(machine)
        return OTHER

    monkeypatch.setenv("STEIN_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("STEIN_CALIBRATION", raising=False)
    monkeypatch.setattr(calibration, "measure", measure)
    assert [calibration._found(), calibration._found()] == [OTHER, OTHER] and len(asked) == 1
    assert [p.name for p in tmp_path.glob("rates-*.json")] == [f"rates-{machine_key(host())}.json"]
    monkeypatch.setenv("STEIN_CACHE_DIR", "off")
    calibration._found()
    assert len(asked) == 2
    monkeypatch.setenv("STEIN_CALIBRATION", "off")
    assert calibration._found() is DEFAULTS and len(asked) == 2


def test_processors_are_told_apart() -> None:
    assert machine_key(MACHINE) != machine_key(machine_of("other", "+avx2,+fma,+f16c"))


def test_a_measurement_is_sane() -> None:
    found = calibration.measure(host())
    assert found.measured and set(found.steps) == set(FAMILIES) and set(found.bandwidth) == set(LEVELS)
    speeds = [found.bandwidth[level] for level in LEVELS]
    assert speeds == sorted(speeds, reverse=True) and found.together >= speeds[-1]
    assert all(0 < n < 1e4 for n in (*found.steps.values(), *speeds, found.launch, found.fresh))


def test_half_of_a_symmetric_product_costs_about_half() -> None:
    text = (
        "input G: f32[n, n]\n{1}S[i, k]: f32[n, n] = einsum[plustimes, f32](j; G[i, j], {0}[k, j]) over i<n, j<n, k<n"
    )
    own, other = (parse_ir(text.format(*names) + "\nreturn S") for names in (("G", ""), ("H", "input H: f32[n, n]\n")))
    assert FIXED.price(own, {"n": 1024}).nanoseconds < 0.75 * FIXED.price(other, {"n": 1024}).nanoseconds


def test_gathers_are_priced() -> None:
    text = (
        "input J: i64[s]\ninput x: f32[n, b]\ny[p, c]: f32[s, b] = einsum[plustimes, f32](j; eq(at(j), J[p]), x[j, c])"
    )
    text += " over p<s, c<b, j<n\nreturn y"
    few, many = ({"s": s, "n": 1000, "b": 64} for s in (100, 10_000))
    program = parse_ir(text)
    costs = [FIXED.price(program, sizes).nanoseconds for sizes in (few, many)]
    assert 0 < costs[0] < costs[1] / 20
    assert costs[1] < gemm(1000, 64) * 10  # far from the 10,000 x 1,000 points of the comparison
