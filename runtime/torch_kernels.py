"""Values of programs that go by their text, on PyTorch tensors of the CPU: what the operator of `torch_op` computes.

Each text has a native dispatcher of its own, as a compiled callable has, so that a known call binds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from .autograd import KEPT, expression_for
from .expression import Expression, binding_key
from .operands import Array, as_array, wrapper

Tensor: TypeAlias = Any  # torch.Tensor, which is not imported here
Kernel: TypeAlias = Callable[..., Any]


def compute(
    program: str,
    options: str,
    tensors: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...] | None] | None = None,
    results: Sequence[tuple[int, ...]] | None = None,
) -> list[Tensor]:
    """The outputs for a tensor per input. Raises `ShapeError` and `DTypeError` for tensors that do not fit.

    With `shapes` the inputs are taken in these (None: their own), with `results` the outputs come back in those.
    """
    import torch

    arrays = [array_of(t, k) for k, t in enumerate(tensors)]
    if shapes is not None:
        arrays = [a if s is None else a.reshape(s) for a, s in zip(arrays, shapes, strict=True)]
    found = kernel(program, options)(*arrays)
    outputs = found if type(found) is tuple else (found,)
    if results is not None:
        outputs = tuple([a.reshape(s) for a, s in zip(outputs, results, strict=True)])
    to_torch = wrapper("torch")
    return [to_torch(a) if a.dtype.kind == "V" else torch.from_numpy(a) for a in outputs]


def array_of(tensor: Tensor, place: int) -> Array:
    """A NumPy view of argument number `place`."""
    try:
        found: Array = tensor.numpy(force=True)
    except (TypeError, RuntimeError):  # bf16 has a detour; what is no array has an error that says so
        return as_array(tensor.detach(), f"argument {place}")
    return found


@lru_cache(maxsize=KEPT)
def kernel(program: str, options: str) -> Kernel:
    """A function from arrays, one for each input, to the output array, or to a tuple of several."""
    from .stages import Staged

    expression, target = expression_for(program, options)
    if target == "reference":
        return _interpreted(expression)
    if isinstance(expression, Staged):
        return _staged(expression)
    return _dispatched(expression)


def _interpreted(expression: Expression) -> Kernel:
    from ..ir.interpret import interpret

    def call(*arrays: Array) -> Any:
        values = {i.name: a for i, a in zip(expression.arguments, arrays, strict=True)}
        found = interpret(expression.program, values)
        return tuple([found[n] for n in expression.program.outputs])

    return call


def _staged(expression: Expression) -> Kernel:
    def call(*arrays: Array) -> Any:
        return tuple(expression.run(arrays, expression.sizes_of([a.shape for a in arrays])) or ())

    return call


def _dispatched(expression: Expression) -> Kernel:
    from ..backends.cpu.native import make_dispatcher, run_record

    def slow(*arrays: Array) -> Any:
        bound, key = expression.bind(arrays), binding_key(arrays)
        record = register(bound.executable, recheck=bound.recheck, replaces=expression.records.find(key))
        expression.records.put(key, record)
        return run_record(record, arrays)

    dispatch, register = make_dispatcher(slow, spec_first=False)
    return dispatch
