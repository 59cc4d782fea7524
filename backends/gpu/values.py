"""Register tiles: values over named axes, and what moves them from one grouping of axes to another.

Part of the printer. A tile has a dimension for each *group* of axes. Triton's `reshape`, `trans` and `permute` only
relabel registers; the next `tl.dot` that wants another layout pays one round trip through shared memory for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...ir.semiring import Scalar
from ...ir.types import DType
from .emit import Code
from .frame import Frame
from .nodes import Group

_TRITON = {
    "bool": "int1", "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
    **{f"i{b}": f"int{b}" for b in (8, 16, 32, 64)}, **{f"u{b}": f"uint{b}" for b in (8, 16, 32, 64)},
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A text with a dimension for each group; a dimension of no axes, (), has one element. No group: a scalar.

    `filled` is what elements beyond the end of an axis hold, if that is known. A `literal` is the Python number
    `number`.
    """

    code: str
    groups: tuple[Group, ...]
    dtype: DType
    filled: Scalar | None = None
    number: bool | int | float | None = None

    @property
    def literal(self) -> bool:
        """Whether the text is a number."""
        return self.number is not None

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, dimension by dimension."""
        return flat(self.groups)


def flat(groups: Sequence[Group]) -> tuple[str, ...]:
    """The axes of some groups in order."""
    return tuple(a for g in groups for a in g)


def type_text(dtype: DType) -> str:
    """The Triton type of an element type.

    >>> from ...ir.types import BF16
    >>> type_text(BF16)
    'tl.bfloat16'
    """
    return "tl." + _TRITON[dtype.name]


def number_text(value: Scalar) -> str:
    """A number in Triton text.

    >>> number_text(-float("inf")), number_text(True), number_text(0.1)
    ('float("-inf")', '1', '0.1')
    """
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return f'float("{value}")'
    return repr(int(value)) if isinstance(value, bool) else repr(value)


def literal(value: Scalar, dtype: DType) -> Value:
    """A number of a type, rounded to it.

    >>> from ...ir.types import BF16
    >>> literal(0.1, BF16).code
    '0.10009765625'
    """
    assert not isinstance(value, complex)
    number: bool | int | float
    if dtype.kind == "b":
        number = bool(value)
    elif dtype.kind in "iu":
        number = int(value)
    else:
        number = float(dtype.numpy.type(value)) if dtype.bits == 16 else float(value)
    return Value(number_text(number), (), dtype, number=number)


def typed(value: Value) -> Value:
    """The value as a tensor of its type: what a literal needs where no other operand decides."""
    if not value.literal:
        return value
    return replace(value, code=f"tl.full([], {value.code}, {type_text(value.dtype)})", number=None)


def convert(value: Value, dtype: DType) -> Value:
    """The value in another type."""
    if value.dtype == dtype:
        return value
    if value.number is not None and dtype.kind in "fb":
        return literal(value.number, dtype)
    value = typed(value)
    code = f"({value.code} != 0)" if dtype.kind == "b" else f"{value.code}.to({type_text(dtype)})"
    return replace(value, code=code, dtype=dtype)


def named(code: Code, value: Value, stem: str) -> Value:
    """The value under a name, so that it may be used several times."""
    return value if value.literal else replace(value, code=code.let(stem, value.code))


def spread(code: Code, frame: Frame, value: Value, groups: tuple[Group, ...]) -> Value:
    """The value in dimensions of `groups`, which may have axes that it lacks: it is the same along those.

    A dimension of none of its axes stays of one element.
    """
    groups = tuple(g if set(g) & set(value.axes) else () for g in groups)
    lacking = [a for g in groups for a in g if a not in value.axes]
    if not any(groups):
        return replace(value, groups=())
    if lacking:
        value = regroup(code, frame, value, tuple((a,) for a in flat(groups) if a not in lacking))
        rank = len(flat(groups))
        subscript = ", ".join("None" if a in lacking else ":" for a in flat(groups))
        every = [frame.place(a).width for a in flat(groups)]
        text = f"tl.broadcast_to({value.code}[{subscript}], {every})" if rank > 1 else value.code
        value = replace(value, code=code.let("wide", text), groups=tuple((a,) for a in flat(groups)))
    kept = tuple(g for g in groups if g)
    value = regroup(code, frame, value, kept)
    if len(kept) < len(groups):
        subscript = ", ".join(":" if g else "None" for g in groups)
        value = replace(value, code=f"{value.code}[{subscript}]", groups=groups)
    return value


def expand(code: Code, frame: Frame, value: Value, groups: tuple[Group, ...]) -> Value:
    """The value with all of its dimensions at full size."""
    if value.groups == groups:
        return value
    value = typed(value)
    shape = frame.shape(groups)
    if not groups:
        return value
    stem = "full"
    return replace(value, code=code.let(stem, f"tl.broadcast_to({value.code}, {shape})"), groups=groups)


def regroup(code: Code, frame: Frame, value: Value, groups: tuple[Group, ...]) -> Value:
    """The same axes in other groups: reshape, transpose, or a permutation of runs of axes that stay neighbours."""
    if value.groups == groups:
        return value
    have, want, text = list(value.axes), list(flat(groups)), value.code
    assert sorted(have) == sorted(want), f"{value.code} has axes {have}, not {want}"
    shape = frame.shape(groups)
    if have == want:
        text = f"tl.reshape({text}, {shape})"
    elif len(groups) == len(value.groups) == 2 and groups == value.groups[::-1]:
        text = f"tl.trans({text})"
    else:
        runs: list[list[str]] = []
        for axis in have:
            if runs and want.index(runs[-1][-1]) + 1 == want.index(axis):
                runs[-1].append(axis)
            else:
                runs.append([axis])
        order = sorted(range(len(runs)), key=lambda i: want.index(runs[i][0]))
        wide = [frame.width(tuple(r)) for r in runs]
        if wide != frame.shape(value.groups):
            text = f"tl.reshape({text}, {wide})"
        text = f"tl.permute({text}, {order})"
        if [wide[i] for i in order] != shape:
            text = f"tl.reshape({text}, {shape})"
    return replace(value, code=code.let("t", text), groups=groups)
