"""Values in vector registers: types, constants, conversions, loads and stores, for every element type of the IR.

A value is a tuple of SSA names: one, or two for complex numbers (real and imaginary vectors). Half precisions live in
registers as single precision that has been rounded, bool as a byte that is 0 or 1. What `elementwise` computes and
`tile` moves are such values.
"""

from __future__ import annotations

import struct
from functools import cached_property

from ...ir.semiring import Scalar
from ...ir.types import BF16, BOOL, F16, F32, F64, DType, real_type
from .emit import Code, Number
from .machine import Machine

Value = tuple[str, ...]

_MEMORY = {"bool": "i8", "f16": "i16", "bf16": "i16", "f32": "float", "f64": "double", "c64": "float", "c128": "double"}
_REGISTER = {**_MEMORY, "f16": "float", "bf16": "float"}
_INTRINSIC = {"float": "f32", "double": "f64"}


def memory_type(dtype: DType) -> str:
    """The LLVM type of one stored element (of one part of a complex one)."""
    return _MEMORY.get(dtype.name) or f"i{dtype.bits}"


def register_type(dtype: DType) -> str:
    """The LLVM type that an element has in registers."""
    return _REGISTER.get(dtype.name) or f"i{dtype.bits}"


def parts_of(dtype: DType) -> int:
    """How many vectors a value has: two for complex types, else one."""
    return 2 if dtype.kind == "c" else 1


def literal(element: str, value: float | int) -> str:
    """A constant in LLVM's spelling; floating point exactly, as bits."""
    if element not in ("float", "double"):
        return str(int(value))
    if element == "float":
        try:
            value = struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('>Q', struct.pack('>d', value))[0]:016X}"


class Registers:
    """Values of a fixed number of lanes, written into one `Code`."""

    def __init__(self, code: Code, lanes: int, machine: Machine) -> None:
        self.code, self.lanes, self.machine = code, lanes, machine

    @cached_property
    def single(self) -> Registers:
        """The same with one lane: where scalars are computed before they are spread."""
        return self if self.lanes == 1 else Registers(self.code, 1, self.machine)

    # --- words ------------------------------------------------------------------------------------------------------

    def of(self, element: str) -> str:
        """The vector type of `lanes` elements."""
        return f"<{self.lanes} x {element}>"

    def type(self, dtype: DType) -> str:
        """The vector type of one part of a value."""
        return self.of(register_type(dtype))

    def same(self, element: str, value: float | int) -> str:
        """A vector constant with the same value in all lanes."""
        if value == 0 and str(value) != "-0.0":
            return "zeroinitializer"
        return f"<{', '.join([f'{element} {literal(element, value)}'] * self.lanes)}>"

    def constant(self, value: Scalar, dtype: DType) -> Value:
        """A constant of an element type."""
        element = register_type(dtype)
        if dtype.kind == "c":
            number = complex(value)
            return self.same(element, number.real), self.same(element, number.imag)
        if dtype.kind == "b":
            return (self.same("i8", int(bool(value))),)
        if dtype.kind == "f":
            if isinstance(value, complex):
                value = value.real
            return (self.same(element, float(value) if dtype == F64 else float(dtype.numpy.type(value))),)
        if isinstance(value, complex):
            value = value.real
        wrapped = int(value) & ((1 << dtype.bits) - 1)
        return (self.same(element, wrapped - (wrapped >> (dtype.bits - 1) << dtype.bits)),)

    def intrinsic(self, name: str, element: str, *args: str) -> str:
        """A call of an LLVM intrinsic on vectors of one element type, such as `fma` or `smax`."""
        suffix = f"v{self.lanes}{_INTRINSIC.get(element, element)}"
        type_ = self.of(element)
        return self.code.call(type_, f"llvm.{name}.{suffix}", *(f"{type_} {a}" for a in args))

    def binary(self, opcode: str, element: str, a: str, b: str) -> str:
        """An instruction of two operands, such as `fadd`."""
        return self.code.op(f"{opcode} {self.of(element)} {a}, {b}")

    def compare(self, condition: str, element: str, a: str, b: str) -> str:
        """A mask; the condition as LLVM names it: `oeq`, `une`, `slt` ..."""
        opcode = "fcmp" if element in ("float", "double") else "icmp"
        return self.binary(f"{opcode} {condition}", element, a, b)

    def pick(self, mask: str, element: str, a: str, b: str) -> str:
        """a where the mask is set, else b."""
        type_ = self.of(element)
        return self.code.op(f"select {self.of('i1')} {mask}, {type_} {a}, {type_} {b}")

    def select(self, mask: str, a: Value, b: Value, dtype: DType) -> Value:
        """`pick` on whole values."""
        element = register_type(dtype)
        return tuple(self.pick(mask, element, x, y) for x, y in zip(a, b, strict=True))

    def flag(self, mask: str) -> Value:
        """A mask as a bool value."""
        return (self.code.op(f"zext {self.of('i1')} {mask} to {self.of('i8')}"),)

    def mask_of(self, value: Value, dtype: DType) -> str:
        """The mask of lanes that are not zero (NaN is not)."""
        element = register_type(dtype)
        condition = "une" if dtype.kind in "fc" else "ne"
        masks = [self.compare(condition, element, x, "zeroinitializer") for x in value]
        return masks[0] if len(masks) == 1 else self.binary("or", "i1", *masks)

    # --- lanes ------------------------------------------------------------------------------------------------------

    def shuffle(self, element: str, a: str, b: str, lanes: list[int], width: int | None = None) -> str:
        """Lanes of two vectors of `width` lanes in a given order."""
        type_ = f"<{width or self.lanes} x {element}>"
        order = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.code.op(f"shufflevector {type_} {a}, {type_} {b}, <{len(lanes)} x i32> <{order}>")

    def spread(self, value: Value, dtype: DType) -> Value:
        """A value of one lane in all lanes."""
        if self.lanes == 1:
            return value
        element = register_type(dtype)
        return tuple(self._splat(element, x) for x in value)

    def _splat(self, element: str, one: str) -> str:
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.code.op(f"shufflevector <1 x {element}> {one}, <1 x {element}> poison, {zeros}")

    def first_lane(self, element: str, vector: str) -> str:
        """Lane 0 as a vector of one lane."""
        return vector if self.lanes == 1 else self.shuffle(element, vector, "poison", [0])

    def numbers(self, value: Number) -> str:
        """A 64-bit integer in all lanes."""
        if isinstance(value, int):
            return self.same("i64", value)
        one = self.code.op(f"insertelement <1 x i64> poison, i64 {value}, i32 0")
        return one if self.lanes == 1 else self._splat("i64", one)

    def steps(self, stride: Number) -> str:
        """0, stride, 2 stride, ...: the byte offsets of the lanes."""
        if isinstance(stride, int):
            return f"<{', '.join(f'i64 {lane * stride}' for lane in range(self.lanes))}>"
        return self.binary("mul", "i64", self.steps(1), self.numbers(stride))

    def below(self, bound: Number, start: int) -> str | None:
        """The mask of lanes `start`.. that are below a bound; None if all are known to be."""
        if isinstance(bound, int) and bound >= start + self.lanes:
            return None
        lanes = f"<{', '.join(f'i64 {start + lane}' for lane in range(self.lanes))}>"
        return self.compare("slt", "i64", lanes, self.numbers(bound))

    def transpose(self, rows: list[Value], dtype: DType) -> list[Value]:
        """As many vectors as lanes, with lanes and vectors exchanged (a butterfly of two-input shuffles)."""
        element, width, current, bit = register_type(dtype), self.lanes, list(rows), 1
        while bit < width:
            new: list[Value] = [()] * width
            low = [lane if not lane & bit else width + (lane ^ bit) for lane in range(width)]
            high = [lane | bit if not lane & bit else width + lane for lane in range(width)]
            for row in range(width):
                if not row & bit:
                    pairs = list(zip(current[row], current[row | bit], strict=True))
                    new[row] = tuple(self.shuffle(element, x, y, low) for x, y in pairs)
                    new[row | bit] = tuple(self.shuffle(element, x, y, high) for x, y in pairs)
            current, bit = new, bit * 2
        return current

    # --- conversions ------------------------------------------------------------------------------------------------

    def convert(self, value: Value, source: DType, target: DType) -> Value:
        """`value.astype(target)` by NumPy's rules: truncation, the real part, or "is not zero"."""
        if source == target:
            return value
        if target == BOOL:
            return self.flag(self.mask_of(value, source))
        part = real_type(target)
        real = self._convert(value[0], real_type(source), part)
        if target.kind != "c":
            return (real,)
        return real, self._convert(value[1], real_type(source), part) if source.kind == "c" else "zeroinitializer"

    def _cast(self, opcode: str, a: str, source: str, target: str) -> str:
        return self.code.op(f"{opcode} {self.of(source)} {a} to {self.of(target)}")

    def _convert(self, a: str, source: DType, target: DType) -> str:
        s, t = register_type(source), register_type(target)
        if source.kind == "f":
            return self._from_float(a, source, target)
        if target.kind == "f":
            number = self._cast("sitofp" if source.kind == "i" else "uitofp", a, s, t)
            return self.round_to(number, target) if target in (F16, BF16) else number
        if source.bits == target.bits:
            return a
        if source.bits > target.bits:
            return self._cast("trunc", a, s, t)
        return self._cast("sext" if source.kind == "i" else "zext", a, s, t)

    def _from_float(self, a: str, source: DType, target: DType) -> str:
        s, t = register_type(source), register_type(target)
        if target.kind != "f":
            return self._to_integer(a, s, target)
        if target in (F16, BF16):
            single = self._round_to_odd(a) if s == "double" else a
            return single if (source, target) in ((F16, F16), (BF16, BF16)) else self.round_to(single, target)
        if s == t:
            return a
        return self._cast("fpext" if t == "double" else "fptrunc", a, s, t)

    def _to_integer(self, a: str, s: str, target: DType) -> str:
        """Truncation. Values outside the type wrap as compiled C does on x86: small types through a larger one."""
        if target.name == "u64":
            half = self.same(s, 2.0**63)
            large = self.compare("oge", s, a, half)
            low = self.pick(large, s, self.binary("fsub", s, a, half), a)
            number = self._freeze(self._cast("fptosi", low, s, "i64"), "i64")
            top = self.pick(large, "i64", self.same("i64", -(2**63)), "zeroinitializer")
            return self.binary("xor", "i64", number, top)
        wide = "i64" if target.name in ("u32", "i64") else "i32"
        number = self._freeze(self._cast("fptosi", a, s, wide), wide)
        return number if f"i{target.bits}" == wide else self._cast("trunc", number, wide, f"i{target.bits}")

    def _freeze(self, a: str, element: str) -> str:
        return self.code.op(f"freeze {self.of(element)} {a}")

    def _round_to_odd(self, a: str) -> str:
        """Double to single, inexact results made odd: rounding again to half then gives the correctly rounded value.

        Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Computers 2008.
        """
        single = self._cast("fptrunc", a, "double", "float")
        back = self._cast("fpext", single, "float", "double")
        bits = self._cast("bitcast", single, "float", "i32")
        away = self.compare(
            "ogt", "double", self.intrinsic("fabs", "double", back), self.intrinsic("fabs", "double", a)
        )
        finite = self.compare("olt", "float", self.intrinsic("fabs", "float", single), self.same("float", float("inf")))
        back_off = self._cast("zext", self.binary("and", "i1", away, finite), "i1", "i32")
        inexact = self.binary("and", "i1", self.compare("one", "double", back, a), finite)
        odd = self.binary(
            "or", "i32", self.binary("sub", "i32", bits, back_off), self._cast("zext", inexact, "i1", "i32")
        )
        return self._cast("bitcast", odd, "i32", "float")

    def round_to(self, a: str, dtype: DType) -> str:
        """A float vector rounded to the nearest value of a half precision (ties to even), still as floats."""
        return self._widen(self._narrow(a, dtype), dtype)

    def _widen(self, a: str, dtype: DType) -> str:
        """Stored form to register form."""
        if dtype == BF16:
            bits = self.binary("shl", "i32", self._cast("zext", a, "i16", "i32"), self.same("i32", 16))
            return self._cast("bitcast", bits, "i32", "float")
        if dtype != F16:
            return a
        if self.machine.half:
            return self._cast("fpext", self._cast("bitcast", a, "i16", "half"), "half", "float")
        bits = self._cast("zext", a, "i16", "i32")
        sign = self.binary(
            "shl", "i32", self.binary("and", "i32", bits, self.same("i32", 0x8000)), self.same("i32", 16)
        )
        size = self.binary(
            "shl", "i32", self.binary("and", "i32", bits, self.same("i32", 0x7FFF)), self.same("i32", 13)
        )
        number = self.binary("fmul", "float", self._cast("bitcast", size, "i32", "float"), self.same("float", 2.0**112))
        special = self.compare("uge", "i32", size, self.same("i32", 0x7C00 << 13))
        whole = self._cast("bitcast", number, "float", "i32")
        whole = self.pick(special, "i32", self.binary("or", "i32", size, self.same("i32", 0x7F800000)), whole)
        return self._cast("bitcast", self.binary("or", "i32", whole, sign), "i32", "float")

    def _narrow(self, a: str, dtype: DType) -> str:
        """Register form to stored form."""
        if dtype == BF16:
            return self._narrow_bfloat(a)
        if dtype != F16:
            return a
        if self.machine.half:
            return self._cast("bitcast", self._cast("fptrunc", a, "float", "half"), "half", "i16")
        return self._narrow_half(a)

    def _narrow_bfloat(self, a: str) -> str:
        """Round to nearest even on the bits; hardware conversions flush subnormal numbers."""
        bits = self._cast("bitcast", a, "float", "i32")
        top = self.binary("lshr", "i32", bits, self.same("i32", 16))
        even = self.binary("and", "i32", top, self.same("i32", 1))
        rounded = self.binary("add", "i32", self.binary("add", "i32", bits, self.same("i32", 0x7FFF)), even)
        rounded = self.binary("lshr", "i32", rounded, self.same("i32", 16))
        quiet = self.binary("or", "i32", top, self.same("i32", 0x40))
        return self._cast("trunc", self.pick(self.compare("uno", "float", a, a), "i32", quiet, rounded), "i32", "i16")

    def _narrow_half(self, a: str) -> str:
        """Single to half by integers, after F. Giesen's float_to_half_fast3_rtne (public domain)."""
        bits = self._cast("bitcast", a, "float", "i32")
        sign = self.binary("and", "i32", bits, self.same("i32", -(2**31)))
        size = self.binary("xor", "i32", bits, sign)
        # Subnormal results: an addition that makes the floating-point unit round at the right bit.
        magic = self.same("float", 0.5)
        small = self.binary("fadd", "float", self._cast("bitcast", size, "i32", "float"), magic)
        tiny = self.binary("sub", "i32", self._cast("bitcast", small, "float", "i32"), self.same("i32", 126 << 23))
        odd = self.binary("and", "i32", self.binary("lshr", "i32", size, self.same("i32", 13)), self.same("i32", 1))
        normal = self.binary(
            "add", "i32", self.binary("add", "i32", size, self.same("i32", (15 - 127 << 23) + 0xFFF)), odd
        )
        normal = self.binary("lshr", "i32", normal, self.same("i32", 13))
        number = self.pick(self.compare("ult", "i32", size, self.same("i32", 113 << 23)), "i32", tiny, normal)
        nan = self.compare("ugt", "i32", size, self.same("i32", 0x7F800000))
        special = self.pick(nan, "i32", self.same("i32", 0x7E00), self.same("i32", 0x7C00))
        number = self.pick(self.compare("uge", "i32", size, self.same("i32", 143 << 23)), "i32", special, number)
        whole = self.binary("or", "i32", number, self.binary("lshr", "i32", sign, self.same("i32", 16)))
        return self._cast("trunc", whole, "i32", "i16")

    # --- memory -----------------------------------------------------------------------------------------------------

    def load(self, pointer: str, dtype: DType, stride: Number, mask: str | None, offsets: str = "") -> Value:
        """The lanes from `pointer` on, `stride` bytes apart: 0 spreads one element, the item size loads a vector, any
        other gathers at `offsets` (the vector of byte offsets). Lanes outside the mask are not read; what they hold
        is arbitrary.
        """
        if self.lanes == 1 or stride == dtype.itemsize:
            return self._load_vector(pointer, dtype, mask)
        if stride == 0:
            return self.spread(self.single.load(pointer, dtype, 0, None), dtype)
        element, parts = memory_type(dtype), parts_of(dtype)
        type_, size = self.of(element), dtype.itemsize // parts
        if mask is not None:  # masked lanes read the first element: cheaper than a masked gather where that is emulated
            offsets = self.pick(mask, "i64", offsets, "zeroinitializer")
        suffix = f"v{self.lanes}{_INTRINSIC.get(element, element)}.v{self.lanes}p0"
        every = f"<{self.lanes} x i1> <{', '.join(['i1 true'] * self.lanes)}>"
        value = []
        for part in range(parts):
            base = self.code.offset(pointer, part * size)
            places = self.code.op(f"getelementptr i8, ptr {base}, {self.of('i64')} {offsets}")
            args = (f"{self.of('ptr')} {places}", "i32 1", every, f"{type_} zeroinitializer")
            value.append(self._widen(self.code.call(type_, f"llvm.masked.gather.{suffix}", *args), dtype))
        return tuple(value)

    def _load_vector(self, pointer: str, dtype: DType, mask: str | None) -> Value:
        element, parts = memory_type(dtype), parts_of(dtype)
        width = self.lanes * parts
        type_ = f"<{width} x {element}>"
        if mask is None:
            raw = self.code.op(f"load {type_}, ptr {pointer}, align 1")
        else:
            chosen = self._each_part(mask, parts)
            suffix = f"v{width}{_INTRINSIC.get(element, element)}.p0"
            args = (f"ptr {pointer}", "i32 1", f"<{width} x i1> {chosen}", f"{type_} zeroinitializer")
            raw = self.code.call(type_, f"llvm.masked.load.{suffix}", *args)
        if parts == 1:
            return (self._widen(raw, dtype),)
        return tuple(
            self.shuffle(element, raw, "poison", [2 * lane + part for lane in range(self.lanes)], width)
            for part in (0, 1)
        )

    def _each_part(self, mask: str, parts: int) -> str:
        if parts == 1:
            return mask
        return self.shuffle("i1", mask, "poison", [lane // 2 for lane in range(2 * self.lanes)])

    def store(
        self, value: Value, pointer: str, dtype: DType, stride: Number, mask: str | None, offsets: str = ""
    ) -> None:
        """Write the lanes inside the mask, `stride` bytes apart."""
        element, parts = memory_type(dtype), parts_of(dtype)
        raw = [self._narrow(x, dtype) for x in value]
        if self.lanes != 1 and stride != dtype.itemsize:
            self._scatter(raw, pointer, dtype, mask, offsets)
            return
        width = self.lanes * parts
        if parts == 2:
            order = [lane // 2 + (lane % 2) * self.lanes for lane in range(width)]
            raw = [self.shuffle(element, raw[0], raw[1], order)]
        if mask is None:
            self.code.do(f"store <{width} x {element}> {raw[0]}, ptr {pointer}, align 1")
            return
        chosen = self._each_part(mask, parts)
        suffix = f"v{width}{_INTRINSIC.get(element, element)}.p0"
        args = (f"<{width} x {element}> {raw[0]}", f"ptr {pointer}", "i32 1", f"<{width} x i1> {chosen}")
        self.code.call("void", f"llvm.masked.store.{suffix}", *args)

    def _scatter(self, raw: list[str], pointer: str, dtype: DType, mask: str | None, offsets: str) -> None:
        element, size = memory_type(dtype), dtype.itemsize // parts_of(dtype)
        suffix = f"v{self.lanes}{_INTRINSIC.get(element, element)}.v{self.lanes}p0"
        chosen = mask or f"<{', '.join(['i1 true'] * self.lanes)}>"
        for part, x in enumerate(raw):
            base = self.code.offset(pointer, part * size)
            places = self.code.op(f"getelementptr i8, ptr {base}, {self.of('i64')} {offsets}")
            args = (f"{self.of(element)} {x}", f"{self.of('ptr')} {places}", "i32 1", f"{self.of('i1')} {chosen}")
            self.code.call("void", f"llvm.masked.scatter.{suffix}", *args)


__all__ = ["F32", "Registers", "Value", "literal", "memory_type", "parts_of", "register_type"]
