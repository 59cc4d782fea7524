"""In which order the axes of each intermediate tensor lie in memory: what its producer and its readers cost decides.

Part of binding, before any kernel is chosen. An intermediate is nobody's but ours, so its order is free: the one that
its equation was written in may make the producer scatter or a reader gather. Orders are tried one intermediate after
the other, each is priced by the schedules of the equations around it (nothing is compiled), and what was found is kept
for all sizes with the same numbers of binary digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, permutations
from threading import Lock
from typing import TypeAlias

from ...ir.expr import Program, reads
from .choose import choose, nanoseconds
from .equations import EquationTemplate
from .machine import Machine, host
from .native_record import Layout
from .problem import problem_of
from .schedule import schedule

Order: TypeAlias = tuple[int, ...]

_WORTH = 40_000.0  # nanoseconds of the equations around an intermediate from which on a search repays itself soon
_BETTER = 0.95  # of the price before: smaller gains are not trusted
_TRIED = 10  # orders of one intermediate that are looked at
_PRICED = 3  # the best of these, which are priced with everything that schedules can do
_KEPT = 64  # outcomes that are remembered


class Orders:
    """The orders of the intermediates of one planned program, by sizes and by how the operands lie."""

    def __init__(self, program: Program, templates: Sequence[EquationTemplate]) -> None:
        self.templates = {t.equation.name: t for t in templates}
        updated = {t.equation.update for t in templates} | set(program.outputs)
        self.readers: dict[str, list[EquationTemplate]] = {}
        for template in templates:
            for name in dict.fromkeys(r.tensor for r in reads(template.equation.expr)):
                self.readers.setdefault(name, []).append(template)
        self.free = [
            t for t in templates
            if t.equation.name not in updated and t.equation.update is None and _is_plain(t)
            and all(_is_plain(r) for r in self.readers.get(t.equation.name, ()))
        ]  # fmt: skip
        self._known: dict[object, dict[str, Order]] = {}
        self._lock = Lock()

    def choose(
        self, sizes: Mapping[str, int], layouts: Mapping[str, Layout], machine: Machine | None = None
    ) -> dict[str, Layout]:
        """The layouts of the intermediates that are to lie in another order than they are written in.

        `layouts` has every tensor, intermediates in row-major order.
        """
        if not self.free:
            return {}
        given = [n for n in layouts if n not in self.templates]
        key = (
            tuple(n.bit_length() if n != 1 else -1 for n in sizes.values()),
            tuple(_ranks(layouts[n]) for n in given),
            tuple(_ranks(layouts[n]) for n in self.templates),
        )
        orders = self._known.get(key)
        if orders is None:
            orders = self._search(sizes, layouts, machine or host())
            with self._lock:
                self._known[key] = orders
                while len(self._known) > _KEPT:
                    self._known.pop(next(iter(self._known)))
        return {n: Layout.dense(layouts[n].dtype, layouts[n].shape, order) for n, order in orders.items()}

    def _search(self, sizes: Mapping[str, int], layouts: Mapping[str, Layout], machine: Machine) -> dict[str, Order]:
        found: dict[str, Order] = {}
        now = dict(layouts)
        for template in self.free:
            name = template.equation.name
            layout = now[name]
            around = [template, *self.readers.get(name, ())]
            price = sum(_price(t, sizes, now, machine) for t in around)
            if price < _WORTH:
                continue
            rough: list[tuple[float, Order]] = []
            for order in islice(_orders(layout.shape), _TRIED):
                now[name] = Layout.dense(layout.dtype, layout.shape, order)
                rough.append((sum(_price(t, sizes, now, machine, rough=True) for t in around), order))
            best = price * _BETTER
            for _, order in sorted(rough)[:_PRICED]:
                now[name] = Layout.dense(layout.dtype, layout.shape, order)
                total = sum(_price(t, sizes, now, machine) for t in around)
                if total < best:
                    best, found[name] = total, order
            now[name] = Layout.dense(layout.dtype, layout.shape, found.get(name))
        return found


def _is_plain(template: EquationTemplate) -> bool:
    return not template.copies and not template.lookups and template.whole


def _ranks(layout: Layout) -> tuple[object, ...]:
    """How an array lies, without its sizes: which axis runs fastest, and which do not move."""
    order = sorted(range(len(layout.shape)), key=lambda d: abs(layout.strides[d]))
    return (*order, *(s == 0 for s in layout.strides))


def _orders(shape: tuple[int, ...]) -> Iterator[Order]:
    """Orders of the axes that differ in memory, likely ones first: each axis last, then all others."""
    axes = range(len(shape))
    long = [d for d in axes if shape[d] != 1]
    short = tuple(d for d in axes if shape[d] == 1)
    seen = {tuple(long)}
    moved = [(*(d for d in long if d != last), last) for last in long]
    for order in (*moved, *islice(permutations(long), 8 * _TRIED)):
        if order not in seen:
            seen.add(order)
            yield short + order


def _price(
    template: EquationTemplate,
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
    machine: Machine,
    rough: bool = False,
) -> float:
    """Predicted nanoseconds of an equation; if `rough`, as one kernel, which is known much sooner."""
    total = 0.0
    for step in template.contractions(sizes, dict(layouts)):
        if rough:
            problem = problem_of(step.problem)
            total += 0.0 if problem is None else nanoseconds(problem, choose(problem, machine), machine)
        else:
            total += sum(stage.nanoseconds for stage in schedule(step.problem, machine=machine).stages)
    return total
