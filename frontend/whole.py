"""Statements that speak of whole tensors (`y = A' @ x + 2*b`, `kron(A, B) @ x`) become indexed ones.

Every axis of a whole value is known by its parts: one size, or several where a Kronecker product composed it. An
operation fixes which index names its axes carry; a tensor below is then accessed at those names, as one composite
slot if there are several. Elaboration of the indexed statement does the rest, so that the planner sees plain einsums
and never a stored Kronecker product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from ..ir.errors import EinsumSyntaxError, ShapeError, Span
from ..ir.linalg import LANGUAGE
from ..ir.size import ZERO, Size
from ..ir.types import DType, parse_dtype
from . import syntax as s
from .algebra import Algebra, Operand
from .build import EXPRESSIONS, Builder
from .ranges import Bounds, Frame
from .sizes import Issue, product

Names = tuple[str, ...]  # the indices of one axis, outermost first
Build = Callable[[tuple[Names, ...]], s.Expr]
_LETTERS = "ijklpqrsuvwabcdefgh"


@dataclass(frozen=True)
class Whole:
    """A whole value: the parts of each axis, how to write its element at given indices, and the tensor that it is."""

    axes: tuple[tuple[Size, ...], ...]
    build: Build
    tensor: str = ""

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def shape(self) -> tuple[Size, ...]:
        """The extents."""
        return tuple(product(parts) for parts in self.axes)


@dataclass
class Indexer:
    """Turns one whole-tensor statement into an indexed one; `keep` evaluates a value into a tensor of its own, and
    `algebra` makes the equations of solve and its kin.
    """

    frame: Frame
    builder: Builder
    keep: Callable[[Whole, Span], Whole]
    algebra: Algebra
    count: int = field(default=0)

    def __post_init__(self) -> None:
        self.scope = self.frame.scope

    def statement(self, value: Whole, target: s.Name) -> s.Assign:
        """The indexed statement that gives `target` the value."""
        assign, tensor, axes = self.frame.assign, self.scope.tensors.get(target.text), value.axes
        if assign.adds and tensor is not None and tensor.shape and not axes:  # a number is added to every element
            axes = tuple((size,) for size in tensor.shape)
        names = tuple(self.fresh(parts) for parts in axes)
        slots = tuple(self.slot(n, assign.left) for n in names)
        body = value.build(names if value.axes else ())
        return s.Assign(target, slots, assign.adds, body, (), None, assign.left, assign.span)

    def slot(self, names: Names, span: Span) -> s.Slot:
        """A slot that counts along the whole axis."""
        return s.Composite(tuple(s.Name(n, span) for n in names), True, span)

    def fresh(self, parts: tuple[Size, ...]) -> Names:
        """New indices over the parts of an axis."""
        out = []
        taken = self.frame.indices | set(self.scope.sizes.known) | set(self.scope.tensors) | {"pi", "inf"}
        for size in parts:
            name = _LETTERS[self.count] if self.count < len(_LETTERS) else f"i{self.count}"
            while name in taken:
                self.count += 1
                name = _LETTERS[self.count] if self.count < len(_LETTERS) else f"i{self.count}"
            self.count += 1
            taken.add(name)
            self.frame.indices.add(name)
            self.frame.ranges[name] = Bounds(ZERO, self.scope.sizes.resolve(size), self.frame.assign.span, "its axis")
            out.append(name)
        return tuple(out)

    # ---------------------------------------------------------------- values

    def value(self, node: s.Expr) -> Whole:
        """The whole value of an expression."""
        match node:
            case s.Number():
                return Whole((), lambda _: node)
            case s.Access():
                return self._tensor(node)
            case s.Transpose(operand=operand, mark=mark):
                inner = self.value(operand)
                if inner.rank != 2:
                    self._fail(
                        f"' transposes matrices; this has {inner.rank} ax{'is' if inner.rank == 1 else 'es'}",
                        "transpose", mark, "a vector has no transpose: x @ A is x' A",
                    )  # fmt: skip
                return Whole((inner.axes[1], inner.axes[0]), lambda n: inner.build((n[1], n[0])))
            case s.Sign(operator=operator, operand=operand):
                inner = self.value(operand)
                return Whole(inner.axes, lambda n: s.Sign(operator, inner.build(n), node.span))
            case s.Binary(operator=operator, left=left, right=right):
                first, second = self.value(left), self.value(right)
                if operator.text == "@":
                    return self._matmul(operator, first, second, node.span)
                return self._elementwise(
                    [first, second], operator.span, lambda e: s.Binary(operator, e[0], e[1], node.span)
                )
            case s.Call():
                return self._call(node)
        self._fail("a reduction names indices, so tensors need theirs", "whole-only", node.span, "write indices")

    def _tensor(self, node: s.Access) -> Whole:
        name = node.name.text
        if name not in self.scope.tensors and name not in self.scope.assigned:
            if name in self.scope.sizes.known or name in ("pi", "inf"):
                return Whole((), lambda _: node)
            self.scope.unknown(node.name)
        tensor = self.scope.lookup(node.name)
        assert tensor.shape is not None
        own = "" if tensor.special else name
        if not tensor.shape:
            return Whole((), lambda _: node, own)
        return self._stored(name, node.span, own)

    def _stored(self, name: str, span: Span, own: str) -> Whole:
        """The value of a tensor."""
        shape = self.scope.tensors[name].shape
        assert shape is not None
        axes = tuple((self.scope.sizes.resolve(n),) for n in shape)
        place = s.Name(name, span)
        if not axes:
            return Whole((), lambda _: s.Access(place, (), span), own)
        return Whole(axes, lambda names: s.Access(place, tuple(self.slot(n, span) for n in names), span), own)

    def _matmul(self, operator: s.Name, a: Whole, b: Whole, span: Span) -> Whole:
        for side in (a, b):
            if side.rank not in (1, 2):
                self._fail(
                    f"@ takes vectors and matrices, this has {side.rank} axes", "matmul", operator.span, "write indices"
                )
        help = "a transposed matrix is A'" if a.rank + b.rank > 2 else ""
        issue = Issue("size-mismatch", "inner sizes differ: {left} and {right}", (operator.span,), help)
        a, b, joint = self._joined(a, a.rank - 1, b, 0, issue, span)

        def build(names: tuple[Names, ...]) -> s.Expr:
            inner = self.fresh(joint)
            first = a.build((*names[: a.rank - 1], inner))
            second = b.build((inner, *names[a.rank - 1 :]))
            indices = tuple(s.Name(n, operator.span) for n in inner)
            star = s.Name("*", operator.span)
            return s.Reduce(s.Name("sum", operator.span), indices, s.Binary(star, first, second, span), span)

        return Whole(a.axes[:-1] + b.axes[1:], build)

    def _joined(
        self, a: Whole, ka: int, b: Whole, kb: int, issue: Issue, span: Span
    ) -> tuple[Whole, Whole, tuple[Size, ...]]:
        """Both values and the common parts of axis ka of a and kb of b; b is stored if they are split differently."""
        resolve = self.scope.sizes.resolve
        self.scope.sizes.equate(a.shape[ka], b.shape[kb], issue)
        one, two = (tuple(resolve(n) for n in w.axes[k]) for w, k in ((a, ka), (b, kb)))
        if len(one) > 1 and len(two) > 1 and one != two:
            b = self.keep(b, span)
            two = b.axes[kb]
        return a, b, one if len(one) >= len(two) else two

    def _elementwise(self, values: list[Whole], place: Span, make: Callable[[list[s.Expr]], s.Expr]) -> Whole:
        """An operation between equal shapes and scalars."""
        shaped = [k for k, v in enumerate(values) if v.rank]
        if not shaped:
            return Whole((), lambda _: make([v.build(()) for v in values]))
        lead = values[shaped[0]]
        axes = list(lead.axes)
        for k in shaped[1:]:
            shapes = [f"({', '.join(map(str, w.shape))}{',' * (w.rank == 1)})" for w in (lead, values[k])]
            sentence = f"shapes {shapes[0]} and {shapes[1]} differ (there is no broadcasting)"
            if values[k].rank != lead.rank:
                self._fail(sentence, "shape-mismatch", place, "write indices: A[i,j] + b[j]")
            for axis in range(lead.rank):
                issue = Issue("shape-mismatch", sentence, (place,), "write indices, or make the shapes equal")
                joined = Whole(tuple(axes), lead.build)
                _, values[k], axes[axis] = self._joined(joined, axis, values[k], axis, issue, place)
        return Whole(tuple(axes), lambda names: make([v.build(names if v.rank else ()) for v in values]))

    # ---------------------------------------------------------------- functions

    def _call(self, node: s.Call) -> Whole:
        name = node.function.text
        if name == "approx":
            self.builder.approximation(node)
            assert node.body is not None
            inner = self.value(node.body)
            return Whole(inner.axes, lambda n: s.Call(node.function, node.args, inner.build(n), node.span))
        if node.body is not None:
            self._fail(f"{name}(...) is called a second time", "call", node.body.span, "only approx(f, ...)(e) is")
        wrong = next((a for a in node.args if not isinstance(a, EXPRESSIONS)), None)
        if wrong is not None:
            self._fail(f"{name} takes plain values", "call", wrong.span, f"{name}(A)")
        args = [a for a in node.args if isinstance(a, EXPRESSIONS)]
        if name == "kron":
            return self._kron(node, args)
        if name in LANGUAGE:
            return self._algebra(node, args)
        if parse_dtype(name) is None:
            self.builder.function(node.function)
        values = [self.value(a) for a in args]
        return self._elementwise(values, node.function.span, lambda e: s.Call(node.function, tuple(e), None, node.span))

    def _kron(self, node: s.Call, args: list[s.Expr]) -> Whole:
        if len(args) < 2:
            self._fail("kron needs two or more operands", "kron", node.function.span, "kron(A, B)")
        values = [self.value(a) for a in args]
        for k, (arg, value) in enumerate(zip(args, values, strict=True)):
            if value.rank != 2:
                axes = f"{value.rank} ax{'is' if value.rank == 1 else 'es'}"
                self._fail(
                    f"operand {k + 1} has {axes}; kron takes matrices",
                    "kron",
                    arg.span,
                    "write indices for other orders",
                )
        splits = [(len(v.axes[0]), len(v.axes[1])) for v in values]

        def build(names: tuple[Names, ...]) -> s.Expr:
            rows, cols = names
            result: s.Expr | None = None
            for value, (r, c) in zip(values, splits, strict=True):
                factor = value.build((rows[:r], cols[:c]))
                rows, cols = rows[r:], cols[c:]
                star = s.Name("*", node.function.span)
                result = factor if result is None else s.Binary(star, result, factor, node.span)
            assert result is not None
            return result

        return Whole(tuple(tuple(p for v in values for p in v.axes[side]) for side in (0, 1)), build)

    def _algebra(self, node: s.Call, args: list[s.Expr]) -> Whole:
        """A tensor of its own for the value of solve, inv, logdet or powm."""
        operands = []
        for arg in args:
            value = self.value(arg)

            def store(dtype: DType | None, value: Whole = value, arg: s.Expr = arg) -> str:
                return self.keep(value if dtype is None else _converted(value, dtype, arg.span), arg.span).tensor

            operands.append(Operand(arg, value.shape, value.tensor, store))
        name = self.algebra.call(node, operands)
        return self._stored(name, node.span, name)

    def _fail(self, sentence: str, code: str, span: Span, help: str) -> NoReturn:
        kind = EinsumSyntaxError if code in ("kron", "call", "whole-only", "arity") else ShapeError
        self.scope.fail(kind, sentence, code, span, help=help)


def _converted(value: Whole, dtype: DType, span: Span) -> Whole:
    """The value in another type."""
    return Whole(value.axes, lambda names: s.Call(s.Name(dtype.name, span), (value.build(names),), None, span))
