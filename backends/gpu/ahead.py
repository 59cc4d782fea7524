"""Ahead of time: what the compiler makes of a printed kernel, for GPUs that are not here.

Beside the pipeline: `source` prints a kernel, this module assembles it without a driver and reports registers, shared
memory and the instructions that matter. Tests hold every fused kernel to these figures, and `tune` prunes its
candidates by them. Triton's wheel carries the assembler and the disassembler; it checks neither that a block fits the
shared memory of its processor, nor that a kernel keeps its values in registers, so both are read off here.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ir.errors import BackendError
from ...ir.types import DType
from .launch import block_of, function
from .nodes import Kernel
from .source import arguments, source

# Bytes of shared memory that one block may use (CUDA programming guide, table of compute capabilities; CDNA3 ISA, LDS).
SHARED_LIMIT: Mapping[str, int] = {
    "sm_80": 166_912,
    "sm_86": 101_376,
    "sm_89": 101_376,
    "sm_90": 232_448,
    "sm_100": 232_448,
    "gfx942": 65_536,
}

# Instructions that tell how a kernel works: tensor cores, multiply-adds, spills, shared memory, global memory.
NVIDIA_INSTRUCTIONS = (
    "HGMMA", "QGMMA", "IGMMA", "HMMA", "IMMA", "DMMA", "FFMA", "LDL", "STL", "LDS", "STS", "LDSM", "STSM",
    "LDG", "STG", "LDGSTS", "UTMALDG", "UTMASTG", "SHFL",
)  # fmt: skip
AMD_INSTRUCTIONS: Mapping[str, str] = {
    "MFMA": r"\bv_mfma_\w+",
    "FFMA": r"\bv_(?:pk_)?fmac?_f32\w*",
    "LDS": r"\bds_read\w*",
    "STS": r"\bds_write\w*",
    "LDG": r"\b(?:global|buffer)_load_\w+",
    "STG": r"\b(?:global|buffer)_store_\w+",
    "LDL": r"\bscratch_load_\w+",
    "STL": r"\bscratch_store_\w+",
}


@dataclass(frozen=True)
class Facts:
    """What one kernel became on one architecture.

    `registers` are those of a thread, `shared` the bytes of a block, `local` the bytes of a thread that live in memory
    because no register was left. `instructions` counts those that occur, `vector_loads` and `vector_stores` the global
    accesses of 16 bytes a thread.
    """

    architecture: str
    warps: int
    registers: int
    shared: int
    local: int
    barriers: int
    vector_loads: int
    vector_stores: int
    instructions: tuple[tuple[str, int], ...]

    def count(self, name: str) -> int:
        """How often an instruction occurs.

        >>> Facts("sm_90", 4, 74, 49152, 0, 3, 0, 0, (("HGMMA", 8),)).count("HGMMA")
        8
        """
        return dict(self.instructions).get(name, 0)

    @property
    def tensor_cores(self) -> int:
        """Instructions on matrix units, of any kind."""
        return sum(n for name, n in self.instructions if name.endswith(("MMA", "MFMA")) and name != "FFMA")

    @property
    def spills(self) -> int:
        """Loads and stores of values for which no register was left."""
        return self.count("LDL") + self.count("STL")

    @property
    def limit(self) -> int:
        """Bytes of shared memory that a block may use here."""
        return shared_limit(self.architecture)


@dataclass(frozen=True)
class Launch:
    """How a kernel is started: warps a block, depth of the software pipeline, whether a*b+c may round once."""

    warps: int = 4
    stages: int = 3
    fuse_multiply_add: bool = False


def shared_limit(architecture: str) -> int:
    """Bytes of shared memory for one block.

    >>> shared_limit("sm_90")
    232448
    """
    if architecture not in SHARED_LIMIT:
        known = ", ".join(SHARED_LIMIT)
        raise BackendError(
            f"`{architecture}` is no architecture that kernels can be checked for",
            code="unknown-architecture",
            help=f"one of {known}",
        )
    return SHARED_LIMIT[architecture]


def signature_of(kernel: Kernel) -> dict[str, str]:
    """The Triton type of every argument of a kernel: pointers, descriptors of the blocks that are read, integers.

    >>> from .nodes import Map, Outer, Tensor
    >>> from ...ir.types import BF16
    >>> x, y = (Tensor(n, ("i",), BF16, (1,)) for n in "xy")
    >>> signature_of(Kernel((x, y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x"))))
    {'x': '*bf16', 'y': '*bf16', 'n_i': 'i32'}
    """
    found = {}
    for tensor in kernel.tensors:
        kind = _type_name(tensor.dtype)
        block = ", ".join(map(str, block_of(kernel, tensor)))
        found[tensor.argument] = f"tensordesc<{kind}[{block}]>" if tensor.descriptor else f"*{kind}"
    found |= dict.fromkeys(kernel.tables, "*i32")
    return {name: found.get(name, "i32") for name in arguments(kernel)}


def _type_name(dtype: DType) -> str:
    """An element type as signatures write it."""
    if dtype.kind == "b":
        return "i1"
    return {"f16": "fp16", "f32": "fp32", "f64": "fp64"}.get(dtype.name, dtype.name)


def inspect_printed(kernel: Kernel, architecture: str) -> Facts:
    """Print a kernel, assemble it for one architecture with its own launch options, and say what it became."""
    launch = Launch(kernel.warps, kernel.stages, kernel.fuse_multiply_add)
    return inspect_kernel(function(source(kernel)), signature_of(kernel), architecture, launch)


def inspect_kernel(
    function: Any,
    signature: Mapping[str, str],
    architecture: str,
    launch: Launch = Launch(),
    constants: Mapping[str, object] | None = None,
) -> Facts:
    """Assemble a jitted kernel for one architecture, and say what it became.

    `function` is what `triton.jit` made (not the interpreter's), `signature` gives the Triton type of every argument
    that is no compile-time constant (`*bf16`, `i32`, `tensordesc<bf16[64, 64]>`). Pointers and integers count as
    multiples of 16, as tensors and strides of real calls are. Raises BackendError where the assembler gives up.
    """
    compiled = _compiled(function, signature, architecture, launch, dict(constants or {}))
    if "cubin" in compiled.asm:
        return _nvidia(compiled, architecture, launch)
    return _amd(compiled, architecture, launch)


def violations(facts: Facts, tensor_core: str = "") -> tuple[str, ...]:
    """What is wrong with a kernel: memory beyond the limit, spills, or another kind of matrix instruction than wanted.

    >>> violations(Facts("sm_90", 4, 255, 393216, 16, 0, 0, 0, (("STL", 70),)), tensor_core="HGMMA")
    ('shared memory 393216 > 232448 bytes', '70 spill instructions', 'no HGMMA')
    """
    found = []
    if facts.shared > facts.limit:
        found.append(f"shared memory {facts.shared} > {facts.limit} bytes")
    if facts.spills:
        found.append(f"{facts.spills} spill instructions")
    if tensor_core and not facts.count(tensor_core):
        found.append(f"no {tensor_core}")
    return tuple(found)


def _compiled(
    function: Any, signature: Mapping[str, str], architecture: str, launch: Launch, constants: dict[str, object]
) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    shared_limit(architecture)
    names = function.arg_names
    types = {name: signature.get(name, "constexpr") for name in names}
    if "constexprs" in inspect.signature(ASTSource).parameters:
        multiples = [i for i, n in enumerate(names) if types[n].startswith("*") or types[n] in ("i32", "i64")]
        attributes = {(i,): [["tt.divisibility", 16]] for i in multiples}
        source = ASTSource(fn=function, signature=types, constexprs=constants, attrs=attributes)
    else:  # Triton 3.2: constants are no part of the signature, multiples of 16 are an object of another kind
        kept = {name: kind for name, kind in types.items() if kind != "constexpr"}
        source = ASTSource(fn=function, signature=kept, constants=constants)
    kind, name = ("cuda", int(architecture[3:])) if architecture.startswith("sm_") else ("hip", architecture)
    target = GPUTarget(kind, name, 32 if kind == "cuda" else 64)
    options = {
        "num_warps": launch.warps,
        "num_stages": launch.stages,
        "enable_fp_fusion": launch.fuse_multiply_add,
    }
    try:
        return triton.compile(source, target=target, options=options)
    except Exception as error:
        # The assembler's message holds the whole program text: its first line says what went wrong.
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BackendError(
            f"kernel `{function.__name__}` cannot be assembled for {architecture}: {first[:200]}",
            code="kernel-not-assembled",
            help="take smaller blocks, or fewer stages",
        ) from error


def _nvidia(compiled: Any, architecture: str, launch: Launch) -> Facts:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", str(path))
        code = _tool("nvdisasm", "-c", str(path))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    assert found is not None, "cuobjdump lists the resources of the one kernel of a cubin"
    counts = ((name, len(re.findall(rf"\b{name}\b", code))) for name in NVIDIA_INSTRUCTIONS)
    return Facts(
        architecture,
        launch.warps,
        registers=int(found[1]),
        shared=int(compiled.metadata.shared),
        local=int(found[2]) + int(found[4]),
        barriers=len(re.findall(r"\bBAR\.SYNC", code)),
        vector_loads=len(re.findall(r"\bLDG\.E\.(?:\w+\.)*128", code)),
        vector_stores=len(re.findall(r"\bSTG\.E\.(?:\w+\.)*128", code)),
        instructions=tuple((name, n) for name, n in counts if n),
    )


def _amd(compiled: Any, architecture: str, launch: Launch) -> Facts:
    code = compiled.asm["amdgcn"]
    notes = dict(re.findall(r"\.(\w+):\s+(\d+)", code))
    counts = ((name, len(re.findall(pattern, code))) for name, pattern in AMD_INSTRUCTIONS.items())
    return Facts(
        architecture,
        launch.warps,
        registers=int(notes.get("vgpr_count", 0)),
        shared=int(compiled.metadata.shared),
        local=int(notes.get("private_segment_fixed_size", 0)),
        barriers=len(re.findall(r"\bs_barrier\b", code)),
        vector_loads=len(re.findall(r"\b(?:global|buffer)_load_dwordx4", code)),
        vector_stores=len(re.findall(r"\b(?:global|buffer)_store_dwordx4", code)),
        instructions=tuple((name, n) for name, n in counts if n),
    )


def _tool(name: str, *arguments: str) -> str:
    """The output of a tool that Triton's wheel carries."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.exists():
        raise BackendError(
            f"`{name}` is not among the files of Triton {triton.__version__}",
            code="kernel-tools-missing",
            help="install triton from its own wheels",
        )
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout
