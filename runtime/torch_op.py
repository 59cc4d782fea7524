"""The PyTorch operator `stein::run(str program, str options, Tensor[] tensors) -> Tensor[]`.

One operator runs every program, so everything that PyTorch does with operators is said once: meta tensors for
`torch.compile` and `torch.export` (the program is a text, so graphs can be stored), gradients to any order (the
gradient of a program is a program, run by the same operator), `vmap`. Nothing here waits for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from ..ir.errors import BackendError, DTypeError
from ..ir.expr import Program
from ..ir.types import DType
from .autograd import batched_text, derived_options, expression_for, gradient_text, program_of, tangent_text
from .operands import as_array, wrapper

Tensor: TypeAlias = Any  # torch.Tensor, which is not imported here
SCHEMA = "(str program, str options, Tensor[] tensors) -> Tensor[]"


def run(program: str, options: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a program, given as IR text with the text of its options, for a tensor per input.

    Raises `ShapeError` and `DTypeError` for tensors that do not fit.

    >>> import torch
    >>> text = "input x: f32[n]\\ny[i]: f32[n] = mul(x[i], x[i]) over i<n\\nreturn y"
    >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> (y,) = run(text, '{"target": "cpu"}', [x])
    >>> y.sum().backward()
    >>> x.grad
    tensor([2., 6.])
    """
    import torch

    if torch.compiler.is_dynamo_compiling():  # this line is being traced: what it writes down is the operator's name
        return list(torch.ops.stein.run(program, options, list(tensors)))
    if under_transform():
        return list(_function().apply(program, options, *tensors))
    return list(operator()(program, options, list(tensors)))


def under_transform() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work.

    They do not reach an operator's own formulas (torch 2.13), but those of a `torch.autograd.Function` around it.
    """
    import torch
    from torch.autograd import forward_ad

    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


@cache
def _function() -> Any:
    """The operator as a `torch.autograd.Function`, with the same formulas."""
    import torch

    class Run(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
        """`stein::run` for transforms."""

        @staticmethod
        def forward(program: str, options: str, *tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(operator()(program, options, list(tensors)))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            program, options, *tensors = inputs
            _remember(ctx, (program, options, tensors), output)
            ctx.save_for_forward(*tensors, *output)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return (None, None, *_backward(ctx, grads)[2])

        @staticmethod
        def jvp(ctx: Any, *directions: Any) -> tuple[Tensor | None, ...]:
            return _forward(ctx, directions[2:])

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], program: str, options: str, *tensors: Tensor) -> Any:
            found, dims = _over_batch(info, (None, None, in_dims[2:]), program, options, tensors)
            return tuple(found), tuple(dims)

    return Run


@cache
def operator() -> Any:
    """The operator, registered when it is first asked for.

    It is registered with a `Library`, not by `custom_op`: that loads the tracer of torch.compile, which takes seconds.
    Raises `BackendError` for a PyTorch that is too old.
    """
    import torch

    if not hasattr(torch.library, "register_vmap"):
        raise BackendError(f"torch {torch.__version__} is too old", code="old-torch", help="pip install 'torch>=2.6'")
    library = _library()
    library.define("run" + SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl("run", _run, "CompositeExplicitAutograd")
    torch.library.register_fake("stein::run", _shapes, lib=library)
    torch.library.register_autograd("stein::run", _backward, setup_context=_remember, lib=library)
    torch.library.register_vmap("stein::run", _over_batch, lib=library)
    return torch.ops.stein.run.default


@cache
def _library() -> Any:
    """What holds the registrations: they go when it goes."""
    import torch

    make: Any = torch.library.Library
    return make("stein", "FRAGMENT")


def torch_type(dtype: DType) -> Any:
    """PyTorch's type of the same elements."""
    import torch

    return torch.bfloat16 if dtype.name == "bf16" else getattr(torch, dtype.numpy.name)


def element_type(tensor: Tensor, name: str) -> DType:
    """Our type of a tensor's elements; `DTypeError` where there is none."""
    from ..ir.types import parse_dtype

    found = parse_dtype(str(tensor.dtype).removeprefix("torch."))
    if found is None:
        raise DTypeError(f"{name} has elements of type {tensor.dtype}", code="unsupported-type")
    return found


# --- what PyTorch calls -----------------------------------------------------------------------------------------------


def _run(program: str, options: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The outputs, computed."""
    device = _device(tensors)
    if device.type == "cuda":
        from .gpu import run_program  # type: ignore[import-not-found, unused-ignore]

        found: list[Tensor] = run_program(program_of(program, options), options, tensors)
        return found
    from ..backends.cpu.native import execute
    from .stages import Staged

    expression, target = expression_for(program, options)
    pairs = zip(tensors, expression.arguments, strict=True)
    arrays = [as_array(t.detach(), f"argument {i.name}") for t, i in pairs]
    results: Sequence[Any]
    if target == "reference":
        from ..ir.interpret import interpret

        outputs = interpret(expression.program, {i.name: a for i, a in zip(expression.arguments, arrays, strict=True)})
        results = [outputs[n] for n in expression.program.outputs]
    elif isinstance(expression, Staged):
        results = expression.run(arrays, expression.sizes_of([a.shape for a in arrays]))
    else:
        results = execute(expression.bind(arrays).executable, arrays)
    to_torch = wrapper("torch")
    return [to_torch(r) for r in results]


def _shapes(program: str, options: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The outputs without values. Sizes may be symbols."""
    from ..ir.bind import bind_sizes

    known, device = program_of(program, options), _device(tensors)
    sizes = bind_sizes(known, {i.name: tuple(t.shape) for i, t in zip(known.inputs, tensors, strict=True)})
    return [
        tensors[0].new_empty(
            [s.evaluate(sizes) for s in known.tensors[n].shape],
            dtype=torch_type(known.tensors[n].dtype),
            device=device,
        )
        for n in known.outputs
    ]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    """Keep what the gradient program reads, and of other inputs the shape."""
    from torch.utils import _pytree

    program, options, tensors = inputs
    ctx.set_materialize_grads(False)
    known = program_of(program, options)
    flags = _pytree.tree_leaves(ctx.needs_input_grad)[2 : 2 + len(tensors)]
    wanted = tuple(k for k, needed in enumerate(flags) if needed and known.inputs[k].dtype.kind in "fc")
    seeds = _seedable(known)
    found = gradient_text(program, options, wanted, seeds)
    kept = dict.fromkeys(place for place in found.inputs if place[0] in ("input", "output"))
    ctx.save_for_backward(*(tensors[k] if kind == "input" else output[k] for kind, k in kept))
    ctx.kept = tuple(kept)
    ctx.program, ctx.options, ctx.wanted, ctx.number = program, options, wanted, len(tensors)
    ctx.blanks = {k: (tuple(t.shape), t.dtype, t.device) for k, t in enumerate(tensors)}


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[None, None, list[Tensor | None]]:
    """The gradients that are needed, by the same operator."""
    import torch

    results: list[Tensor | None] = [None] * ctx.number
    known = program_of(ctx.program, ctx.options)
    seeds = tuple(k for k in _seedable(known) if grads[k] is not None)
    if not seeds or not ctx.wanted:
        return None, None, results
    found = gradient_text(ctx.program, ctx.options, ctx.wanted, seeds)
    saved = dict(zip(ctx.kept, ctx.saved_tensors, strict=True))

    def value(kind: str, k: int) -> Tensor:
        if kind == "seed":
            return grads[k]
        if kind == "shape":
            shape, dtype, device = ctx.blanks[k]
            return torch.empty((), dtype=dtype, device=device).expand(shape)
        return saved[kind, k]

    if any(r is not None for r in found.results):
        made = run(found.text, derived_options(ctx.program, ctx.options), [value(kind, k) for kind, k in found.inputs])
        for place, result in zip(ctx.wanted, found.results, strict=True):
            results[place] = None if result is None else made[result]
    return None, None, results


def _forward(ctx: Any, directions: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The derivatives of the outputs in a direction, by the same operator."""
    known = program_of(ctx.program, ctx.options)
    moving = tuple(k for k, d in enumerate(directions) if d is not None and known.inputs[k].dtype.kind in "fc")
    found = tangent_text(ctx.program, ctx.options, moving)
    saved = ctx.saved_tensors
    values = {"input": saved[: ctx.number], "output": saved[ctx.number :], "seed": directions}
    made = run(found.text, derived_options(ctx.program, ctx.options), [values[kind][k] for kind, k in found.inputs])
    return tuple(None if r is None else made[r] for r in found.results)


def _over_batch(
    info: Any, in_dims: tuple[Any, ...], program: str, options: str, tensors: Sequence[Tensor]
) -> tuple[list[Tensor], list[int | None]]:
    """vmap: the program over a batch."""
    dims = in_dims[2]
    chosen = tuple(k for k, d in enumerate(dims) if d is not None)
    text, flags = batched_text(program, options, chosen)
    moved = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=True)]
    return run(text, options, moved), [0 if f else None for f in flags]


def _seedable(program: Program) -> tuple[int, ...]:
    """The outputs that can have a gradient."""
    return tuple(k for k, n in enumerate(program.outputs) if program.tensors[n].dtype.kind in "fc")


def _device(tensors: Sequence[Tensor]) -> Any:
    """The device of a call; `DTypeError` where tensors lie on several."""
    devices = {t.device for t in tensors}
    if len(devices) != 1:
        where = ", ".join(sorted(map(str, devices))) or "none"
        raise DTypeError(f"the tensors of one call are on one device, these on {where}", code="mixed-devices")
    return devices.pop()
