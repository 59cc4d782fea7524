"""Lines of Triton text: indentation, fresh names, and values that are in scope already.

The lowest part of the printer. It knows nothing of kernels: `source` and its helpers decide what is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

INDENT = "    "


@dataclass
class Code:
    """The body of one function so far. `taken` are the names in use, `known` the texts that a name in scope holds,
    `ranges` what stands at the top of the function.

    >>> code = Code({"x"})
    >>> code.let("y", "x + 1"), code.let("y", "x + 1"), code.fresh("x")
    ('y', 'y', 'x_2')
    >>> code.lines
    ['    y = x + 1']
    """

    taken: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    depth: int = 1
    known: dict[str, str] = field(default_factory=dict)
    ranges: dict[int, str] = field(default_factory=dict)

    def do(self, line: str) -> None:
        """Append a line at the present depth."""
        self.lines.append(INDENT * self.depth + line)

    def fresh(self, stem: str) -> str:
        """A name that was not used before."""
        numbered = (f"{stem}_{n}" for n in count(2))
        name = stem if stem not in self.taken else next(n for n in numbered if n not in self.taken)
        self.taken.add(name)
        return name

    def let(self, stem: str, text: str) -> str:
        """The name of a value: the same text in scope is the same value."""
        if text not in self.known:
            name = self.fresh(stem)
            self.do(f"{name} = {bare(text)}")
            self.known[text] = name
        return self.known[text]

    def range(self, width: int) -> str:
        """The name of the vector 0, 1, ..., width - 1, which is made once for the whole function."""
        if width not in self.ranges:
            self.ranges[width] = self.fresh(f"r{width}")
        return self.ranges[width]

    @property
    def text(self) -> str:
        """All lines, the ranges first."""
        ranges = [f"{INDENT}{name} = tl.arange(0, {width})" for width, name in sorted(self.ranges.items())]
        return "\n".join((*ranges, *self.lines))

    @contextmanager
    def scope(self, head: str = "") -> Iterator[None]:
        """What is named inside is forgotten afterwards; with a `head`, the lines inside are its block."""
        known = dict(self.known)
        if head:
            self.do(head)
            self.depth += 1
        yield
        self.known = known
        self.depth -= bool(head)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """What is written inside leaves no trace."""
        lines, taken, known, depth = list(self.lines), set(self.taken), dict(self.known), self.depth
        ranges = dict(self.ranges)
        yield
        self.lines, self.taken, self.known, self.depth = lines, taken, known, depth
        self.ranges = ranges


def bare(text: str) -> str:
    """The text without parentheses around all of it.

    >>> bare("(a + b)"), bare("(a + b) * (c)")
    ('a + b', '(a + b) * (c)')
    """
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if place == len(text) - 1 else text
    return text


def times(text: str, factor: int | str) -> str:
    """text * factor, without a factor of 1."""
    return text if factor == 1 else f"{text} * {factor}"


def plus(terms: Iterable[str | int]) -> str:
    """The sum of the terms that are not 0, "0" where there is none."""
    kept = [str(t) for t in terms if str(t) not in ("0", "")]
    return " + ".join(kept) if kept else "0"


def indexed(position: int, rank: int) -> str:
    """The subscript that puts a vector on dimension `position` of `rank`.

    >>> indexed(1, 3), indexed(0, 1)
    ('[None, :, None]', '')
    """
    return "" if rank < 2 else "[" + ", ".join(":" if d == position else "None" for d in range(rank)) + "]"
