"""Factors and terms -> typed IR expressions: the middle of elaboration.

A `Builder` works on one indexed statement whose ranges are known. Index names of the text become IR names that differ
wherever they are bound anew; origins are folded into offsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, pi
from typing import NoReturn

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError, Span
from ..ir.expr import Approx, Const, Einsum, Map, Position, Read, SizeValue, Softmax
from ..ir.functions import FUNCTIONS
from ..ir.index import Affine, Index
from ..ir.semiring import BOOLEAN, PLUS_TIMES, REDUCTIONS, Semiring
from ..ir.size import ZERO, Size
from ..ir.types import BOOL, F64, I64, DType, accumulation_type, parse_dtype
from . import syntax as s
from .declare import near
from .promotion import COMPARISONS, Typer, Value, contraction_types, replace_span
from .ranges import Frame
from .scope import Tensor
from .slips import summed_indices
from .terms import Distributor, Factor, Term

CALLABLE: dict[str, str] = {
    n: n
    for n in (
        *("exp", "log", "sqrt", "abs", "sign", "sin", "cos", "tanh", "sigmoid", "relu", "gelu", "silu", "erf", "floor"),
        *("ceil", "round", "conj", "real", "imag", "clip", "where"),
    )
} | {"max": "maximum", "min": "minimum"}
WHOLE_ONLY = ("kron", "solve", "inv", "logdet", "powm")
_REAL_ONLY = frozenset(
    ("lt", "le", "gt", "ge", "maximum", "minimum", "clip", "relu", "gelu", "silu", "erf", "sigmoid", "floor", "ceil")
)
MAX_BUILT = 2000  # terms of one statement, those inside of functions included
_NUMBERS = {"pi": pi, "inf": inf}


@dataclass(frozen=True)
class Env:
    """What index names of the text mean at one place: their IR names. `keep` are all of them."""

    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def keep(self) -> frozenset[str]:
        """Every index that means something here."""
        return frozenset(self.names)


@dataclass
class Builder:
    """Builds the expression of one statement."""

    frame: Frame
    semiring: Semiring = PLUS_TIMES
    accumulate: DType | None = None
    indices: list[Index] = field(default_factory=list)
    built: int = 0

    def __post_init__(self) -> None:
        self.scope = self.frame.scope
        self.distributor = Distributor(self.frame, self.semiring)
        self.typer = Typer(self.scope.source)

    # ---------------------------------------------------------------- indices and slots

    def bind(self, names: Sequence[str], env: Env) -> Env:
        """The environment with `names` bound anew, each under an IR name of its own."""
        out = dict(env.names)
        for name in names:
            stem = f"d{name[1:]}" if name.startswith(".") else name
            taken = {i.name for i in self.indices} | (self.frame.indices if name.startswith(".") else set())
            new, count = stem, 0
            while new in taken or (new != name and new in self.frame.indices):
                count += 1
                new = f"{stem}_{count}"
            self.indices.append(Index(new, self.frame.extent(name)))
            out[name] = new
        return Env(out)

    def affine(self, slot: s.Slot, env: Env) -> Affine:
        """A slot in IR names; index values run from the low end of their range, so that is an offset."""
        if isinstance(slot, s.Composite):
            return Affine.composite(tuple(Index(env.names[p.text], self.frame.extent(p.text)) for p in slot.parts))
        if isinstance(slot, s.Modulo):
            inner = self._renamed(self.frame.affine(slot.value), env)
            return inner.mod(self.frame.resolve(self.frame.size(slot.modulus)))
        assert not isinstance(slot, s.Dots)
        return self._renamed(self.frame.affine(slot), env)

    def _renamed(self, affine: Affine, env: Env) -> Affine:
        values = {n: Affine.of(env.names[n]) + self.low(n) for n in affine.indices}
        return affine.substitute(values)

    def low(self, name: str) -> Size:
        """Where an index begins."""
        return self.frame.resolve(self.frame.ranges[name].low)

    def on_axis(self, tensor: Tensor, k: int, slot: s.Slot, env: Env) -> Affine:
        """A slot counted from the beginning of axis k of `tensor`."""
        affine = self.affine(slot, env)
        begin = self.frame.resolve(tensor.axis(k)[0])
        if begin == ZERO or (isinstance(slot, s.Composite) and slot.relative):
            return affine
        return affine - begin

    # ---------------------------------------------------------------- sums of products

    def total(self, node: s.Expr, env: Env) -> Value:
        """The value of an expression: its terms, joined by the addition of the semiring."""
        terms = self.distributor.terms(node, env.keep)
        result: Value | None = None
        for term in terms:
            value = self.term(term, env, node.span)
            if result is None:
                result = self.typer.apply("neg", [value], node.span) if term.negative else value
            elif self.semiring == PLUS_TIMES:
                result = self.typer.apply("sub" if term.negative else "add", [result, value], node.span)
            else:
                result = self.typer.apply(self.semiring.add, [result, value], node.span)
        assert result is not None
        return result

    def term(self, term: Term, env: Env, span: Span) -> Value:
        """One term as an `Einsum` over its own indices (or less, where it needs none)."""
        self.built += 1
        if self.built > MAX_BUILT:  # sums inside functions inside sums double at each level
            self.scope.fail(
                EinsumSyntaxError, f"this statement has more than {MAX_BUILT} terms when it is multiplied out",
                "too-long", span, help="give inner sums a name in statements of their own",
            )  # fmt: skip
        bound = summed_indices(term, env.keep, self.frame, self.distributor)
        inner = self.bind(bound, env)
        factors = [(f, self.value(f.node, inner)) for f in term.factors]
        names = tuple(inner.names[n] for n in bound)
        if self.semiring != PLUS_TIMES:
            return self._semiring_term(names, [v for _, v in factors], span)
        return self._field_term(names, factors, set(bound), span)

    def _semiring_term(self, bound: tuple[str, ...], values: list[Value], span: Span) -> Value:
        dtype, _ = self.typer.joint(values)
        if dtype == BOOL and self.semiring != BOOLEAN:
            dtype = F64  # the semiring's 0 and 1 are no bools
        result, accumulate, semiring = contraction_types([dtype], None, self.semiring, self.accumulate)
        if not bound and len(values) == 1 and values[0].dtype == result and not values[0].weak:
            return values[0]
        factors = tuple(self.typer.convert(v, result) if isinstance(v.expr, Const) else v.expr for v in values)
        return Value(Einsum(bound, factors, result, accumulate, semiring, span))

    def _field_term(
        self, bound: tuple[str, ...], factors: list[tuple[Factor, Value]], names: set[str], span: Span
    ) -> Value:
        """A term of the ordinary semiring: literals gathered, denominators inside the sum only where they must be."""
        literal = self.typer.literal(1)
        nodes: list[Value] = []
        outside: list[Value] = []
        inside: list[Value] = []
        for factor, value in factors:
            if factor.divides:
                depends = any(m.name in names for m in self.distributor.mentions(factor.node))
                (inside if depends else outside).append(value)
            elif isinstance(value.expr, Const) and value.weak:
                literal = self.typer.apply("mul", [literal, value], value.expr.span)
            else:
                nodes.append(value)
        for value in inside:
            if all(v.dtype.kind in "biu" for v in nodes):  # whole numbers: divide first, 1/d would round
                first = nodes.pop(0) if nodes else literal
                literal = literal if first is not literal else self.typer.literal(1)
                nodes.insert(0, self.typer.apply("div", [first, value], span))
            else:
                nodes.append(self.typer.apply("div", [self.typer.literal(1), value], value.expr.span))
        core = self._product(bound, literal, nodes, span)
        for value in outside:
            core = self.typer.apply("div", [core, value], span)
        return core

    def _product(self, bound: tuple[str, ...], literal: Value, nodes: list[Value], span: Span) -> Value:
        number = literal.expr.value if isinstance(literal.expr, Const) else 0
        unit = number == 1 and not isinstance(number, complex)
        values = nodes if unit and nodes and literal.weak != "f" else [literal, *nodes]
        if unit and nodes and literal.weak == "f":  # 1.0 * integers: a conversion only
            values = nodes if self.typer.joint(nodes)[0].kind in "fc" else values
        dtype, weak = self.typer.joint(values)
        if not bound and (len(values) == 1 or weak):
            result = values[0]
            for value in values[1:]:
                result = self.typer.apply("mul", [result, value], span)
            return result
        result_type, accumulate, semiring = contraction_types([dtype], None, self.semiring, self.accumulate)
        factors = tuple(self.typer.convert(v, dtype) if isinstance(v.expr, Const) else v.expr for v in values)
        return Value(Einsum(bound, factors, result_type, accumulate, semiring, span))

    # ---------------------------------------------------------------- values

    def value(self, node: s.Expr, env: Env) -> Value:
        """The value of one factor, at one place of the index space of `env`."""
        match node:
            case s.Number(value=number):
                return self.typer.literal(number, node.span)
            case s.Access(slots=None):
                return self._name(node, env)
            case s.Access():
                return self._read(node, env)
            case s.Call():
                return self._call(node, env)
            case s.Reduce(operation=operation) if operation.text != "sum":
                return self._reduce(node, env)
            case s.Binary(operator=operator, left=left, right=right) if operator.text in COMPARISONS:
                sides = [self.value(left, env), self.value(right, env)]
                return self._apply(COMPARISONS[operator.text], sides, node.span)
            case s.Binary(operator=operator, left=left, right=right) if operator.text == "^":
                self.distributor.require_ring(operator.span, "power")
                return self._apply("pow", [self.value(left, env), self.value(right, env)], node.span)
            case s.Sign(operator=operator, operand=s.Number(value=number)):
                value = self.typer.literal(number, node.span)
                return value if operator.text == "+" else self.typer.apply("neg", [value], node.span)
            case s.Transpose():
                self.scope.fail(
                    EinsumSyntaxError, "' transposes whole tensors; here tensors have indices", "whole-only", node.mark,
                    help="exchange the indices",
                )  # fmt: skip
        return self.total(node, env)

    def _apply(self, function: str, values: list[Value], span: Span) -> Value:
        if function in _REAL_ONLY and any(v.dtype.kind == "c" for v in values):
            self._fail_complex(function, span)
        return self.typer.apply(function, values, span)

    def _name(self, node: s.Access, env: Env) -> Value:
        """A name without slots: a scalar tensor, an index value, a size, pi or inf."""
        name, scope = node.name.text, self.scope
        if name in scope.tensors or name in scope.assigned:
            tensor = scope.lookup(node.name)
            if tensor.shape:
                scope.fail(
                    ShapeError, f"{name} has {len(tensor.shape)} axes and needs indices here", "needs-indices",
                    node.span, tensor.place, help=f"{name}[{', '.join('ijklmnpq'[: len(tensor.shape)])}]",
                )  # fmt: skip
            return Value(Read(tensor.current, (), scope.dtype(tensor), span=node.span))
        known = name in scope.sizes.known
        if name in self.frame.indices:
            if known:
                scope.fail(
                    EinsumSyntaxError, f"'{name}' is both a size and an index here", "size-and-index", node.span,
                    help="rename one of them",
                )  # fmt: skip
            self.frame.require_range(name, node.span)
            return Value(Position(Affine.of(env.names[name]) + self.low(name), span=node.span), "exact")
        if known:
            size = self.frame.resolve(Size.name(name))
            if size.constant is not None:
                return Value(Const(size.constant, I64, node.span), "exact")
            return Value(SizeValue(size, span=node.span), "exact")
        if name in _NUMBERS:
            return self.typer.literal(_NUMBERS[name], node.span)
        return Value(Read(name, (), scope.dtype(scope.new_scalar(node.name)), span=node.span))

    def _read(self, node: s.Access, env: Env) -> Value:
        tensor = self.scope.lookup(node.name, len(node.slots or ()))
        slots = tuple(self.on_axis(tensor, k, slot, env) for k, slot in enumerate(self.frame.expand(node.slots or ())))
        dtype = self.scope.dtype(tensor)
        if tensor.special == "identity":
            at = tuple(Position(a, span=node.span) for a in slots)
            return Value(Map("eq", at, BOOL, span=node.span), declared=dtype)
        if tensor.special is not None:
            one = tensor.special == "ones"
            number = {"b": one, "c": complex(one), "f": float(one)}.get(dtype.kind, int(one))
            return Value(Const(number, dtype, node.span))
        pad = self.typer.padding(tensor.pad, dtype, node.span)
        return Value(Read(tensor.current, slots, dtype, pad, node.span))

    def _reduce(self, node: s.Reduce, env: Env) -> Value:
        """A reduction other than sum."""
        op, names = node.operation.text, tuple(dict.fromkeys(n.text for n in node.indices))
        if self.semiring != PLUS_TIMES:
            self.scope.fail(
                EinsumSyntaxError, f"{op} under 'over {self.semiring.name}': only sum[...] stands there",
                "no-reduction", node.span, help="name the inner result in a statement of its own",
            )  # fmt: skip
        for n in node.indices:
            self.frame.require_range(n.text, n.span)
        if op == "softmax":
            body = self.value(node.body, env)
            self._real(op, body, node.span)
            dtype = body.dtype if body.dtype.kind == "f" else F64
            along = tuple(env.names[n] for n in names)
            return Value(Softmax(along, self.typer.convert(body, dtype), dtype, node.span))
        self.distributor.check_fresh(node.indices, env.keep, op)
        inner = self.bind(names, env)
        value = self.value(node.body, inner)
        if op in ("max", "min", "logsumexp"):
            self._real(op, value, node.span)
        semiring, dtype = REDUCTIONS[op], value.dtype
        if op in ("any", "all"):
            dtype = BOOL
        elif op == "logsumexp" and dtype.kind in "biu":
            dtype = F64
        elif op == "prod" and dtype == BOOL:
            dtype = I64
        bound = tuple(inner.names[n] for n in names)
        factor = value.expr if value.declared is None else self.typer.convert(value, value.declared)
        if op in ("max", "min", "logsumexp", "prod") and factor.dtype != dtype:
            factor = self.typer.convert(Value(factor), dtype)  # a bool would count as the semiring's 0 or 1
        wide = accumulation_type(dtype)
        if self.accumulate is not None and op in ("prod", "logsumexp") and self.accumulate.kind == dtype.kind:
            wide = self.accumulate
        return Value(Einsum(bound, (factor,), dtype, wide, semiring, node.span))

    def _real(self, op: str, value: Value, span: Span) -> None:
        if value.dtype.kind == "c":
            self._fail_complex(op, span)

    def _fail_complex(self, op: str, span: Span) -> NoReturn:
        self.scope.fail(
            DTypeError, f"{op} of complex numbers has no meaning", "complex", span, help="real(...) or abs(...)"
        )

    # ---------------------------------------------------------------- calls

    def _call(self, node: s.Call, env: Env) -> Value:
        name = node.function.text
        if name == "approx":
            return self._approx(node, env)
        if node.body is not None:
            self.scope.fail(
                EinsumSyntaxError, f"{name}(...) is called a second time", "call", node.body.span,
                help="only approx(f, ...)(e) takes two parentheses",
            )  # fmt: skip
        assert name not in WHOLE_ONLY, "elaboration refuses these in indexed statements"
        args = [a for a in node.args if isinstance(a, EXPRESSIONS)]
        if len(args) != len(node.args):
            wrong = next(a for a in node.args if not isinstance(a, EXPRESSIONS))
            self.scope.fail(EinsumSyntaxError, f"{name} takes plain values", "call", wrong.span, help=f"{name}(x)")
        dtype = parse_dtype(name)
        count = 1 if dtype is not None else FUNCTIONS[self.function(node.function)].arity
        if len(args) != count:
            self.scope.fail(
                EinsumSyntaxError, f"{name} takes {count} argument{'s' * (count > 1)}, {len(args)} given", "arity",
                node.function.span, help=f"{name}({', '.join('xyz'[:count])})",
            )  # fmt: skip
        values = [self.value(a, env) for a in args]
        if dtype is not None:
            value = values[0]
            if value.declared is not None:
                value = Value(self.typer.convert(value, value.declared))
            return self.typer.cast(value, dtype, node.span)
        if name == "where" and values[0].dtype != BOOL:
            self.scope.fail(
                DTypeError, f"the condition of where is {values[0].dtype}", "condition", args[0].span,
                help="write a comparison: where(x > 0, a, b)",
            )  # fmt: skip
        return self._apply(CALLABLE[name], values, node.span)

    def function(self, name: s.Name) -> str:
        """The IR name of a function; raises for a name that is none."""
        if name.text in CALLABLE:
            return CALLABLE[name.text]
        hint = near(name.text, [*CALLABLE, *WHOLE_ONLY, "approx"]) or "functions: " + " ".join(CALLABLE)
        if name.text in REDUCTIONS or name.text == "softmax":
            hint = f"name the index: {name.text}[k](...)"
        self.scope.fail(
            EinsumSyntaxError, f"there is no function '{name.text}'", "unknown-function", name.span, help=hint
        )

    def _approx(self, node: s.Call, env: Env) -> Value:
        function, approx, body = self.approximation(node)
        value = self._apply(function, [self.value(body, env)], node.span)
        if isinstance(value.expr, Map):
            return replace(value, expr=replace(value.expr, approx=approx))
        return replace_span(value, node.span)

    def approximation(self, node: s.Call) -> tuple[str, Approx, s.Expr]:
        """The parts of `approx(f, degree=, range=lo..hi)(e)`."""
        form = "approx(f, degree=3, range=-8..8)(e)"
        options = {a.name.text: a.value for a in node.args[1:] if isinstance(a, s.Keyword)}
        first = node.args[0] if node.args else None
        degree, span = options.get("degree"), options.get("range")
        shaped = isinstance(first, s.Access) and first.slots is None and set(options) == {"degree", "range"}
        whole = isinstance(degree, s.Number) and type(degree.value) is int
        if not shaped or not whole or not isinstance(span, s.Interval) or node.body is None or len(node.args) != 3:
            sentence = "approx takes a function, a degree and a range"
            self.scope.fail(EinsumSyntaxError, sentence, "approx", node.span, help=form)
        assert isinstance(first, s.Access) and isinstance(degree, s.Number) and isinstance(degree.value, int)
        name = self.function(first.name)
        if FUNCTIONS[name].arity != 1:
            sentence = f"{first.name.text} has no single argument"
            self.scope.fail(EinsumSyntaxError, sentence, "approx", first.span, help=form)
        ends = []
        for end in (span.low, span.high):
            found = self.value(end, Env()).expr
            if not isinstance(found, Const) or isinstance(found.value, complex):
                self.scope.fail(EinsumSyntaxError, "a range of approx is two numbers", "approx", end.span, help=form)
            ends.append(float(found.value))
        if not 1 <= degree.value <= 255 or not ends[0] < ends[1]:
            self.scope.fail(
                EinsumSyntaxError, "approx needs a degree from 1 to 255 and a range that is not empty", "approx",
                node.span, help=form,
            )  # fmt: skip
        return name, Approx(degree.value, ends[0], ends[1]), node.body


EXPRESSIONS = (s.Number, s.Access, s.Call, s.Reduce, s.Binary, s.Sign, s.Transpose)


__all__ = ["CALLABLE", "EXPRESSIONS", "WHOLE_ONLY", "Builder", "Env"]
