"""Syntax tree -> typed, symbolic `ir.Program`: the last step of the front end.

Declarations are merged first (`scope`), then each statement in order: whole-tensor statements become indexed ones
(`whole`), indices get ranges (`ranges`), terms their own sums (`terms`), factors their types (`build`), and the left
side its slots and shape (here). Sizes that are not known stay names; what they must satisfy goes along as constraints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..ir.errors import NOWHERE, DTypeError, EinsumSyntaxError, ShapeError, Span
from ..ir.expr import (
    Constraint,
    Equation,
    Expr,
    Position,
    Program,
    Read,
    SizeValue,
    transform,
)  # fmt: skip
from ..ir.index import Affine, Index
from ..ir.semiring import PLUS_TIMES, SEMIRINGS, Semiring
from ..ir.size import ZERO, Size
from ..ir.types import F64, DType, promote
from . import syntax as s
from .algebra import Algebra
from .build import WHOLE_ONLY, Builder, Env
from .declare import Declaration, near
from .flow import Flow
from .promotion import Typer, Value
from .ranges import Frame
from .scope import Scope, Tensor
from .sizes import Issue, Sizes, decide
from .whole import Indexer, Whole


def elaborate(
    tree: s.Program,
    declarations: Mapping[str, Declaration],
    *,
    default_dtype: DType | None = None,
    semirings: Mapping[str, Semiring] | None = None,
    accumulate: DType | None = None,
) -> Program:
    """The typed program of a syntax tree. `declarations` say what keywords say about tensors.

    Tensors without a type get `default_dtype` (f64); `semirings` adds names for `over`; sums are kept in `accumulate`
    where that is given. Raises `EinsumSyntaxError`, `ShapeError`, `DTypeError`, `StructureError` or `EncryptionError`
    with every place involved.

    >>> from .parser import parse_program
    >>> program = elaborate(parse_program("y[i] = A[i,k]*x[k]"), {})
    >>> [i.name for i in program.inputs], program.outputs
    (['A', 'x'], ('y',))
    """
    scope = Scope(tree.source, Sizes(tree.source), default_dtype or F64)
    scope.declare(tree, declarations, _mentioned(tree))
    worker = _Elaborator(scope, SEMIRINGS | dict(semirings or {}), accumulate)
    for statement in tree.statements:
        worker.statement(statement)
    return worker.finish(tree)


@dataclass
class _Elaborator:
    """The equations of one program while they are made."""

    scope: Scope
    semirings: dict[str, Semiring]
    accumulate: DType | None
    equations: list[Equation] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    returned: s.Return | None = None
    stored: int = 0

    def statement(self, statement: s.Statement) -> None:
        """Take in one statement."""
        if isinstance(statement, s.Declare):
            self.order += [n.text for n in statement.names]
        elif isinstance(statement, s.Return):
            if self.returned is not None:
                self.scope.fail(
                    EinsumSyntaxError, "a second return", "return", statement.span, self.returned.span,
                    help="return a, b",
                )  # fmt: skip
            for name in statement.names:
                self.scope.lookup(name)
            self.returned = statement
        else:
            self.assign(statement)

    def assign(self, assign: s.Assign) -> None:
        """Elaborate one assignment."""
        target = self._target(assign)
        reads = [n for n in s.walk(assign.value) if isinstance(n, s.Access)]
        reductions = [n for n in s.walk(assign.value) if isinstance(n, s.Reduce)]
        if target is not None and not target.result:
            self.order.append(target.name)
        self.order += [r.name.text for r in reads]
        self.read |= {r.name.text for r in reads}
        semiring = self._semiring(assign)
        frame = Frame(self.scope, assign)
        builder = Builder(frame, semiring, self.accumulate)
        indexed = assign.slots is not None or bool(reductions) or any(r.slots is not None for r in reads)
        if indexed:
            self._check_indexed(assign)
        for r in reads:  # names first, so that a wrong one is reported before what follows from it
            if r.slots is not None:
                self.scope.lookup(r.name, None if _dotted(r) else len(r.slots))
            elif r.name.text in self.scope.tensors:
                self.scope.lookup(r.name, 0 if indexed else None)  # beside indices, a bare name is a scalar
        encrypted = Flow(self.scope).encrypted(assign.value)
        if not indexed:
            assign = self._indexed(assign, frame, builder)
            frame.assign = assign
            reads = [n for n in s.walk(assign.value) if isinstance(n, s.Access)]
            frame.collect([r for r in reads if r.slots is not None], [])
            builder.frame = frame
        else:
            frame.collect(reads, reductions)
        frame.infer()
        self.equation(assign, frame, builder, semiring, encrypted)

    def _check_indexed(self, assign: s.Assign) -> None:
        """Functions of whole tensors have no place in a statement with indices."""
        for node in s.walk(assign.value):
            if isinstance(node, s.Call) and node.function.text in WHOLE_ONLY and node.body is None:
                name = node.function.text
                self.scope.fail(
                    EinsumSyntaxError, f"{name} takes whole tensors; here tensors have indices", "whole-only",
                    node.function.span, help=f"give {name}(...) a name in a statement without brackets",
                )  # fmt: skip

    def _target(self, assign: s.Assign) -> Tensor | None:
        name = assign.target
        tensor = self.scope.tensors.get(name.text)
        if assign.adds:
            if tensor is None or (tensor.shape is None and not tensor.result):  # an argument: its axes are its own
                dotted = any(isinstance(slot, s.Dots) for slot in assign.slots or ())
                rank = None if dotted or assign.slots is None else len(assign.slots)
                tensor = self.scope.lookup(name, rank)
            assert not tensor.result or tensor.assigned is not None
            if tensor.special:
                self.scope.fail(
                    EinsumSyntaxError, f"{name.text} is declared {tensor.special}", "assigned-twice", name.span,
                    tensor.place, help="use another name",
                )  # fmt: skip
            return tensor
        if tensor is not None and tensor.assigned is not None:
            line, column = self.scope.source.place(tensor.assigned.start)
            self.scope.fail(
                EinsumSyntaxError, f"{name.text} is assigned twice (first here: {line}:{column})", "assigned-twice",
                name.span, tensor.assigned, help="use another name, or += to add",
            )  # fmt: skip
        return tensor

    def _semiring(self, assign: s.Assign) -> Semiring:
        if assign.algebra is None:
            return PLUS_TIMES
        name = assign.algebra
        if name.text not in self.semirings:
            hint = near(name.text, self.semirings) or "semirings: " + ", ".join(self.semirings)
            self.scope.fail(
                EinsumSyntaxError, f"there is no semiring '{name.text}'", "unknown-semiring", name.span, help=hint
            )
        return self.semirings[name.text]

    # ---------------------------------------------------------------- whole tensors

    def _indexed(self, assign: s.Assign, frame: Frame, builder: Builder) -> s.Assign:
        """The indexed form of a statement about whole tensors."""
        if assign.algebra is not None:
            self.scope.fail(
                EinsumSyntaxError, "'over' needs an indexed statement", "whole-only", assign.algebra.span,
                help="write indices",
            )  # fmt: skip
        if assign.ranges:
            self.scope.fail(
                EinsumSyntaxError, "'for' needs an indexed statement", "whole-only", assign.ranges[0].span,
                help="write indices",
            )  # fmt: skip
        algebra = Algebra(self.scope, self.equations, assign.target.text)
        indexer = Indexer(frame, builder, lambda value, span: self._store(value, span, assign, builder), algebra)
        return indexer.statement(indexer.value(assign.value), assign.target)

    def _store(self, value: Whole, span: Span, assign: s.Assign, builder: Builder) -> Whole:
        """Give a value a tensor of its own, whose axes can then be divided in any way."""
        self.stored += 1
        name = s.Name(f"{assign.target.text}.part{self.stored}", span)
        frame = Frame(self.scope, replace(assign, adds=False, target=name))
        frame.indices = builder.frame.indices  # one set: sums inside of `value` take names that neither has
        other = Builder(frame, PLUS_TIMES, self.accumulate)
        algebra = Algebra(self.scope, self.equations, assign.target.text)
        indexer = Indexer(frame, other, lambda v, p: self._store(v, p, assign, other), algebra)
        before = set(builder.frame.indices)
        frame.ranges.update(builder.frame.ranges)
        inner = indexer.statement(value, name)
        # `value` was built by the outer statement's indexer, so the ranges of its inner sums are there
        frame.ranges.update({n: r for n, r in builder.frame.ranges.items() if n not in before or n not in frame.ranges})
        frame.assign = inner
        frame.collect([n for n in s.walk(inner.value) if isinstance(n, s.Access) and n.slots is not None], [])
        frame.infer()
        self.equation(inner, frame, other, PLUS_TIMES, Flow(self.scope).encrypted(inner.value))
        self.read.add(name.text)
        axes = tuple((n,) for n in value.shape)
        return Whole(axes, lambda names: s.Access(name, tuple(indexer.slot(n, span) for n in names), span), name.text)

    # ---------------------------------------------------------------- the left side

    def equation(self, assign: s.Assign, frame: Frame, builder: Builder, semiring: Semiring, encrypted: bool) -> None:
        """Make the equation of an indexed statement, and its target a tensor that later statements may read."""
        name, slots = assign.target, frame.expand(assign.slots or ())
        keep = self._left_indices(assign, frame, slots)
        env = builder.bind(keep, Env())
        value = builder.total(assign.value, env)
        tensor = self.scope.tensors.get(name.text)
        if tensor is None:
            tensor = self.scope.tensors[name.text] = Tensor(name.text, result=True)
        if tensor.shape is None:
            axes = [self._axis(frame, slot) for slot in slots]
            tensor.shape = tuple(extent for _, extent in axes)
            tensor.origin = tuple(low for low, _ in axes) if any(low != ZERO for low, _ in axes) else ()
        else:
            self._check_left(frame, tensor, slots)
        dtype = self._result_type(assign, tensor, value, builder.typer)
        update = tensor.current if assign.adds else None
        if assign.adds:
            tensor.version += 1
        self.equations.append(
            Equation(
                tensor.current,
                tuple(builder.on_axis(tensor, k, slot, env) for k, slot in enumerate(slots)),
                tensor.shape,
                tuple(builder.indices),
                builder.typer.convert(value, dtype),
                dtype,
                semiring,
                update,
                assign.span,
            )
        )
        tensor.dtype, tensor.assigned = dtype, tensor.assigned or name.span
        tensor.encrypted |= encrypted

    def _left_indices(self, assign: s.Assign, frame: Frame, slots: tuple[s.Slot, ...]) -> tuple[str, ...]:
        """The indices of the left side, in order; each must have a range."""
        out: dict[str, None] = {}
        for slot in slots:
            for name in frame.slot_indices(slot):
                if name not in frame.ranges:
                    text = frame.scope.source.text[slot.span.start : slot.span.end]
                    if "[" in text:  # a list of positions, that `lists` has given a name
                        self.scope.fail(
                            ShapeError, f"how far '{text}' may go is not known: {assign.target.text} has no size",
                            "no-range", slot.span, help=f"declare the result, such as {assign.target.text}: f64[n]",
                        )  # fmt: skip
                    rest = [frame.scope.source.text[o.span.start : o.span.end] for o in slots if o is not slot]
                    shorter = f"{assign.target.text}[{','.join(rest)}] = ..." if rest else f"{assign.target.text} = ..."
                    self.scope.fail(
                        ShapeError, f"'{name}' on the left has no range: no tensor on the right uses it", "no-range",
                        slot.span, help=f'{shorter}, or "for {name} in 0..m"',
                    )  # fmt: skip
                out[name] = None
        return tuple(out)

    def _axis(self, frame: Frame, slot: s.Slot) -> tuple[Size, Size]:
        """Where an axis of a new tensor begins, and its extent: from 0, or the lowest slot value if negative."""
        if isinstance(slot, s.Composite):
            for part in slot.parts:
                if frame.resolve(frame.ranges[part.text].low) != ZERO:
                    self.scope.fail(
                        ShapeError, f"'{part.text}' in a composite does not run from 0", "composite", part.span,
                        frame.ranges[part.text].span, help="composite indices count from 0",
                    )  # fmt: skip
            extent = Size.of(1)
            for part in slot.parts:
                extent = extent * frame.extent(part.text)
            return ZERO, extent
        if isinstance(slot, s.Modulo):
            return ZERO, frame.size(slot.modulus)
        assert not isinstance(slot, s.Dots)
        low, high = frame.reach(frame.affine(slot))
        begin = ZERO if decide(">=", low, ZERO) else low if decide(">=", ZERO, low) else Size.least([ZERO, low])
        extent = high + 1 - begin
        if not extent.at_least(0, lowest=0):
            text = self.scope.source.text[slot.span.start : slot.span.end]
            sentence = f"axis [{text}] of the result would have size {{left}}"
            self.scope.sizes.constraints.append(
                Constraint(">=", extent, ZERO, "empty", sentence, "an index here has no values", spans=(slot.span,))
            )
        return begin, extent

    def _check_left(self, frame: Frame, tensor: Tensor, slots: tuple[s.Slot, ...]) -> None:
        """Slots of a left side whose axes are known stay on them."""
        for k, slot in enumerate(slots):
            if isinstance(slot, s.Composite | s.Dots):
                continue  # composites were equated with their axis
            begin, extent = (frame.resolve(v) for v in tensor.axis(k))
            if isinstance(slot, s.Modulo):
                low, high = ZERO, frame.size(slot.modulus) - 1
            else:
                low, high = frame.reach(frame.affine(slot))
            last = frame.resolve(begin + extent - 1)
            text = self.scope.source.text[slot.span.start : slot.span.end]
            sentence = f"[{text}] leaves axis {k} of {tensor.name}, {{0}}..{{1}}"
            spans = tuple(p for p in (slot.span, tensor.place) if p is not None)
            issue = Issue("out-of-range", sentence, spans, "give the index a range: for i in 0..n", (begin, last))
            self.scope.sizes.demand(">=", low, begin, issue)
            self.scope.sizes.demand(">=", last, high, issue)

    def _result_type(self, assign: s.Assign, tensor: Tensor, value: Value, typer: Typer) -> DType:
        dtype = value.dtype
        declared = tensor.dtype
        if declared is None:
            return self.scope.dtype(tensor) if assign.adds else dtype
        joint, _ = typer.joint([Value(_probe(declared)), value])
        if joint != declared and promote(joint, declared) != declared:
            self.scope.fail(
                DTypeError, f"{dtype} does not convert to {declared} without loss", "lossy", assign.target.span,
                help=f"{self.scope.source.text[assign.left.start : assign.left.end]} = {declared}(...)",
            )  # fmt: skip
        return declared

    # ---------------------------------------------------------------- the end

    def finish(self, tree: s.Program) -> Program:
        """The program, with every size in terms of the names that are left."""
        results = [t for t in self.scope.tensors.values() if t.assigned is not None and "." not in t.name]
        if not results:
            place = Span(0, len(self.scope.source.text))
            tuple(self.scope.inputs(self.order))  # a tensor without a shape is the better message
            self.scope.fail(
                EinsumSyntaxError, "the program computes nothing", "empty-program", place, help="y[i] = x[i]"
            )
        constraints = self.scope.sizes.finished()
        if self.returned is not None:
            outputs = tuple(dict.fromkeys(self.scope.tensors[n.text].current for n in self.returned.names))
        else:
            assigned = sorted(
                (t for t in results if t.name not in self.read), key=lambda t: (t.assigned or NOWHERE).start
            )
            outputs = tuple(t.current for t in assigned)
            if not outputs:
                self.scope.fail(
                    EinsumSyntaxError, "every result is read by another statement; say which to return", "no-output",
                    results[0].assigned, help=f"return {results[-1].name}",
                )  # fmt: skip
        order = list(dict.fromkeys(n for n in self.order if n in self.scope.tensors))
        inputs = tuple(self.scope.inputs(order))
        renamed = self._final_names()
        outputs = tuple(renamed.get(n, n) for n in outputs)
        equations = tuple(self._resolved(e, renamed) for e in self.equations)
        self._check_known(equations, constraints)
        return Program(inputs, equations, outputs, constraints, tree.source)

    def _check_known(self, equations: tuple[Equation, ...], constraints: tuple[Constraint, ...]) -> None:
        """Every size that is used can be told from the arguments."""
        arguments = [t for t in self.scope.tensors.values() if not t.result and not t.special]
        fixed = {n for t in arguments for size in t.shape or () for n in self.scope.sizes.resolve(size).names}
        axes = {f"{t.name}.{k}" for t in arguments for k in range(len(t.shape or ()))}
        users = [(e.span, (*e.shape, *(i.extent for i in e.indices))) for e in equations]
        users += [(c.spans[0] if c.spans else NOWHERE, (c.left, c.right, *c.values)) for c in constraints]
        for span, sizes in users:
            for size in sizes:
                for name in sorted(size.names - fixed - axes):
                    place = self.scope.sizes.known.get(name, span)
                    self.scope.fail(
                        ShapeError, f"size '{name}' is in the shape of no argument", "unknown-size",
                        place if place != NOWHERE else span, help="declare an argument with that size",
                    )  # fmt: skip

    def _final_names(self) -> dict[str, str]:
        """New names of versions: the last one of a result gets the plain name, the first one `y.0`."""
        out: dict[str, str] = {}
        for tensor in self.scope.tensors.values():
            if tensor.result and tensor.version:
                out |= {tensor.name: f"{tensor.name}.0", tensor.current: tensor.name}
        return out

    def _resolved(self, equation: Equation, renamed: Mapping[str, str]) -> Equation:
        """The equation with replaced size names replaced, and versions renamed."""
        if not self.scope.sizes.bindings and not renamed:
            return equation
        resolve = self.scope.sizes.resolve

        def affine(a: Affine) -> Affine:
            terms = tuple((n, resolve(c)) for n, c in a.terms)
            return Affine(terms, resolve(a.offset), None if a.modulus is None else resolve(a.modulus))

        def rule(e: Expr) -> Expr:
            match e:
                case Read():
                    return replace(e, tensor=renamed.get(e.tensor, e.tensor), slots=tuple(affine(a) for a in e.slots))
                case Position():
                    return replace(e, affine=affine(e.affine))
                case SizeValue():
                    return replace(e, size=resolve(e.size))
            return e

        return replace(
            equation,
            name=renamed.get(equation.name, equation.name),
            update=None if equation.update is None else renamed.get(equation.update, equation.update),
            slots=tuple(affine(a) for a in equation.slots),
            shape=tuple(resolve(n) for n in equation.shape),
            indices=tuple(Index(i.name, resolve(i.extent)) for i in equation.indices),
            expr=transform(equation.expr, rule),
        )


def _mentioned(tree: s.Program) -> frozenset[str]:
    """Every name that stands after "=", and those that += adds to or return names."""
    assigns = [a for a in tree.statements if isinstance(a, s.Assign)]
    names = {n.name.text for a in assigns for n in s.walk(a.value) if isinstance(n, s.Access)}
    names |= {a.target.text for a in assigns if a.adds}
    names |= {n.text for r in tree.statements if isinstance(r, s.Return) for n in r.names}
    return frozenset(names)


def _dotted(access: s.Access) -> bool:
    return any(isinstance(slot, s.Dots) for slot in access.slots or ())


def _probe(dtype: DType) -> Expr:
    return Read("", (), dtype)
