"""Where the operands of a step may lie that works slot by slot: sums, polynomials, products without a contraction.

Values that the program computed are where they are; inputs follow them, or take any layout that a client may use if
there are only inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard

import numpy as np

from ..core.distinct import distinct
from ..core.layout import NOTHING, SLOTS, Layout, Packing
from . import candidates
from .context import Argument, Context, Free
from .option import Placed

MOST_LAYOUTS = 24  # layouts of an input that is read slot by slot


@dataclass(frozen=True)
class Awaited(Free):
    """A value that is moved to where a step wants it, and is at this level then."""

    level: int = 0


def packed_for_this(argument: Argument) -> TypeGuard[Free]:
    """Whether the client packs an operand for the step that asks."""
    return isinstance(argument, Free) and not isinstance(argument, Awaited)


def level_of(argument: Argument) -> int:
    """The level at which an operand comes."""
    return argument.level if isinstance(argument, Placed | Awaited) else 0


@dataclass(frozen=True)
class Common:
    """Where each operand lies, and where a result that takes all of them slot by slot has its elements.

    `clean` says of `meeting` that slots without an element hold 0 in every operand. `packed` is the layout that the
    client uses where nothing else dictates one.
    """

    operands: tuple[Placed, ...]
    meeting: Packing
    text: str
    packed: Layout | None = None


def meet(packings: Sequence[Packing], size: int) -> Packing | None:
    """The slots in which all packings have the same element; None unless every element of `size` is among them.

    >>> a, b = Packing(np.array([[0, 1, 0, 1]])), Packing(np.array([[0, 1, -1, -1]]), clean=False)
    >>> meet([a, b], 2).at
    array([[ 0,  1, -1, -1]])
    """
    first = packings[0].at
    if any(p.kind != SLOTS or p.at.shape != first.shape for p in packings):
        return None
    same = np.logical_and.reduce([p.at == first for p in packings])
    at = np.where(same, first, NOTHING)
    if len(distinct(at[at >= 0])) != size:
        return None
    return Packing(at, clean=bool(same.all()) and all(p.clean for p in packings))


def common(shape: tuple[int, ...], name: str, context: Context, arguments: Sequence[Argument]) -> Iterator[Common]:
    """The ways to bring operands of one shape together without moving any; `name` is the result's."""
    placed = [a for a in arguments if isinstance(a, Placed)]
    if placed:
        meeting = meet([a.packing for a in placed], prod(shape))
        if meeting is not None:
            yield _following(arguments, meeting, placed[0].text, None)
        return
    seen: set[bytes] = set()
    axes = context.axes.get(name) or candidates.plain_axes(shape)
    others = sorted({n for each in context.axes.values() for _, n in each})
    for layout in candidates.sources(axes, others, context.slots, context.slots):
        packing = layout.packing(context.slots)
        if packing.key not in seen:
            seen.add(packing.key)
            yield _following(arguments, packing, layout.text(), layout)
        if name in context.final or len(seen) == MOST_LAYOUTS:
            return


def restored(
    context: Context, arguments: Sequence[Argument], shape: tuple[int, ...], decision: Mapping[str, Any]
) -> Common:
    """The operands of a saved plan's step."""
    placed = [a for a in arguments if isinstance(a, Placed)]
    if placed:
        meeting = meet([a.packing for a in placed], prod(shape))
        assert meeting is not None, "a decision that does not fit its step"
        return _following(arguments, meeting, placed[0].text, None)
    layout = Layout.from_json(decision["packed"])
    return _following(arguments, layout.packing(context.slots), layout.text(), layout)


def _following(arguments: Sequence[Argument], meeting: Packing, text: str, layout: Layout | None) -> Common:
    """The inputs among the operands packed as the others lie."""
    operands = tuple(a if isinstance(a, Placed) else Placed(Packing(meeting.at), level_of(a), text) for a in arguments)
    return Common(operands, meeting, text, layout)


def saved(found: Common) -> Mapping[str, Any]:
    """What `restored` has to know."""
    return {} if found.packed is None else {"packed": found.packed.to_json()}
