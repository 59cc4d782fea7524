"""Random legal programs of the IR, as a plain function of a `random.Random` and as a hypothesis strategy.

Every program passes `check_program` at "elaborated", reads in range for all sizes from 1 up, and computes without
undefined operations (no division by integers, no power of negative numbers): interpreters, passes and backends can
be compared on it. Use as

    from stein.tests.strategies import arguments, programs
    @given(programs(), st.integers(0, 2**32))
    def test(program, seed): arrays = arguments(program, seed); ...
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import hypothesis.strategies as st
import numpy as np

from stein.ir.expr import (
    Const,
    Constraint,
    Einsum,
    Equation,
    Expr,
    Input,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    Structure,
)
from stein.ir.functions import CAST, FUNCTIONS
from stein.ir.index import Affine, Index
from stein.ir.interpret import convert
from stein.ir.semiring import (
    ALL,
    BOOLEAN,
    LOGSUMEXP,
    MAX_MIN,
    MAX_PLUS,
    MAX_TIMES,
    MIN_PLUS,
    PLUS_TIMES,
    PRODUCT,
    Semiring,
)
from stein.ir.size import Size
from stein.ir.types import BOOL, C128, DTYPES, F32, F64, I32, I64, DType, accumulation_type, promote

SIZE_NAMES = ("n", "m", "A.0", "2nd")
REAL_SEMIRINGS = (PLUS_TIMES, MAX_PLUS, MIN_PLUS, MAX_MIN, LOGSUMEXP, MAX_TIMES, PRODUCT)
EXACT_UNARY = ("abs", "relu", "floor", "ceil", "round")
SAFE_UNARY = (*EXACT_UNARY, "exp", "sin", "cos", "tanh", "sigmoid", "gelu", "silu", "erf")
LOGIC = ("logical_or", "logical_and", "eq", "ne", "lt", "le", "gt", "ge")


class _Builder:
    """One program in the making."""

    def __init__(
        self, choose: random.Random, dtypes: tuple[DType, ...], exact: bool, user: tuple[Semiring, ...]
    ) -> None:
        self.choose, self.dtypes, self.exact, self.user = choose, dtypes, exact, user
        self.semirings = tuple(s for s in REAL_SEMIRINGS if s != LOGSUMEXP or not exact)
        self.inputs: list[Input] = []
        self.equations: list[Equation] = []
        self.extents: dict[str, Size] = {}
        self.fresh = 0

    def pick(self, items: Iterable[Any]) -> Any:
        return self.choose.choice(tuple(items))

    def chance(self, percent: int) -> bool:
        return self.choose.randrange(100) < percent

    def size(self) -> Size:
        names = [Size.name(n) for n in SIZE_NAMES]
        return Size.of(self.choose.randrange(1, 4)) if self.chance(25) else self.pick(names)

    def index(self) -> str:
        """A new index of the current equation; its names are short words, dotted, digits or symbols."""
        name: str = self.pick(("i", "j", "k.1", "0", "×", "over", "α"))
        while name in self.extents:
            self.fresh += 1
            name = f"i{self.fresh}"
        self.extents[name] = self.size()
        return name

    # reads

    def slot(self, names: tuple[str, ...]) -> Affine:
        """An index expression with least value 0 over at most two of `names`."""
        if not names:
            return Affine.constant(self.choose.randrange(2))
        i, j = self.pick(names), self.pick(names)
        kind = self.choose.randrange(7)
        if kind <= 2 or i == j:
            return Affine.of(i)
        if kind == 3:
            return Affine.of(i) + Affine.of(j)
        if kind == 4:
            return Affine.of(i) - Affine.of(j) + (self.extents[j] - 1)
        if kind == 5:
            return Affine.composite((Index(i, self.extents[i]), Index(j, self.extents[j])))
        return Affine.of(i) * self.choose.randrange(1, 4) + self.choose.randrange(3)

    def read(self, names: tuple[str, ...]) -> Read:
        tensors: list[Input | Equation] = [*self.inputs, *self.equations]
        old = [t for t in tensors if len(t.shape) <= 2]
        if old and self.chance(40):
            tensor = self.pick(old)
            return Read(tensor.name, tuple(self.bare_or_zero(names, n) for n in tensor.shape), tensor.dtype)
        slots: list[Affine] = []
        shape: list[Size] = []
        pad = self.pick((None, None, None, 0, 1.0, "edge", "wrap"))
        for _ in range(self.choose.randrange(min(3, len(names) + 1) + 1)):
            slot = self.slot(names)
            _, high = slot.bounds(self.extents)
            extent = high + 1
            if pad is not None:
                slot, extent = slot - self.choose.randrange(3), self.size()
            elif self.chance(10):
                extent = self.size()
                slot = (slot - self.choose.randrange(3)).mod(extent)
            slots.append(slot)
            shape.append(extent)
        dtype = self.pick(self.dtypes)
        name = f"{self.pick(('A', 'op', 'x.', 'W '))}{len(self.inputs)}"
        origin = tuple(Size.of(-1) for _ in shape) if shape and self.chance(10) else ()
        structure = (Structure("bsr", (("block", Size.of(2)),)), Structure("mask")) if self.chance(5) else ()
        self.inputs.append(
            Input(
                name,
                tuple(shape),
                dtype,
                structure,
                self.chance(20),
                self.chance(5),
                self.pick((None, "edge", -1.5)),
                origin,
            )
        )
        return Read(name, tuple(slots), dtype, pad)

    def bare_or_zero(self, names: tuple[str, ...], extent: Size) -> Affine:
        fits = [n for n in names if self.extents[n] == extent]
        return Affine.of(self.pick(fits)) if fits else Affine.constant(0)

    # expressions

    def expr(self, names: tuple[str, ...], depth: int) -> Expr:
        kind = self.choose.randrange(100)
        if depth == 0 or kind < 25:
            return self.read(names)
        if kind < 32:
            return self.const()
        if kind < 36:
            return SizeValue(self.size())
        if kind < 42 and names:
            return Position(self.slot(names))
        if kind < 70:
            return self.map(names, depth)
        if kind < 75 and not self.exact and names:
            body = self.real(names, depth - 1)
            return Softmax((self.pick(names),), body, FUNCTIONS["exp"].result((body.dtype,)))
        return self.einsum(names, depth)

    def const(self) -> Const:
        dtype = self.pick(self.dtypes)
        value = {"b": True, "f": self.pick((0.5, -2.0, 1e-30, 3)), "c": 1 - 2j}.get(
            dtype.kind, self.choose.randrange(5)
        )
        return Const(value, dtype)

    def real(self, names: tuple[str, ...], depth: int) -> Expr:
        """An expression that is neither bool nor complex."""
        e = self.expr(names, depth)
        if e.dtype.kind == "c":
            return Map("real", (e,), FUNCTIONS["real"].result((e.dtype,)))
        return Map(CAST, (e,), I32) if e.dtype.kind == "b" else e

    def map(self, names: tuple[str, ...], depth: int) -> Expr:
        kind = self.choose.randrange(5)
        if kind == 0:
            return self.mapped(self.pick(EXACT_UNARY if self.exact else SAFE_UNARY), self.real(names, depth - 1))
        if kind == 1:
            return self.mapped(self.pick(LOGIC), self.real(names, depth - 1), self.real(names, depth - 1))
        if kind == 2:
            condition = self.mapped("gt", self.real(names, depth - 1), self.real(names, 0))
            return self.mapped("where", condition, self.expr(names, depth - 1), self.expr(names, 0))
        if kind == 3:
            return Map(CAST, (self.expr(names, depth - 1),), self.pick((F64, C128)))
        name = self.pick(("add", "sub", "mul", "maximum", "minimum"))
        return self.mapped(name, self.real(names, depth - 1), self.real(names, depth - 1))

    def mapped(self, name: str, *args: Expr) -> Map:
        return Map(name, args, FUNCTIONS[name].result(tuple(a.dtype for a in args)))

    def einsum(self, names: tuple[str, ...], depth: int) -> Einsum:
        bound = tuple(self.index() for _ in range(self.choose.randrange(3)))
        inner = (*names, *bound)
        semiring = self.pick((PLUS_TIMES, PLUS_TIMES, *self.semirings, BOOLEAN, ALL, *self.user))
        if semiring in (BOOLEAN, ALL):
            factors = tuple(self.real(inner, depth - 1) for _ in range(self.choose.randrange(1, 3)))
            return Einsum(bound, factors, BOOL, BOOL, semiring)
        least = 1 if isinstance(semiring.one, str) else 0  # an infinite 1 makes NaN of later products
        count = 1 if not semiring.mul else self.choose.randrange(least, 4)
        make = self.expr if semiring == PLUS_TIMES else self.real
        factors = tuple(make(inner, depth - 1) for _ in range(count))
        if semiring == MAX_TIMES:  # a semiring of the numbers from 0 up
            factors = tuple(self.mapped("abs", f) for f in factors)
        dtype = promote(*(f.dtype for f in factors)) if factors else F32
        dtype = FUNCTIONS[semiring.add].result((dtype, dtype))  # logaddexp makes floats of integers
        return Einsum(bound, factors, dtype, accumulation_type(dtype), semiring)

    # equations

    def equation(self, name: str, depth: int) -> Equation:
        self.extents = {}
        names = tuple(self.index() for _ in range(self.choose.randrange(4)))
        slots, shape = [], []
        for i in names:
            kind = self.choose.randrange(12)
            slot = (
                Affine.of(i)
                if kind < 8
                else Affine.of(i) * 2 + kind % 2
                if kind < 10
                else self.slot(names) + Affine.of(i)
            )
            if self.chance(5):
                slots.append(Affine.of(i))  # on a diagonal, too
                shape.append(self.extents[i])
            slots.append(slot)
            shape.append(slot.bounds(self.extents)[1] + 1)
        names = tuple(dict.fromkeys(n for s in slots for n in s.indices))  # a sum of slots may have cancelled one
        expr = self.expr(names, depth)
        indices = tuple(Index(n, e) for n, e in self.extents.items())
        real = expr.dtype.kind not in "bc"
        semiring = self.pick((PLUS_TIMES,) * 6 + self.semirings[1:-1]) if real else PLUS_TIMES
        equation = Equation(name, tuple(slots), tuple(shape), indices, expr, expr.dtype, semiring)
        olds = [e for e in self.equations if e.shape == equation.shape and promote(e.dtype, expr.dtype) == expr.dtype]
        if not olds or self.chance(50):
            return equation
        return Equation(name, equation.slots, equation.shape, indices, expr, expr.dtype, semiring, self.pick(olds).name)

    def program(self, equations: int, depth: int) -> Program:
        for k in range(self.choose.randrange(1, equations + 1)):
            name = self.pick(("y", "t.softmax.max", "ahead:1", "return"))
            taken = {e.name for e in self.equations}
            self.equations.append(self.equation(f"{name}.{k}" if name in taken else name, depth))
        outputs = {self.equations[-1].name, *(e.name for e in self.equations if self.chance(40))}
        constraints = (
            Constraint("==", Size.name("n"), Size.name("n"), "same", '{left} is\n"{right}"', "none", (Size.of(3),)),
            Constraint("divides", Size.of(1), Size.name("2nd") * 2 - 1, "one", "1"),
        )
        kept = constraints[: self.choose.randrange(3)]
        ordered = tuple(e.name for e in self.equations if e.name in outputs)
        return Program(tuple(self.inputs), tuple(self.equations), ordered, kept)


def random_program(
    choose: random.Random,
    dtypes: tuple[DType, ...] = (F64, F32, I64, BOOL),
    equations: int = 3,
    depth: int = 3,
    exact: bool = False,
    user: tuple[Semiring, ...] = (),
) -> Program:
    """A legal program, of input types among `dtypes`; its sizes are among `SIZE_NAMES`.

    With `exact`, all functions are exact on small numbers (no softmax, nothing transcendental). `user` adds semirings.
    """
    return _Builder(choose, dtypes, exact, user).program(equations, depth)


def programs(**options: Any) -> st.SearchStrategy[Program]:
    """`random_program` as a strategy."""
    return st.builds(lambda r: random_program(r, **options), st.randoms(use_true_random=False))


def sizes_of(seed: int, largest: int = 3) -> dict[str, int]:
    """A value from 1 to `largest` for every size name."""
    choose = random.Random(seed)
    return {name: choose.randrange(1, largest + 1) for name in SIZE_NAMES}


def arguments(program: Program, seed: int, largest: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """An array for every input at `sizes_of(seed, largest)`: whole and half numbers from -2 to 2."""
    sizes, values = sizes_of(seed, largest), np.random.default_rng(seed)

    def array(tensor: Input) -> np.ndarray[Any, Any]:
        shape = tuple(s.evaluate(sizes) for s in tensor.shape)
        halves = np.asarray(values.integers(-4, 5, shape) / 2)
        if tensor.dtype.kind == "c":
            halves = halves + 0.5j * values.integers(-4, 5, shape)
        return np.asarray(convert(np.abs(halves) if tensor.dtype.kind == "u" else halves, tensor.dtype))

    return {t.name: array(t) for t in program.inputs}


ALL_TYPES = tuple(DTYPES.values())
