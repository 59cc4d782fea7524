"""`target="cuda"`: programs on PyTorch tensors of a GPU, through the Triton backend.

`GpuCompiled` has the face of every `Compiled`. CUDA tensors are computed where they are, on their device and its
current stream, without waiting; NumPy arrays and CPU tensors go to the CPU backend, so that the same callable works on
a machine without a GPU. Where the environment says TRITON_INTERPRET=1, CPU tensors run in Triton's interpreter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..backends.gpu.bulk import ALIGNED
from ..backends.gpu.choose import Settings
from ..backends.gpu.kernels import Goal
from ..backends.gpu.program import Bound, bind
from ..backends.gpu.target import GpuTarget
from ..backends.gpu.views import Layout
from ..ir.count import count_program
from ..ir.errors import BackendError, DTypeError
from ..ir.expr import Program
from ..ir.target import Target
from .cache import Cache
from .compiled import Compiled
from .expression import Expression, Planned
from .gpu_tuning import capturing, device_here, triton_version, tuning_of
from .stages import has_linalg

if TYPE_CHECKING:
    from ..passes.candidates import Candidate
    from ..passes.choice import Choice
    from .explain import Explanation

BULK = ("sm_90", "sm_100")  # architectures that move blocks by tensor descriptors
PRECISIONS = ("ieee", "tf32", "tf32x3", "bf16", "fp16")
Tensor: TypeAlias = Any  # torch.Tensor
Array: TypeAlias = "np.ndarray[Any, Any]"


def checked_precision(precision: Any) -> str:
    """The precision of products of f32 that `compile` was given; `DTypeError` if it is none.

    >>> checked_precision(None), checked_precision("tf32")
    ('ieee', 'tf32')
    """
    if precision is None:
        return "ieee"
    if precision not in PRECISIONS:
        raise DTypeError(
            f"the option precision is {precision!r}",
            code="bad-option",
            help=f"for target='cuda' it is one of {', '.join(PRECISIONS)}",
        )
    return str(precision)


@cache
def has_descriptors() -> bool:
    """Whether kernels may have tensor descriptors as arguments: those of Triton 3.4 and later (or of none: texts)."""
    found = triton_version().split(".")[:2]
    return not all(n.isdigit() for n in found) or tuple(map(int, found)) >= (3, 4)


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


@dataclass(frozen=True, eq=False)
class GpuPlanned(Planned):
    """A plan with the values of its constants, and what was made of it: steps by layout, constants by device."""

    values: Mapping[str, Array] = field(default_factory=dict)
    steps: Cache[object, Bound] = field(default_factory=lambda: Cache(256))
    placed: Cache[str, dict[str, Tensor]] = field(default_factory=lambda: Cache(16))


@dataclass(frozen=True, eq=False)
class Route:
    """What calls with operands that lie so come to: the sizes, the steps, the operands by name (None: not read) and
    the constants on the device. Steps that are to be tuned are kept with `key`.
    """

    sizes: Mapping[str, int]
    planned: GpuPlanned
    bound: Bound
    names: tuple[str | None, ...]
    constants: dict[str, Tensor]
    key: object


class GpuExpression(Expression):
    """An expression that is planned by the prices of a GPU, and bound to the layouts of torch tensors."""

    def __post_init__(self) -> None:
        if has_linalg(self.program):
            raise BackendError(
                "solve, inv, logdet and powm are not computed on a GPU",
                code="unsupported-node",
                source=self.program.source,
                help="target='cpu' has them",
            )
        super().__post_init__()

    @property
    def settings(self) -> Settings:
        """How kernels are made."""
        device = device_here()
        bulk = device.architecture in BULK and has_descriptors()
        return Settings(self.options.precision, self.options.specialise, device.multiprocessors, bulk)

    def pricing(self) -> Target:
        """A roofline of the GPU."""
        return self.target or GpuTarget(device_here(), self.options.precision, self.options.fixed)

    def made(self, found: Candidate, sizes: Mapping[str, int], choice: Choice | None = None) -> Planned:
        """The plan that runs a candidate; what depends on constants alone is computed ahead of the calls."""
        from ..passes.candidates import BEST, called

        program = called(found)
        values = self.constants | self._ahead(found, dict(sizes))
        used = {i.name for i in program.inputs}
        records = found.records if found.draft.name != BEST else (*self.normal_records, *found.records)
        return GpuPlanned(
            found.program,
            program,
            found.made,
            records,
            sizes,
            None,  # type: ignore[arg-type]  # there is no form for the CPU
            found.name,
            found.draft.exact,
            choice,
            {n: a for n, a in values.items() if n in used},
        )

    def gpu_plan(self, sizes: Mapping[str, int]) -> GpuPlanned:
        """The plan for these sizes."""
        planned = self.planned(sizes)
        assert isinstance(planned, GpuPlanned)
        return planned

    def steps(
        self, planned: GpuPlanned, sizes: Mapping[str, int], layouts: Mapping[str, Layout], device: Any = None
    ) -> Bound:
        """The steps for operands that lie so on a device of torch (None: the one that would be used)."""
        device = _current() if device is None else device

        def make() -> Bound:
            goal = Goal.of(device_here(device), self.options.precision, self.options.fixed)
            bound = bind(planned.called, sizes, layouts, self.settings, goal=goal)
            tuning = tuning_of(device)
            return replace(bound, settled=True) if tuning is None else tuning.known(bound)

        return planned.steps.get(_key(sizes, layouts, device), make)

    def dense_steps(self, sizes: Mapping[str, int]) -> Bound:
        """The steps for dense operands: what is shown before a call."""
        planned = self.gpu_plan(sizes)
        layouts = {
            i.name: Layout.dense(tuple(n.evaluate(sizes) for n in i.shape), i.dtype) for i in planned.called.inputs
        }
        return self.steps(planned, sizes, layouts)

    def call(self, tensors: Sequence[Tensor], route: Route | None = None) -> list[Tensor]:
        """The results for one tensor per argument, all on one device and of the declared types.

        The first call with operands that lie so tunes the kernels, unless it is being captured in a CUDA graph.
        """
        from ..backends.gpu.run import run, run_tuned

        route = self.route(tensors) if route is None else route
        bound = route.bound
        operands = {n: t for n, t in zip(route.names, tensors, strict=True) if n is not None} | route.constants
        device = tensors[0].device
        tuning = None if bound.settled or capturing(device) else tuning_of(device)
        if tuning is None:
            return run(bound, operands, device)
        results, bound = run_tuned(bound, operands, device, tuning.pick)
        route.planned.steps.put(route.key, bound)
        self._routes.clear()
        return results

    def route(self, tensors: Sequence[Tensor]) -> Route:
        """What a call with these tensors comes to; looked up where operands lay so before."""
        if not tensors:
            raise BackendError("a program without arguments has no device to run on", code="no-device")
        key = tensors[0].device, *[(t.shape, t.stride(), t.data_ptr() % ALIGNED == 0) for t in tensors]
        return self._routes.get(key, lambda: self._routed(tensors))

    @cached_property
    def _routes(self) -> Cache[object, Route]:
        return Cache(256)

    def _routed(self, tensors: Sequence[Tensor]) -> Route:
        device = tensors[0].device
        sizes = self.sizes_of([tuple(t.shape) for t in tensors])
        planned = self.gpu_plan(sizes)
        constants = planned.placed.get(str(device), lambda: _placed(planned.values, device))
        used = {i.name: i.dtype for i in planned.called.inputs}
        operands = {i.name: t for i, t in zip(self.arguments, tensors, strict=True)} | constants
        layouts = {
            n: Layout(tuple(t.shape), tuple(t.stride()), used[n], t.data_ptr() % ALIGNED == 0)
            for n, t in operands.items()
            if n in used
        }
        bound = self.steps(planned, sizes, layouts, device)
        names = tuple(i.name if i.name in used else None for i in self.arguments)
        kept = {n: t for n, t in constants.items() if n in used}
        return Route(sizes, planned, bound, names, kept, _key(sizes, layouts, device))


def _key(sizes: Mapping[str, int], layouts: Mapping[str, Layout], device: Any) -> object:
    """What steps depend on."""
    return tuple(sizes.items()), tuple(layouts.items()), str(device)


def _current() -> Any:
    """The device that a call would use: the current GPU, the CPU in Triton's interpreter, None where there is none."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if interpreted():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None


def _placed(values: Mapping[str, Array], device: Any) -> dict[str, Tensor]:
    """Constants as tensors on a device."""
    from .operands import wrapper

    to_torch = wrapper("torch")
    return {n: to_torch(np.array(a)).to(device) for n, a in values.items()}


@dataclass(frozen=True, eq=False)
class _Known:
    """A program and its options; equal if the program is the same object (its value would take long to hash)."""

    program: Program
    options: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.program is other.program and self.options == other.options

    def __hash__(self) -> int:
        return hash((id(self.program), self.options))


@lru_cache(maxsize=512)
def _expression_of(known: _Known) -> GpuExpression:
    from .autograd import _read_options

    options, _, _ = _read_options(known.options)
    return GpuExpression(known.program, options)


def run_program(program: Program, options: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a typed program for a CUDA tensor per input: what the PyTorch operator runs.

    `options` are those of the operator, as JSON text. Raises `BackendError` for what the GPU backend cannot do.
    """
    require("torch", "triton")
    return _expression_of(_Known(program, options)).call([settled(t) for t in tensors])


@cache
def _installed(library: str) -> bool:
    from importlib.util import find_spec

    return find_spec(library) is not None


def require(*libraries: str) -> None:
    """`BackendError` that says what to install, if a library is missing."""
    missing = [name for name in libraries if not _installed(name)]
    if missing:
        raise BackendError(
            f"target 'cuda' needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            code="missing-backend",
            help="pip install 'stein[gpu]'",
        )


def settled(tensor: Tensor) -> Tensor:
    """The tensor as plain memory: detached, conjugated and negated where that was put off."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return tensor.resolve_conj().resolve_neg() if tensor.is_conj() or tensor.is_neg() else tensor


class GpuCompiled(Compiled):
    """A program for `target="cuda"`: CUDA tensors in, CUDA tensors out; everything else runs on the CPU."""

    def evaluate(self, /, *args: Any, out: Any = None, **keywords: Any) -> Any:
        """The result, on the GPU where the tensors are there (see the module)."""
        from .operands import library_of

        require("torch", "triton")
        values = self._in_order(args, keywords)
        if library_of(values) == "torch" and self._runs_here(values):
            return self._on_gpu(values, out)
        return super().evaluate(*args, out=out, **keywords)

    def _runs_here(self, values: Sequence[Any]) -> bool:
        """Whether the tensors are where Triton's kernels run, and nothing but their values matters."""
        import torch

        from .torch_calls import is_recorded

        kind = "cpu" if interpreted() else "cuda"
        tensors = [v for v in values if isinstance(v, torch.Tensor)]
        if any(t.device.type != kind or t.layout != torch.strided for t in tensors):
            return False
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return False
        return not torch.is_autocast_enabled("cuda") if kind == "cuda" else not is_recorded(values)

    def _on_gpu(self, values: Sequence[Any], out: Any) -> Any:
        import torch

        from .torch_calls import converted, described
        from .torch_op import torch_type, under_transform

        require("triton")
        first = next(v for v in values if isinstance(v, torch.Tensor))
        if under_transform() or torch.compiler.is_compiling():
            return self._recorded(values, out)
        tensors = [v if isinstance(v, torch.Tensor) else torch.as_tensor(v, device=first.device) for v in values]
        if len({t.device for t in tensors}) > 1:
            places = ", ".join(sorted({str(t.device) for t in tensors}))
            raise DTypeError(f"the tensors of one call are on one device, these on {places}", code="mixed-devices")
        types = tuple([t.dtype for t in tensors])
        known = self._typed.get(types)
        if known is None:
            shown = [described(t, n) for t, n in zip(tensors, self._names, strict=True)]
            expression = self._expression_for(shown)  # type: ignore[arg-type]
            known = expression, self.gpu(expression), tuple(torch_type(i.dtype) for i in expression.arguments)
            self._typed[types] = known
        expression, gpu, wanted = known
        if types != wanted:
            tensors = [converted(t, i.name, i.dtype) for t, i in zip(tensors, expression.arguments, strict=True)]
        typed = [settled(t) for t in tensors]
        route = gpu.route(typed)
        self._last = (expression, route.sizes)
        results = gpu.call(typed, route)
        if out is not None:
            return self._into(out, results)
        return results[0] if len(results) == 1 else dict(zip(self._outputs, results, strict=True))

    @cached_property
    def _typed(self) -> dict[tuple[Any, ...], tuple[Expression, GpuExpression, tuple[Any, ...]]]:
        """By the types of the tensors of a call: the expression, the same for the GPU, and the types that it takes."""
        return {}

    def _into(self, out: Any, results: Sequence[Tensor]) -> Any:
        """The results in the tensors of `out`."""
        given = out if isinstance(out, Mapping) else {self._outputs[0]: out}
        if set(given) != set(self._outputs):
            raise DTypeError(
                f"out is for {', '.join(given)}; the results are {', '.join(self._outputs)}", code="out-names"
            )
        for name, result in zip(self._outputs, results, strict=True):
            if tuple(given[name].shape) != tuple(result.shape):
                raise DTypeError(
                    f"out {name} has shape {tuple(given[name].shape)}, the result {tuple(result.shape)}",
                    code="out-shape",
                )
            given[name].copy_(result)
        return out

    def gpu(self, expression: Expression) -> GpuExpression:
        """The same expression as planned for the GPU."""
        known: Cache[int, tuple[Expression, GpuExpression]] = self.__dict__.setdefault("_gpu", Cache(64))

        def make() -> tuple[Expression, GpuExpression]:  # kept together, so that the number stays its own
            return expression, GpuExpression(expression.program, expression.options, expression.constants)

        return known.get(id(expression), make)[1]

    def ir(self, stage: str = "planned") -> str:
        """The program as text at a stage: "elaborated", "normal" or "planned" (for the GPU)."""
        if stage != "planned":
            return super().ir(stage)
        from ..ir.text import print_program

        expression, sizes = self._shown()
        return print_program(self.gpu(expression).planned(sizes).program)

    def source(self, kind: str = "triton") -> str:
        """The Triton text of every kernel in order: "triton". It needs neither a GPU nor PyTorch."""
        if kind != "triton":
            raise BackendError(
                f"there is no source of kind {kind!r} for target 'cuda'", code="unknown-source", help="triton"
            )
        expression, sizes = self._shown()
        return self.gpu(expression).dense_steps(sizes).source

    @property
    def stats(self) -> dict[str, Any]:
        """Figures of the chosen plan, as for other targets, and `precision`."""
        from ..backends.gpu.steps import launches

        expression, sizes = self._shown()
        gpu = self.gpu(expression)
        planned, bound = gpu.gpu_plan(sizes), gpu.dense_steps(sizes)
        cost = count_program(planned.called, sizes)
        return {
            "candidate": planned.name,
            "flops": cost.flops,
            "bytes": bound.bytes,
            "launches": launches(bound.steps),
            "peak_memory": bound.peak_memory,
            "constants": sum(a.nbytes for a in planned.values.values()),
            "precision": gpu.options.precision,
        }

    def explain(self) -> Explanation:
        """What was found, chosen and made for the GPU."""
        from .explain_gpu import explain_gpu

        expression, sizes = self._shown()
        return explain_gpu(self.gpu(expression), sizes)
