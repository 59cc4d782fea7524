"""Random variants of a program that must not change its label or what is found: other names, order of factors and
summands, storage order of operands, and products moved into lets.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from stein.ir.expr import Einsum, Equation, Expr, Input, Map, Program, Read, free_indices, substitute, transform
from stein.ir.index import Affine, Index
from stein.ir.structures import samples
from stein.passes.canonical import canonical_label
from stein.passes.recognise import recognise
from stein.tests.structures import cases

DIRECTED = {"banded", "lower", "upper", "selection", "vandermonde", "permutation", "bsr", "blockdiag", "lowrank"}
"""Declarations that speak of rows and columns, or of the last two axes: such operands are stored as they are."""


def variant(program: Program, argument: str, rnd: random.Random) -> tuple[Program, str]:
    """An equal program: other names, order of factors and summands, storage order, and a product moved into a let."""
    tensors = {
        n: f"{rnd.choice('PQRS')}{k}" for k, n in enumerate(rnd.sample(sorted(program.tensors), len(program.tensors)))
    }
    loose = [i for i in program.inputs if i.name != argument and not {s.name for s in i.structure} & DIRECTED]
    orders = {i.name: rnd.sample(range(len(i.shape)), len(i.shape)) for i in loose}
    keep = set(program.outputs)
    orders |= {e.name: rnd.sample(range(len(e.shape)), len(e.shape)) for e in program.equations if e.name not in keep}

    def moved(name: str, items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(items[k] for k in orders[name]) if name in orders else items

    inputs = [Input(tensors[i.name], moved(i.name, i.shape), i.dtype, i.structure, pad=i.pad) for i in program.inputs]
    rnd.shuffle(inputs)
    equations = []
    for e in program.equations:
        fresh = rnd.sample(range(100, 999), len(e.indices))
        names = {i.name: f"{rnd.choice('abcd')}{k}" for i, k in zip(e.indices, fresh, strict=True)}

        def rule(x: Expr) -> Expr:
            if isinstance(x, Read):
                return Read(tensors[x.tensor], moved(x.tensor, x.slots), x.dtype, x.pad)
            if isinstance(x, Einsum):
                return Einsum(
                    tuple(rnd.sample(x.bound, len(x.bound))),
                    tuple(rnd.sample(x.factors, len(x.factors))),
                    x.dtype,
                    x.accumulate,
                    x.semiring,
                )
            if isinstance(x, Map) and x.function == "add" and rnd.random() < 0.5:
                return Map("add", x.args[::-1], x.dtype)
            return x

        values = {old: Affine.of(new) for old, new in names.items()}
        expr = substitute(transform(e.expr, rule), values)
        indices = [Index(names[i.name], i.extent) for i in e.indices]
        rnd.shuffle(indices)
        slots = moved(e.name, tuple(s.substitute(values) for s in e.slots))
        equations.append(
            Equation(tensors[e.name], slots, moved(e.name, e.shape), tuple(indices), expr, e.dtype, e.semiring)
        )
    if rnd.random() < 0.7:
        equations = _nested(equations, rnd)
    outputs = tuple(tensors[n] for n in program.outputs)
    return Program(tuple(inputs), tuple(equations), outputs), tensors[argument]


def _nested(equations: list[Equation], rnd: random.Random) -> list[Equation]:
    """Some factors of the last equation's product moved into an equation of their own."""
    last = equations[-1]
    expr = last.expr
    if not isinstance(expr, Einsum):
        return equations
    plain = [f for f in expr.factors if isinstance(f, Read) and f.pad is None and all(s.bare for s in f.slots)]
    if len(plain) < 2 or len(plain) < len(expr.factors):
        return equations
    inner = rnd.sample(plain, rnd.randrange(1, len(plain)))
    rest = [f for f in expr.factors if f not in inner]
    if len(rest) + len(inner) != len(expr.factors):
        return equations
    outside = {n for f in rest for n in free_indices(f)} | set(last.free)
    own = list(dict.fromkeys(n for f in inner for n in free_indices(f)))
    kept = [n for n in own if n in outside]
    if not kept:
        return equations
    rnd.shuffle(kept)
    summed = tuple(n for n in own if n not in outside)
    extents = last.extents
    slots = tuple(Affine.of(n) for n in kept)
    let = Equation(
        "nested",
        slots,
        tuple(extents[n] for n in kept),
        tuple(Index(n, extents[n]) for n in own),
        Einsum(summed, tuple(inner), expr.dtype, expr.accumulate, expr.semiring),
        expr.dtype,
    )
    read = Read("nested", slots, expr.dtype)
    factors = [*rest]
    factors.insert(rnd.randrange(len(factors) + 1), read)
    bound = tuple(b for b in expr.bound if b not in summed)
    outer = Einsum(bound, tuple(factors), expr.dtype, expr.accumulate, expr.semiring)
    used = {*last.free, *bound}
    indices = tuple(i for i in last.indices if i.name in used)
    return [
        *equations[:-1],
        let,
        Equation(last.name, last.slots, last.shape, indices, outer, last.dtype, last.semiring),
    ]


FINDINGS = 4  # labels are compared for every variant, findings (which take longer) for one in so many


@dataclass(frozen=True)
class Subject:
    """A program whose variants are looked at, under the structure that is found in it."""

    structure: str
    name: str
    program: Program
    argument: str


@cache
def subjects() -> tuple[Subject, ...]:
    """The public cases, and the product of each sample structure with x over a batch."""
    found = [Subject(c.kind or "nothing", f"case {c.number}", c.program, c.argument) for c in cases.CASES]
    for name, structure in samples().items():
        program = structure.operator().apply((3,))
        kinds = [f.kind for f in recognise(program, "x") if f.number is None and f.term is not None]
        found.append(Subject(kinds[0] if kinds else "nothing", f"sample {name}", program, "x"))
    return tuple(found)


@cache
def structures() -> dict[str, list[Subject]]:
    """The subjects of each structure."""
    found: dict[str, list[Subject]] = {}
    for s in subjects():
        found.setdefault(s.structure, []).append(s)
    return found


def kinds(program: Program, argument: str) -> list[str]:
    """What must not change beside the label: the kinds found for the whole, and those of the terms of a sum."""
    found = [f for f in recognise(program, argument) if f.value in program.outputs]  # lets are spelling
    return sorted(f"{f.kind} {'whole' if f.number is None else 'term'}" for f in found)


def changed(subject: Subject, seed: int, number: int) -> bool:
    """Whether variant `number` of a seed has another label or, for every `FINDINGS`-th variant, other findings."""
    program, argument = variant(subject.program, subject.argument, random.Random(f"{seed}:{subject.name}:{number}"))
    label, found = own(subject)
    if canonical_label(program) != label:
        return True
    return number // len(structures()[subject.structure]) % FINDINGS == 0 and kinds(program, argument) != found


@cache
def own(subject: Subject) -> tuple[str, list[str]]:
    """The label and the kinds of the subject as it is written."""
    return canonical_label(subject.program), kinds(subject.program, subject.argument)
