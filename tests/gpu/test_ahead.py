"""What the compiler makes of all fused kernels for GPUs that are not here (`make gpu-check` shows it); and others."""

from __future__ import annotations

import pytest

from stein.backends.gpu.ahead import SHARED_LIMIT, Facts, inspect_printed, shared_limit, signature_of, violations
from stein.backends.gpu.kernels import Goal, fused
from stein.backends.gpu.kernels.plan import FusedPlan
from stein.backends.gpu.nodes import Kernel, Map, Outer, Tensor, Tile
from stein.backends.gpu.roofline import DEVICES, H200, device_named, floor, rate
from stein.ir.errors import BackendError
from stein.ir.types import BF16, F16, F32, F64
from stein.tests.gpu.fused_cases import ARCHITECTURES, CASES, Case, layouts_of, program_of
from stein.tests.gpu.fused_kernels import DIRECT
from stein.tests.gpu_check import Work

pytest.importorskip("triton", reason="needs Triton: pip install 'stein[gpu]'")
NAMED = {c.name: c for c in CASES}


def plan_of(name: str, dtype: str = "bfloat16", goal: Goal = Goal()) -> FusedPlan:
    program = program_of(NAMED[name], dtype, NAMED[name].full)
    (plan,) = fused(program, {}, layouts_of(program), goal)
    return plan


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", [c for c in CASES if not c.variant and "bfloat16" in c.dtypes], ids=lambda c: c.name)
def test_every_fused_kernel_is_as_it_must_be(case: Case, architecture: str) -> None:
    """The rows of `make gpu-check`: registers, shared memory, matrix units, kernels and bytes of every plan."""
    rows = Work(case.name, "bfloat16", architecture).rows()
    assert len(rows) == case.count + case.formed
    assert {row.cells[0]: row.wrong for row in rows if row.wrong} == {}


def test_exact_products_of_f32_do_not_spill() -> None:
    facts = inspect_printed(plan_of("kronecker", "float32").kernels[-1], "sm_90")
    assert violations(facts, "FFMA") == ()
    assert facts.tensor_cores == 0


def test_block_lists_and_descriptors_compile_to_warp_group_products() -> None:
    named = {d.name: d for d in DIRECT}
    sparse = inspect_printed(plan_of("block sparse").kernels[-1], "sm_90")
    assert violations(sparse, "HGMMA") == ()
    bulk = inspect_printed(named["kronecker, descriptors"].full(BF16), "sm_90")
    assert violations(bulk, "HGMMA") == ()
    assert bulk.count("UTMALDG") > 0 and bulk.count("UTMASTG") > 0


def test_the_intermediate_is_the_left_operand_from_registers() -> None:
    """The other order of the factors passes the intermediate through shared memory: it takes more barriers."""
    triton = pytest.importorskip("triton")
    chain = plan_of("kronecker").kernels[-1]
    facts = inspect_printed(chain, "sm_90")
    assert facts.vector_loads >= 8 and facts.vector_stores == 4
    recent = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
    assert facts.barriers <= (3 if recent else 4)


def test_a_kernel_that_is_too_large_is_found_out() -> None:
    tensors = tuple(Tensor(n, tuple(a), BF16, (256, 1)) for n, a in (("x", "ik"), ("w", "kj"), ("y", "ij")))
    sizes = (("i", 256), ("j", 256), ("k", 256))
    nest = Outer((("i", 256),), Tile("y", ("x", "w"), ("i", "j"), ("k",)))
    facts = inspect_printed(Kernel(tensors, sizes, nest, warps=8), "sm_90")
    assert violations(facts)


def test_violations_name_what_is_wrong() -> None:
    fine = Facts("sm_90", 4, 74, 49_152, 0, 3, 8, 4, (("HGMMA", 8),))
    assert violations(fine, "HGMMA") == ()
    assert violations(fine, "HMMA") == ("no HMMA",)
    small = Facts("gfx942", 4, 74, 65_537, 0, 3, 8, 4, (("MFMA", 8), ("LDL", 2)))
    assert violations(small) == ("shared memory 65537 > 65536 bytes", "2 spill instructions")


def test_every_device_of_the_table_can_be_checked() -> None:
    assert {d.architecture for d in DEVICES} <= set(SHARED_LIMIT)
    with pytest.raises(BackendError, match="unknown-architecture"):
        shared_limit("sm_20")


def test_signatures_follow_the_types() -> None:
    tensors = (Tensor("x", ("i",), F16, ("s",)), Tensor("y", ("i",), F64, (1,)))
    kernel = Kernel(tensors, (("i", "n"),), Outer((("i", 64),), Map("y", "x")))
    assert signature_of(kernel) == {"x": "*fp16", "y": "*fp64", "n": "i32", "s": "i32"}


def test_rates_are_those_of_the_units_that_do_the_work() -> None:
    assert rate(H200, BF16) == H200.half
    assert rate(H200, BF16, product=False) == H200.single
    assert rate(H200, F32) == H200.single
    assert rate(H200, F32, "tf32x3") == H200.tf32 / 3
    assert rate(H200, F64) == H200.double
    assert device_named("NVIDIA A100-SXM4-80GB").architecture == "sm_80"
    with pytest.raises(BackendError, match="unknown-device"):
        device_named("GeForce 256")


def test_floors_count_ends_once_and_intermediates_not_at_all() -> None:
    program = program_of(NAMED["kronecker"], "bfloat16", NAMED["kronecker"].full)
    found = floor(program, {})
    assert found.bytes == 2 * (2 * 16384 * 4096 + 2 * 64 * 64)
    assert found.flops == 4 * 16384 * 4096 * 64
    assert found.bound == "memory" or found.compute > found.memory
    assert F32.itemsize == 4
