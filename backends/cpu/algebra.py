"""Accumulators: what a sum over a semiring keeps in registers while it runs.

For most semirings that is the sum itself. A sum by `logaddexp` keeps the pair (largest term m, sum of exp(term - m)),
so that one pass needs one exponential per term and nothing overflows. `tile` is written against this interface only.
"""

from __future__ import annotations

from ...ir.semiring import Semiring
from ...ir.types import DType
from . import complex_math, elementwise
from .values import Registers, Value, parts_of, register_type

State = tuple[str, ...]


class Algebra:
    """Sums and products of one semiring in one accumulation type."""

    def __init__(self, registers: Registers, dtype: DType, semiring: Semiring) -> None:
        self.registers, self.dtype, self.semiring = registers, dtype, semiring
        self.element = register_type(dtype)
        self.streaming = semiring.add == "logaddexp"
        parts = 2 if self.streaming else parts_of(dtype)
        self.types = (registers.type(dtype),) * parts
        self._fused = semiring.add == "add" and semiring.mul == "mul" and dtype.kind in "fc"

    def with_lanes(self, registers: Registers) -> Algebra:
        """The same algebra on other registers."""
        return Algebra(registers, self.dtype, self.semiring)

    def zero(self) -> State:
        """The sum of no terms."""
        value = self.registers.constant(self.semiring.zero_of(self.dtype), self.dtype)
        return (*value, "zeroinitializer") if self.streaming else value

    def lift(self, value: Value) -> State:
        """The sum of one term."""
        return (*value, self.registers.same(self.element, 1.0)) if self.streaming else value

    def finish(self, state: State) -> Value:
        """The value of a sum."""
        if not self.streaming:
            return state
        log = elementwise.math(self.registers, "log", self.element, state[1])
        return (self.registers.binary("fadd", self.element, state[0], log),)

    def product(self, a: Value, b: Value) -> Value:
        """One semiring product. Where the zero is an integer that stands for an infinity, it stays what it is."""
        assert self.semiring.mul, "a bare reduction has one factor"
        value = self._apply(self.semiring.mul, a, b)
        if not self.semiring.annihilates(self.dtype):
            return value
        r, zero = self.registers, self.registers.constant(self.semiring.zero_of(self.dtype), self.dtype)
        for factor in (a, b):
            value = r.select(r.compare("eq", self.element, factor[0], zero[0]), zero, value, self.dtype)
        return value

    def add(self, a: State, b: State) -> State:
        """The sum of two sums."""
        if not self.streaming:
            return self._apply(self.semiring.add, a, b)
        r, e = self.registers, self.element
        most = elementwise.compute(r, "maximum", self.dtype, [a[:1], b[:1]])[0][0]
        # exp(-|a - b|), and 1 where both are equal: an infinity minus itself would be NaN.
        gap = r.code.op(f"fneg {r.of(e)} {r.intrinsic('fabs', e, r.binary('fsub', e, a[0], b[0]))}")
        equal = r.compare("oeq", e, a[0], b[0])
        decay = elementwise.math(r, "exp", e, r.pick(equal, e, "zeroinitializer", gap))
        first = r.compare("oge", e, a[0], b[0])
        large, small = r.pick(first, e, a[1], b[1]), r.pick(first, e, b[1], a[1])
        return most, r.intrinsic("fma", e, small, decay, large)

    def multiply_add(self, state: State, a: Value, b: Value) -> State:
        """state + a b, fused where the processor does that."""
        r, e = self.registers, self.element
        if not self._fused:
            return self.add(state, self.lift(self.product(a, b)))
        if self.dtype.kind == "f":
            return (r.intrinsic("fma", e, a[0], b[0], state[0]),)
        start = (r.intrinsic("fma", e, a[0], b[0], state[0]), r.intrinsic("fma", e, a[0], b[1], state[1]))
        return complex_math.multiply_add(r, e, start, a[1], b)

    def pick(self, mask: str, a: State, b: State) -> State:
        """a in the lanes of the mask, else b."""
        return tuple(self.registers.pick(mask, self.element, x, y) for x, y in zip(a, b, strict=True))

    def across(self, state: State) -> State:
        """The sum over the lanes, in every lane."""
        r, distance = self.registers, self.registers.lanes // 2
        while distance:
            order = [lane ^ distance for lane in range(r.lanes)]
            state = self.add(state, tuple(r.shuffle(self.element, x, "poison", order) for x in state))
            distance //= 2
        return state

    def _apply(self, name: str, a: Value, b: Value) -> Value:
        if self.dtype.kind == "b" and name in ("logical_or", "logical_and"):
            name = "add" if name == "logical_or" else "mul"  # on bytes that are 0 or 1 the same, without tests
        value, dtype = elementwise.compute(self.registers, name, self.dtype, [a, b])
        return self.registers.convert(value, dtype, self.dtype)
