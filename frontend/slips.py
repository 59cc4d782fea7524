"""The indices that a term sums, and the slips that can stand there (rules 2 and 11 of the language).

A step of elaboration between `terms`, which multiplies a statement out, and `build`, which makes an `Einsum` of each
term: an index that is not kept is summed, by name in `sum[k]` or because it stands twice. One that stands once, or
inside a function that does not let a sum pass, is a mistake, reported with the correction that was probably meant.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NoReturn

from ..ir.errors import EinsumSyntaxError, Span
from . import syntax as s
from .declare import near
from .ranges import Frame
from .terms import Distributor, Term


def summed_indices(term: Term, keep: Set[str], frame: Frame, distributor: Distributor) -> tuple[str, ...]:
    """The indices that `term` sums where those in `keep` mean something already: the explicit ones, then its own.

    Raises `EinsumSyntaxError` for an index that stands once and is not kept, and for one that would be summed inside
    a non-linear function; `ShapeError` for one that has no range.
    """
    seen: dict[str, list[tuple[Span, s.Expr | None]]] = {}
    for factor in term.factors:
        outer = factor.node if factor.divides and not isinstance(factor.node, s.Access) else None
        for m in distributor.mentions(factor.node):
            seen.setdefault(m.name, []).append((m.span, m.nonlinear or outer))
    for name, places in seen.items():
        if name in keep or name in term.explicit:
            continue
        inside = next((p for p in places if p[1] is not None), None)
        if inside is not None and inside[1] is not None:
            _fail_nonlinear(frame, name, inside[0], inside[1])
        if len(places) == 1:
            _fail_lonely(frame, name, places[0][0])
    bound = tuple(dict.fromkeys((*term.explicit, *(n for n in seen if n not in keep))))
    for name in bound:
        frame.require_range(name, seen[name][0][0] if name in seen else _reduction_span(frame, name))
    return bound


def _reduction_span(frame: Frame, name: str) -> Span:
    """Where a reduction of the statement names the index."""
    for node in s.walk(frame.assign.value):
        if isinstance(node, s.Reduce):
            for n in node.indices:
                if n.text == name:
                    return n.span
    return frame.assign.span


def _fail_nonlinear(frame: Frame, name: str, span: Span, node: s.Expr) -> NoReturn:
    text = frame.scope.source.text
    help = f"write sum[{name}] where it is meant"
    if isinstance(node, s.Call) and len(node.args) == 1 and node.body is None:
        arg = text[node.args[0].span.start : node.args[0].span.end]
        f = node.function.text
        help = f"{f}(sum[{name}] {arg}) or sum[{name}] {f}({arg})"
    frame.scope.fail(
        EinsumSyntaxError, f"'{name}' is summed inside a non-linear function", "nonlinear-sum", span, help=help
    )


def _fail_lonely(frame: Frame, name: str, span: Span) -> NoReturn:
    shown = "..." if name.startswith(".") else f"'{name}'"
    text = frame.scope.source.text
    help = "write '...' on the left too" if name.startswith(".") else f"sum[{name}] if all of it is meant"
    access = next(
        (a for a in s.walk(frame.assign.value) if isinstance(a, s.Access) and _within(span, a.span) and a.slots),
        None,
    )
    if access is not None and not name.startswith("."):
        other = [n for n in frame.indices if n != name and not n.startswith(".")]
        whole = text[access.span.start : access.span.end]
        left = [n for slot in frame.assign.slots or () for n in frame.slot_indices(slot)]
        guess = left[0] if len(left) == 1 and len(access.slots or ()) == 1 else near(name, other)[13:-2]
        at = access.span.start
        instead = text[at : span.start] + guess + text[span.end : access.span.end]
        help = (f"{instead}, or " if guess else "") + f"sum[{name}] {whole} if all of {access.name.text} is meant"
    frame.scope.fail(
        EinsumSyntaxError, f"{shown} stands once in this term and not on the left", "lonely-index", span, help=help
    )


def _within(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end
