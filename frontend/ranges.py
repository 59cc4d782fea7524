"""Index ranges of one indexed statement: which names are indices, over what each runs, and that reads stay inside.

The rules are those of language page 3.3 (3): `for`, bare slots, composites by division, then affine slots with one
unknown in rounds, last one period of `mod n`. Sizes are symbolic: what cannot be decided for all sizes becomes a
constraint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..ir.errors import EinsumSyntaxError, ShapeError, Span
from ..ir.index import Affine
from ..ir.size import ONE, ZERO, Size
from . import syntax as s
from .scope import Scope, Tensor, size_names
from .sizes import Issue, product


@dataclass(frozen=True)
class Bounds:
    """low..high, and what said so."""

    low: Size
    high: Size
    span: Span
    said: str  # "A (axis 1)" or "the range"

    @property
    def extent(self) -> Size:
        """How many values."""
        return self.high - self.low


@dataclass(frozen=True)
class Access:
    """One access of a statement with its slots written out. `read` is false for the left side."""

    tensor: Tensor
    slots: tuple[s.Slot, ...]
    span: Span
    read: bool = True


@dataclass
class Frame:
    """The indices of one statement."""

    scope: Scope
    assign: s.Assign
    indices: set[str] = field(default_factory=set)
    ranges: dict[str, Bounds] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)
    dots: int = 0
    divided: set[tuple[int, int]] = field(default_factory=set)  # composite slots whose size is right by division

    # ---------------------------------------------------------------- reading the statement

    def collect(self, reads: Sequence[s.Access], reductions: Sequence[s.Reduce]) -> None:
        """Find the index names and every access. Tensors that nobody declared get their axes here."""
        left = self.assign.slots or ()
        for slot in (*left, *(slot for r in reads for slot in r.slots or ())):
            if isinstance(slot, s.IndexName):
                self.indices.add(slot.name)
            elif isinstance(slot, s.Composite):
                self.indices |= {p.text for p in slot.parts}
        for slot in left:
            value = slot.value if isinstance(slot, s.Modulo) else slot
            self.indices |= {n for n in size_names(value) if n not in self.scope.sizes.known}
        self.indices |= {r.index.text for r in self.assign.ranges}
        self.indices |= {n.text for r in reductions for n in r.indices}
        indexed = [(r, self._tensor(r)) for r in reads if r.slots is not None]
        self._count_dots(indexed)
        for access, tensor in indexed:
            slots = self.expand(access.slots or ())
            assert tensor.shape is not None
            if len(slots) != len(tensor.shape):
                rank = len(tensor.shape)
                self.scope.fail(
                    ShapeError,
                    f"{tensor.name} has {rank} ax{'is' if rank == 1 else 'es'}, {len(slots)} "
                    f"ind{'ex' if len(slots) == 1 else 'ices'} given",
                    "axis-count",
                    slots[min(rank, len(slots) - 1)].span if slots else access.span,
                    tensor.place,
                    help=spelled(tensor.name, rank),
                )
            self.accesses.append(Access(tensor, slots, access.span))
        target = self.scope.tensors.get(self.assign.target.text)
        if target is not None and target.shape is not None:
            slots = self.expand(left)
            if len(slots) != len(target.shape):
                self.scope.fail(
                    ShapeError,
                    f"{target.name} has {len(target.shape)} axes, the left side {len(slots)}",
                    "axis-count",
                    self.assign.left,
                    target.place,
                )
            self.accesses.append(Access(target, slots, self.assign.left, read=False))

    def _tensor(self, access: s.Access) -> Tensor:
        slots = access.slots or ()
        dotted = any(isinstance(slot, s.Dots) for slot in slots)
        return self.scope.lookup(access.name, None if dotted else len(slots))

    def _count_dots(self, indexed: Sequence[tuple[s.Access, Tensor]]) -> None:
        for slots in (self.assign.slots or (), *(a.slots or () for a, _ in indexed)):
            found = [slot for slot in slots if isinstance(slot, s.Dots)]
            if len(found) > 1:
                self.scope.fail(
                    EinsumSyntaxError, "a second '...' in one access", "second-ellipsis", found[1].span, found[0].span,
                    help="'...' stands for the same axes at each place",
                )  # fmt: skip
        used = False
        for access, tensor in indexed:
            slots = access.slots or ()
            if any(isinstance(slot, s.Dots) for slot in slots):
                assert tensor.shape is not None
                used = True
                self.dots = max(self.dots, len(tensor.shape) - len(slots) + 1)
        target = self.scope.tensors.get(self.assign.target.text)
        left = self.assign.slots or ()
        if not used and any(isinstance(slot, s.Dots) for slot in left):
            if target is None or target.shape is None:
                dots = next(slot for slot in left if isinstance(slot, s.Dots))
                self.scope.fail(
                    EinsumSyntaxError, "'...' on the left stands for no axes: no tensor on the right has it",
                    "ellipsis", dots.span, help="write '...' on the right too, or leave it out",
                )  # fmt: skip
            self.dots = max(0, len(target.shape) - len(left) + 1)
        self.indices |= {f".{k}" for k in range(self.dots)}

    def expand(self, slots: Sequence[s.Slot]) -> tuple[s.Slot, ...]:
        """The slots with `...` written out as hidden indices `.0`, `.1`, ..."""
        out: list[s.Slot] = []
        for slot in slots:
            if isinstance(slot, s.Dots):
                out.extend(s.IndexName(f".{k}", slot.span) for k in range(self.dots))
            else:
                out.append(slot)
        return tuple(out)

    # ---------------------------------------------------------------- sizes and affine slots

    def size(self, tree: s.IndexExpr) -> Size:
        """A size in which no index stands."""
        affine = self.affine(tree, frozenset())
        for name in affine.indices:
            place = next((n.span for n in _leaves(tree) if n.name == name), tree.span)
            self.scope.fail(
                ShapeError, f"size '{name}' is not known", "unknown-size", place,
                help=self._sizes_help(),
            )  # fmt: skip
        return affine.offset

    def _sizes_help(self) -> str:
        known = ", ".join(self.scope.sizes.known)
        return f"sizes declared: {known}" if known else "a size gets its name in a declaration, such as x: f64[n]"

    def affine(self, tree: s.IndexExpr, indices: frozenset[str] | set[str] | None = None, top: bool = True) -> Affine:
        """A slot as an affine expression in the statement's own index names."""
        indices = self.indices if indices is None else indices
        match tree:
            case s.IndexName(name=name):
                return self._affine_name(tree, name, indices, top)
            case s.IndexNumber(value=value):
                return Affine.constant(value)
            case s.IndexNegative(operand=operand):
                return self.affine(operand, indices, False) * -1
        assert isinstance(tree, s.IndexBinary), "lists of positions are written out"
        a, b = self.affine(tree.left, indices, False), self.affine(tree.right, indices, False)
        if tree.operator != "*":
            return a + b if tree.operator == "+" else a - b
        if a.terms and b.terms:
            text = self.scope.source.text[tree.span.start : tree.span.end]
            self.scope.fail(
                EinsumSyntaxError, f"index '{text}' is not affine (product of two indices)", "not-affine", tree.span,
                help="a slot is a sum of indices times whole numbers or sizes",
            )  # fmt: skip
        return a * b.offset if a.terms else b * a.offset

    def _affine_name(self, tree: s.IndexName, name: str, indices: frozenset[str] | set[str], top: bool) -> Affine:
        known = name in self.scope.sizes.known
        if name in indices and known and not top:
            self.scope.fail(
                EinsumSyntaxError, f"'{name}' is both a size and an index here", "size-and-index", tree.span,
                help="rename one of them",
            )  # fmt: skip
        if name in indices or not known:
            return Affine.of(name)
        return Affine.constant(self.scope.sizes.resolve(Size.name(name)))

    def slot_indices(self, slot: s.Slot) -> tuple[str, ...]:
        """The index names in a slot."""
        if isinstance(slot, s.Composite):
            return tuple(dict.fromkeys(p.text for p in slot.parts))
        value = slot.value if isinstance(slot, s.Modulo) else slot
        return () if isinstance(value, s.Dots) else self.affine(value).indices

    # ---------------------------------------------------------------- inference

    def infer(self) -> None:
        """Give every index its range, check every access; raises if a range is missing or a read leaves its tensor."""
        self._for_ranges()
        self._bare_slots()
        while self._composites() or self._affine_round() or self._periods():
            pass
        self._check_composites()
        for access in self.accesses:
            if access.read:
                self._check_inside(access)

    def _for_ranges(self) -> None:
        for r in self.assign.ranges:
            if r.index.text in self.ranges:
                self.scope.fail(
                    EinsumSyntaxError, f"'{r.index.text}' has two ranges", "range", r.span,
                    self.ranges[r.index.text].span, help="give one",
                )  # fmt: skip
            low, high = self.size(r.low), self.size(r.high)
            backwards = Issue("range", "{right}..{left} runs backwards", (r.span,), "low..high, half open")
            self.scope.sizes.demand(">=", high, low, backwards)
            self.ranges[r.index.text] = Bounds(low, high, r.span, "the range")

    def _slots(self) -> Iterator[tuple[Access, int, s.Slot, Size, Size]]:
        """Every slot with its axis: access, number, slot, where the axis begins, its extent."""
        for access in self.accesses:
            for k, slot in enumerate(access.slots):
                begin, extent = access.tensor.axis(k)
                yield access, k, slot, self.scope.sizes.resolve(begin), self.scope.sizes.resolve(extent)

    def _bare_slots(self) -> None:
        fixed = set(self.ranges)
        for access, k, slot, begin, extent in self._slots():
            if not isinstance(slot, s.IndexName) or slot.name not in self.indices or slot.name in fixed:
                continue
            name, said = slot.name, f"{access.tensor.name} (axis {k})"
            old = self.ranges.get(name)
            if old is None:
                self.ranges[name] = Bounds(begin, begin + extent, slot.span, said)
                continue
            shown = "..." if name.startswith(".") else f"'{name}'"
            sentence = f"size of {shown} is {{right}} in {old.said} but {{left}} in {said}"
            spans = (slot.span, old.span)
            if begin != ZERO or self.resolve(old.low) != ZERO:
                begins = f"{shown} begins at {{right}} in {old.said} but at {{left}} in {said}"
                self.scope.sizes.equate(begin, old.low, Issue("origin-mismatch", begins, spans, "give one a range"))
            help = self._mismatch_help(access, old)
            self.scope.sizes.equate(extent, old.extent, Issue("size-mismatch", sentence, spans, help))

    def _mismatch_help(self, access: Access, old: Bounds) -> str:
        return "" if access.read else f"the left side is declared, {old.said} says otherwise"

    def resolve(self, size: Size) -> Size:
        """The size with replaced names replaced."""
        return self.scope.sizes.resolve(size)

    def extent(self, name: str) -> Size:
        """The extent of an index with a range."""
        return self.resolve(self.ranges[name].extent)

    def _composites(self) -> bool:
        for access, k, slot, _, extent in self._slots():
            if not isinstance(slot, s.Composite):
                continue
            missing = {p.text for p in slot.parts if p.text not in self.ranges}
            if len(missing) != 1:
                continue
            name = missing.pop()
            if sum(p.text == name for p in slot.parts) > 1:
                self.scope.fail(ShapeError, f"'{name}' twice in a composite axis has no size", "composite", slot.span)
            rest = product([self.extent(p.text) for p in slot.parts if p.text != name])
            sentence = f"axis {k} of {access.tensor.name} (size {{right}}) is not a multiple of {{left}}"
            self.scope.sizes.demand("divides", rest, extent, Issue("composite-size", sentence, (slot.span,)))
            self.divided.add((id(access), k))
            place = next(p.span for p in slot.parts if p.text == name)
            self.ranges[name] = Bounds(ZERO, extent // rest, place, f"{access.tensor.name} (axis {k}, divided)")
            return True
        return False

    def _affine_round(self) -> bool:
        new: dict[str, tuple[Size, Span, str]] = {}
        for access, k, slot, begin, extent in self._slots():
            if not access.read or access.tensor.pad is not None or isinstance(slot, (s.Composite, s.Modulo, s.Dots)):
                continue
            affine = self.affine(slot)
            missing = [n for n in affine.indices if n not in self.ranges]
            if len(missing) != 1:
                continue
            name = missing[0]
            step = affine.coefficient(name)
            rest = Affine(tuple(t for t in affine.terms if t[0] != name), affine.offset)
            low, high = self.reach(rest)
            self._demand_inside(access, k, slot, replace(rest), begin, extent, name)
            room = begin + extent - 1 - high if not _negative(step) else low - begin
            top = self.resolve(room // (step if not _negative(step) else -step) + 1)
            least = Size.least([new[name][0], top]) if name in new else top
            new[name] = (least, slot.span, f"{access.tensor.name} (axis {k})")
        for name, (high, span, said) in new.items():
            self.ranges[name] = Bounds(ZERO, high, span, said)
        return bool(new)

    def _periods(self) -> bool:
        found = False
        for _, _, slot, _, _ in self._slots():
            if isinstance(slot, s.Modulo):
                for name in self.affine(slot.value).indices:
                    if name not in self.ranges:
                        self.ranges[name] = Bounds(ZERO, self.size(slot.modulus), slot.span, "one period")
                        found = True
        return found

    def reach(self, affine: Affine) -> tuple[Size, Size]:
        """Least and greatest value of an expression whose indices all have ranges."""
        low = high = affine.offset
        for name, c in affine.terms:
            first, last = c * self.ranges[name].low, c * (self.ranges[name].high - 1)
            if _negative(c):
                first, last = last, first
            low, high = low + first, high + last
        return self.resolve(low), self.resolve(high)

    # ---------------------------------------------------------------- checks

    def require_range(self, name: str, span: Span) -> None:
        """Raise unless an index has a range."""
        if name not in self.ranges:
            help = (
                f"for {name} in 0..n" if name not in self.indices else f"for {name} in 0..n, or use it as a bare slot"
            )
            hint = self._sizes_help() if name not in self.indices else ""
            self.scope.fail(
                ShapeError, f"'{name}' has no range", "no-range", span, help=help + (f"; {hint}" if hint else "")
            )

    def _check_composites(self) -> None:
        for access, k, slot, _, extent in self._slots():
            if not isinstance(slot, s.Composite):
                continue
            for part in slot.parts:
                self.require_range(part.text, part.span)
                if self.resolve(self.ranges[part.text].low) != ZERO:
                    self.scope.fail(
                        ShapeError, f"'{part.text}' in a composite does not run from 0", "composite", part.span,
                        self.ranges[part.text].span, help="composite indices count from 0",
                    )  # fmt: skip
            if (id(access), k) in self.divided:
                continue
            sizes = [self.extent(p.text) for p in slot.parts]
            text = " x ".join(f"{p.text}={{{n}}}" for n, p in enumerate(slot.parts))
            sentence = f"axis {k} of {access.tensor.name} is {{left}}, but {text} gives {{right}}"
            issue = Issue("composite-size", sentence, (slot.span,), values=tuple(sizes))
            self.scope.sizes.equate(self.resolve(extent), product(sizes), issue)

    def _check_inside(self, access: Access) -> None:
        for k, slot in enumerate(access.slots):
            begin, extent = (self.resolve(v) for v in access.tensor.axis(k))
            if isinstance(slot, (s.Composite, s.Dots)):
                continue
            if isinstance(slot, s.Modulo):
                self._check_period(access, k, slot, begin, extent)
                continue
            affine = self.affine(slot)
            for name in affine.indices:
                self.require_range(name, slot.span)
            bound = self.ranges[slot.name] if isinstance(slot, s.IndexName) and slot.name in self.ranges else None
            if bound is not None and self.resolve(bound.low) == begin and self.resolve(bound.extent) == extent:
                continue
            self._demand_inside(access, k, slot, affine, begin, extent, None)

    def _check_period(self, access: Access, k: int, slot: s.Modulo, begin: Size, extent: Size) -> None:
        for name in self.affine(slot.value).indices:
            self.require_range(name, slot.span)
        name, period = access.tensor.name, self.size(slot.modulus)
        positive = Issue("modulus", f"a period of {{left}} for axis {k} of {name}", (slot.span,), "mod takes 1 or more")
        self.scope.sizes.demand(">=", period, ONE, positive)
        if begin != ZERO:
            self.scope.fail(
                ShapeError, f"mod counts from 0, but axis {k} of {name} begins at {begin}", "modulus", slot.span,
                access.tensor.place, help="declare the axis from 0",
            )  # fmt: skip
        if access.tensor.pad is None:
            sentence = f"{name} leaves its range: mod {{right}} reaches past its {{left}} values"
            self.scope.sizes.demand(">=", extent, period, Issue("out-of-range", sentence, (access.span,)))

    def _demand_inside(
        self, access: Access, k: int, slot: s.Slot, affine: Affine, begin: Size, extent: Size, unknown: str | None
    ) -> None:
        """Demand that a slot stays on its axis (with an unknown index at 0)."""
        if access.tensor.pad is not None:
            return
        low, high = self.reach(affine)
        text = self.scope.source.text[access.span.start : access.span.end]
        for left, right, down in ((low, begin, True), (begin + extent - 1, high, False)):
            last = begin + extent - 1
            at, values = self._witness(affine, begin if down else last, down, unknown)
            values += [begin, last]
            inside = f"{access.tensor.name} has {{{len(values) - 2}}}..{{{len(values) - 1}}}"
            sentence = f"{text} leaves its range{at}: {inside}"
            help = self._inside_help(access, k, slot, affine, unknown)
            self.scope.sizes.demand(
                ">=", left, right, Issue("out-of-range", sentence, (access.span,), help, tuple(values))
            )

    def _witness(self, affine: Affine, limit: Size, down: bool, unknown: str | None) -> tuple[str, list[Size]]:
        """Index values at which the slot leaves its axis: each at the near end, and the first one that moves it out."""
        values = {} if unknown is None else {unknown: ZERO}
        value = affine.offset
        for name, c in affine.terms:
            values[name] = self.ranges[name].low
            value = value + c * values[name]
        for name, c in affine.terms:
            if _negative(c) != down:
                continue
            last, room = self.resolve(self.ranges[name].high - 1), self.resolve(value - limit) * (1 if down else -1)
            if room.constant is not None and c.constant is not None:
                steps = max(0, room.constant // abs(c.constant) + 1)
                span = self.resolve(last - values[name]).constant
                if span is None or steps <= span:
                    last = values[name] + steps
            value = value + c * (last - values[name])
            values[name] = last
        names = [n for n in sorted(values) if not n.startswith(".")]
        shown = ", ".join(f"{n}={{{k}}}" for k, n in enumerate(names))
        return f" at {shown}" if shown else "", [self.resolve(values[n]) for n in names]

    def _inside_help(self, access: Access, k: int, slot: s.Slot, affine: Affine, unknown: str | None) -> str:
        name, rank = access.tensor.name, len(access.slots)
        if not affine.terms and unknown is None:
            return f"axis {k} of {name} counts from 0"
        dtype = access.tensor.dtype or self.scope.default
        size = str(self.resolve(access.tensor.axis(k)[1]))
        size = size if size.isalnum() else "n"
        if rank == 1 and unknown is not None and isinstance(slot, s.IndexBinary) and slot.operator == "-":
            minus = [n for n in _leaves(slot) if n.name != unknown]
            if len(affine.terms) == 1 and len(minus) == 1 and affine.offset == ZERO and not _is_number(size):
                diff = f"{unknown}-{minus[0].name}"
                return (
                    f"{name}: {dtype}[-({size}-1)..{size}], or {name}[{diff}+{size}-1] with 2{size}-1 values; "
                    f'or {name}: {dtype}[{size}] pad=0 and "for {unknown} in 0..{size}" (lower triangular)'
                )
        return f"shift the index, give the axis an origin ({name}: {dtype}[lo..hi]), or a padding (pad=0) and a range"


def spelled(name: str, rank: int) -> str:
    """How a tensor of `rank` axes is written: "A[i, j]", a scalar without brackets; nothing for many axes."""
    return (f"{name}[{', '.join('ijklmnpq'[:rank])}]" if rank else name) if rank <= 8 else ""


def _is_number(text: str) -> bool:
    return text.isdecimal()


def _negative(size: Size) -> bool:
    """Whether a coefficient counts as negative (a symbolic one by its leading term)."""
    return bool(size.terms) and size.terms[-1][1] < 0


def _leaves(tree: s.Slot) -> list[s.IndexName]:
    match tree:
        case s.IndexName():
            return [tree]
        case s.IndexNegative(operand=operand):
            return _leaves(operand)
        case s.IndexBinary(left=left, right=right):
            return _leaves(left) + _leaves(right)
    return []
