"""The statement `Stream`: one step of a softmax whose scores come block by block.

Part of the printer. A softmax needs the greatest score before it can weigh the first one; of a stream, only the
greatest so far is known. Whenever that grows, all that was summed with older weights is multiplied by
exp(old - new), so the end is that of the whole softmax (Milakov and Gimelshein, 2018; Dao et al., "FlashAttention",
2022). Between the first and the last product of an attention nothing is stored.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.types import F32
from .nodes import Group, Stream, names_of
from .scope import Scope
from .values import Value, convert, expand, named, spread, typed

LEAST = 'float("-inf")'


def emit_stream(scope: Scope, node: Stream) -> None:
    """Write the step: weights, greatest and total; what was summed before is rescaled.

    In a rehearsal the carried values are not there yet; it finds their dimensions.
    """
    code = scope.code
    scores = _scores(scope, node)
    along = next(k for k, g in enumerate(scores.groups) if set(node.along) & set(g))
    rows = tuple(g for k, g in enumerate(scores.groups) if k != along)
    before, total = scope.values.get(node.greatest), scope.values.get(node.total)
    top = f"tl.max({scores.code}, {along})"
    new = code.fresh(f"{node.greatest}_new")
    code.do(f"{new} = {top if before is None else f'tl.maximum({before.code}, {top})'}")
    # Where every score so far is -inf, there is nothing to subtract: all weights are 0.
    base = code.fresh("base")
    code.do(f"{base} = tl.where({new} == {LEAST}, 0.0, {new})")
    wide = spread(code, scope.frame, Value(base, rows, F32), _without(scores.groups, along))
    weights = code.fresh(node.out)
    code.do(f"{weights} = tl.exp({scores.code} - {wide.code})")
    scope.values[node.out] = Value(weights, scores.groups, F32, 0)
    added = f"tl.sum({weights}, {along})"
    if before is None or total is None:
        scope.values[node.greatest], scope.values[node.total] = Value(new, rows, F32), Value(added, rows, F32)
        return
    scale = code.fresh("scale")
    code.do(f"{scale} = tl.exp({before.code} - {base})")
    code.do(f"{total.code} = {total.code} * {scale} + {added}")
    for name in node.rescaled:
        held = scope.values[name]
        shown = tuple(tuple(a for a in g if any(a in r for r in rows)) for g in held.groups)
        factor = spread(code, scope.frame, Value(scale, rows, F32), shown)
        code.do(f"{held.code} = {held.code} * {factor.code}")
    code.do(f"{before.code} = {new}")
    changed = {before.code, total.code, *(scope.values[n].code for n in node.rescaled)}
    code.known = {text: known for text, known in code.known.items() if not any(c in text for c in changed)}


def _without(groups: tuple[Group, ...], position: int) -> tuple[Group, ...]:
    """The same dimensions, that at `position` of one element."""
    return tuple(() if k == position else g for k, g in enumerate(groups))


def _scores(scope: Scope, node: Stream) -> Value:
    """The scores in f32, -inf where there is no element."""
    code, frame = scope.code, scope.frame
    first = next(scope.values[n] for n in names_of(node.scores) if n in scope.values)
    groups = first.groups
    assert any(set(node.along) == set(g) for g in groups), f"{node.out}: the softmax runs along a dimension of its own"
    value = expand(code, frame, typed(scope.evaluate(node.scores, groups)), groups)
    value = convert(value, F32)
    mask = scope.inside(node.along, groups)
    if mask:
        value = replace(value, code=f"tl.where({mask}, {value.code}, {LEAST})")
    return named(code, value, "scores")
