"""Element types of expressions under elaboration: weak numbers, promotion, folding of literals.

A `Value` is an IR expression with one thing more: whether its type is weak. Literals are weak as in NumPy 2 (`x*2`
keeps f32); a size or the value of an index is an exact whole number, weak towards floating types only (`i*x[i]` keeps
f32, but counts as i64 beside integers, so that nothing is lost silently).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ir.errors import NOWHERE, DTypeError, Source, Span
from ..ir.expr import Const, Expr, Map, Pad
from ..ir.functions import CAST, FUNCTIONS
from ..ir.semiring import BOOLEAN, LOGSUMEXP, PLUS_TIMES, Scalar, Semiring
from ..ir.types import BOOL, C128, F64, I64, DType, accumulation_type, promote, promote_weak

_FOLDS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
}
_WEAK_TYPES = {"literal": I64, "exact": I64, "f": F64, "c": C128}
COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


@dataclass(frozen=True)
class Value:
    """An expression and how weak its type is: "" not, "literal" and "exact" whole numbers, "f" and "c"."""

    expr: Expr
    weak: str = ""
    declared: DType | None = None  # the type it counts as (a declared identity is a bool comparison)

    @property
    def dtype(self) -> DType:
        """The type that this counts as in promotion."""
        return self.declared or self.expr.dtype


@dataclass(frozen=True)
class Typer:
    """Builds typed `Map` nodes; `source` is for messages."""

    source: Source

    def literal(self, value: Scalar, span: Span = NOWHERE) -> Value:
        """A number of the text."""
        weak = "c" if isinstance(value, complex) else "f" if isinstance(value, float) else "literal"
        return Value(Const(value, _WEAK_TYPES[weak], span), weak)

    def joint(self, values: Sequence[Value]) -> tuple[DType, str]:
        """The type of `values` combined, and how weak it is."""
        strong = [v.dtype for v in values if not v.weak]
        weak = [v for v in values if v.weak]
        if not strong:
            rank = ["literal", "exact", "f", "c"]
            kind = max((v.weak for v in weak), key=rank.index)
            return _WEAK_TYPES[kind], kind
        result = promote(*strong)
        for v in weak:
            if v.weak == "exact":
                result = result if result.kind in "fc" else promote(result, I64)
            else:
                result = promote_weak(result, {"literal": 1, "f": 1.0, "c": 1j}[v.weak])
        return result, ""

    def convert(self, value: Value, dtype: DType) -> Expr:
        """The expression in type `dtype`; a literal is written in that type."""
        expr = value.expr
        if isinstance(expr, Const) and value.weak:
            return Const(self._fitted(expr, dtype), dtype, expr.span)
        if expr.dtype == dtype:
            return expr
        return Map(CAST, (expr,), dtype, expr.span)

    def padding(self, pad: Pad | None, dtype: DType, span: Span) -> Pad | None:
        """What stands outside a tensor, as a value of its type: an infinity is the last integer on its side."""
        if pad is None or isinstance(pad, str) or dtype.kind not in "iub":
            return pad
        low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype.numpy).min), int(np.iinfo(dtype.numpy).max))
        value = low if pad == -np.inf else high if pad == np.inf else pad
        if value != int(value) or not low <= value <= high:
            raise DTypeError(
                f"the padding {pad:g} does not fit {dtype} ({low}..{high})", code="literal", source=self.source,
                spans=(span,), help="pad with a value of the type, or convert the tensor outside of the brackets",
            )  # fmt: skip
        return int(value)

    def _fitted(self, const: Const, dtype: DType) -> Scalar:
        value = const.value
        if dtype.kind == "b":
            return bool(value)
        if dtype.kind in "iu" and isinstance(value, int):
            info = np.iinfo(dtype.numpy)
            if not info.min <= value <= info.max:
                raise DTypeError(
                    f"{value} does not fit {dtype} ({info.min}..{info.max})", code="literal", source=self.source,
                    spans=(const.span,), help="convert the other side to a wider type",
                )  # fmt: skip
            return int(value)
        try:
            return complex(value) if dtype.kind == "c" else float(value) if not isinstance(value, complex) else value
        except OverflowError:
            return float("inf")

    def apply(self, function: str, values: Sequence[Value], span: Span = NOWHERE) -> Value:
        """An elementwise function on values; literals are folded."""
        spec = FUNCTIONS[function]
        consts = [v.expr.value for v in values if isinstance(v.expr, Const) and v.weak]
        if len(consts) == len(values):
            folded = _fold(function, consts)
            if folded is not None:
                return replace_span(self.literal(folded), span)
        chosen = list(values[1:]) if spec.rule == "select" else list(values)
        dtype, weak = self.joint(chosen)
        if dtype == BOOL and function in ("sub", "neg"):
            raise DTypeError(
                "bool has no subtraction", code="bool", source=self.source, spans=(span,), help="convert: i64(...)"
            )
        if function == "pow" and dtype.kind in "iu" and _negative(values[1]):
            dtype, weak = F64, "f" if weak else ""  # as `/` of integers does
        args = tuple(
            self.convert(v, dtype) if v.weak or (function == "pow" and dtype == F64) else self._plain(v) for v in chosen
        )
        if spec.rule == "select":
            args = (self.convert(values[0], BOOL) if values[0].weak else values[0].expr, *args)
        result = spec.result((values[0].dtype, dtype) if spec.rule == "select" else (dtype,))
        if not weak or result == BOOL:
            return Value(Map(function, args, result, span))
        return Value(Map(function, args, result, span), {"f": "f", "c": "c"}.get(result.kind, "exact"))

    def _plain(self, value: Value) -> Expr:
        return value.expr if value.declared is None else self.convert(value, value.declared)

    def cast(self, value: Value, dtype: DType, span: Span) -> Value:
        """The explicit conversion `f32(e)`, as astype; a weak number that fits becomes a constant."""
        expr = value.expr
        if isinstance(expr, Const) and value.weak:
            scalar = np.asarray(expr.value).astype(dtype.numpy)
            return Value(Const(scalar.item() if dtype.name != "bf16" else float(scalar), dtype, span))
        return Value(Map(CAST, (expr,), dtype, span))


def replace_span(value: Value, span: Span) -> Value:
    """The same value from another place."""
    return replace(value, expr=replace(value.expr, span=span))


def _negative(value: Value) -> bool:
    expr = value.expr
    return isinstance(expr, Const) and not isinstance(expr.value, complex) and expr.value < 0


def _fold(function: str, values: Sequence[Scalar]) -> Scalar | None:
    """The value of a function of literals, None if it has none (left to run time)."""
    if all(isinstance(v, int) and abs(v) < 1 << 62 for v in values) and function in ("add", "sub", "mul", "neg"):
        exact = _FOLDS[function](*values)
        return int(exact) if abs(exact) < 1 << 62 else None
    try:
        with np.errstate(all="ignore"):
            if function in _FOLDS:
                found = _FOLDS[function](*values)
            else:
                whole = function == "pow"
                args = [float(v) if whole and isinstance(v, int) else v for v in values]
                found = FUNCTIONS[function].numpy(*args)
    except (ArithmeticError, ValueError, TypeError):
        return None
    result = found.item() if isinstance(found, np.generic | np.ndarray) else found
    exact_power = function == "pow" and all(isinstance(v, int) for v in values) and isinstance(result, float)
    if exact_power and values[1] >= 0 and abs(result) < 1 << 53:  # type: ignore[operator]
        return int(result)
    return result if isinstance(result, bool | int | float | complex) else None


def contraction_types(
    dtypes: Sequence[DType], dtype: DType | None, semiring: Semiring, accumulate: DType | None
) -> tuple[DType, DType, Semiring]:
    """Result type, accumulation type and semiring of a product of factors of `dtypes`; bool under + * is or-and."""
    result = dtype or (promote(*dtypes) if dtypes else F64)
    if semiring == BOOLEAN:
        return BOOL, BOOL, semiring
    if semiring == LOGSUMEXP and result.kind in "biu":
        result = F64
    if result.kind == "c" and {semiring.add, semiring.mul} & {"maximum", "minimum", "logaddexp"}:
        raise DTypeError(
            f"{semiring.name} of complex numbers has no meaning", code="complex", help="pass their real part or modulus"
        )
    if semiring == PLUS_TIMES and result == BOOL and accumulate in (None, BOOL):
        return BOOL, BOOL, BOOLEAN
    accumulated = accumulate or accumulation_type(result)
    if "biufc".index(accumulated.kind.replace("u", "i")) < "biufc".index(result.kind.replace("u", "i")):
        raise DTypeError(
            f"sums of {result} cannot be kept in {accumulated}",
            code="accumulate",
            help=f"accumulate={accumulation_type(result)} is the default",
        )
    return result, accumulated, semiring
