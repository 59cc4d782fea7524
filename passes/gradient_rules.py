"""The rules of reverse accumulation, an equation at a time: what each kind of right side hands back to what it reads.

`Reverse` walks a flat program (`passes.flatten`) from its end. A tensor's gradient is a chain of equations
`grad.x.1`, `grad.x.2` that each add a contribution; it is complete when all readers have been visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from ..ir.errors import NOWHERE, DTypeError
from ..ir.expr import Const, Einsum, Equation, Expr, Linalg, Map, Program, Read, Softmax, reads
from ..ir.functions import CAST, FUNCTIONS
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES
from ..ir.size import Size
from ..ir.types import DType, accumulation_type, promote, real_type
from .derivatives import call, conjugate, has_rule, pull
from .gradient_pads import folded, landing
from .gradient_semirings import shares
from .tools import Names, all_indices, cast, definition, is_injective


class Reverse:
    """One reverse sweep over `flat`, towards the inputs `wanted`. `equations` is what it has made so far."""

    def __init__(self, flat: Program, wanted: frozenset[str]) -> None:
        self.flat, self.tensors = flat, flat.tensors
        self.names = Names(flat)
        self.equations: list[Equation] = []
        self.total: dict[str, str] = {}  # of each tensor, the latest part of its gradient
        self.active = set(wanted)  # tensors whose gradient is asked for, on the way or in the end
        for equation in flat.equations:
            sources = {r.tensor for r in reads(equation.expr)} | ({equation.update} if equation.update else set())
            if equation.dtype.kind in "fc" and sources & self.active:
                self.active.add(equation.name)

    def seed(self, output: str) -> str:
        """The name of the input with the gradient by an output."""
        name = self.names.fresh(f"seed.{output}")
        if output in self.active:
            self.total[output] = name
        return name

    def refuse(self, what: str, at: Equation | Expr, help: str = "") -> NoReturn:
        """Raise the error for what has no derivative."""
        spans = () if at.span == NOWHERE else (at.span,)
        raise DTypeError(
            f"{what}, so no gradient passes through it",
            code="no-gradient",
            source=self.flat.source,
            spans=spans,
            help=help or "detach its arguments (tensor.detach()), or call it under torch.no_grad()",
        )

    # --- building -----------------------------------------------------------------------------------------------------

    def define(self, base: str, axes: Sequence[str], expr: Expr, extents: dict[str, Size], dtype: DType) -> Read:
        """A new tensor with these axes, and the read of it."""
        made = definition(self.names.numbered(base), axes, cast(expr, dtype), extents, dtype, PLUS_TIMES)
        self.equations.append(made)
        return Read(made.name, made.slots, dtype)

    def wants(self, expr: Expr) -> bool:
        """Whether an atom is the read of a tensor on the way to a wanted one."""
        return isinstance(expr, Read) and expr.tensor in self.active

    def deposit(
        self, read: Read, factors: tuple[Expr, ...], over: Sequence[str], extents: dict[str, Size], work: DType
    ) -> None:
        """Add to the gradient of what `read` reads, at its slots, the product of `factors` in type `work`.

        `over` are all the indices; those that the slots do not name are summed.
        """
        tensor = self.tensors[read.tensor]
        kept = {n for s in read.slots for n in s.indices}
        bound = tuple(n for n in over if n not in kept)
        value = total(bound, factors, work, tensor.dtype)
        place = landing(read, tensor.shape, extents)
        if place.inside:
            self.write(read.tensor, place.slots, place.shape, value, extents, tensor.dtype)
            return
        span = self.names.fresh(f"{read.tensor}.span")
        self.write(span, place.slots, place.shape, value, extents, tensor.dtype)
        before, fold = folded(place, read, tensor.shape, self.total.pop(span), tensor.dtype, self.names)
        self.equations += before
        self.add(fold, read.tensor)

    def write(
        self,
        tensor: str,
        slots: tuple[Affine, ...],
        shape: tuple[Size, ...],
        value: Expr,
        extents: dict[str, Size],
        dtype: DType,
    ) -> None:
        """The equation that adds `value` to the gradient of `tensor`."""
        names = dict.fromkeys((*(n for s in slots for n in s.indices), *sorted(all_indices(value))))
        indices = tuple(Index(n, extents[n]) for n in names)
        self.add(Equation("", slots, shape, indices, cast(value, dtype), dtype), tensor)

    def add(self, equation: Equation, tensor: str) -> None:
        """Add what an equation without name writes to the gradient of `tensor`."""
        name = self.names.numbered(f"grad.{tensor}")
        self.equations.append(replace(equation, name=name, update=self.total.get(tensor)))
        self.total[tensor] = name

    # --- equations ----------------------------------------------------------------------------------------------------

    def pull(self, equation: Equation) -> None:
        """Hand the gradient of an equation's tensor, if there is one, on to what the equation reads."""
        if equation.name not in self.total or equation.name not in self.active:
            return
        incoming = self.total[equation.name]
        gradient = Read(incoming, equation.slots, equation.dtype)
        additive = equation.semiring.add == "add" or (equation.update is None and is_injective(equation))
        if not additive:
            gradient = self.of_winners(equation, incoming)
        elif equation.update is not None and equation.update in self.active:
            axes, extents = _axes(equation)
            slots = tuple(map(Affine.of, axes))
            self.write(equation.update, slots, equation.shape, Read(incoming, slots, equation.dtype), extents,
                       self.tensors[equation.update].dtype)  # fmt: skip
        match equation.expr:
            case Read() as read if self.wants(read):
                self.deposit(read, (gradient,), equation.free, dict(equation.extents), equation.dtype)
            case Map() as node:
                self.of_map(equation, node, gradient)
            case Einsum() as node:
                self.of_einsum(equation, node, gradient)
            case Softmax() as node:
                self.of_softmax(equation, node, gradient)
            case Linalg() as node:
                from .gradient_linalg import of_linalg

                of_linalg(self, equation, node, incoming)

    def of_winners(self, equation: Equation, incoming: str) -> Read:
        """The gradient by each value that is written where only the greatest (least) at a position stays.

        Values that are equally great share it evenly.
        """
        if equation.semiring.add not in ("maximum", "minimum"):
            self.refuse(f"values that meet are combined by '{equation.semiring.name}'", equation)
        dtype, extents = equation.dtype, dict(equation.extents)
        one, zero = Const(1.0, dtype), Const(0.0, dtype)
        wins = call(
            "where", call("eq", cast(equation.expr, dtype), Read(equation.name, equation.slots, dtype)), one, zero
        )
        count = f"{equation.name}.count"
        if equation.update is not None:
            axes, outer = _axes(equation)
            whole = tuple(map(Affine.of, axes))
            old = cast(Read(equation.update, whole, self.tensors[equation.update].dtype), dtype)
            kept = call("where", call("eq", old, Read(equation.name, whole, dtype)), one, zero)
            self.write(count, whole, equation.shape, kept, outer, dtype)
        self.write(count, equation.slots, equation.shape, wins, extents, dtype)
        number = self.total.pop(count)
        if equation.update is not None and equation.update in self.active:
            share = call("div", Read(incoming, whole, dtype), Read(number, whole, dtype))
            self.write(equation.update, whole, equation.shape, call("mul", kept, share), outer, dtype)
        share = call("div", Read(incoming, equation.slots, dtype), Read(number, equation.slots, dtype))
        return self.define(f"{equation.name}.share", equation.free, call("mul", wins, share), extents, dtype)

    def of_map(self, equation: Equation, node: Map, gradient: Read) -> None:
        """An elementwise function."""
        extents = dict(equation.extents)
        if node.function == CAST:
            (arg,) = node.args
            if self.wants(arg):
                assert isinstance(arg, Read)
                self.deposit(arg, (gradient,), equation.free, extents, equation.dtype)
            return
        values = node.args[1:] if node.function == "where" else node.args
        joint = promote(*(a.dtype for a in values))
        if joint.kind not in "fc":
            return
        work = accumulation_type(joint)
        if not has_rule(node.function) or (node.function == "sign" and work.kind == "c"):
            self.refuse(f"'{node.function}' of {work} has no derivative here", node)
        args = tuple(a if node.function == "where" and k == 0 else _as(a, work) for k, a in enumerate(node.args))
        outer = FUNCTIONS[node.function].result(tuple(a.dtype for a in args))
        value = cast(Read(equation.name, equation.slots, equation.dtype), outer)
        for place, arg in enumerate(node.args):
            if self.wants(arg):
                assert isinstance(arg, Read)
                found = pull(node.function, place, args, value, cast(gradient, outer))
                if found is not None:
                    self.deposit(arg, (found,), equation.free, extents, found.dtype)

    def of_einsum(self, equation: Equation, node: Einsum, gradient: Read) -> None:
        """A product, summed in a semiring."""
        if node.accumulate.kind not in "fc":
            return
        over, extents = (*equation.free, *node.bound), dict(equation.extents)
        for place, factor in enumerate(node.factors):
            if not self.wants(factor):
                continue
            assert isinstance(factor, Read)
            if node.semiring == PLUS_TIMES:
                others = tuple(conjugate(f) for k, f in enumerate(node.factors) if k != place)
                self.deposit(factor, (gradient, *others), over, extents, node.accumulate)
            else:
                self.deposit(factor, shares(self, equation, node, gradient, place), over, extents, node.accumulate)

    def of_softmax(self, equation: Equation, node: Softmax, gradient: Read) -> None:
        """y * (g - sum of g * y), which needs the value only."""
        if not self.wants(node.body):
            return
        assert isinstance(node.body, Read)
        dtype, extents = accumulation_type(equation.dtype), dict(equation.extents)
        value = Read(equation.name, equation.slots, equation.dtype)
        kept = [n for n in equation.free if n not in node.along]
        dot = Einsum(node.along, (gradient, value), dtype, dtype)
        mean = self.define(f"{equation.name}.mean", kept, dot, extents, dtype)
        slope = call("mul", cast(value, dtype), call("sub", cast(gradient, dtype), mean))
        self.deposit(node.body, (slope,), equation.free, extents, dtype)


def total(bound: tuple[str, ...], factors: tuple[Expr, ...], work: DType, dtype: DType) -> Expr:
    """The sum over `bound` of a product computed in `work`, as a value of `dtype`: its real part where that is real.

    >>> from ..ir.types import F64
    >>> total((), (Const(1.0, F64),), F64, F64)
    Const(value=1.0, dtype=DType(name='f64', kind='f', bits=64))
    """
    value: Expr
    if not bound and len(factors) == 1:
        value = factors[0]
    else:
        work = accumulation_type(work)
        same = work.kind == dtype.kind
        value = Einsum(bound, factors, dtype if same else work, work)
    if value.dtype.kind == "c" and dtype.kind != "c":
        value = Map("real", (value,), real_type(value.dtype))
    return cast(value, dtype)


def _as(expr: Expr, dtype: DType) -> Expr:
    """An argument in the type that a function computes in; a number stays one."""
    if isinstance(expr, Const) and dtype.kind in "fc" and expr.dtype.kind != "c":
        return Const(float(expr.value), dtype)  # type: ignore[arg-type]
    return cast(expr, dtype)


def _axes(equation: Equation) -> tuple[list[str], dict[str, Size]]:
    """Indices for the axes of an equation's tensor, with their extents."""
    axes = [f"i{k}" for k in range(len(equation.shape))]
    return axes, dict(zip(axes, equation.shape, strict=True))
