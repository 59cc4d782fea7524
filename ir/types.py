"""Element types: the scalars that tensors hold, their promotion and the type that sums of them are kept in.

This is the lowest module of the IR. Everything above speaks of `DType` values; NumPy's dtypes appear only at the border
(`DType.numpy`, `dtype_of`). bfloat16 comes from ml_dtypes, imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type: its short `name` (`f32`), `kind` (b, i, u, f or c) and width in `bits`.

    >>> F32.itemsize, F32.numpy
    (4, dtype('float32'))
    """

    name: str
    kind: str
    bits: int

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return max(1, self.bits // 8)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of the same elements (ml_dtypes' for bf16)."""
        return _numpy_of(self.name)

    def __str__(self) -> str:
        return self.name


BOOL = DType("bool", "b", 8)
I8, I16, I32, I64 = (DType(f"i{b}", "i", b) for b in (8, 16, 32, 64))
U8, U16, U32, U64 = (DType(f"u{b}", "u", b) for b in (8, 16, 32, 64))
F16, BF16, F32, F64 = DType("f16", "f", 16), DType("bf16", "f", 16), DType("f32", "f", 32), DType("f64", "f", 64)
C64, C128 = DType("c64", "c", 64), DType("c128", "c", 128)

DTYPES: dict[str, DType] = {
    t.name: t for t in (BOOL, I8, I16, I32, I64, U8, U16, U32, U64, F16, BF16, F32, F64, C64, C128)
}
_NUMPY_NAMES: dict[str, str] = {
    "bool": "bool",
    **{f"i{b}": f"int{b}" for b in (8, 16, 32, 64)},
    **{f"u{b}": f"uint{b}" for b in (8, 16, 32, 64)},
    "f16": "float16", "f32": "float32", "f64": "float64", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
LONG_NAMES: dict[str, DType] = {long: DTYPES[short] for short, long in _NUMPY_NAMES.items()} | {"bfloat16": BF16}


@cache
def _numpy_of(name: str) -> np.dtype[Any]:
    if name == "bf16":
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(_NUMPY_NAMES[name])


@cache
def dtype_of(dtype: np.dtype[Any]) -> DType:
    """The `DType` of a NumPy dtype. Byte-swapped, structured, string, object and extended types raise `TypeError`.

    >>> dtype_of(np.dtype("float32"))
    DType(name='f32', kind='f', bits=32)
    """
    if dtype.name in LONG_NAMES and dtype.isnative:
        return LONG_NAMES[dtype.name]
    raise TypeError(f"elements of type {dtype} are not supported; stein computes with {', '.join(DTYPES)}")


def parse_dtype(text: str) -> DType | None:
    """The type of a name of the language, short (`f32`) or NumPy's (`float32`); None if there is none."""
    return DTYPES.get(text) or LONG_NAMES.get(text)


@cache
def promote(*dtypes: DType) -> DType:
    """The smallest type that holds all of `dtypes`, by NumPy's rules (bf16 with f16 gives f32).

    >>> promote(I8, F32).name, promote(I32, F32).name
    ('f32', 'f64')
    """
    if BF16 not in dtypes:  # all at once: by pairs, i8 with u16 with c64 would end in c128
        return dtype_of(np.result_type(*(d.numpy for d in dtypes)))
    rest = tuple(d for d in dtypes if d != BF16)
    if not rest:
        return BF16
    other = promote(*rest)
    if other == F16:
        return F32
    return BF16 if other.kind == "b" or other in (I8, U8) else promote(F32, other)


def promote_weak(dtype: DType, value: complex | float | int | bool) -> DType:
    """The type of `dtype` combined with a literal, which is weak as in NumPy 2 (`f32` times `2.5` stays `f32`)."""
    if isinstance(value, bool):
        return dtype
    if isinstance(value, int):
        return I64 if dtype == BOOL else dtype
    if isinstance(value, float):
        return dtype if dtype.kind in "fc" else F64
    return dtype if dtype.kind == "c" else C64 if dtype in (F16, BF16, F32) else C128


def accumulation_type(dtype: DType) -> DType:
    """The type that sums of `dtype` are kept in: f32 for the half precisions, else the type itself (integers wrap)."""
    return F32 if dtype in (F16, BF16) else dtype


def real_type(dtype: DType) -> DType:
    """The type of the real part of `dtype`."""
    return {C64: F32, C128: F64}.get(dtype, dtype)
