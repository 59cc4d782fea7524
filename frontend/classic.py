"""The classic entry: a `Spec` with ranks and types -> symbolic `ir.Program`.

This is the short way from `stein.einsum` to the IR. Strings and lists are parsed in `spec`, concrete shapes are
checked in `spec_shapes`; both are offered here too, so that callers need one module.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.errors import EinsumSyntaxError, Span
from ..ir.expr import Constraint, Einsum, Equation, Expr, Input, Program, Read
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES, Semiring
from ..ir.size import ONE, Size
from ..ir.types import DType
from .promotion import contraction_types
from .spec import ELLIPSIS, Slot, Spec, Term, expanded, is_label, parse_interleaved, parse_spec
from .spec_shapes import check_shapes

__all__ = [
    "Slot",
    "Spec",
    "Term",
    "check_shapes",
    "contraction_types",
    "elaborate_spec",
    "is_label",
    "parse_interleaved",
    "parse_spec",
]


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
    inputs = tuple(Input(f"op{k}", builder.shapes[k], dtypes[k], span=spec.inputs[k].span) for k in range(len(ranks)))
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
                    help=f"to put {label} on a diagonal use einsum(..., diagonal_output=True) "
                    f"or D[{label},{label}] = x[{label}]",
                )
            seen[label] = span


class _Builder:
    """Indices, sizes and slots of one spec at known ranks."""

    def __init__(self, spec: Spec, ranks: tuple[int, ...], ones: tuple[tuple[bool, ...], ...]) -> None:
        self.spec = spec
        terms = [expanded(t, rank) for t, rank in zip(spec.inputs, ranks, strict=True)]
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
