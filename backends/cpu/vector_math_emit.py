"""Writer of vector LLVM IR for the elementary functions: `Block` collects instructions, `Value` is an operand.

Used only by the `vector_math*` modules, between the tables of coefficients and the text that the CPU emitter joins into
its modules. Arithmetic is strict: no fast-math flag is ever written, because the error-free steps (two-sum, Cody-Waite)
rely on each operation being rounded on its own, and because `nnan` would turn the special cases into poison.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

INTEGER = {"float": "i32", "double": "i64"}


def literal(x: float | int, kind: str) -> str:
    """`x` as an LLVM constant of the scalar type `kind`; a float is rounded to `float` first where that is the kind.

    >>> literal(1.5, "float"), literal(-3, "i32")
    ('0x3FF8000000000000', '-3')
    """
    if kind in ("i32", "i64"):
        assert isinstance(x, int), "an integer vector holds integers"
        return str(x)
    if kind == "float":
        x = struct.unpack("<f", struct.pack("<f", x))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"


@dataclass(frozen=True, eq=False)
class Value:
    """One SSA vector of `block.lanes` elements of type `kind` (float, double, i32, i64 or i1), spelled `text`.

    The operators write the instruction and give its result; a Python number stands for the vector full of it.
    Comparisons are the ordered ones (false for NaN).
    """

    block: Block
    text: str
    kind: str

    @property
    def type(self) -> str:
        """The LLVM type of the vector."""
        return f"<{self.block.lanes} x {self.kind}>"

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating point."""
        return self.kind in INTEGER

    def _binary(self, name: str, other: Operand) -> Value:
        right = self.block.operand(other, self.kind)
        return self.block.op(self.kind, f"{name} {self.type} {self.text}, {right.text}")

    def __add__(self, other: Operand) -> Value:
        return self._binary("fadd" if self.is_float else "add", other)

    def __sub__(self, other: Operand) -> Value:
        return self._binary("fsub" if self.is_float else "sub", other)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("fmul" if self.is_float else "mul", other)

    def __truediv__(self, other: Operand) -> Value:
        return self._binary("fdiv", other)

    def __rsub__(self, other: float) -> Value:
        return self.block.operand(other, self.kind) - self

    def __rtruediv__(self, other: float) -> Value:
        return self.block.operand(other, self.kind) / self

    def __neg__(self) -> Value:
        return self.block.op(self.kind, f"fneg {self.type} {self.text}")

    def __and__(self, other: Operand) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Operand) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Operand) -> Value:
        return self._binary("xor", other)

    def __lshift__(self, count: int) -> Value:
        return self._binary("shl", count)

    def __rshift__(self, count: int) -> Value:
        return self._binary("ashr", count)

    def compare(self, predicate: str, other: Operand) -> Value:
        """The i1 vector of `predicate` (LLVM's name: olt, une, uno, eq ...) against `other`."""
        right = self.block.operand(other, self.kind)
        name = "fcmp" if self.is_float else "icmp"
        return self.block.op("i1", f"{name} {predicate} {self.type} {self.text}, {right.text}")

    def __lt__(self, other: Operand) -> Value:
        return self.compare("olt", other)

    def __gt__(self, other: Operand) -> Value:
        return self.compare("ogt", other)

    def equals(self, other: Operand) -> Value:
        """Where both are equal (ordered, so never for NaN)."""
        return self.compare("oeq" if self.is_float else "eq", other)

    def is_nan(self) -> Value:
        """Where the element is NaN."""
        return self.compare("uno", self)

    def select(self, yes: Operand, no: Operand) -> Value:
        """Of an i1 vector: `yes` where it is set, else `no`; at least one of them is a Value and gives the kind."""
        kind = yes.kind if isinstance(yes, Value) else no.kind if isinstance(no, Value) else None
        assert kind is not None, "select needs one vector to know the type"
        a, b = self.block.operand(yes, kind), self.block.operand(no, kind)
        return self.block.op(kind, f"select {self.type} {self.text}, {a.type} {a.text}, {b.type} {b.text}")

    def bits(self) -> Value:
        """The same bits as integers."""
        return self._convert("bitcast", INTEGER[self.kind])

    def real(self) -> Value:
        """The same bits as floating-point numbers; the inverse of `bits`."""
        return self._convert("bitcast", "float" if self.kind == "i32" else "double")

    def widen(self) -> Value:
        """float to double, exact."""
        return self._convert("fpext", "double")

    def narrow(self) -> Value:
        """double to float, rounded to nearest."""
        return self._convert("fptrunc", "float")

    def _convert(self, name: str, kind: str) -> Value:
        return self.block.op(kind, f"{name} {self.type} {self.text} to <{self.block.lanes} x {kind}>")

    def abs(self) -> Value:
        """The magnitude."""
        return self.block.intrinsic("fabs", self)

    def floor(self) -> Value:
        """The largest integer not above."""
        return self.block.intrinsic("floor", self)

    def copysign(self, sign: Value) -> Value:
        """The magnitude of this with the sign of `sign`."""
        return self.block.intrinsic("copysign", self, sign)

    def at_most(self, bound: Operand) -> Value:
        """The smaller of both; NaN stays NaN. This order of operands is one `minps` on x86."""
        limit = self.block.operand(bound, self.kind)
        return (limit < self).select(limit, self)

    def at_least(self, bound: Operand) -> Value:
        """The larger of both; NaN stays NaN."""
        limit = self.block.operand(bound, self.kind)
        return (limit > self).select(limit, self)


Operand = Value | float | int


class Block:
    """The body of one function on vectors of `lanes` elements, with the declarations and helpers it needs."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.lines: list[str] = []
        self.outside: dict[str, str] = {}  # symbol -> the complete declaration or definition

    def op(self, kind: str, instruction: str) -> Value:
        """Append `instruction`; its result, of elements `kind`."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return Value(self, name, kind)

    def operand(self, x: Operand, kind: str) -> Value:
        """`x` itself, or the constant vector full of it."""
        if isinstance(x, Value):
            assert x.kind == kind, f"an operand of {x.kind} where {kind} is needed"
            return x
        return Value(self, f"splat ({kind} {literal(x, kind)})", kind)

    def intrinsic(self, name: str, *arguments: Value) -> Value:
        """Call the LLVM intrinsic `name`, overloaded on the type of the arguments."""
        first = arguments[0]
        suffix = {"float": "f32", "double": "f64"}[first.kind]
        symbol = f"@llvm.{name}.v{self.lanes}{suffix}"
        self.outside[symbol] = f"declare {first.type} {symbol}({', '.join(a.type for a in arguments)})"
        return self.op(first.kind, f"call {first.type} {symbol}({', '.join(f'{a.type} {a.text}' for a in arguments)})")

    def fma(self, a: Value, b: Operand, c: Operand) -> Value:
        """a * b + c, rounded once."""
        return self.intrinsic("fma", a, self.operand(b, a.kind), self.operand(c, a.kind))

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """sum of coefficients[i] x^i by fma: Horner, from six coefficients on two shorter chains in x^2."""
        if len(coefficients) < 6:
            return self._horner(x, coefficients)
        square = x * x
        return self.fma(self._horner(square, coefficients[1::2]), x, self._horner(square, coefficients[::2]))

    def _horner(self, x: Value, coefficients: Sequence[float]) -> Value:
        total: Operand = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            total = self.fma(x, total, c)
        return self.operand(total, x.kind)

    def two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """(s, e) with s = a + b rounded and s + e = a + b exactly (Knuth)."""
        s = a + b
        t = s - a
        return s, (a - (s - t)) + (b - t)

    def fast_two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """`two_sum` for |a| >= |b| (Dekker)."""
        s = a + b
        return s, b - (s - a)

    def two_product(self, a: Value, b: Operand) -> tuple[Value, Value]:
        """(p, e) with p = a * b rounded and p + e = a * b exactly, short of underflow."""
        p = a * b
        return p, self.fma(a, b, -p)

    def rarely(self, mask: Value, usual: Value, symbol: str, *arguments: Value) -> Value:
        """`usual`, or the result of the function `symbol` if any lane of `mask` is set. Once in a function at most."""
        reduce = f"@llvm.vector.reduce.or.v{self.lanes}i1"
        self.outside[reduce] = f"declare i1 {reduce}({mask.type})"
        call = f"call {usual.type} {symbol}({', '.join(f'{a.type} {a.text}' for a in arguments)})"
        self.lines += [
            f"  %any = call i1 {reduce}({mask.type} {mask.text})",
            "  br i1 %any, label %rare, label %join",
            "rare:",
            f"  %slow = {call}",
            "  br label %join",
            "join:",
        ]
        return self.op(usual.kind, f"phi {usual.type} [ {usual.text}, %entry ], [ %slow, %rare ]")

    def define(self, symbol: str, arguments: Sequence[Value], result: Value, attributes: str) -> str:
        """The definition of the internal function `symbol` with this body, which returns `result`."""
        head = ", ".join(f"{a.type} {a.text}" for a in arguments)
        body = "\n".join(["entry:", *self.lines, f"  ret {result.type} {result.text}"])
        return f"define internal {result.type} {symbol}({head}) {attributes} {{\n{body}\n}}"
