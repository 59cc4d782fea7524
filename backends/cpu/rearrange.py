"""Contractions in several stages: an operand laid out anew first, a result last, or a long sum in parts that threads
can share.

Both are rewritings of a `Problem` into problems; every one of them goes through `choose` like any other, and a
rewriting is taken where the prices of its parts add up to less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ...ir.loops import Load
from .choose import Choice, choose
from .machine import Machine
from .price import floor
from .problem import Form, Line, Problem, copy_form, form_of, merged

_WORTH_LAYING = 1 << 17  # steps from which on laying an operand out may pay
_WORTH_SPLITTING = 1 << 18  # steps of a sum that fills no threads
_PARTS = 32
_GRAIN = 1 << 10
_BYTES_PER_CYCLE = 4.0
_NEAR = 1.2  # times the least possible price: nothing is laid out below that


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


# --- tensors laid out anew -------------------------------------------------------------------------------------------


def _laid(problem: Problem, machine: Machine, plain: Part) -> tuple[list[Part], list[int]]:
    """Copy operands into a better order first, or the result into its own order last, as long as that lowers the price.

    Each round tries every tensor in a few orders; a round that gains less than a tenth is the last.
    """
    before: list[Part] = []
    after: list[Part] = []
    sizes: list[int] = []
    last = plain
    first = len(problem.form.dtypes)
    for _ in problem.form.dtypes:
        if last.choice.cycles <= _NEAR * floor(last.problem, machine):
            break
        best: tuple[float, int, Part, Part] | None = None
        for tensor in _candidates(last, first):
            for order in _orders(last, tensor):
                move = _stored if tensor == 0 else _relaid
                copy, rest = move(last, tensor, order, first + len(sizes), machine)
                price = copy.choice.cycles + rest.choice.cycles + _traffic(copy.problem)
                if price < 0.9 * last.choice.cycles and (best is None or price < best[0]):
                    best = (price, tensor, copy, rest)
        if best is None:
            break
        _, tensor, copy, last = best
        before, after = (before, [copy]) if tensor == 0 else ([*before, copy], after)
        sizes.append(
            copy.problem.steps * (problem.form.accumulate if tensor == 0 else problem.form.dtypes[tensor]).itemsize
        )
    return [*before, last, *after], sizes


def _traffic(problem: Problem) -> float:
    return 2 * problem.steps * problem.form.sizes[0] / _BYTES_PER_CYCLE


def _candidates(part: Part, first: int) -> list[int]:
    """Tensors not yet laid out that are small beside the work: operands in an order that may hurt, and the result."""
    problem, choice = part.problem, part.choice
    lines = problem.lines
    good = []
    for t in problem.form.inputs:
        volume = prod([line.extent for line in lines if line.strides[t]])
        if part.buffers[t] < first and 32 < volume <= problem.steps // 3:
            good.append(t)
    stored = lines[choice.vector].strides[0] != problem.form.sizes[0]
    results = prod([line.extent for line in lines if not line.reduced])
    if stored and part.buffers[0] == 0 and 32 < results <= problem.steps // 16:
        good.append(0)
    return good


def _orders(part: Part, tensor: int) -> list[tuple[int, ...]]:
    """Orders to try that differ from the present one: batch axes, then the tensor's own and the summed ones either
    way; and the vector axis last. A result takes each of its axes last, the others as they are.
    """
    lines, form = part.problem.lines, part.problem.form
    mine = [i for i, line in enumerate(lines) if line.strides[tensor]]
    others = [t for t in form.inputs if t != tensor]

    def by_stride(indices: list[int], t: int) -> list[int]:
        return sorted(indices, key=lambda i: -abs(lines[i].strides[t]))

    present = tuple(by_stride(mine, tensor))
    if tensor == 0:
        orders = [(*(i for i in present if i != v), v) for v in sorted(mine, key=lambda i: -lines[i].extent)[:3]]
        return [order for order in orders if order != present]
    other = others[0] if others else tensor
    summed = by_stride([i for i in mine if lines[i].reduced], other)
    batch = by_stride([i for i in mine if not lines[i].reduced and any(lines[i].strides[t] for t in others)], 0)
    own = by_stride([i for i in mine if i not in batch and not lines[i].reduced], 0)
    orders = [(*batch, *summed, *own), (*batch, *own, *summed)]
    v = part.choice.vector
    if v in mine:
        orders.append((*(i for i in present if i != v), v))
    dense = lines[present[-1]].strides[tensor] == form.sizes[tensor] if present else True
    return [order for order in dict.fromkeys(orders) if order != present or not dense]


def _dense(problem: Problem, order: tuple[int, ...], size: int) -> dict[int, int]:
    """Dense strides over axes in an order, the last one contiguous."""
    dense: dict[int, int] = {}
    step = size
    for i in reversed(order):
        dense[i] = step
        step *= problem.lines[i].extent
    return dense


def _replaced(problem: Problem, tensor: int, dense: dict[int, int]) -> tuple[tuple[Line, ...], tuple[int, ...]]:
    """Axes and offsets with one tensor lying densely in a buffer of its own."""
    lines = [
        Line(n, tuple([dense.get(i, 0) if t == tensor else s for t, s in enumerate(strides)]), reduced)
        for i, (n, strides, reduced) in enumerate(problem.lines)
    ]
    return merged(lines), tuple(0 if t == tensor else o for t, o in enumerate(problem.offsets))


def _relaid(part: Part, tensor: int, order: tuple[int, ...], buffer: int, machine: Machine) -> tuple[Part, Part]:
    """(the copy of an operand, the rest of the work on the copy)."""
    problem = part.problem
    dense = _dense(problem, order, problem.form.sizes[tensor])
    moves = [Line(problem.lines[i].extent, (dense[i], problem.lines[i].strides[tensor]), False) for i in order]
    copying = Problem(copy_form(problem.form.dtypes[tensor]), merged(moves), (0, problem.offsets[tensor]))
    rest = Problem(problem.form, *_replaced(problem, tensor, dense))
    buffers = tuple(buffer if t == tensor else b for t, b in enumerate(part.buffers))
    copy = Part(copying, (buffer, part.buffers[tensor]), choose(copying, machine), "laid")
    return copy, Part(rest, buffers, choose(rest, machine))


def _stored(part: Part, tensor: int, order: tuple[int, ...], buffer: int, machine: Machine) -> tuple[Part, Part]:
    """(the last stage, which brings the result into its own order and applies the epilogue; the work before it)."""
    problem, form = part.problem, part.problem.form
    dense = _dense(problem, order, form.accumulate.itemsize)
    bare = form_of((form.accumulate, *form.dtypes[1:]), form.factors, form.accumulate, form.semiring)
    rest = Problem(bare, *_replaced(problem, tensor, dense))
    moves = [Line(problem.lines[i].extent, (*problem.lines[i].strides, dense[i]), False) for i in order]
    copying = Problem(_final_form(form), merged(moves), (*problem.offsets, 0))
    copy = Part(copying, (*part.buffers, buffer), choose(copying, machine), "stored")
    return copy, Part(rest, (buffer, *part.buffers[1:]), choose(rest, machine))


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
