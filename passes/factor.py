"""R11 backwards: a factor that two summands share is taken out, `A*x + B*x` to `(A+B)*x`, where that saves a product.

Only summands that differ in one factor each, over the same indices, are joined: then one pass over the two smaller
tensors replaces one whole contraction. What elaboration distributed (dense plus low rank) has no such pair and stays
as it is.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.expr import Einsum, Equation, Expr, Map, Program, Read, free_indices, substitute
from ..ir.index import Affine
from ..ir.rewrite import Rule, Scope, Trace, rewrite
from ..ir.types import BOOL
from .base import Context
from .rules import may_subtract
from .tools import cast


def factor_common(program: Program, context: Context, trace: Trace) -> Program:
    """R11 backwards in every equation (not in strict mode: it changes rounding)."""
    if context.strict or not any(_has_sum(e) for e in program.equations):
        return program
    return rewrite(program, (Rule("R11 factor", factored),), trace)


def _has_sum(equation: Equation) -> bool:
    return isinstance(equation.expr, Map)


def factored(expr: Expr, scope: Scope) -> Expr | None:
    """The sum (in a ring also the difference) of two products with all factors but one in common, as one product."""
    if not isinstance(expr, Map) or expr.function not in ("add", "sub") or len(expr.args) != 2:
        return None
    left, right = expr.args
    if not isinstance(left, Einsum) or not isinstance(right, Einsum) or not left.bound:
        return None
    alike = (left.dtype, left.accumulate, left.semiring) == (right.dtype, right.accumulate, right.semiring)
    if not alike or left.semiring.add != "add" or not may_subtract(left.semiring, left.accumulate):
        return None
    if len(left.factors) != len(right.factors) or len(left.factors) < 2 or len(left.bound) != len(right.bound):
        return None
    for k, a in enumerate(left.factors):
        for m, b in enumerate(right.factors):
            names = _match(left, right, k, m, scope)
            if names is None or BOOL in (a.dtype, b.dtype):
                continue
            renamed = substitute(b, {old: Affine.of(new) for old, new in names.items()})
            if set(free_indices(a)) != set(free_indices(renamed)) or a == renamed:
                continue
            both = Map(expr.function, (cast(a, left.accumulate), cast(renamed, left.accumulate)), left.accumulate)
            return replace(left, factors=(*left.factors[:k], both, *left.factors[k + 1 :]))
    return None


def _match(left: Einsum, right: Einsum, k: int, m: int, scope: Scope) -> dict[str, str] | None:
    """Names of `left` for the bound names of `right` that make the other factors equal, one by one; None if none do."""
    rest = [f for n, f in enumerate(right.factors) if n != m]
    names: dict[str, str] = {}
    for n, factor in enumerate(left.factors):
        if n == k:
            continue
        for position, other in enumerate(rest):
            found = _unify(factor, other, names, set(left.bound), set(right.bound))
            if found is not None:
                names = found
                del rest[position]
                break
        else:
            return None
    if len(names) != len(right.bound) or len(set(names.values())) != len(names):
        return None
    return names if all(scope.extents[a] == scope.extents[b] for a, b in names.items()) else None


def _unify(a: Expr, b: Expr, names: dict[str, str], mine: set[str], theirs: set[str]) -> dict[str, str] | None:
    if not isinstance(a, Read) or not isinstance(b, Read) or a.tensor != b.tensor or a.pad != b.pad:
        return None
    found = dict(names)
    for s, t in zip(a.slots, b.slots, strict=True):
        x, y = s.bare, t.bare
        if x is not None and y is not None and y in theirs and x in mine:
            if found.setdefault(y, x) != x:
                return None
        elif s != t or any(n in theirs for n in t.indices):
            return None
    return found
