"""Classic einsum strings and interleaved lists: `"ij,jk->ik"` -> `Spec`.

`einsum.lark` (starts `einsum` and `einsum_names`) is the specification of the strings; the parser here is written by
hand, because it stands on the path of a call, and a property test proves that both accept the same strings with the
same trees. A `Spec` speaks of labels only; sizes and types come with the operands (`classic`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Integral
from typing import Any, NoReturn

from ..ir.errors import DTypeError, EinsumSyntaxError, Source, Span

ELLIPSIS = "..."
Slot = str | tuple[str, ...]  # a label or "...", or the labels of a composite axis `(a b)`


@dataclass(frozen=True)
class Term:
    """The axes of one operand, or of the output: a label, "..." or a tuple of labels (a composite axis) for each."""

    slots: tuple[Slot, ...]
    spans: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    span: Span = field(default=Span(0, 0), compare=False, repr=False)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every label, in order, parts of composites included, "..." left out."""
        return tuple(part for s in self.slots for part in (s if isinstance(s, tuple) else (s,)) if part != ELLIPSIS)

    @cached_property
    def ellipsis(self) -> int | None:
        """The slot that is "...", if there is one."""
        return self.slots.index(ELLIPSIS) if ELLIPSIS in self.slots else None


@dataclass(frozen=True)
class Spec:
    """A parsed expression: one `Term` per operand and one for the output (implicit outputs are worked out).

    >>> parse_spec("ij,jk").output.slots
    ('i', 'k')
    """

    inputs: tuple[Term, ...]
    output: Term
    explicit: bool
    source: Source = field(compare=False, repr=False)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Kept, since a spec is part of a key that every new size looks up."""
        return hash((self.inputs, self.output, self.explicit))

    @cached_property
    def plain(self) -> bool:
        """Whether there is neither an ellipsis nor a composite axis."""
        return all(isinstance(s, str) and s != ELLIPSIS for t in (*self.inputs, self.output) for s in t.slots)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every label of the operands, in order of appearance."""
        return tuple(dict.fromkeys(label for t in self.inputs for label in t.labels))


# ---------------------------------------------------------------- strings


@lru_cache(maxsize=4096)
def parse_spec(spec: str, names: bool = False) -> Spec:
    """Parse an einsum string. With `names`, labels are names divided by blanks: `"row col, col out -> row out"`.

    Raises `EinsumSyntaxError` with the place. Results are cached.

    >>> [t.slots for t in parse_spec("...ij,(j k)->...ik").inputs]
    [('...', 'i', 'j'), (('j', 'k'),)]
    """
    source = Source("<einsum>", spec)
    groups, arrow = _Scanner(source, names).scan()
    inputs = tuple(groups) if arrow is None else tuple(groups[:-1])
    return _complete(inputs, None if arrow is None else groups[-1], source)


class _Scanner:
    """One pass over the characters of a string."""

    def __init__(self, source: Source, names: bool) -> None:
        self.source, self.text, self.names, self.at = source, source.text, names, 0

    def scan(self) -> tuple[list[Term], Span | None]:
        """Every comma- or arrow-separated group, and the place of the arrow."""
        groups, arrow = [], None
        while True:
            groups.append(self.group())
            if self.at >= len(self.text):
                return groups, arrow
            if self.text.startswith("->", self.at):
                place = Span(self.at, self.at + 2)
                if arrow is not None:
                    self.fail("second '->'; an expression has one output", "second-arrow", place, arrow)
                arrow = place
                self.at += 2
            elif arrow is not None:
                self.fail(
                    "',' after '->'; an expression has one output", "second-output", Span(self.at, self.at + 1), arrow
                )
            else:
                self.at += 1

    def group(self) -> Term:
        """Slots up to the next `,` or `->`."""
        slots: list[Slot] = []
        spans: list[Span] = []
        while (char := self.peek()) not in ("", ",") and not self.text.startswith("->", self.at):
            start = self.at
            if char == ".":
                slots.append(self.dots())
                if slots.count(ELLIPSIS) > 1:
                    first = spans[slots.index(ELLIPSIS)]
                    self.fail("a second '...' in one term", "second-ellipsis", Span(start, self.at), first)
            elif char == "(":
                slots.append(self.pack())
            else:
                slots.append(self.label())
            spans.append(Span(start, self.at))
        whole = spans[0].to(spans[-1]) if spans else Span(self.at, self.at)
        return Term(tuple(slots), tuple(spans), whole)

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n\f":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def dots(self) -> str:
        """An ellipsis."""
        count = 0
        while self.text.startswith(".", self.at + count):
            count += 1
        if count % 3:
            self.fail(
                f"'{'.' * count}' is not an ellipsis; write '...'", "not-an-ellipsis", Span(self.at, self.at + count)
            )
        self.at += 3
        return ELLIPSIS

    def pack(self) -> tuple[str, ...]:
        """A composite axis `(a b)`."""
        opening = Span(self.at, self.at + 1)
        self.at += 1
        labels = []
        while (char := self.peek()) != ")":
            if char in ("", ",") or self.text.startswith("->", self.at):
                self.fail("'(' is never closed", "unclosed", opening)
            labels.append(self.label())
        self.at += 1
        if len(labels) < 2:
            self.fail(
                "a composite axis combines two or more labels",
                "composite",
                Span(opening.start, self.at),
                help="write (a b), or the label without parentheses",
            )
        return tuple(labels)

    def label(self) -> str:
        """One label: a character, or a name with `names`."""
        start, char = self.at, self.text[self.at]
        if self.names:
            end = start
            while end < len(self.text) and (self.text[end].isalnum() or self.text[end] == "_"):
                end += 1
            if end > start and not char.isdigit() and self.text[start:end].isidentifier():
                self.at = end
                return self.text[start:end]
            place = Span(start, max(end, start + 1))
            self.fail(
                f"{self.text[start : place.end]!r} cannot be a label", "label", place, help="a name is an identifier"
            )
        if not is_label(char):
            self.fail(
                f"{char!r} cannot be a label",
                "label",
                Span(start, start + 1),
                help="labels are letters; use the named form for longer names",
            )
        self.at = start + 1
        return char

    def fail(self, sentence: str, code: str, *spans: Span, help: str = "") -> NoReturn:
        raise EinsumSyntaxError(sentence, code=code, source=self.source, spans=spans, help=help)


def is_label(char: str) -> bool:
    """Whether one character can be a label: anything but ASCII white space, control and punctuation."""
    return char.isalnum() if char < "\x80" else True


def _complete(inputs: tuple[Term, ...], output: Term | None, source: Source) -> Spec:
    """The spec with its output checked, or worked out: labels that stand once, sorted, after the ellipsis."""
    if output is None:
        count: dict[str, int] = {}
        for term in inputs:
            for label in term.labels:
                count[label] = count.get(label, 0) + 1
        kept: list[Slot] = [ELLIPSIS] if any(t.ellipsis is not None for t in inputs) else []
        end = Span(len(source.text), len(source.text))
        kept += sorted(label for label, n in count.items() if n == 1)
        return Spec(inputs, Term(tuple(kept), (end,) * len(kept), end), False, source)
    known = {label for t in inputs for label in t.labels}
    for slot, span in zip(output.slots, output.spans, strict=True):
        for label in slot if isinstance(slot, tuple) else (slot,):
            if label not in known and label != ELLIPSIS:
                raise EinsumSyntaxError(
                    f"output label {label!r} does not occur in any operand",
                    code="unknown-label",
                    source=source,
                    spans=(span,),
                    help=_label_help(inputs, output, label),
                )
    return Spec(inputs, output, True, source)


def _label_help(inputs: tuple[Term, ...], output: Term, wrong: str) -> str:
    labels = list(dict.fromkeys(label for t in inputs for label in t.labels))
    text = "labels available: " + " ".join(labels)
    once = [n for n in labels if sum(t.labels.count(n) for t in inputs) == 1 and n not in output.labels]
    if len(once) == 1 and len(once[0]) == 1 and all(isinstance(s, str) for s in output.slots):
        guess = "".join(once[0] if s == wrong else str(s) for s in output.slots)
        text += f"; did you mean {guess!r}?"
    return text


# ---------------------------------------------------------------- interleaved lists


def parse_interleaved(args: Sequence[Any]) -> tuple[Spec, tuple[Any, ...]]:
    """The interleaved form `op, [0, 1], op, [1, 2], [0, 2]`: its spec and its operands.

    A label is any hashable value but a float; the output list is optional, and then holds the labels that stand once,
    sorted. Raises `DTypeError` where a list is missing or a label cannot be one.

    >>> parse_interleaved(["A", [0, 1], "x", [1]])[0].output.slots
    ('0',)
    """
    if len(args) < 2 or not all(isinstance(s, (list, tuple)) for s in args[1 : len(args) // 2 * 2 : 2]):
        kind = type(args[0]).__name__ if args else "nothing"
        article = "an" if kind[0] in "aeiou" else "a"
        raise DTypeError(
            f"the first argument is {article} {kind}; give an expression string, or array, list, array, list, ...",
            code="not-an-expression",
        )
    operands, lists = tuple(args[0 : len(args) // 2 * 2 : 2]), [tuple(s) for s in args[1::2]]
    output = None
    if len(args) % 2:
        if not isinstance(args[-1], (list, tuple)):
            raise DTypeError(
                f"the last argument is a {type(args[-1]).__name__}; the output is a list of labels", code="not-a-list"
            )
        output = tuple(args[-1])
    return _interleaved_spec(tuple(lists), output), operands


@lru_cache(maxsize=4096, typed=True)
def _interleaved_spec(lists: tuple[tuple[Hashable, ...], ...], output: tuple[Hashable, ...] | None) -> Spec:
    names = _label_names([*lists, output or ()])
    text, groups = "", []
    for k, labels in enumerate([*lists, *([] if output is None else [output])]):
        text += "" if not k else "->" if k == len(lists) else ", "
        spans, slots = [], []
        for a, label in enumerate(labels):
            text += " " if a else ""
            slots.append(names[_key(label)])
            spans.append(Span(len(text), len(text) + len(slots[-1])))
            text += slots[-1]
        groups.append((tuple(slots), tuple(spans), spans[0].to(spans[-1]) if spans else Span(len(text), len(text))))
    source = Source("<einsum>", text)
    terms = [Term(*g) for g in groups]
    for term in terms:
        if term.slots.count(ELLIPSIS) > 1:
            raise EinsumSyntaxError(
                "a second '...' in one list", code="second-ellipsis", source=source, spans=(term.span,)
            )
    spec = _complete(tuple(terms[: len(lists)]), terms[-1] if output is not None else None, source)
    if output is None:  # sorted as the labels are, not as their names
        order = {names[key]: n for n, key in enumerate(_sorted_keys(lists))}
        kept = sorted(spec.output.slots, key=lambda s: order.get(str(s), -1))
        return Spec(spec.inputs, Term(tuple(kept), spec.output.spans, spec.output.span), False, source)
    return spec


def _key(label: Any) -> Hashable:
    """A label as a dictionary key: every kind of integer is one kind, and differs from text."""
    return int(label) if isinstance(label, Integral) else label


def _sorted_keys(lists: Sequence[tuple[Hashable, ...]]) -> list[Hashable]:
    keys = list(dict.fromkeys(_key(s) for one in lists for s in one if s is not Ellipsis))
    try:
        return sorted(keys)  # type: ignore[type-var]
    except TypeError:  # no common order: integers first, then by type and text
        return sorted(keys, key=lambda k: (not isinstance(k, int), type(k).__name__, _position(k), str(k)))


def _position(key: Hashable) -> int:
    return key if isinstance(key, int) else 0


def _label_names(lists: Sequence[tuple[Hashable, ...]]) -> dict[Hashable, str]:
    """A name for each label: its text where that is unambiguous."""
    names: dict[Hashable, str] = {Ellipsis: ELLIPSIS}
    for labels in lists:
        for label in labels:
            if isinstance(label, float):
                raise DTypeError(
                    f"{label!r} cannot be a label", code="label", help="labels are integers, strings or Ellipsis"
                )
    for key in _sorted_keys(lists):
        text = str(key)
        if not isinstance(key, int) and not (isinstance(key, str) and text.isidentifier()):
            text = f"label{len(names)}"
        while text in names.values():
            text += "_"
        names[key] = text
    return names


def expanded(term: Term, rank: int) -> tuple[Slot, ...]:
    """The slots with "..." replaced by hidden labels, numbered from the right as broadcasting aligns them."""
    at = term.ellipsis
    if at is None:
        return term.slots
    count = rank - len(term.slots) + 1
    hidden = tuple(f"{ELLIPSIS}{k}" for k in reversed(range(count)))
    return term.slots[:at] + hidden + term.slots[at + 1 :]
