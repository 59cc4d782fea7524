"""Rewriting with a trace: small named rules, applied until none fires.

A pass that consists of rules calls `rewrite`; any pass records what it did in the `Trace`, which `explain` shows. The
order is fixed (equations from first to last, children before parents, rules as listed), so that equal programs give
equal results and equal traces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .check import IRError
from .errors import NOWHERE, Span
from .expr import Einsum, Equation, Expr, Position, Program, Read, Softmax, children, walk, with_children
from .index import Index
from .size import Size
from .text_print import print_expr

STEP_LIMIT = 10_000  # steps in one call; far more than any terminating set of rules takes


@dataclass(frozen=True)
class Step:
    """One application of a rule: the expression before and after, in which equation, and where it was written."""

    rule: str
    equation: str
    before: Expr
    after: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.equation}: {self.rule}: {print_expr(self.before)} -> {print_expr(self.after)}"


class Trace:
    """The steps so far, in order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def record(self, rule: str, equation: str, before: Expr, after: Expr, span: Span | None = None) -> None:
        """Add a step; its span is that of `before` if not given."""
        self.steps.append(Step(rule, equation, before, after, before.span if span is None else span))

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))


class Scope:
    """What a rule may know: the program before this rewriting, the equation at hand, and its extents by index."""

    def __init__(self, program: Program, equation: Equation) -> None:
        self.program, self.equation = program, equation
        self.extents: dict[str, Size] = dict(equation.extents)

    def fresh(self, base: str, extent: Size) -> str:
        """A new index of the equation: `base`, or `base1`, `base2`, ... where that is taken."""
        stem, name, number = base.rstrip("0123456789") or base, base, 0
        while name in self.extents:
            number += 1
            name = f"{stem}{number}"
        self.extents[name] = extent
        return name


@dataclass(frozen=True)
class Rule:
    """A named rewriting of one node: `apply` returns an equal expression, or None where it does not apply."""

    name: str
    apply: Callable[[Expr, Scope], Expr | None]


def rewrite(program: Program, rules: Sequence[Rule], trace: Trace | None = None, limit: int = STEP_LIMIT) -> Program:
    """The program with `rules` applied until none fires; the same object if none does.

    Indices that no longer occur are dropped from their equation, fresh ones are added. More than `limit` steps mean
    rules that undo each other: `IRError` names the last one.

    >>> from .expr import Map
    >>> from .text import parse_ir, print_program
    >>> def twice(e, scope):
    ...     inner = e.args[0] if isinstance(e, Map) and e.function == "neg" else None
    ...     return inner.args[0] if isinstance(inner, Map) and inner.function == "neg" else None
    >>> trace = Trace()
    >>> before = parse_ir("input x: f32[n]\\ny[i]: f32[n] = neg(neg(x[i])) over i<n\\nreturn y")
    >>> print(print_program(rewrite(before, (Rule("double-negation", twice),), trace)), end="")
    input x: f32[n]
    y[i]: f32[n] = x[i] over i<n
    return y
    >>> [step.rule for step in trace.steps]
    ['double-negation']
    """
    trace = Trace() if trace is None else trace
    last = len(trace) + limit
    equations = tuple(_rewrite_equation(program, e, tuple(rules), trace, last) for e in program.equations)
    unchanged = all(a is b for a, b in zip(equations, program.equations, strict=True))
    return program if unchanged else replace(program, equations=equations)


def _rewrite_equation(
    program: Program, equation: Equation, rules: tuple[Rule, ...], trace: Trace, last: int
) -> Equation:
    scope = Scope(program, equation)
    normal: dict[int, Expr] = {}  # by identity; holds the nodes, so that no identity is used again

    def visit(expr: Expr) -> Expr:
        while id(expr) not in normal:
            below = children(expr)
            new = tuple(visit(c) for c in below)
            if not all(a is b for a, b in zip(below, new, strict=True)):
                expr = with_children(expr, new)
            result = fire(expr)
            if result is expr:
                normal[id(expr)] = expr
            expr = result
        return expr

    def fire(expr: Expr) -> Expr:
        for rule in rules:
            result = rule.apply(expr, scope)
            if result is not None and result != expr:
                if len(trace) >= last:
                    raise IRError("rewrite-limit", f"the rule '{rule.name}' fires without end", equation.name)
                trace.record(rule.name, equation.name, expr, result)
                return result
        return expr

    expr = visit(equation.expr)
    if expr is equation.expr:
        return equation
    used = {n for s in equation.slots for n in s.indices} | _indices(expr)
    indices = tuple(Index(name, extent) for name, extent in scope.extents.items() if name in used)
    return replace(equation, expr=expr, indices=indices)


def _indices(expr: Expr) -> set[str]:
    """Every index that occurs, free or bound."""
    found: set[str] = set()
    for node in walk(expr):
        match node:
            case Read(slots=slots):
                found.update(n for s in slots for n in s.indices)
            case Position(affine=affine):
                found.update(affine.indices)
            case Einsum(bound=names) | Softmax(along=names):
                found.update(names)
    return found
