"""Sizes while a program is elaborated: which names are known, what equals what, and what must be left to the call.

A name is *free* if the shapes of the arguments do not fix it by themselves: the axis `A.0` of a tensor whose shape
nobody declared, or a size that only a result mentions. Free names are replaced by what they must equal; everything
else that cannot be decided for all sizes becomes a `Constraint` of the program, checked by `ir.bind` when the shapes
are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from ..ir.errors import ShapeError, Source, Span
from ..ir.expr import Constraint
from ..ir.size import Size


@dataclass(frozen=True)
class Issue:
    """What to say if a demand on sizes fails; `sentence` and `help` are templates as in `Constraint`."""

    code: str
    sentence: str
    spans: tuple[Span, ...]
    help: str = ""
    values: tuple[Size, ...] = ()


@dataclass
class Sizes:
    """The size names of one program under elaboration."""

    source: Source
    known: dict[str, Span] = field(default_factory=dict)  # names that declarations brought in, with a place
    free: set[str] = field(default_factory=set)
    bindings: dict[str, Size] = field(default_factory=dict)
    constraints: list[Constraint] = field(default_factory=list)

    def resolve(self, size: Size) -> Size:
        """The size with every replaced name replaced."""
        if size.names.isdisjoint(self.bindings):
            return size
        return size.substitute(self.bindings)

    def bind(self, name: str, value: Size) -> None:
        """Replace `name` by `value` from here on and in what is there already."""
        one = {name: value}
        self.bindings = {n: v.substitute(one) for n, v in self.bindings.items()} | {name: value}

    def new_axis(self, tensor: str, axis: int) -> Size:
        """The name of an axis that nobody declared."""
        name = f"{tensor}.{axis}"
        self.free.add(name)
        return Size.name(name)

    def replaceable(self, size: Size, other: Size) -> str | None:
        """The free name that `size` is, if `other` may stand for it."""
        name = size.single
        return name if name is not None and name in self.free and name not in other.names else None

    def equate(self, left: Size, right: Size, issue: Issue) -> None:
        """Demand that two sizes are equal; a free name on either side is replaced (and the equality still checked)."""
        left, right = self.resolve(left), self.resolve(right)
        if left == right:
            return
        for one, other in self._by_preference(left, right):
            name = self.replaceable(one, other)
            if name is not None:
                self.bind(name, other)
                self.free.discard(name)
                if "." in name:  # the axis keeps its name in the check, so that the message can speak of it
                    self.constraints.append(_constraint("==", Size.name(name), other, issue, left is one))
                return
        self.demand("==", left, right, issue)

    def _by_preference(self, left: Size, right: Size) -> list[tuple[Size, Size]]:
        pairs = [(left, right), (right, left)]  # the one that came later is replaced
        return sorted(pairs, key=lambda p: "." in (p[0].single or "."))  # names that only results mention go first

    def demand(self, relation: str, left: Size, right: Size, issue: Issue) -> None:
        """Demand `left relation right`: raise if it never holds, note a constraint if it may not."""
        left, right = self.resolve(left), self.resolve(right)
        holds = decide(relation, left, right)
        if holds is False:
            self.fail(issue, left, right)
        if holds is None:
            self.constraints.append(_constraint(relation, left, right, issue, True))

    def fail(self, issue: Issue, left: Size, right: Size) -> NoReturn:
        """Raise the error of `issue` for these sizes."""
        values = {"left": left, "right": right} | {str(k): self.resolve(v) for k, v in enumerate(issue.values)}
        raise ShapeError(
            fill(issue.sentence, values),
            code=issue.code,
            source=self.source,
            spans=issue.spans,
            help=fill(issue.help, values),
        )

    def finished(self) -> tuple[Constraint, ...]:
        """Every constraint in terms of the names that are left, without those that now hold; raises for broken ones."""
        out = []
        for c in self.constraints:
            keep = c.left.single if c.relation == "==" and "." in (c.left.single or "") else None
            left = c.left if keep else self.resolve(c.left)
            right = self.resolve(c.right)
            values = tuple(self.resolve(v) for v in c.values)
            new = replace(c, left=left, right=right, values=values)
            holds = decide(c.relation, left, right)
            if holds is False and not keep:
                self.fail(Issue(c.code, c.sentence, c.spans, c.help, c.values), left, right)
            if holds is not True and new not in out:
                out.append(new)
        return tuple(out)


def _constraint(relation: str, left: Size, right: Size, issue: Issue, straight: bool) -> Constraint:
    sentence, help = issue.sentence, issue.help
    if not straight:  # the sides were exchanged: so are their places in the text
        sentence, help = (_exchanged(t) for t in (sentence, help))
    return Constraint(relation, left, right, issue.code, sentence, help, issue.values, issue.spans)


def _exchanged(text: str) -> str:
    return text.replace("{left}", "\0").replace("{right}", "{left}").replace("\0", "{right}")


def fill(text: str, values: dict[str, Size]) -> str:
    """`text` with {left}, {right}, {0}, ... written out."""
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def decide(relation: str, left: Size, right: Size) -> bool | None:
    """Whether `left relation right` holds for all sizes; False if it fails for all above 1, None if it depends."""
    if relation == "divides":
        if left.constant is not None and right.constant is not None:
            return left.constant != 0 and right.constant % left.constant == 0
        return True if left.constant == 1 or ((right // left) * left == right and left.constant != 0) else None
    difference = left - right
    if relation == "==":
        if not difference.terms:
            return True
        return False if difference.at_least(1) or (-difference).at_least(1) else None
    if difference.at_least(0):
        return True
    return False if (-difference).at_least(1, lowest=2) else None


def product(sizes: Sequence[Size]) -> Size:
    """The product of sizes."""
    total = Size.of(1)
    for size in sizes:
        total = total * size
    return total
