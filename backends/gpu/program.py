"""A planned program on the GPU: bound to sizes and strides, a sequence of steps.

Equation by equation: a product of matrices as they lie goes to torch.matmul, everything else becomes a kernel
(`choose`). Values that meet at one place are added by atomic operations, in a buffer of a type that has them.
Intermediates are dense and dropped after their last use. Nothing here needs torch or Triton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...ir.count import count
from ...ir.errors import BackendError
from ...ir.expr import Einsum, Equation, Linalg, Program, Read, Softmax, reads, transform, walk
from ...ir.index import Affine, Index
from ...ir.lookup import split_lookups
from ...ir.semiring import Scalar
from ...ir.types import real_type
from .choose import Chosen, Settings, check_scatter, choose
from .chunks import chunk_of, in_chunks
from .folded import by_library, folded
from .kernels import FusedPlan, Goal, fused, steps_of
from .pairs import PARTS, in_parts, is_complex
from .product import product_of
from .reach import addressed
from .source import source
from .steps import BlockRows, Constant, Copy, Drop, Fill, Launch, Make, Part, Product, Step, shown
from .views import Layout


@dataclass(frozen=True)
class Bound:
    """A program at known sizes and strides. `outputs` are the buffers of the results in order, `plans` tell which
    equations were fused, `folded` which copies are not made, each with an equation that reads past it. It is `settled`
    once no kernel of it is left to be tuned. `held` is filled by runs: constants on devices, by name and device.
    """

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    layouts: Mapping[str, Layout]
    plans: tuple[FusedPlan, ...] = ()
    folded: tuple[tuple[str, str], ...] = ()
    settled: bool = False
    held: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kernels(self) -> tuple[Chosen, ...]:
        """The generated kernels in order."""
        return tuple(s.chosen for s in self.steps if isinstance(s, Launch))

    @property
    def source(self) -> str:
        """The Triton text of every kernel, in order, each once; products by torch as comments."""
        texts: list[str] = []
        for step in self.steps:
            if isinstance(step, Launch):
                texts.append(source(step.chosen.kernel, step.chosen.kernel.name))
            elif isinstance(step, Product):
                texts.append(f"# {shown(step)}\n")
        return "\n\n".join(dict.fromkeys(texts))

    @property
    def text(self) -> str:
        """The plan, a line a step."""
        return "\n".join(map(shown, self.steps))

    @property
    def bytes(self) -> int:
        """Bytes that the kernels move through device memory at least."""
        return sum(s.bytes for s in self.steps if isinstance(s, Launch | Product))

    @property
    def peak_memory(self) -> int:
        """The most bytes that buffers of the program take at once, results included."""
        held: dict[str, int] = {}
        most = 0
        for step in self.steps:
            if isinstance(step, Make):
                size = 1
                for extent in step.layout.shape:
                    size *= extent
                held[step.name] = size * step.layout.dtype.itemsize
            elif isinstance(step, Drop):
                for name in step.names:
                    held.pop(name, None)
            most = max(most, sum(held.values()))
        return most


def bind(
    program: Program,
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
    settings: Settings = Settings(),
    library: bool = True,
    goal: Goal | None = None,
) -> Bound:
    """The steps of a planned program for operands that lie as `layouts` says (by input); `library` allows torch.matmul,
    a `goal` plans that fuse equations.

    Raises `BackendError` for what the GPU backend cannot compute.

    >>> from ...ir.text import parse_ir
    >>> from ...ir.types import F32
    >>> program = parse_ir("input x: f32[n]\\ny[i]: f32[n] = exp(x[i]) over i<n\\nreturn y")
    >>> print(bind(program, {"n": 1000}, {"x": Layout.dense((1000,), F32)}).text)
    buffer y: f32[1000]
    kernel y: 1 programs of 4 warps, blocks i 1024, ieee, 8 kB moved, 1 kflop; configuration by the model
    """
    return _Binder(program, sizes, dict(layouts), settings, library, goal).bound()


@dataclass
class _Binder:
    program: Program
    sizes: Mapping[str, int]
    layouts: dict[str, Layout]
    settings: Settings
    library: bool
    goal: Goal | None
    steps: list[Step] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)

    def bound(self) -> Bound:
        inputs = {i.name for i in self.program.inputs}
        for tensor in self.program.inputs:
            if tensor.dtype.kind == "c":
                self.split(tensor.name, self.layouts[tensor.name])
        real = not any(is_complex(e) for e in self.program.equations)
        plans = fused(self.program, self.sizes, self.layouts, self.goal) if self.goal is not None and real else ()
        within = {name: plan for plan in plans for name in plan.equations}
        held = by_library(self.program, self.sizes, self.layouts, self.settings) if self.library else frozenset()
        program, past = folded(self.program, self.sizes, self.settings.processors, self.fixed(plans) | held)
        for equation in program.equations:
            plan = within.get(equation.name)
            if plan is not None:
                if equation.name == plan.equations[-1]:
                    self.layouts.update(plan.stored)
                    self.steps += [
                        replace(s, chosen=addressed(s.chosen)) if isinstance(s, Launch) else s for s in steps_of(plan)
                    ]
                continue
            for part in _parts(equation):
                self.equation(part)
        return Bound(tuple(self.with_drops(inputs)), self.program.outputs, self.layouts, plans, past)

    def fixed(self, plans: tuple[FusedPlan, ...]) -> set[str]:
        """The equations of fused plans, and those that they read."""
        inside = {name for plan in plans for name in plan.equations}
        return inside | {r.tensor for e in self.program.equations if e.name in inside for r in reads(e.expr)}

    def equation(self, equation: Equation) -> None:
        """The steps of one equation."""
        for node in walk(equation.expr):
            if isinstance(node, Linalg | Softmax):
                name = node.function if isinstance(node, Linalg) else "softmax"
                raise BackendError(
                    f"the GPU target has no {name} (in '{equation.name}')",
                    code="unsupported-node",
                    source=self.program.source,
                    spans=(equation.span,) if equation.span.end else (),
                    help="target='cpu' has it",
                )
        shape = tuple(s.evaluate(self.sizes) for s in equation.shape)
        layout = self.layouts.get(equation.name, Layout.dense(shape, equation.dtype))
        self.layouts[equation.name] = layout
        if 0 in shape:
            self.make(equation.name, layout)
            return
        cost = count(equation, self.sizes)
        product = None
        if self.library:
            product = product_of(equation, self.sizes, self.layouts, self.settings, cost.bytes, cost.flops)
        if product is not None:
            self.make(equation.name, layout)
            self.steps.append(product)
            return
        if is_complex(equation):
            if equation.dtype.kind == "c":
                self.make(equation.name, layout)
            for part in in_parts(equation):
                self.equation(part)
            return
        if 0 in [i.extent.evaluate(self.sizes) for i in equation.indices if i.name in equation.free]:
            self.nothing(equation, layout)
            return
        self.kernel(equation, layout, cost.bytes, cost.flops)

    def nothing(self, equation: Equation, layout: Layout) -> None:
        """An equation that writes no position."""
        if equation.update is None:
            self.make(equation.name, layout, equation.semiring.zero_of(equation.dtype))
        else:
            self.make(equation.name, layout)
            self.steps.append(Copy(equation.name, equation.update))

    def make(self, name: str, layout: Layout, fill: Scalar | None = None) -> None:
        """The buffer of a result, unless it is part of one that is there; a complex one with its parts."""
        if name not in self.parts:
            self.steps.append(Make(name, layout, fill))
        elif fill is not None:
            self.steps.append(Fill(name, fill))
        if layout.dtype.kind == "c":
            self.split(name, layout)

    def split(self, name: str, layout: Layout) -> None:
        """The parts of a complex buffer."""
        for number, part in enumerate(PARTS):
            self.steps.append(Part(name + part, name, number))
            self.parts.add(name + part)
            strides = tuple(2 * s for s in layout.strides)
            self.layouts[name + part] = Layout(layout.shape, strides, real_type(layout.dtype))

    def kernel(self, equation: Equation, layout: Layout, moved: int, flops: int) -> None:
        """One kernel with the buffer that it writes; two, if one would leave most of the GPU idle."""
        chosen = choose(equation, self.sizes, self.layouts, self.settings)
        chunk = None
        if not chosen.kernel.tensors[-1].added:
            chunk = chunk_of(equation, self.sizes, self.layouts, self.settings, chosen.programs)
        if chunk is None:
            self.launch(equation, layout, chosen, moved, flops)
            return
        first, second = in_chunks(equation, chunk, self.sizes)
        parts = Layout.dense(tuple(s.evaluate(self.sizes) for s in first.shape), first.dtype)
        self.layouts[first.name] = parts
        self.launch(first, parts, choose(first, self.sizes, self.layouts, self.settings, chunk), moved, flops)
        cost = count(second, self.sizes)
        self.launch(second, layout, choose(second, self.sizes, self.layouts, self.settings), cost.bytes, cost.flops)

    def launch(self, equation: Equation, layout: Layout, chosen: Chosen, moved: int, flops: int) -> None:
        """A kernel that was chosen, with the buffers that it needs."""
        name, apart = equation.name, chosen.work != equation.dtype
        added = chosen.kernel.tensors[-1].added
        if added:
            check_scatter(equation, chosen.work)
        if apart:  # the sums are kept in another type, and converted
            name = f"{equation.name}.sum"
            self.layouts[name] = replace(layout, dtype=chosen.work)
            chosen = replace(chosen, tensors=tuple((p, name if t == equation.name else t) for p, t in chosen.tensors))
        zero = equation.semiring.zero_of(chosen.work) if chosen.fill == "zero" else None
        self.make(name, replace(layout, dtype=chosen.work), zero)
        if chosen.fill == "update":
            assert equation.update is not None
            self.steps.append(Copy(name, equation.update))
        self.steps.append(Launch(chosen, name, moved, flops))
        if apart:
            self.make(equation.name, layout)
            self.steps.append(Copy(equation.name, name))

    def with_drops(self, inputs: set[str]) -> list[Step]:
        """The steps, each buffer dropped after its last use."""
        kept = inputs | set(self.program.outputs)
        kept |= {name + part for name in kept for part in PARTS}
        last: dict[str, int] = {}
        for place, step in enumerate(self.steps):
            for name in _used(step):
                last[name] = place
        found: list[Step] = []
        for place, step in enumerate(self.steps):
            found.append(step)
            names = tuple(sorted(n for n, p in last.items() if p == place and n not in kept))
            if names:
                found.append(Drop(names))
        return found


def _used(step: Step) -> tuple[str, ...]:
    match step:
        case Make(name=name) | Constant(name=name):
            return (name,)
        case BlockRows(rows_of=rows, columns_of=columns):
            return (*step.names, rows, columns)
        case Copy(name, source) | Part(name, source):
            return (name, source)
        case Fill(name=name):
            return (name,)
        case Launch(chosen=chosen):
            return tuple(t for _, t in chosen.tensors)
        case Product(out, left, right):
            return (out.tensor, left.tensor, right.tensor)
    return ()


def _parts(equation: Equation) -> tuple[Equation, ...]:
    """An equation that scatters by a lookup and then does more with the sums, in two: the sums, and the rest."""
    einsum = next((e for e in walk(equation.expr) if isinstance(e, Einsum)), None)
    if einsum is None or equation.expr is einsum:
        return (equation,)
    lookups, _ = split_lookups(einsum.factors)
    if not any(found.index in equation.free for found in lookups):
        return (equation,)
    extents = equation.extents
    free = equation.free
    slots = tuple(Affine.of(n) for n in free)
    shape = tuple(extents[n] for n in free)
    sums = Equation(f"{equation.name}.scattered", slots, shape, equation.indices, einsum, einsum.dtype, einsum.semiring)
    read = Read(sums.name, slots, sums.dtype)
    rest = transform(equation.expr, lambda e: read if e == einsum else e)
    indices = tuple(Index(n, extents[n]) for n in free)
    return sums, replace(equation, expr=rest, indices=indices)
