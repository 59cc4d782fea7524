"""Concrete shapes against a classic `Spec`: every mismatch is found here, before anything is compiled.

`check_shapes` runs on each call with new shapes, so its good path is short; what went wrong is worked out on failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ..ir.errors import ShapeError, Span
from .spec import ELLIPSIS, Slot, Spec, Term, expanded


def check_shapes(spec: Spec, shapes: Sequence[tuple[int, ...]]) -> None:
    """Check operand shapes against `spec`; size-1 axes broadcast. Raises `ShapeError` with carets and a hint.

    >>> from .spec import parse_spec
    >>> check_shapes(parse_spec("ij,jk->ik"), [(2, 3), (3, 5)])
    """
    if len(shapes) != len(spec.inputs):
        _fail_count(spec, len(shapes))
    sizes: dict[str, int] = {}
    for number, (term, shape) in enumerate(zip(spec.inputs, shapes, strict=True)):
        slots = term.slots
        if term.ellipsis is not None and len(shape) >= len(slots) - 1:
            slots = expanded(term, len(shape))
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


def _check_composites(spec: Spec, shapes: Sequence[tuple[int, ...]], sizes: dict[str, int]) -> None:
    """Check composite axes: the product of known parts, one unknown part by division."""
    waiting = [
        (slot, shape[axis], number, axis)
        for number, (term, shape) in enumerate(zip(spec.inputs, shapes, strict=True))
        for axis, slot in enumerate(expanded(term, len(shape)))
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
        for axis, slot in enumerate(expanded(term, len(shape)))
        if slot == label and shape[axis] != 1
    ]
    number, axis, size, place = found[0]
    number2, axis2, size2, place2 = next(f for f in found if f[2] != size)
    if label.startswith(ELLIPSIS):
        behind = int(label[len(ELLIPSIS) :])
        deep = max(
            len(s) - len(t.slots) + 1 for t, s in zip(spec.inputs, shapes, strict=True) if t.ellipsis is not None
        )
        _fail(
            spec,
            f"ellipsis axis {deep - 1 - behind} is {size} in operand {number} and {size2} in operand {number2}",
            "ellipsis-size",
            (place, place2),
            "axes under '...' are aligned at the right and must be equal or 1",
        )
    _fail(
        spec,
        f"size of {label!r} is {size} in operand {number} (axis {axis}) "
        f"but {size2} in operand {number2} (axis {axis2})",
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
        (known[str(s)], n) for s, n in zip(turned, shapes[number], strict=True) if n != 1 and known.get(str(s), n) != n
    ]
    if not wrong:
        return f'"{text}" would fit: operand {number} looks transposed'
    return f'"{text}" would need size {wrong[0][0]} = {wrong[0][1]}; no transposition of operand {number} fits'
