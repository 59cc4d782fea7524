"""Expressions of an indexed statement as sums of products: the scope of the implicit sum.

Parentheses and products are distributed; each additive term is then a list of factors that sums its own indices
(language page 3.3, rules 1, 2 and 11). Nothing typed happens here: factors are pieces of the syntax tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..ir.errors import EinsumSyntaxError, Span
from ..ir.functions import FUNCTIONS
from ..ir.semiring import PLUS_TIMES, Semiring
from . import syntax as s
from .ranges import Frame

MAX_TERMS = 100


@dataclass(frozen=True)
class Factor:
    """One factor of a term; `divides` for a denominator."""

    node: s.Expr
    divides: bool = False


@dataclass(frozen=True)
class Term:
    """A signed product, with the indices that explicit sums around it bind."""

    factors: tuple[Factor, ...]
    explicit: tuple[str, ...] = ()
    negative: bool = False


@dataclass(frozen=True)
class Mention:
    """An index that an expression depends on: where, and whether inside something that sums must not pass."""

    name: str
    span: Span
    nonlinear: s.Expr | None


@dataclass
class Distributor:
    """Distributes expressions of one statement."""

    frame: Frame
    semiring: Semiring

    def terms(self, node: s.Expr, keep: frozenset[str]) -> list[Term]:
        """The additive terms of `node`, where the indices `keep` mean something around it."""
        match node:
            case s.Binary(operator=operator, left=left, right=right) if operator.text in ("+", "-"):
                if operator.text == "-":
                    self.require_ring(operator.span, "subtraction")
                second = self.terms(right, keep)
                if operator.text == "-":
                    second = [_negated(t) for t in second]
                return self._bounded(self.terms(left, keep) + second, node)
            case s.Sign(operator=operator, operand=operand):
                if operator.text == "+":
                    return self.terms(operand, keep)
                if not isinstance(operand, s.Number):
                    self.require_ring(operator.span, "negation")
                    return [_negated(t) for t in self.terms(operand, keep)]
            case s.Binary(operator=operator) if operator.text in ("*", "/", "@"):
                return self._product(node, keep)
            case s.Reduce(operation=operation, indices=indices, body=body) if operation.text == "sum":
                self.check_fresh(indices, keep, "sum")
                names = tuple(dict.fromkeys(n.text for n in indices))
                inner = self.terms(body, keep | set(names))
                return [Term(t.factors, (*names, *t.explicit), t.negative) for t in inner]
        return [Term((Factor(node),))]

    def _product(self, node: s.Binary, keep: frozenset[str]) -> list[Term]:
        operator, left, right = node.operator, node.left, node.right
        if operator.text == "@":
            self.frame.scope.fail(
                EinsumSyntaxError, "@ joins whole tensors; here tensors have indices", "whole-only", operator.span,
                help="write the sum: A[i,k]*x[k]",
            )  # fmt: skip
        first = self.terms(left, keep)
        if operator.text == "/":
            self.require_ring(operator.span, "division")
            return [Term((*t.factors, Factor(right, True)), t.explicit, t.negative) for t in first]
        second = self.terms(right, keep)
        self._check_apart({n for t in first for n in t.explicit}, right)
        self._check_apart({n for t in second for n in t.explicit}, left)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, s.Reduce) and one.operation.text != "softmax":
                self._check_apart({n.text for n in one.indices}, other)
        if len(first) * len(second) > MAX_TERMS:
            self._too_many(node)
        return [
            Term(a.factors + b.factors, a.explicit + b.explicit, a.negative != b.negative)
            for a in first
            for b in second
        ]

    def _bounded(self, terms: list[Term], node: s.Expr) -> list[Term]:
        if len(terms) > MAX_TERMS:
            self._too_many(node)
        return terms

    def _too_many(self, node: s.Expr) -> None:
        self.frame.scope.fail(
            EinsumSyntaxError, f"this is a sum of more than {MAX_TERMS} terms when it is multiplied out", "too-long",
            node.span, help="give inner sums a name in statements of their own",
        )  # fmt: skip

    def check_fresh(self, indices: Iterable[s.Name], keep: frozenset[str], what: str) -> None:
        """Raise if a reduction binds an index that means something around it."""
        for n in indices:
            if n.text in keep:
                self.frame.scope.fail(
                    EinsumSyntaxError, f"'{n.text}' is already in use around this {what}", "index-in-use", n.span,
                    help="rename it",
                )  # fmt: skip

    def _check_apart(self, bound: set[str], other: s.Expr) -> None:
        for m in self.mentions(other) if bound else ():
            if m.name in bound:
                self.frame.scope.fail(
                    EinsumSyntaxError, f"'{m.name}' is reduced beside this and has no meaning here", "index-beside",
                    m.span, help="put it inside the parentheses of the reduction, or rename it",
                )  # fmt: skip

    def require_ring(self, span: Span, what: str) -> None:
        """Raise unless the statement's semiring is the ordinary one."""
        name = self.semiring.name
        if self.semiring != PLUS_TIMES:
            kind = "field" if what == "division" else "ring"
            self.frame.scope.fail(
                EinsumSyntaxError, f"{name} has no {what} (it is a semiring, not a {kind})", "no-" + what, span,
                help="name the two parts in statements of their own",
            )  # fmt: skip

    # ---------------------------------------------------------------- mentions

    def mentions(self, node: s.Value | s.Argument, nonlinear: s.Expr | None = None) -> list[Mention]:
        """Every index that `node` depends on, each with its places; `nonlinear` is what stands around it."""
        match node:
            case s.Access(slots=None, name=name):
                return [Mention(name.text, node.span, nonlinear)] if self.is_index(node) else []
            case s.Access(slots=slots):
                return [
                    Mention(n, slot.span, nonlinear)
                    for slot in self.frame.expand(slots or ())
                    for n in self.frame.slot_indices(slot)
                ]
            case s.Reduce(operation=operation, indices=indices, body=body):
                mine = {n.text for n in indices}
                passes = operation.text == "sum"
                inner = self.mentions(body, nonlinear if passes else nonlinear or node)
                out = [m for m in inner if m.name not in mine]
                if operation.text == "softmax":
                    out = [Mention(n.text, n.span, nonlinear) for n in indices] + out
                return out
            case s.Call(function=function, args=args, body=more):
                f = FUNCTIONS.get(function.text)
                around = nonlinear if f is not None and f.additive else nonlinear or node
                parts: list[s.Argument] = [*args, *([] if more is None else [more])]
                if function.text == "approx":
                    parts = parts[1:]
                return [m for part in parts for m in self.mentions(part, around)]
            case s.Binary(operator=operator, left=left, right=right):
                first = second = nonlinear
                if operator.text == "/":
                    second = nonlinear or (None if isinstance(right, s.Access) else right)
                elif operator.text == "^":
                    first = nonlinear or (None if isinstance(left, s.Access) else node)
                    second = nonlinear or (None if self.is_index(right) else node)
                return self.mentions(left, first) + self.mentions(right, second)
            case s.Sign(operand=operand) | s.Transpose(operand=operand):
                return self.mentions(operand, nonlinear)
            case s.Keyword(value=value):
                return self.mentions(value, nonlinear)
            case s.Interval(low=low, high=high):
                return self.mentions(low, nonlinear) + self.mentions(high, nonlinear)
            case s.Tuple(items=items):
                return [m for item in items for m in self.mentions(item, nonlinear)]
        return []

    def is_index(self, node: s.Expr) -> bool:
        """Whether a name outside brackets is the value of an index."""
        if not isinstance(node, s.Access) or node.slots is not None:
            return False
        name = node.name.text
        return name not in self.frame.scope.tensors and name in self.frame.indices


def _negated(term: Term) -> Term:
    return Term(term.factors, term.explicit, not term.negative)
