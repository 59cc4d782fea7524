"""The part of an explanation that speaks of structure: findings, facts, near misses and the table of candidates.

Plain data first (`FindingNote`, `CandidateNote`), made from what the passes found; then how it is drawn. The text is
meant to be read without the program at hand: each finding stands below the line of the source that it was proved from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ir.errors import NOWHERE, Source, Span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..passes.candidates import Candidate
    from ..passes.choice import Choice
    from ..passes.recognise import Finding, NearMiss


@dataclass(frozen=True)
class FindingNote:
    """One finding: what it says, why it holds, and where that stands in the source (`place` is line:column, `excerpt`
    the line with carets below; both are empty where there is no source).
    """

    text: str
    evidence: str
    kind: str = ""
    value: str = ""
    argument: str = ""
    place: str = ""
    excerpt: str = ""
    used: bool = False


@dataclass(frozen=True)
class CandidateNote:
    """One row of the table: an equal program, what a call of it takes, and whether it is the one that runs.

    `stored` are elements kept between calls; `also` are names of candidates that turned out to be the same program.
    """

    name: str
    flops: int
    bytes: int
    launches: int
    predicted_ns: float
    stored: int = 0
    chosen: bool = False
    also: tuple[str, ...] = ()


def candidate_notes(choice: Choice, chosen: str) -> tuple[CandidateNote, ...]:
    """The table, cheapest first; `chosen` names the candidate that runs."""
    return tuple(_candidate(c, c.name == chosen) for c in choice.candidates)


def _candidate(c: Candidate, chosen: bool) -> CandidateNote:
    cost = c.cost
    return CandidateNote(c.name, cost.flops, cost.bytes, cost.launches, cost.nanoseconds, c.stored, chosen, c.also)


def finding_notes(
    found: Sequence[Finding], source: Source, used: Finding | None
) -> tuple[tuple[FindingNote, ...], tuple[FindingNote, ...]]:
    """(structures, facts), in the order of `found`."""
    notes = [(f, _note(f, source, f is used)) for f in found]
    structures = tuple(n for f, n in notes if f.term is not None)
    return structures, tuple(n for f, n in notes if f.term is None)


def _note(finding: Finding, source: Source, used: bool) -> FindingNote:
    place, excerpt = _place(finding.evidence.span, source)
    rule = getattr(finding.evidence, "rule", "")
    evidence = f"proved: {_words(rule)}" if rule else "declared"
    return FindingNote(sentence(finding), evidence, finding.kind, finding.value, finding.argument, place, excerpt, used)


def _place(span: Span, source: Source) -> tuple[str, str]:
    if span == NOWHERE or not source.text:
        return "", ""
    return "{}:{}".format(*source.place(span.start)), source.excerpt((span,))


PROPER = {
    n.lower(): n
    for n in (
        "BLAST",
        "CP",
        "Hadamard",
        "Hankel",
        "Householder",
        "Kronecker",
        "Monarch",
        "Toeplitz",
        "Tucker",
        "Vandermonde",
    )
}


def _words(kind: str) -> str:
    """A kind as words; names of people and of papers keep their capitals."""
    return " ".join(PROPER.get(w, w) for w in kind.replace("_", " ").split(" "))


def sentence(finding: Finding) -> str:
    """A finding as a sentence.

    >>> from ..passes.recognise import Finding, Proved
    >>> sentence(Finding("y", "low_rank", None, Proved("low_rank"), argument="x", number=1, options={"rank": 4}))
    'term 2 of y is low rank in x (rank 4)'
    """
    if finding.kind == "rank" and "rank" in finding.options:
        matrix = f"{finding.value} as a function of {finding.argument}" if finding.argument else finding.value
        return f"{matrix} has rank {finding.options['rank']} at most"
    subject = finding.value if finding.number is None else f"term {finding.number + 1} of {finding.value}"
    where = f" in {finding.argument}" if finding.argument else ""
    figures = figures_text(finding.kind, finding.options)
    batch = finding.options.get("identity")
    each = f", the same for each of {batch}" if batch else ""
    return f"{subject} is {_words(finding.kind)}{where}{figures}{each}"


def figures_text(kind: str, options: Mapping[str, Any]) -> str:
    """The figures of a finding in brackets: ` (rank 4)`; nothing where there is none worth saying.

    >>> figures_text("kronecker", {"factors": ("dense", "toeplitz"), "permuted": True})
    ' (dense ⊗ Toeplitz, permuted)'
    """
    parts: list[str] = []
    for name, value in options.items():
        if name in ("identity", "declared", "operand") or value is None or value is False:
            continue
        if name == "band" and not (options.get("banded") or "band" in kind):
            continue  # of a full matrix
        if name == "factors" and isinstance(value, tuple):
            parts.append(" ⊗ ".join(_words(str(v)) for v in value))
        elif name in ("levels", "parts") and isinstance(value, tuple):
            if value != (kind,):
                parts.append(" + ".join(_words(str(v)) for v in value))
        elif value is True:
            parts.append(_words(name))
        elif name == "band" and isinstance(value, tuple) and len(value) == 2:
            parts.append(f"{value[0]} below and {value[1]} above the diagonal")
        elif isinstance(value, tuple):
            parts.append(f"{_words(name)} {' x '.join(map(str, value))}")
        else:
            parts.append(f"{_words(name)} {value}")
    return f" ({', '.join(parts)})" if parts else ""


def near_texts(missed: Sequence[NearMiss]) -> tuple[str, ...]:
    """Near misses as lines; one that several operands have in common is said once."""
    lines = (f"{n.value} is not {_words(n.kind)} in {n.argument}: {n.reason}" for n in missed)
    return tuple(dict.fromkeys(lines))


# --- drawing ----------------------------------------------------------------------------------------------------------


def finding_lines(notes: Sequence[FindingNote]) -> list[RenderableType]:
    """Findings below the source line that they were proved from; a line that several share is printed once."""
    from rich.text import Text

    lines: list[RenderableType] = []
    last = ""
    for note in notes:
        if note.excerpt != last:
            last = note.excerpt
            if note.excerpt:
                for k, row in enumerate(note.excerpt.split("\n")):
                    head = f"{note.place:>6}" if k == 0 else " " * 6
                    lines.append(Text(f"{head} {row}", style="dim", overflow="fold"))
        text = Text.assemble("- ", (note.text, "bold" if note.used else ""), (f"  [{note.evidence}]", "dim"))
        if note.used:
            text.append("  <- chosen", "green")
        text.overflow = "fold"
        lines.append(text)
    return lines


def candidate_table(notes: Sequence[CandidateNote]) -> RenderableType:
    """The candidates as a table; an asterisk marks the one that runs."""
    from rich.table import Table
    from rich.text import Text

    from .explain import count, duration, ratio, size

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("candidate", ratio=1, overflow="fold")
    for head in ("flops", "bytes", "kernels", "stored", "predicted", ""):
        table.add_column(head, justify="right", no_wrap=True)
    chosen = next((n.predicted_ns for n in notes if n.chosen), 0.0)
    for n in notes:
        name = Text(n.name, style="bold" if n.chosen else "")
        if n.also:
            name.append(f" = {' = '.join(n.also)}", "dim")
        slower = "" if n.chosen or not chosen else ratio(n.predicted_ns, chosen)
        stored = count(n.stored) if n.stored else ""
        table.add_row(
            "*" if n.chosen else "", name, count(n.flops), size(n.bytes), str(n.launches), stored,
            duration(n.predicted_ns), slower,
        )  # fmt: skip
    return table
