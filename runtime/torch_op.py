"""The PyTorch operator `stein::run(str program, str options, Tensor[] tensors) -> Tensor[]`.

One operator runs every program, so everything that PyTorch does with operators is said once: meta tensors for
`torch.compile` and `torch.export` (the program is a text, so graphs can be stored), gradients to any order (the
gradient of a program is a program, run by the same operator), `vmap`. Nothing here waits for a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, TypeAlias

from ..ir.errors import BackendError, DTypeError
from ..ir.types import DType
from .autograd import KEPT, batched_text, derived_options, gradient_text, program_of, tangent_text
from .torch_kernels import compute

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
        return list(_transformed().apply(program, options, *tensors))
    if not is_plain(tensors):
        return list(operator()(program, options, list(tensors)))
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return list(_recorded().apply(program, options, *tensors))
    return _run(program, options, tensors)


def is_plain(tensors: Iterable[Tensor]) -> bool:
    """Whether nothing but autograd looks at a call, which then saves the way through the operator (some 100 us)."""
    import torch

    kinds = (torch.Tensor, torch.nn.Parameter)
    return all(type(t) in kinds and (t.is_cpu or t.is_cuda) for t in tensors) and not is_watched()


def only_values(tensors: Iterable[Tensor]) -> bool:
    """Whether a call with these tensors of the CPU has no effect but its values: nothing records, traces or maps it."""
    import torch

    recording = torch.is_grad_enabled()
    for tensor in tensors:
        kind = type(tensor)
        if (kind is not torch.Tensor and kind is not torch.nn.Parameter) or not tensor.is_cpu:
            return False
        if recording and tensor.requires_grad:
            return False
    return not is_watched() and not under_transform()


def is_watched() -> bool:
    """Whether a mode sees all operators (fake tensors, tracing), or several gradients are computed at once."""
    import torch

    traced = torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None
    return traced or torch._C._dispatch_tls_is_dispatch_key_included(_batched_gradients())


def under_transform() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work.

    They do not reach an operator's own formulas (torch 2.13), but those of a `torch.autograd.Function` around it.
    """
    import torch

    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return bool(torch.autograd.forward_ad._current_level >= 0)


@cache
def _batched_gradients() -> Any:
    """The dispatch key that is on where several gradients are computed at once (`_over_gradients`)."""
    import torch

    return torch._C._dispatch_key_parse("VmapMode")


@cache
def _recorded() -> Any:
    """The operator as a `torch.autograd.Function`, for plain calls: PyTorch's own way around it costs more."""
    import torch

    class Run(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
        """`stein::run`."""

        @staticmethod
        def forward(ctx: Any, program: str, options: str, *tensors: Tensor) -> tuple[Tensor, ...]:
            found = tuple(_run(program, options, tensors))
            _remember(ctx, (program, options, tensors), found)
            return found

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return (None, None, *_backward(ctx, grads)[2])

    return Run


@cache
def _transformed() -> Any:
    """The operator as a `torch.autograd.Function` for transforms, with the same formulas."""
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
    library.impl("run", _over_gradients, "Batched")
    return torch.ops.stein.run.default


@cache
def _library() -> Any:
    """What holds the registrations: they go when it goes."""
    import torch

    make: Any = torch.library.Library
    return make("stein", "FRAGMENT")


@cache
def torch_type(dtype: DType) -> Any:
    """PyTorch's type of the same elements."""
    import torch

    return torch.bfloat16 if dtype.name == "bf16" else getattr(torch, dtype.numpy.name)


def element_type(tensor: Tensor, name: str) -> DType:
    """Our type of a tensor's elements; `DTypeError` where there is none."""
    found = _known_type(tensor.dtype)
    if found is None:
        raise DTypeError(f"{name} has elements of type {tensor.dtype}", code="unsupported-type")
    return found


@cache
def _known_type(dtype: Any) -> DType | None:
    """Our type for one of PyTorch, which each call asks for."""
    from ..ir.types import parse_dtype

    return parse_dtype(str(dtype).removeprefix("torch."))


# --- what PyTorch calls -----------------------------------------------------------------------------------------------


def _run(program: str, options: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The outputs, computed."""
    if tensors and all(t.is_cpu for t in tensors):
        return compute(program, options, tensors)
    if _device(tensors).type == "cuda":
        from .gpu import run_program  # type: ignore[import-not-found, unused-ignore]

        found: list[Tensor] = run_program(program_of(program, options), options, tensors)
        return found
    return compute(program, options, tensors)


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
    program, options, tensors = inputs
    ctx.set_materialize_grads(False)
    flags = ctx.needs_input_grad[2:]
    if flags and not isinstance(flags[0], bool):  # of the operator: one list for its list of tensors
        (flags,) = flags
    wanted, kept = _kept(program, options, tuple(flags))
    ctx.save_for_backward(*[tensors[k] if kind == "input" else output[k] for kind, k in kept])
    ctx.kept = kept
    ctx.program, ctx.options, ctx.wanted, ctx.number = program, options, wanted, len(tensors)
    ctx.blanks = [(t.shape, t.dtype, t.device) for t in tensors]


@lru_cache(maxsize=KEPT)
def _kept(program: str, options: str, needed: tuple[bool, ...]) -> tuple[tuple[int, ...], tuple[tuple[str, int], ...]]:
    """(the inputs that get a gradient, the values that are kept for it) where some inputs need one."""
    known = program_of(program, options)
    wanted = tuple(k for k, flag in enumerate(needed) if flag and known.inputs[k].dtype.kind in "fc")
    found = gradient_text(program, options, wanted, _seedable(program, options))
    return wanted, tuple(dict.fromkeys(place for place in found.inputs if place[0] in ("input", "output")))


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[None, None, list[Tensor | None]]:
    """The gradients that are needed, by the same operator."""
    import torch

    results: list[Tensor | None] = [None] * ctx.number
    seeds = tuple([k for k in _seedable(ctx.program, ctx.options) if grads[k] is not None])
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


def _over_gradients(program: str, options: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The program over the batch of `torch.autograd.grad(..., is_grads_batched=True)` and `functional.jacobian`.

    These have a `vmap` of their own, older than that of `torch.func`, which has no registration but its dispatch key.
    """
    import torch

    nesting = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    for level in range(nesting, 0, -1):
        plain: list[Tensor] = []
        dims: list[int | None] = []
        for tensor in tensors:
            spread = torch._remove_batch_dim(tensor, level, 2, 0)  # one without a batch here is repeated twice
            single = spread.shape[0] == 2 and spread.stride(0) == 0
            plain.append(spread[0] if single else spread)
            dims.append(None if single else 0)
        if any(d is not None for d in dims):
            break
    found, places = _over_batch(None, (None, None, dims), program, options, plain)
    return [t if d is None else torch._add_batch_dim(t, d, level) for t, d in zip(found, places, strict=True)]


@lru_cache(maxsize=KEPT)
def _seedable(program: str, options: str) -> tuple[int, ...]:
    """The outputs that can have a gradient."""
    known = program_of(program, options)
    return tuple(k for k, n in enumerate(known.outputs) if known.tensors[n].dtype.kind in "fc")


def _device(tensors: Sequence[Tensor]) -> Any:
    """The device of a call; `DTypeError` where tensors lie on several."""
    devices = {t.device for t in tensors}
    if len(devices) != 1:
        where = ", ".join(sorted(map(str, devices))) or "none"
        raise DTypeError(f"the tensors of one call are on one device, these on {where}", code="mixed-devices")
    return devices.pop()
