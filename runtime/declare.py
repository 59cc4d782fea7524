"""What a keyword of `stein.compile` says about a tensor: shapes, arrays, constants, encrypted values, structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frontend.declare import Declaration, parse_structure
from ..ir.errors import DTypeError, ShapeError
from ..ir.types import DType, dtype_of, parse_dtype
from .operands import Array, as_array

Shape = Sequence["int | str"]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that is known when the program is compiled: it may be folded, and looked into under a tolerance
    `tol`.
    """

    array: Array
    tol: float | None = None


@dataclass(frozen=True)
class Tensor:
    """A declared argument."""

    shape: tuple[int | str, ...]
    dtype: DType | None = None
    structure: str = ""
    encrypted: bool = False
    range: float | None = None


def constant(array: Any, tol: float | None = None) -> Constant:
    """Declare an argument by its value: `stein.compile("y[i] = W[i,j] * x[j]", W=stein.constant(W))`.

    `tol` allows the passes that look for structure in values to use one that holds up to this relative error.
    """
    if tol is not None and not tol >= 0:
        raise ShapeError(f"tol is {tol!r}; it is a relative error, 0 or more", code="bad-tolerance")
    return Constant(np.array(as_array(array, "constant")), tol)


def tensor(shape: int | str | Shape, dtype: Any = None, structure: str = "") -> Tensor:
    """Declare an argument: `stein.tensor(("n", "n"), "float32", structure="bsr(block=32)")`.

    Sizes are integers, names, or arithmetic on names such as "2*n-1".
    """
    return Tensor(_shape(shape, "tensor"), check_dtype(dtype), structure)


def encrypted(shape: int | str | Shape, dtype: Any = None, range: float | None = None) -> Tensor:
    """Declare an argument that arrives encrypted, for `target="ckks"`.

    `range` bounds the magnitude of its values: parameters are chosen for it, and the client checks it.
    """
    if range is not None and not 0 < range < float("inf"):
        raise ShapeError(f"range is {range!r}; it is the largest magnitude, above 0", code="bad-range")
    return Tensor(_shape(shape, "encrypted"), check_dtype(dtype), "", True, None if range is None else float(range))


def declaration_of(name: str, value: Any) -> tuple[Declaration, Array | None]:
    """The declaration that a keyword makes, and the array if it is a constant."""
    if isinstance(value, Constant):
        return Declaration(tuple(value.array.shape), dtype_of(value.array.dtype), (), True, False), value.array
    if isinstance(value, Tensor):
        structure = parse_structure(value.structure) if value.structure else ()
        return Declaration(value.shape, value.dtype, structure, False, value.encrypted), None
    if isinstance(value, (tuple, list, int, str)) and not isinstance(value, bool):
        return Declaration(_shape(value, name), None, (), False, False), None
    shape = getattr(value, "shape", None)
    if shape is None:
        raise DTypeError(
            f"{name}={value!r} declares no tensor",
            code="bad-declaration",
            help="give a shape tuple, an array, stein.tensor(...), stein.constant(...) or stein.encrypted(...)",
        )
    dtype = getattr(value, "dtype", None)
    return Declaration(tuple(int(n) for n in shape), check_dtype(dtype), (), False, False), None


def check_dtype(dtype: Any) -> DType | None:
    """The type that a user's dtype means: a name of ours or of NumPy's, a dtype, a scalar type, a torch dtype."""
    if dtype is None or isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str) and parse_dtype(dtype) is not None:
        return parse_dtype(dtype)
    if type(dtype).__module__ == "torch":
        dtype = str(dtype).removeprefix("torch.")
        found = parse_dtype(dtype)
        if found is not None:
            return found
    try:
        return dtype_of(np.dtype(dtype))
    except TypeError as error:
        raise DTypeError(f"dtype is {dtype!r}: {error}", code="bad-dtype") from error


def _shape(shape: Any, name: str) -> tuple[int | str, ...]:
    if isinstance(shape, (int, str)):
        shape = (shape,)
    checked: list[int | str] = []
    for extent in shape:
        if isinstance(extent, str):
            checked.append(extent)
        elif isinstance(extent, (int, np.integer)) and not isinstance(extent, bool) and extent >= 0:
            checked.append(int(extent))
        else:
            raise ShapeError(
                f"{name} has an axis of size {extent!r}; sizes are integers >= 0 or names such as 'n' or '2*n-1'",
                code="bad-size",
            )
    return tuple(checked)
