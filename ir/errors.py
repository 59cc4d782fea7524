"""Sources, spans and errors: where a piece of a program stands in what the user wrote, and how we tell them that it
is wrong.

Every message has one form: place, code, sentence; the source line; carets under every place involved; a concrete hint.
`assert` is for our own bugs; a user's mistake raises one of the classes here, each of which is also the built-in error
that NumPy users expect (`ValueError` or `TypeError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Characters `start` up to `end` of a source."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The span that covers both."""
        return Span(min(self.start, other.start), max(self.end, other.end))


NOWHERE = Span(0, 0)


@dataclass(frozen=True)
class Source:
    """A text with a name for messages: a file's, `<program>` or `<einsum>`."""

    name: str
    text: str

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both from 1.

        >>> Source("<program>", "ab\\ncd").place(4)
        (2, 2)
        """
        before = self.text[:offset]
        return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1

    def excerpt(self, spans: Sequence[Span]) -> str:
        """Each line that a span touches, with carets below the spans."""
        lines = self.text.split("\n")
        marks: dict[int, set[int]] = {}
        for span in spans:
            line, column = self.place(min(span.start, len(self.text)))
            width = max(1, min(span.end, len(self.text)) - span.start)
            room = max(1, len(lines[line - 1]) - column + 1)
            marks.setdefault(line, set()).update(range(column, column + min(width, room)))
        out = []
        for line in sorted(marks):
            last = max(marks[line])
            out.append("  " + lines[line - 1].replace("\t", " "))
            out.append("  " + "".join("^" if c in marks[line] else " " for c in range(1, last + 1)))
        return "\n".join(out)


EMPTY = Source("<program>", "")


class SteinError(Exception):
    """The root of every error that stein raises on a user's mistake.

    `code` is a short kebab-case name of the mistake, `sentence` says what is wrong, `spans` are the places involved
    (the first is the main one; `.span`, `.line` and `.col` speak of it), `help` is the hint.
    """

    def __init__(
        self,
        sentence: str,
        *,
        code: str,
        source: Source = EMPTY,
        spans: Sequence[Span] = (),
        help: str = "",
    ) -> None:
        self.sentence, self.code, self.source, self.help = sentence, code, source, help
        self.spans = tuple(spans)
        self.span = self.spans[0] if self.spans else NOWHERE
        self.line, self.col = source.place(self.span.start)
        super().__init__(self.render())

    def render(self) -> str:
        """The whole message: place, sentence, excerpt with carets, hint."""
        head = f"{self.code}: {self.sentence}"
        if self.spans:
            head = f"{self.source.name}:{self.line}:{self.col}: {head}\n{self.source.excerpt(self.spans)}"
        return head + (f"\nhelp: {self.help}" if self.help else "")


class EinsumSyntaxError(SteinError, ValueError):
    """The text is no program of the language, or a name in it means nothing."""


class ShapeError(SteinError, ValueError):
    """Sizes or numbers of axes do not fit."""


class DTypeError(SteinError, TypeError):
    """Element types do not fit, or an argument is of a wrong Python type."""


class StructureError(SteinError, ValueError):
    """A declared structure does not fit its tensor, its options or its values."""


class EncryptionError(SteinError, TypeError):
    """An encrypted value is used in a way that cannot be evaluated under encryption."""


class EnvelopeError(EncryptionError):
    """A file or message of an encrypted program is damaged, or belongs to another plan, other keys or another use."""


class SingularError(SteinError, ValueError):
    """A matrix that has no inverse, or not the power that is asked for, to the precision of its type."""

    def located(self, source: Source, span: Span) -> SingularError:
        """The same error with the place of the statement, once that is known."""
        spans = () if span == NOWHERE else (span,)
        return SingularError(self.sentence, code=self.code, source=source, spans=spans, help=self.help)


class BackendError(SteinError, ValueError):
    """A target that is unknown, not installed, or cannot run this program."""
