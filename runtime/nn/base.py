"""What the layers of `stein.nn` share: parameters, their start values, and a forward that is one stein program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...ir.errors import DTypeError, ShapeError
from ...ir.text import print_program
from ...ir.types import DTYPES
from ..autograd import expression_for, options_text
from ..expression import Options
from ..torch_kernels import compute
from ..torch_op import only_values, operator, run

LOWERED = (torch.float32, torch.float16, torch.bfloat16)  # what autocast converts
TYPES = {
    torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
    torch.complex64: "c64", torch.complex128: "c128",
}  # fmt: skip


@dataclass(frozen=True)
class Factor:
    """One parameter of a structured weight: its shape, and how many terms are summed at the step that it takes part in.

    The product of `fan` over the factors is the number of terms in one output.
    """

    shape: tuple[int, ...]
    fan: int


@lru_cache(maxsize=256)
def texts(source: str, fixed: tuple[str, ...] = ()) -> Mapping[torch.dtype, tuple[tuple[str, ...], str, str]]:
    """For each type of parameters: the names of the arguments, the program as the operator takes it, and its options.

    `source` is a program of the named language. Of its inputs, those that are `fixed` keep their values from call to
    call; what it declares no type for is of the type of the parameters.
    """
    from ...frontend.elaborate import elaborate
    from ...frontend.parser import parse_program

    found, tree = {}, parse_program(source)
    for dtype, name in TYPES.items():
        program = elaborate(tree, {}, default_dtype=DTYPES[name])
        names = tuple(i.name for i in program.inputs)
        found[dtype] = (names, print_program(program), options_text(program, Options(fixed=fixed)))
    return found


class StructuredLinear(nn.Module):
    """y = x W^T + b for a weight that is never formed. The layers are subclasses; each says what its W is.

    `product` is the right side of the program, on x with the axes `columns` in place of its last one; `rows` names the
    indices of the result and their extents. `declared` are lines before it, for what is not of the type of the
    parameters. Buffers that the program reads and nobody changes in place but PyTorch are `fixed`.

    The parameters start uniform on an interval around 0, such that outputs have the variance that torch.nn.Linear's
    have at its start, 1/3 of the mean square of the inputs: an entry of W is a sum of products of f factors of variance
    v_k each, one output sums prod(fan_k) of them, and v_k = 3^(-1/f) / fan_k makes that 1/3. The bias is Linear's.
    """

    def __init__(
        self,
        product: str,
        rows: Mapping[str, int],
        columns: Sequence[int],
        factors: Mapping[str, Factor],
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        declared: str = "",
        ranges: str = "",
        fixed: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        operator()
        self.in_features, self.out_features = math.prod(columns), math.prod(rows.values())
        self._rows, self._columns = tuple(rows.values()), tuple(columns)
        self._factors = dict(factors)
        indices = ",".join(rows)
        start = f"{declared}y[n,{indices}] = {product}"
        self._plain = start + ranges
        self._source = start + (f" + b[{indices}]" if bias else "") + ranges
        for name, factor in factors.items():
            setattr(self, name, nn.Parameter(torch.empty(factor.shape, device=device, dtype=dtype)))
        made = torch.empty(self.out_features, device=device, dtype=dtype) if bias else None
        self.bias = None if made is None else nn.Parameter(made)
        self._texts, self._plain_texts = texts(self._source, fixed), texts(self._plain, fixed)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give every parameter its random start value."""
        number = len(self._factors)
        with torch.no_grad():
            for name, factor in self._factors.items():
                bound = math.sqrt(3.0) * math.sqrt(3.0 ** (-1 / number) / max(1, factor.fan))
                _uniform(getattr(self, name), bound)
            if self.bias is not None:
                _uniform(self.bias, 1 / math.sqrt(max(1, self.in_features)))

    def tensors(self) -> dict[str, Tensor]:
        """What the program reads besides x and b, by name."""
        return {name: getattr(self, name) for name in self._factors}

    def forward(self, x: Tensor) -> Tensor:
        """The layer's value for `x` of shape (..., in_features): the shape (..., out_features).

        Raises `ShapeError` for another last axis, `DTypeError` for another type than that of the parameters.
        """
        return self._apply_program(x, self._texts, self.bias)

    def dense_weight(self) -> Tensor:
        """W as a dense matrix of shape (out_features, in_features), as torch.nn.Linear keeps it; it can be
        differentiated.
        """
        one = next(iter(self.tensors().values()))
        eye = torch.eye(self.in_features, device=one.device, dtype=one.dtype)
        columns = self._apply_program(eye, self._plain_texts, None)
        return columns.T

    def flops(self, batch: int = 1) -> int:
        """Operations of one forward call on a batch of this size, counted on the plan that the compiler chooses."""
        from ..explain_program import statistics

        names, text, options = self._texts[self._dtype()]
        shapes = {name: tuple(t.shape) for name, t in self.tensors().items()}
        shapes |= {"x": (batch, *self._columns), "b": self._rows}
        expression, _ = expression_for(text, options)
        sizes = expression.sizes_of([shapes[n] for n in names])
        return int(statistics(expression, sizes)["flops"])

    def extra_repr(self) -> str:
        """What torch shows between the parentheses."""
        options = ", ".join(f"{k}={v}" for k, v in self.options().items())
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return ", ".join(part for part in (sizes, options, f"bias={self.bias is not None}") if part)

    def options(self) -> dict[str, Any]:
        """What the layer was made with, besides sizes and bias."""
        return {}

    def _dtype(self) -> torch.dtype:
        return next(iter(self.tensors().values())).dtype

    def _apply_program(
        self, x: Tensor, programs: Mapping[torch.dtype, tuple[tuple[str, ...], str, str]], bias: Tensor | None
    ) -> Tensor:
        given = self.tensors()
        if x.shape[-1] != self.in_features:
            raise ShapeError(
                f"the last axis of x is {x.shape[-1]}, in_features is {self.in_features}", code="size-mismatch"
            )
        dtype = next(iter(given.values())).dtype
        if dtype in LOWERED and torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            given = {k: v.to(dtype) if v.dtype in LOWERED else v for k, v in given.items()}
            x = x.to(dtype) if x.dtype in LOWERED else x
            bias = None if bias is None else bias.to(dtype)
        if x.dtype != dtype:
            raise DTypeError(
                f"x is {x.dtype}, the parameters are {dtype}", code="argument-type", help=f"x.to({dtype}) converts it"
            )
        names, text, options = programs[dtype]
        given["x"] = x
        shapes: dict[str, tuple[int, ...]] = {"x": (-1, *self._columns)}
        if bias is not None:
            given["b"], shapes["b"] = bias, self._rows
        result = (*x.shape[:-1], self.out_features)
        if not torch.compiler.is_dynamo_compiling() and only_values(given.values()):
            (y,) = compute(text, options, [given[n] for n in names], [shapes.get(n) for n in names], [result])
        else:
            given |= {name: given[name].reshape(shape) for name, shape in shapes.items()}
            (y,) = run(text, options, [given[n] for n in names])
            y = y.reshape(result)
        return cast(Tensor, y)


def near_root(size: int, power: float = 0.5) -> int:
    """The divisor of `size` that is nearest to that power of it, on a logarithmic scale.

    >>> near_root(64), near_root(12), near_root(7)
    (8, 3, 1)
    """
    wanted = power * math.log(max(1, size))
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    return min(divisors, key=lambda d: (abs(math.log(d) - wanted), d))


def check_divides(part: int, whole: int, what: str) -> int:
    """`whole // part`; `ShapeError` if that leaves a rest."""
    if part < 1 or whole % part:
        raise ShapeError(f"{what} is {part}, which does not divide {whole}", code="block")
    return whole // part


def check_positive(value: Any, what: str) -> int:
    """The number itself; `ShapeError` if it is below 1."""
    if not isinstance(value, int) or value < 1:
        raise ShapeError(f"{what} is {value!r}; it is an integer, 1 or more", code="bad-size")
    return int(value)


def _uniform(parameter: Tensor, bound: float) -> None:
    """Uniform values of variance bound^2 / 3; for complex numbers half of that for each part."""
    if parameter.is_complex():
        torch.view_as_real(parameter).uniform_(-bound / math.sqrt(2), bound / math.sqrt(2))
    else:
        parameter.uniform_(-bound, bound)
