"""The choice among equal programs: candidates, their prices, and the cheapest of them.

Candidates are whole programs: in the best order of contraction, as the user wrote it, with the matrix of a value
formed, and each further method of a structure that was found. Each is planned, doubles are dropped, the target prices
what a call will run, and the least predicted time is chosen; equal times are decided by what has to be stored. There is
no threshold on sizes: a price is the only argument. A program that can only be a contraction has nothing to choose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from ..ir.expr import Program, reads
from ..ir.target import Target
from .base import Context
from .candidates import BEST, DENSE, WRITTEN, Candidate, Draft, called, plan, program_label
from .lifted import lifted
from .lookups import stores_selection
from .network import networks
from .recognise import Finding, NearMiss, candidates, examine
from .rules import is_view
from .structured import formed, rewritten

_JOINTS = re.compile(" beside | after | plus ")  # how the algebra names methods that are put together


@dataclass(frozen=True)
class Choice:
    """The candidates with their prices, cheapest first, and what was proved of the program on the way."""

    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()

    @property
    def chosen(self) -> Candidate:
        """The cheapest."""
        return self.candidates[0]


def choose(program: Program, context: Context, target: Target, normal: Program | None = None) -> Choice:
    """The candidates of a program at the sizes of a context, priced by a target.

    `normal` is the program after the normal passes, if that is known already.
    """
    program, whole = lifted(program), program
    found, missed = examine(program, None, context.sizes)
    base = [Draft(BEST, whole), Draft(WRITTEN, whole, frozenset(e.name for e in whole.equations))]
    table = _Table(context, target, normal)
    table.add(base)
    best: Draft | None = None
    values = networks(program, context.sizes)
    for network in values:
        mine = [f for f in found if f.value == network.name]
        operands = list(dict.fromkeys(f.argument for f in mine if f.argument)) or candidates(program, network)
        where = f"{network.name}: " if len(values) > 1 else ""
        site = _Value(program, network.name, where, tuple(operands), tuple(mine))
        new = [d for d in drafts(site, best.program if best else program, context) if not stores_selection(d.program)]
        if best is not None:
            new = [_after(best, d) for d in new]
        table.add(new)
        if table.best.draft.exact:
            best = table.best.draft
    return Choice(tuple(table.ranked()), found, missed)


@dataclass(frozen=True)
class _Value:
    """A value of the original program, the operands that it may be a function of (the primary one first), and what was
    found of it. `where` begins the names of its drafts.
    """

    program: Program
    name: str
    where: str
    operands: tuple[str, ...]
    findings: tuple[Finding, ...]


def drafts(value: _Value, program: Program, context: Context) -> Iterable[Draft]:
    """Programs with one value computed in another way: its matrix formed, then each method of each finding.

    `program` is the original one, or one in which other values were replaced already.
    """
    original, where = value.program, value.where
    for argument in value.operands:
        dense = formed(program, value.name, argument, context.sizes)
        if dense is not None:
            yield _draft(where + DENSE, original, dense, None)
            break
    for finding in value.findings:
        secondary = finding.argument != value.operands[0] if value.operands else False
        for method, other in rewritten(program, finding, context.sizes):
            if method != "contraction" or not secondary:
                yield _draft(where + _title(finding, method, secondary), original, other, finding)


def _title(finding: Finding, method: str, secondary: bool) -> str:
    """`toeplitz, fft`: the kind, and what is done beyond contractions; the operand, if it is not the primary one."""
    kind = finding.kind.replace("_", " ") + (f" in {finding.argument}" if secondary else "")
    if method == "contraction":
        return kind
    words = [re.sub(r"^((ordered|batched|transposed|reshaped) )+", "", w) for w in _JOINTS.split(method)]
    clever = list(dict.fromkeys(w for w in words if w != "contraction"))
    return f"{kind}, {' and '.join(clever) or 'factor by factor'}"


def _draft(name: str, original: Program, program: Program, finding: Finding | None) -> Draft:
    """The draft that stores what its new equations define, but for views."""
    known = original.tensors
    keep = frozenset(
        e.name
        for e in program.equations
        if known.get(e.name) != e and not is_view(e.expr) and not _only_viewed(e.name, program)
    )
    room = prod(finding.term.operator().size) if finding is not None and finding.term is not None else 0
    return Draft(name, program, keep, True, finding, room)


def _only_viewed(name: str, program: Program) -> bool:
    """Whether one other equation reads a tensor, and that only puts it into another shape or order."""
    readers = [e for e in program.equations if any(r.tensor == name for r in reads(e.expr))]
    return len(readers) == 1 and name not in program.outputs and is_view(readers[0].expr)


def _after(first: Draft, second: Draft) -> Draft:
    """The second draft, made from the program of the first."""
    keep, room = first.keep | second.keep, first.room + second.room
    return replace(second, name=f"{first.name}; {second.name}", keep=keep, room=room)


class _Table:
    """Candidates so far, each program once."""

    def __init__(self, context: Context, target: Target, normal: Program | None) -> None:
        self.context, self.target, self.normal = context, target, normal
        self.found: dict[str, Candidate] = {}

    def add(self, new: Iterable[Draft]) -> None:
        for draft in new:
            candidate = plan(draft, self.context, self.normal if draft.name == BEST else None)
            label = program_label(candidate)
            same = self.found.get(label)
            if same is None:
                self.found[label] = priced(candidate, self.context, self.target)
            elif draft.name not in (same.name, *same.also):
                self.found[label] = replace(same, also=(*same.also, draft.name))

    @property
    def best(self) -> Candidate:
        return self.ranked()[0]

    def ranked(self) -> list[Candidate]:
        return sorted(self.found.values(), key=lambda c: (c.cost.nanoseconds, c.stored))


def priced(candidate: Candidate, context: Context, target: Target) -> Candidate:
    """The candidate with the cost of one call, and the elements that have to be kept between calls."""
    program = called(candidate)
    kept = [i for i in program.inputs if i.const or i.name in context.constants]
    stored = sum(prod(s.evaluate(context.sizes) for s in i.shape) for i in kept)
    return replace(candidate, cost=target.price(program, context.sizes), stored=stored)
