"""Classic einsum strings and interleaved lists: `"ij,jk->ik"` -> `Spec` -> `ir.Program`.

This is the short way from `stein.einsum` to the IR. `einsum.lark` (starts `einsum` and `einsum_names`) is the specification
of the strings; the parser here is written by hand, because it stands on the path of a call, and a property test proves that
both accept the same strings with the same trees. A `Spec` speaks of labels only; sizes and types come with the operands.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Integral
from typing import Any, NoReturn

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError, Source, Span
from ..ir.expr import Constraint, Einsum, Equation, Expr, Input, Program, Read
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES, Semiring
from ..ir.size import ONE, Size
from ..ir.types import DType
from .promotion import contraction_types

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
        return tuple(
            part for s in self.slots for part in (s if isinstance(s, tuple) else (s,)) if part != ELLIPSIS
        )

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
        if count != 3:
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
            self.fail(f"{self.text[start : place.end]!r} cannot be a label", "label", place, help="a name is an identifier")
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


def _key(label: Hashable) -> Hashable:
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


# ---------------------------------------------------------------- shapes


def check_shapes(spec: Spec, shapes: Sequence[tuple[int, ...]]) -> None:
    """Check operand shapes against `spec`; size-1 axes broadcast. Raises `ShapeError` with carets and a hint.

    >>> check_shapes(parse_spec("ij,jk->ik"), [(2, 3), (3, 5)])
    """
    if len(shapes) != len(spec.inputs):
        _fail_count(spec, len(shapes))
    sizes: dict[str, int] = {}
    for number, (term, shape) in enumerate(zip(spec.inputs, shapes, strict=True)):
        slots = term.slots
        if term.ellipsis is not None and len(shape) >= len(slots) - 1:
            slots = _expanded(term, len(shape))
        elif term.ellipsis is not None or len(shape) != len(slots):
            _fail_rank(spec, number, shape)
        first: dict[Slot, int] = {}
        for axis, (slot, size) in enumerate(zip(slots, shape, strict=True)):
            if isinstance(slot, tuple):
                continue
            if shape[first.setdefault(slot, axis)] != size:
                _fail_diagonal(spec, number, slot, first[slot], axis, shape)
            if sizes.setdefault(slot, size) != size and size != 1:
                if sizes[slot] != 1:
                    _fail_size(spec, slot, shapes)
                sizes[slot] = size
    if not spec.plain:
        _check_composites(spec, shapes, sizes)


def _expanded(term: Term, rank: int) -> tuple[Slot, ...]:
    """The slots with "..." replaced by hidden labels, numbered from the right as broadcasting aligns them."""
    at = term.ellipsis
    if at is None:
        return term.slots
    count = rank - len(term.slots) + 1
    hidden = tuple(f"{ELLIPSIS}{k}" for k in reversed(range(count)))
    return term.slots[:at] + hidden + term.slots[at + 1 :]


def _check_composites(spec: Spec, shapes: Sequence[tuple[int, ...]], sizes: dict[str, int]) -> None:
    """Check composite axes: the product of known parts, one unknown part by division."""
    waiting = [
        (slot, shape[axis], number, axis)
        for number, (term, shape) in enumerate(zip(spec.inputs, shapes, strict=True))
        for axis, slot in enumerate(_expanded(term, len(shape)))
        if isinstance(slot, tuple)
    ]
    while waiting:
        ready = [w for w in waiting if sum(part not in sizes for part in set(w[0])) <= 1]
        if not ready:
            slot, _, number, _ = waiting[0]
            missing = [part for part in slot if part not in sizes]
            _fail_composite(spec, number, slot, f"the sizes of {_quoted(missing)} cannot both be told from one axis")
        for entry in ready:
            slot, size, number, axis = entry
            waiting.remove(entry)
            missing = [part for part in slot if part not in sizes]
            known = 1
            for part in slot:
                known *= sizes.get(part, 1)
            text = f"axis {axis} of operand {number} (size {size}) is not "
            if len(missing) > 1:
                _fail_composite(spec, number, slot, f"{missing[0]!r} twice in one composite axis has no size")
            if missing and (known == 0 or size % known):
                _fail_composite(spec, number, slot, text + f"a multiple of {known}")
            if missing:
                sizes[missing[0]] = size // known
            elif known != size:
                parts = " x ".join(f"{part}={sizes[part]}" for part in slot)
                _fail_composite(spec, number, slot, text + parts)


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(repr(n) for n in names)


def _fail(spec: Spec, sentence: str, code: str, spans: Sequence[Span], help: str = "") -> NoReturn:
    raise ShapeError(sentence, code=code, source=spec.source, spans=spans, help=help)


def _fail_composite(spec: Spec, number: int, slot: Slot, sentence: str) -> NoReturn:
    term = spec.inputs[number]
    _fail(spec, sentence, "composite-size", (term.spans[term.slots.index(slot)],))


def _fail_count(spec: Spec, given: int) -> NoReturn:
    count = len(spec.inputs)
    names = f"the expression names {count} operand{'s' * (count != 1)}, {given} {'was' if given == 1 else 'were'} given"
    if given < count:
        missing = spec.inputs[given:]
        which = ", ".join(f"number {given + n} ({_text(spec, t)!r})" for n, t in enumerate(missing))
        _fail(spec, names, "operand-count", [t.span for t in missing], f"missing: operand {which}")
    _fail(spec, names, "operand-count", [t.span for t in spec.inputs], f"no term stands for operand {count}")


def _text(spec: Spec, term: Term) -> str:
    return spec.source.text[term.span.start : term.span.end]


def _fail_rank(spec: Spec, number: int, shape: tuple[int, ...]) -> NoReturn:
    term = spec.inputs[number]
    text, names = _text(spec, term), len(term.slots) - (term.ellipsis is not None)
    least = "at least " if term.ellipsis is not None else ""
    many = f"{len(shape)} ax{'is' if len(shape) == 1 else 'es'} {shape}"
    help = ""
    if term.ellipsis is None and spec.plain and all(len(s) == 1 for s in spec.labels):
        out = "".join(str(s) for s in spec.output.slots)
        keep = "".join(str(s) for s in term.slots[: len(shape)])
        others = [_text(spec, t) for t in spec.inputs]
        if len(shape) < names and set(out) <= set(keep).union(*others[:number], *others[number + 1 :]):
            short = ",".join([*others[:number], keep, *others[number + 1 :]])
            wide = ",".join([*others[:number], "..." + keep, *others[number + 1 :]])
            help = f'"{short}->{out}", or "{wide}->{out}" for any number of leading axes'
        elif len(shape) > names:
            wide = ",".join([*others[:number], "..." + text, *others[number + 1 :]])
            help = f'"{wide}->{out}" sums the leading axes, "{wide}->...{out}" keeps them'
    _fail(spec, f"operand {number} has {many} but {text!r} names {least}{names}", "axis-count", (term.span,), help)


def _axis_spans(term: Term, rank: int) -> list[Span]:
    spans = list(term.spans)
    if term.ellipsis is not None:
        spans[term.ellipsis : term.ellipsis + 1] = [spans[term.ellipsis]] * (rank - len(term.slots) + 1)
    return spans


def _fail_diagonal(spec: Spec, number: int, label: str, a: int, b: int, shape: tuple[int, ...]) -> NoReturn:
    spans = _axis_spans(spec.inputs[number], len(shape))
    _fail(
        spec,
        f"{label!r} names axis {a} (size {shape[a]}) and axis {b} (size {shape[b]}) of operand {number}; "
        "a diagonal needs equal sizes",
        "diagonal-size",
        (spans[a], spans[b]),
        f"give the axes different labels to keep or sum both, or slice operand {number} to equal sizes",
    )


def _fail_size(spec: Spec, label: str, shapes: Sequence[tuple[int, ...]]) -> NoReturn:
    """Two sizes of one label, neither of them 1."""
    found = [
        (number, axis, shape[axis], _axis_spans(term, len(shape))[axis])
        for number, (term, shape) in enumerate(zip(spec.inputs, shapes, strict=True))
        for axis, slot in enumerate(_expanded(term, len(shape)))
        if slot == label and shape[axis] != 1
    ]
    number, axis, size, place = found[0]
    number2, axis2, size2, place2 = next(f for f in found if f[2] != size)
    if label.startswith(ELLIPSIS):
        behind = int(label[len(ELLIPSIS) :])
        deep = max(len(s) - len(t.slots) + 1 for t, s in zip(spec.inputs, shapes, strict=True) if t.ellipsis is not None)
        _fail(
            spec,
            f"ellipsis axis {deep - 1 - behind} is {size} in operand {number} and {size2} in operand {number2}",
            "ellipsis-size",
            (place, place2),
            "axes under '...' are aligned at the right and must be equal or 1",
        )
    _fail(
        spec,
        f"size of {label!r} is {size} in operand {number} (axis {axis}) but {size2} in operand {number2} (axis {axis2})",
        "size-mismatch",
        (place, place2),
        _transposition_help(spec, shapes, number2),
    )


def _transposition_help(spec: Spec, shapes: Sequence[tuple[int, ...]], number: int) -> str:
    """The operand's letters reversed, if that fits; or why it does not."""
    term = spec.inputs[number]
    if not spec.plain or len(term.slots) != 2:
        return ""
    known: dict[str, int] = {}
    for k, (other, shape) in enumerate(zip(spec.inputs, shapes, strict=True)):
        if k != number:
            known.update((str(s), n) for s, n in zip(other.slots, shape, strict=True) if n != 1)
    turned = tuple(reversed(term.slots))
    terms = [_text(spec, t) for t in spec.inputs]
    terms[number] = ("" if all(len(str(s)) == 1 for s in turned) else " ").join(map(str, turned))
    text = ",".join(terms) + "->" + ("" if len(terms[number]) == 2 else " ").join(map(str, spec.output.slots))
    wrong = [
        (known[str(s)], n)
        for s, n in zip(turned, shapes[number], strict=True)
        if n != 1 and known.get(str(s), n) != n
    ]
    if not wrong:
        return f'"{text}" would fit: operand {number} looks transposed'
    return f'"{text}" would need size {wrong[0][0]} = {wrong[0][1]}; no transposition of operand {number} fits'


# ---------------------------------------------------------------- to the IR


def elaborate_spec(
    spec: Spec,
    ranks: tuple[int, ...],
    ones: tuple[tuple[bool, ...], ...],
    dtypes: tuple[DType, ...],
    *,
    dtype: DType | None = None,
    semiring: Semiring = PLUS_TIMES,
    accumulate: DType | None = None,
    diagonal_output: bool = False,
) -> Program:
    """The program of `spec` with one symbolic size per label; inputs `op0`, `op1`, ..., output `out`.

    `ones[k][a]` says that axis a of operand k has extent 1: where another axis of its label has not, it is read at 0
    (rule R15). `dtype` is the type to compute and return in (default: the promotion of `dtypes`), `accumulate` that of
    sums. Ranks must have passed `check_shapes`. Raises `EinsumSyntaxError` for a label twice in the output unless
    `diagonal_output`, `DTypeError` for a type that cannot hold the result.
    """
    if not diagonal_output:
        _check_repeats(spec)
    result, accumulated, semiring = contraction_types(dtypes, dtype, semiring, accumulate)
    builder = _Builder(spec, ranks, ones)
    factors: tuple[Expr, ...] = tuple(
        Read(f"op{k}", builder.slots[k], dtypes[k], span=spec.inputs[k].span) for k in range(len(ranks))
    )
    slots, shape, free = builder.output()
    bound = tuple(i.name for i in builder.indices if i.name not in free)
    einsum = Einsum(bound, factors, result, accumulated, semiring, Span(0, len(spec.source.text)))
    equation = Equation("out", slots, shape, builder.indices, einsum, result, semiring, span=einsum.span)
    inputs = tuple(
        Input(f"op{k}", builder.shapes[k], dtypes[k], span=spec.inputs[k].span) for k in range(len(ranks))
    )
    return Program(inputs, (equation,), ("out",), tuple(builder.constraints), spec.source)


def _check_repeats(spec: Spec) -> None:
    seen: dict[str, Span] = {}
    for slot, span in zip(spec.output.slots, spec.output.spans, strict=True):
        for label in slot if isinstance(slot, tuple) else (slot,):
            if label in seen:
                raise EinsumSyntaxError(
                    f"label {label!r} twice in the output",
                    code="repeated-output",
                    source=spec.source,
                    spans=(span, seen[label]),
                    help=f"to put {label} on a diagonal use einsum(..., diagonal_output=True) or D[{label},{label}] = x[{label}]",
                )
            seen[label] = span


class _Builder:
    """Indices, sizes and slots of one spec at known ranks."""

    def __init__(self, spec: Spec, ranks: tuple[int, ...], ones: tuple[tuple[bool, ...], ...]) -> None:
        self.spec = spec
        terms = [_expanded(t, rank) for t, rank in zip(spec.inputs, ranks, strict=True)]
        flat = dict.fromkeys(p for t in terms for s in t for p in (s if isinstance(s, tuple) else (s,)))
        deep = [n for n in flat if n.startswith(ELLIPSIS)]
        self.ellipsis = sorted(deep, key=lambda n: -int(n[len(ELLIPSIS) :]))  # leftmost first
        self.names = _index_names([*self.ellipsis, *(n for n in flat if n not in deep)])
        self.constraints: list[Constraint] = []
        long = {
            s
            for t, flags in zip(terms, ones, strict=True)
            for s, one in zip(t, flags, strict=True)
            if isinstance(s, str) and not one
        }
        bare = {s for t in terms for s in t if isinstance(s, str)}
        self.sizes = {s: Size.name(self.names[s]) if s in long else ONE for s in bare}
        self.shapes = [self._shape(k, t, ones[k], long) for k, t in enumerate(terms)]
        self.indices = tuple(Index(self.names[n], self.sizes[n]) for n in self.names)
        self.slots = [self._slots(t, ones[k], long) for k, t in enumerate(terms)]

    def _shape(self, k: int, term: tuple[Slot, ...], ones: tuple[bool, ...], long: set[str]) -> tuple[Size, ...]:
        shape = []
        for axis, (slot, one) in enumerate(zip(term, ones, strict=True)):
            if isinstance(slot, str):
                shape.append(ONE if one and slot in long else self.sizes[slot])
                continue
            known = ONE
            for part in slot:
                known = known * self.sizes.get(part, ONE)
            missing = [part for part in slot if part not in self.sizes]
            if not missing:
                shape.append(known)
                continue
            extent = Size.name(f"op{k}.{axis}")
            self.sizes[missing[0]] = extent // known
            for part in missing[1:]:  # two unknown parts were refused by check_shapes
                self.sizes[part] = ONE
            sentence = f"axis {axis} of operand {k} (size {{right}}) is not a multiple of {{left}}"
            span = self.spec.inputs[k].span
            self.constraints.append(Constraint("divides", known, extent, "composite-size", sentence, spans=(span,)))
            shape.append(extent)
        return tuple(shape)

    def _slots(self, term: tuple[Slot, ...], ones: tuple[bool, ...], long: set[str]) -> tuple[Affine, ...]:
        return tuple(
            Affine.constant(0) if isinstance(s, str) and one and s in long else self._slot(s)
            for s, one in zip(term, ones, strict=True)
        )

    def _slot(self, slot: Slot) -> Affine:
        if isinstance(slot, str):
            return Affine.of(self.names[slot])
        return Affine.composite(tuple(Index(self.names[p], self.sizes[p]) for p in slot))

    def output(self) -> tuple[tuple[Affine, ...], tuple[Size, ...], set[str]]:
        """Slots, shape and index names of the output."""
        slots: list[Slot] = []
        for s in self.spec.output.slots:
            slots.extend(self.ellipsis if s == ELLIPSIS else [s])
        shape = []
        for s in slots:
            extent = ONE
            for part in s if isinstance(s, tuple) else (s,):
                extent = extent * self.sizes[part]
            shape.append(extent)
        affine = tuple(self._slot(s) for s in slots)
        return affine, tuple(shape), {n for a in affine for n in a.indices}


def _index_names(labels: Sequence[str]) -> dict[str, str]:
    """An identifier for each label: itself where it is one."""
    names = {n: n for n in labels if n.isidentifier()}
    taken, count = set(names), 0
    for label in labels:
        if label in names:
            continue
        stem = "e" if label.startswith(ELLIPSIS) else "l"
        while f"{stem}{count}" in taken:
            count += 1
        names[label] = f"{stem}{count}"
        taken.add(names[label])
    return {n: names[n] for n in labels}
