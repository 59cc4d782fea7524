"""Order and split: every equation becomes kernels of one Einsum each, with what is elementwise around it.

Per equation: what stands inside a factor and holds an Einsum becomes an equation of its own; every Einsum is
contracted by its tree, all kernels but the last becoming equations `y.1`, `y.2`; of several Einsums in one expression
(`A*x + x*B`) the dearest stays and takes the others into its epilogue, as reads. Scalars move out of sums (R10).
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.expr import (
    Einsum,
    Equation,
    Expr,
    Program,
    children,
    free_indices,
    reads,
    transform,
    with_children,
)
from ..ir.rewrite import Trace
from . import lookups
from .base import Context
from .common import trace_changed
from .constants import is_ahead
from .contract import Network, Node, axes_of, contraction_tree, kernel_flops, kernel_of
from .lookups import has_lookups
from .tools import (
    Hints,
    Names,
    as_map,
    cast,
    definition,
    einsums,
    hints_of,
    holds_einsum,
    is_copy,
    is_injective,
    multiplied,
    note,
    read_of,
    rebuilt,
    replaced,
)


def order(program: Program, context: Context, trace: Trace) -> Program:
    """At most one Einsum in each equation, of factors without any; the order of contraction is fixed by that."""
    splitter = _Splitter(program, context)
    for equation in program.equations:
        before = len(splitter.out)
        final = splitter.split(equation)
        splitter.out.append(final)
        splitter.mark(final)
        if final is not equation or len(splitter.out) > before + 1:
            for new in splitter.out[before:]:
                note(trace, "order", equation.name, equation.expr, new.expr)
    return program if not trace_changed(splitter.out, program) else replace(program, equations=tuple(splitter.out))


MOST_FACTORS = 6  # of a product without a sum that stays one kernel


class _Splitter:
    """The state of one run: names, hints, the equations so far, and which tensors are known ahead."""

    def __init__(self, program: Program, context: Context) -> None:
        self.context = context
        self.names = Names(program)
        self.hints: Hints = hints_of(context)
        self.out: list[Equation] = []
        self.known = {i.name for i in program.inputs if i.const or i.name in context.constants}
        self.sizes = frozenset[str]().union(*(s.names for i in program.inputs if i.name in self.known for s in i.shape))

    def mark(self, equation: Equation) -> None:
        """Remember a tensor that depends on constants only."""
        if is_ahead(equation, self.known, self.sizes):
            self.known.add(equation.name)

    def split(self, equation: Equation) -> Equation:
        """The equation in planned form; what it needs first is appended to `out`."""
        expr = equation.expr
        if is_copy(equation) or not holds_einsum(expr):
            return equation
        expr = self.flat(_products_as_maps(expr), equation)
        sizes = self.hints.extents(equation)
        for einsum in einsums(expr):
            if einsum.bound or len(einsum.factors) > MOST_FACTORS:
                expr = _swap(expr, einsum, self.contracted(einsum, equation, sizes))
        expr = self.one_einsum(expr, equation, sizes)
        final = equation if expr is equation.expr else rebuilt(equation, expr, equation.extents)
        return final if is_injective(final) else self.scattered(final)

    def flat(self, expr: Expr, equation: Equation) -> Expr:
        """`expr` with no Einsum inside a factor: the part around it that has no further index moves out with it."""
        if isinstance(expr, Einsum):
            factors = tuple(self.outside(f, equation) if holds_einsum(f) else f for f in expr.factors)
            return (
                expr
                if all(a is b for a, b in zip(factors, expr.factors, strict=True))
                else replace(expr, factors=factors)
            )
        below = children(expr)
        new = tuple(self.flat(c, equation) for c in below)
        return expr if all(a is b for a, b in zip(below, new, strict=True)) else with_children(expr, new)

    def outside(self, expr: Expr, equation: Equation, keep: Einsum | None = None) -> Expr:
        """`expr` with its Einsums (but `keep`) in equations of their own, each with the elementwise part around it."""
        found = einsums(expr)
        if all(e is keep for e in found):
            return expr
        own = set(free_indices(expr))
        if all(e is not keep for e in found) and any(own <= set(free_indices(e)) for e in found):
            return self.define(expr, equation)
        return with_children(expr, tuple(self.outside(c, equation, keep) for c in children(expr)))

    def define(self, expr: Expr, equation: Equation) -> Expr:
        """A read of a new equation that computes `expr`."""
        axes = axes_of(frozenset(free_indices(expr)), (expr,), equation.free)
        name = self.names.numbered(equation.name)
        new = definition(name, axes, expr, equation.extents, expr.dtype, equation.semiring)
        new = self.split(new)
        self.out.append(new)
        self.mark(new)
        return read_of(new)

    # one Einsum

    def contracted(self, einsum: Einsum, equation: Equation, sizes: dict[str, int]) -> Expr:
        """The last kernel of an Einsum's tree, with the scalars around it."""
        if has_lookups(einsum):
            return lookups.contracted(self, einsum, equation, sizes)
        scalars: list[Expr] = []
        if self.context.free_order and einsum.semiring.mul:
            einsum, scalars = _without_scalars(einsum)
        constant = tuple(_known(f, self.known) for f in einsum.factors)
        tree = contraction_tree(Network.of(einsum, sizes, constant), self.context)
        if not scalars and not tree.after and not any(isinstance(p, Node) for p in tree.parts):
            return einsum
        root, total = self.kernel(tree, einsum, equation, root=True)
        if total is root and not scalars:
            return replace(root, dtype=einsum.dtype)
        for scalar in scalars:
            total = multiplied(total, self.without_sum(scalar, equation), einsum)
        return cast(total, einsum.dtype)

    def kernel(self, node: Node, einsum: Einsum, equation: Equation, root: bool = False) -> tuple[Einsum, Expr]:
        """The kernel of a node, and that with its epilogue; the kernels below become equations.

        What no factor uses is summed in the `root`.
        """
        factors: list[Expr] = []
        for part in node.parts:
            if isinstance(part, int):
                factors.append(einsum.factors[part])
                continue
            inner, value = self.kernel(part, einsum, equation)
            axes = axes_of(part.kept, inner.factors, equation.free)
            name = self.names.numbered(equation.name)
            new = definition(name, axes, value, equation.extents, einsum.accumulate, einsum.semiring)
            self.out.append(new)
            self.mark(new)
            factors.append(read_of(new))
        kernel = kernel_of(einsum, factors, node.kept)
        if root:
            used = {n for f in einsum.factors for n in free_indices(f)}
            kernel = replace(kernel, bound=kernel.bound + tuple(b for b in einsum.bound if b not in used))
        total: Expr = kernel
        for k in node.after:
            total = multiplied(total, self.without_sum(einsum.factors[k], equation), einsum)
        return kernel, total

    def without_sum(self, factor: Expr, equation: Equation) -> Expr:
        """A factor beside a sum: a value that is moved by a lookup is a sum itself, and gets an equation of its own."""
        return self.define(factor, equation) if holds_einsum(factor) else factor

    # several Einsums, scatters

    def one_einsum(self, expr: Expr, equation: Equation, sizes: dict[str, int]) -> Expr:
        """Of several Einsums one stays: the dearest of those that have every index of the result."""
        roots = einsums(expr)
        if not roots or roots[0] is expr:
            return expr
        free = set(free_indices(expr)) | set(equation.free)
        full = [e for e in roots if free <= set(free_indices(e))]
        main = max(full, key=lambda e: _flops(e, sizes), default=None)
        if main is not None and len(roots) == 1:
            return expr
        return with_children(expr, tuple(self.outside(c, equation, main) for c in children(expr)))

    def scattered(self, equation: Equation) -> Equation:
        """An output that several points may meet at: a pure sum, or elementwise; all else goes by a copy."""
        expr = equation.expr
        if not holds_einsum(expr):
            return equation
        if (
            isinstance(expr, Einsum)
            and expr.semiring == equation.semiring
            and expr.dtype == expr.accumulate == equation.dtype
        ):
            return equation
        axes = equation.free
        new = definition(
            self.names.numbered(equation.name), axes, expr, equation.extents, expr.dtype, equation.semiring
        )
        self.out.append(new)
        return rebuilt(equation, read_of(new), equation.extents)


def _products_as_maps(expr: Expr) -> Expr:
    """`expr` with products that sum nothing as elementwise functions, but for a product of plain factors on top."""

    def rule(e: Expr) -> Expr:
        return as_map(e) if isinstance(e, Einsum) and not e.bound else e

    if isinstance(expr, Einsum) and not expr.bound:
        below = tuple(transform(f, rule) for f in expr.factors)
        same = all(a is b for a, b in zip(below, expr.factors, strict=True))
        product = expr if same else replace(expr, factors=below)
        return as_map(product) if any(holds_einsum(f) for f in below) else product
    return transform(expr, rule)


def _swap(expr: Expr, old: Expr, new: Expr) -> Expr:
    return expr if new is old else replaced(expr, old, new)


def _known(expr: Expr, known: set[str]) -> bool:
    found = reads(expr)
    return bool(found) and all(r.tensor in known for r in found)


def _flops(einsum: Einsum, sizes: dict[str, int]) -> int:
    network = Network.of(einsum, sizes)
    return kernel_flops(network.inputs, network.output, sizes)


def _without_scalars(einsum: Einsum) -> tuple[Einsum, list[Expr]]:
    """R10: scalar factors move out of a sum (but not out of a sum of scalars alone)."""
    if not einsum.bound:
        return einsum, []
    scalars = [f for f in einsum.factors if not free_indices(f)]
    rest = tuple(f for f in einsum.factors if all(f is not s for s in scalars))
    if not scalars or not rest:
        return einsum, []
    return replace(einsum, factors=rest), scalars
