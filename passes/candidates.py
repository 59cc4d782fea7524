"""Candidates: equal programs on their way to being priced, and the test for programs that need none.

A `Draft` is an equal program as the algebra of structures (or the user) wrote it, a `Candidate` is the same after all
passes, with what can be computed ahead of the calls set apart. `choice` makes drafts, prices candidates and chooses; a
program that can only be a contraction gets its one candidate from here, and never loads the recogniser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from ..ir.expr import Einsum, Input, Program, Read, reads
from ..ir.index import Affine
from ..ir.target import Cost
from .base import Context, PassRecord, run_passes
from .common import equation_key, with_names
from .constants import ahead, hoist
from .pipeline import NORMAL_PASSES, PLAN_PASSES

if TYPE_CHECKING:
    from .recognise import Finding

BEST, WRITTEN, DENSE = "best order", "as written", "dense"


@dataclass(frozen=True)
class Draft:
    """An equal program before planning: its name, the values that it must store, the finding that it came from.

    `exact` drafts hold for the sizes they were made for, others for all sizes. `room` is what may be made ahead of the
    calls: the elements of the matrix that the draft avoids.
    """

    name: str
    program: Program
    keep: frozenset[str] = frozenset()
    exact: bool = False
    finding: Finding | None = None
    room: int = 0


@dataclass(frozen=True)
class Candidate:
    """A planned draft: the program, what the passes did, the formulas made ahead of all calls, and its price.

    `early` names equations that constants decide. `cost` is that of one call, without `early` and `made`; `stored`
    counts the elements of constants and of what is made ahead. `also` names drafts that became the same program.
    """

    draft: Draft
    program: Program
    records: tuple[PassRecord, ...]
    made: Program
    early: frozenset[str] = frozenset()
    cost: Cost = field(default_factory=Cost)
    stored: int = 0
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What `explain` calls it."""
        return self.draft.name


def can_only_contract(program: Program) -> bool:
    """Whether every equation is a plain product of different operands, with nothing to see through.

    No affine read, no constant, no declared structure, no function, no operand twice, no intermediate that is read
    twice: the order of contraction is then all that there is to choose, and no recognition is needed.
    """
    if any(i.structure or i.const or i.encrypted for i in program.inputs):
        return False
    seen: set[str] = set()
    for equation in program.equations:
        factors = equation.expr.factors if isinstance(equation.expr, Einsum) else (equation.expr,)
        names = [f.tensor for f in factors if isinstance(f, Read)]
        if len(names) < len(factors) or len({*names}) < len(names) or seen & {*names} or equation.update is not None:
            return False
        seen.update(names)
        slots = [*equation.slots, *(s for f in factors if isinstance(f, Read) for s in f.slots)]
        if any(f.pad is not None for f in factors if isinstance(f, Read)) or not all(map(_plain, slots)):
            return False
    return True


def is_empty(program: Program, sizes: Mapping[str, int]) -> bool:
    """Whether a tensor or an index of a program has no values at all: there is then nothing to find, or to choose."""
    tensors = (s for t in program.tensors.values() for s in t.shape)
    indices = (i.extent for e in program.equations for i in e.indices)
    return any(s.evaluate(sizes) <= 0 for s in (*tensors, *indices))


def _plain(slot: Affine) -> bool:
    """Whether a slot is one index, or the one position of an axis of length 1."""
    return slot.bare is not None or not (slot.terms or slot.offset.terms or slot.modulus)


def plan(draft: Draft, context: Context, normal: Program | None = None) -> Candidate:
    """The draft after all passes. Values of `draft.keep` are not multiplied out into their readers."""
    records: tuple[PassRecord, ...] = ()
    if normal is None:
        outputs = draft.program.outputs
        kept = tuple(e.name for e in draft.program.equations if e.name in draft.keep and e.name not in outputs)
        normal, records = run_passes(replace(draft.program, outputs=outputs + kept), NORMAL_PASSES, context)
        normal = replace(normal, outputs=outputs)
    hoisted, made = hoist(normal, context.sizes, draft.room)
    known = replace(context, constants=context.constants | set(made.outputs))
    program, more = run_passes(hoisted, PLAN_PASSES, known)
    early = ahead(program, known) - set(program.outputs)
    return Candidate(draft, program, records + more, made, early)


def called(candidate: Candidate) -> Program:
    """What a call runs: the planned program in which all that is computed ahead is an input."""
    early = [e for e in candidate.program.equations if e.name in candidate.early]
    if not early:
        return candidate.program
    rest = tuple(e for e in candidate.program.equations if e.name not in candidate.early)
    used = {r.tensor for e in rest for r in reads(e.expr)} | {e.update for e in rest}
    inputs = tuple(i for i in candidate.program.inputs if i.name in used)
    inputs += tuple(Input(e.name, e.shape, e.dtype, const=True) for e in early if e.name in used)
    return replace(candidate.program, inputs=inputs, equations=rest)


def program_label(candidate: Candidate) -> str:
    """A text that planned programs share if they compute the same steps, whatever these are called.

    Each value is named by a digest of its equation, in which the values that it reads bear such names already.
    """
    program = candidate.program
    names: dict[str, str] = {}
    for equation in (*candidate.made.equations, *program.equations):
        text = equation_key(with_names(equation, names))
        names[equation.name] = blake2b(text.encode(), digest_size=12).hexdigest()
    ends = [names.get(n, n) for n in program.outputs]
    return " ".join((*ends, "|", *sorted(names.values())))
