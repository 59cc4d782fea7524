"""Contractions in several stages: an operand laid out anew first, or a long sum done in parts that threads can share.

Both are rewritings of a `Problem` into problems; every one of them goes through `choose` like any other, and a
rewriting is taken where the prices of its parts add up to less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ...ir.loops import Load
from .choose import Choice, choose
from .machine import Machine
from .problem import Form, Line, Problem, copy_form, form_of, merged

_WORTH_LAYING = 1 << 17  # steps from which on laying an operand out may pay
_WORTH_SPLITTING = 1 << 18  # steps of a sum that fills no threads
_PARTS = 32
_GRAIN = 1 << 10
_BYTES_PER_CYCLE = 4.0


@dataclass(frozen=True)
class Part:
    """One problem of a rewritten contraction, where its tensors lie, and how it is to be done."""

    problem: Problem
    buffers: tuple[int, ...]
    choice: Choice
    label: str = ""


def parts_of(problem: Problem, machine: Machine, constants: bool, family: str | None) -> tuple[list[Part], list[int]]:
    """(the parts of a contraction in order, bytes of their temporaries)."""
    buffers = tuple(range(len(problem.form.dtypes)))
    choice = choose(problem, machine, constants, family)
    if constants or family or problem.form.collides or problem.steps < _WORTH_LAYING:
        return [Part(problem, buffers, choice)], []
    split = _split_length(problem, choice)
    if split:
        return _split(problem, machine, split)
    parts, sizes = _laid(problem, machine, Part(problem, buffers, choice))
    return parts, sizes


# --- operands laid out anew ------------------------------------------------------------------------------------------


def _laid(problem: Problem, machine: Machine, plain: Part) -> tuple[list[Part], list[int]]:
    """Copy operands into a better order, one after the other, as long as that lowers the price."""
    copies: list[Part] = []
    sizes: list[int] = []
    last = plain
    first = len(problem.form.dtypes)
    for _ in problem.form.inputs:
        best: tuple[float, Part, Part, int] | None = None
        for tensor in _candidates(last, first):
            for order in _orders(last, tensor):
                copy, rest = _relaid(last, tensor, order, first + len(sizes), machine)
                price = copy.choice.cycles + rest.choice.cycles + _traffic(copy.problem)
                if price < 0.9 * last.choice.cycles and (best is None or price < best[0]):
                    best = (price, copy, rest, prod(last.problem.lines[i].extent for i in order))
        if best is None:
            break
        _, copy, last, elements = best
        copies.append(copy)
        sizes.append(elements * copy.problem.form.sizes[0])
    return [*copies, last], sizes


def _traffic(problem: Problem) -> float:
    return 2 * problem.steps * problem.form.sizes[0] / _BYTES_PER_CYCLE


def _candidates(part: Part, first: int) -> list[int]:
    """Operands not yet laid out, read several times, that are gathered or whose axes do not merge into rows and
    columns.
    """
    problem, choice = part.problem, part.choice
    lines = problem.lines
    good = []
    for t in problem.form.inputs:
        volume = prod(line.extent for line in lines if line.strides[t])
        stride = lines[choice.vector].strides[t]
        gathered = stride not in (0, problem.form.sizes[t])
        scattered = len(problem.form.factors) == 2 and sum(0 in line.strides for line in lines) > 3
        if part.buffers[t] < first and 32 < volume <= problem.steps // 3 and (gathered or scattered):
            good.append(t)
    return good


def _orders(part: Part, tensor: int) -> list[tuple[int, ...]]:
    """Orders to try: batch axes, then the operand's own and the summed ones either way; and the vector axis last."""
    lines, form = part.problem.lines, part.problem.form
    mine = [i for i, line in enumerate(lines) if line.strides[tensor]]
    others = [t for t in form.inputs if t != tensor]

    def by_stride(indices: list[int], t: int) -> list[int]:
        return sorted(indices, key=lambda i: -abs(lines[i].strides[t]))

    summed = [i for i in mine if lines[i].reduced]
    other = others[0] if others else tensor
    summed = by_stride(summed, other)
    batch = by_stride([i for i in mine if not lines[i].reduced and any(lines[i].strides[t] for t in others)], 0)
    own = by_stride([i for i in mine if i not in batch and not lines[i].reduced], 0)
    orders = [(*batch, *summed, *own), (*batch, *own, *summed)]
    v = part.choice.vector
    if v in mine:
        orders.append((*by_stride([i for i in mine if i != v], tensor), v))
    return list(dict.fromkeys(orders))


def _relaid(part: Part, tensor: int, order: tuple[int, ...], buffer: int, machine: Machine) -> tuple[Part, Part]:
    """(the copy, the rest of the work on the copy)."""
    problem = part.problem
    size = problem.form.sizes[tensor]
    dense: dict[int, int] = {}
    step = size
    for i in reversed(order):
        dense[i] = step
        step *= problem.lines[i].extent
    moves = [Line(problem.lines[i].extent, (dense[i], problem.lines[i].strides[tensor]), False) for i in order]
    copying = Problem(copy_form(problem.form.dtypes[tensor]), merged(moves), (0, problem.offsets[tensor]))
    lines = [
        Line(n, tuple(dense.get(i, 0) if t == tensor else s for t, s in enumerate(strides)), reduced)
        for i, (n, strides, reduced) in enumerate(problem.lines)
    ]
    offsets = tuple(0 if t == tensor else o for t, o in enumerate(problem.offsets))
    rest = replace(problem, lines=merged(lines), offsets=offsets)
    buffers = tuple(buffer if t == tensor else b for t, b in enumerate(part.buffers))
    copy = Part(copying, (buffer, part.buffers[tensor]), choose(copying, machine), "laid")
    return copy, Part(rest, buffers, choose(rest, machine))


# --- long sums with few results --------------------------------------------------------------------------------------


def _split_length(problem: Problem, choice: Choice) -> int:
    """The length of the parts of the longest reduction; 0 where the results alone are shares enough."""
    lines = problem.lines
    results = prod(line.extent for line in lines if not line.reduced)
    longest = max((line.extent for line in lines if line.reduced), default=0)
    tile = choice.height * choice.width * (1 if lines[choice.vector].reduced else choice.lanes * choice.vectors)
    if problem.steps < _WORTH_SPLITTING or longest < 8 * _GRAIN or results > 8 * max(1, tile):
        return 0
    return -(-longest // (_PARTS * _GRAIN)) * _GRAIN


def _split(problem: Problem, machine: Machine, length: int) -> tuple[list[Part], list[int]]:
    """Sums of runs of `length` terms into a temporary, what is left over, and the sum of those."""
    form, lines = problem.form, problem.lines
    size = form.accumulate.itemsize
    at = max((i for i, line in enumerate(lines) if line.reduced), key=lambda i: lines[i].extent)
    n, strides, _ = lines[at]
    runs, left = divmod(n, length)
    dense, results = _dense_results(lines, size)
    kept = [Line(m, (dense.get(i, 0), *s[1:]), reduced) for i, (m, s, reduced) in enumerate(lines) if i != at]
    partial = form_of((form.accumulate, *form.dtypes[1:]), form.factors, form.accumulate, form.semiring)
    buffer = len(form.dtypes)
    buffers = (buffer, *range(1, len(form.dtypes)))
    run = Line(length, (0, *strides[1:]), True)
    rounds = Line(runs, (results * size, *(length * s for s in strides[1:])), False)
    parts = [
        _part(Problem(partial, merged([*kept, rounds, run]), (0, *problem.offsets[1:])), buffers, machine, "split")
    ]
    if left:
        start = (
            runs * results * size,
            *(o + runs * length * s for o, s in zip(problem.offsets[1:], strides[1:], strict=True)),
        )
        rest = Line(left, (0, *strides[1:]), True)
        parts.append(_part(Problem(partial, merged([*kept, rest]), start), buffers, machine, "rest"))
    parts.append(_sum_of_parts(problem, dense, runs + bool(left), results, machine))
    return parts, [(runs + 1) * results * size]


def _dense_results(lines: tuple[Line, ...], size: int) -> tuple[dict[int, int], int]:
    """Dense strides over the output axes in the order of the output, and their number of elements."""
    dense, count = {}, 1
    for i in sorted((i for i, line in enumerate(lines) if not line.reduced), key=lambda i: abs(lines[i].strides[0])):
        dense[i] = count * size
        count *= lines[i].extent
    return dense, count


def _sum_of_parts(problem: Problem, dense: dict[int, int], parts: int, results: int, machine: Machine) -> Part:
    """The last stage, with the epilogue. The temporary is one more operand, so the others keep their numbers."""
    form = problem.form
    final = _final_form(form)
    zeros = (0,) * len(form.dtypes)
    lines = [Line(problem.lines[i].extent, (*problem.lines[i].strides, d), False) for i, d in dense.items()]
    lines.append(Line(parts, (*zeros, results * form.accumulate.itemsize), True))
    buffers = tuple(range(len(form.dtypes) + 1))
    return _part(Problem(final, merged(lines), (*problem.offsets, 0)), buffers, machine, "join")


def _final_form(form: Form) -> Form:
    dtypes = (*form.dtypes, form.accumulate)
    return form_of(
        dtypes, (Load(len(form.dtypes) - 1),), form.accumulate, form.semiring, form.epilogue, form.update, form.collides
    )


def _part(problem: Problem, buffers: tuple[int, ...], machine: Machine, label: str) -> Part:
    return Part(problem, buffers, choose(problem, machine), label)
