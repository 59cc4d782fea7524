"""Calls with PyTorch tensors that more than their values matter of: gradients, transforms, tracing, other devices.

Such a call goes through the operator of `torch_op`. Plain CPU tensors never get here: they are viewed as NumPy arrays,
which is faster. PyTorch is loaded already, since its tensors are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from ..ir.errors import DTypeError
from ..ir.expr import Const, Einsum, Equation, Read, free_indices, walk
from ..ir.semiring import PLUS_TIMES
from .expression import Expression
from .operands import as_array
from .settings import Settings
from .torch_op import element_type, only_values, run, torch_type, under_transform

Tensor: TypeAlias = Any  # torch.Tensor


@dataclass(frozen=True)
class Described:
    """Shape and type of an operand, in the way an array says them. An extent that is a symbol counts as 2."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class Prepared:
    """The tensors of one call, all on one device, with what the compiler asks of them. `names` are for messages."""

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]

    @cached_property
    def described(self) -> tuple[Any, ...]:
        """Shape and type of each."""
        return tuple(described(t, n) for t, n in zip(self.tensors, self.names, strict=True))

    def lowered(self) -> Prepared | None:
        """The tensors in the precision that autocast asks for, None where it does not. f64 keeps its own."""
        import torch

        device = self.tensors[0].device.type
        if not torch.is_autocast_enabled(device):
            return None
        low, high = torch.get_autocast_dtype(device), (torch.float32, torch.float16, torch.bfloat16)
        return Prepared(tuple([t.to(low) if t.dtype in high else t for t in self.tensors]), self.names)


def is_recorded(values: Sequence[Any]) -> bool:
    """Whether a call must go through the operator: gradients, a transform, tracing, autocast, or another device.

    >>> import torch
    >>> is_recorded([torch.ones(2)]), is_recorded([torch.ones(2, requires_grad=True)])
    (False, True)
    """
    import torch

    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    return not only_values(tensors) or torch.is_autocast_enabled("cpu")


def prepared(values: Sequence[Any], names: Sequence[str], out: Any = None) -> Prepared:
    """The operands of a call as tensors. Raises `DTypeError` for `out`, and for what is no array."""
    import torch

    if out is not None:
        raise DTypeError(
            "out takes no result that is recorded for gradients or traced",
            code="out-recorded",
            help="leave out= away, or call under torch.no_grad()",
        )
    device = next(v.device for v in values if isinstance(v, torch.Tensor))
    tensors = []
    for value, name in zip(values, names, strict=True):
        if not isinstance(value, torch.Tensor):
            value = torch.as_tensor(as_array(value, name), device=device)
        tensors.append(value)
    return Prepared(tuple(tensors), tuple(names))


def described(tensor: Tensor, name: str) -> Described:
    """Shape and type of a tensor."""
    shape = tuple(n if isinstance(n, int) else 1 if n == 1 else 2 for n in tensor.shape)
    return Described(shape, element_type(tensor, name).numpy)


def is_lowered(expression: Expression) -> bool:
    """Whether autocast lowers the precision of a program: one of products and sums that contracts an index.

    So PyTorch does with its einsum: it lowers matrix products, while transposes, sums along an axis of one operand and
    elementwise products keep their type.

    >>> from ..frontend.classic import elaborate_spec, parse_spec
    >>> from ..ir.types import F32
    >>> def einsum(spec, *ranks):
    ...     ones = tuple((False,) * n for n in ranks)
    ...     return Expression(elaborate_spec(parse_spec(spec, False), ranks, ones, (F32,) * len(ranks)))
    >>> is_lowered(einsum("ij,jk->ik", 2, 2)), is_lowered(einsum("ij,jk->ijk", 2, 2)), is_lowered(einsum("ij->i", 2))
    (True, False, False)
    """
    nodes = [n for e in expression.program.equations for n in walk(e.expr)]
    if not all(isinstance(n, (Einsum, Read, Const)) for n in nodes):
        return False
    if any(isinstance(n, Einsum) and n.semiring != PLUS_TIMES for n in nodes):
        return False
    return any(_contracts(e) for e in expression.program.equations)


def _contracts(equation: Equation) -> bool:
    """Whether some index of more than one value is summed that two factors have."""
    extents = equation.extents
    for node in walk(equation.expr):
        if isinstance(node, Einsum):
            places = [n for f in node.factors for n in free_indices(f)]
            if any(places.count(n) > 1 and extents[n].constant != 1 for n in node.bound):
                return True
    return False


def einsum_recorded(spec: Any, given: Sequence[Any], out: Any, settings: Settings) -> Tensor:
    """`stein.einsum` through the operator."""
    from .einsum import find_expression

    tensors = prepared(given, [f"operand {k}" for k in range(len(given))], out)
    expression = find_expression(spec, tensors.described, settings)
    low = tensors.lowered() if settings.dtype is None else None
    if low is not None and is_lowered(expression):
        tensors, expression = low, find_expression(spec, low.described, settings)
    (result,) = call_recorded(expression, tensors, "cpu")
    return result


def call_recorded(expression: Expression, tensors: Prepared, target: str, check: bool = False) -> list[Tensor]:
    """The results of an expression, in order, for one tensor per argument."""
    import torch

    values = [converted(t, i.name, i.dtype) for t, i in zip(tensors.tensors, expression.arguments, strict=True)]
    if check:
        _verify(expression, values)
    by_name = {i.name: v for i, v in zip(expression.arguments, values, strict=True)}
    for name, array in expression.constants.items():
        by_name[name] = torch.as_tensor(array, device=values[0].device)
    inputs = [by_name[i.name] for i in expression.program.inputs]
    recording = expression.recording(target)
    text = recording.text
    if torch.is_grad_enabled():
        wanted = tuple(k for k, t in enumerate(inputs) if t.requires_grad)
        if wanted:
            text = recording.for_gradients(wanted)
    return run(text, recording.options, inputs)[: len(expression.program.outputs)]


def converted(tensor: Tensor, name: str, dtype: Any) -> Tensor:
    """The tensor in the declared type, converted only where nothing is lost."""
    wanted = torch_type(dtype)
    if tensor.dtype == wanted:
        return tensor
    if not np.can_cast(element_type(tensor, name).numpy, dtype.numpy, "safe"):
        raise DTypeError(
            f"argument {name} is {tensor.dtype}, declared {wanted}",
            code="argument-type",
            help=f"{name}.to({wanted}) converts it",
        )
    return tensor.to(wanted)


def _verify(expression: Expression, tensors: Sequence[Tensor]) -> None:
    """`check=True`: verify declared structure, where the values are at hand."""
    import torch

    from .verify import verify_structures

    if under_transform() or any(type(t) not in (torch.Tensor, torch.nn.Parameter) for t in tensors):
        return
    arrays = [as_array(t.detach().cpu(), "argument") for t in tensors]
    sizes = expression.sizes_of([a.shape for a in arrays])
    verify_structures(expression.arguments, arrays, sizes, expression.program.source)
