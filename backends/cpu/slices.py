"""Chains of equations run on one slice of a shared index after the other, so that what passes between them stays in
cache.

Part of binding, after the orders of intermediates are chosen. Where a chain of equations carries an index through
(each result is read by the next equation alone, at that index), the equations need not be computed whole: all of them
are done for some values of the index, then for the next ones, and the intermediates are as small as a slice. A slice
length is chosen by price: the traffic of the intermediates at the speed of the cache that they then fit, what is read
again for each slice, and the calls. (Loop tiling across operators; e.g. "TVM", Chen et al. 2018, `compute_at`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ...ir.expr import Program, Read, reads
from ...ir.loops import Axis
from .calibration import Rates
from .equations import EquationTemplate
from .machine import Machine
from .native_record import Layout
from .schedule import schedule
from .steps import Operand, Step, sources_of

FILLED = 0.6  # of the second cache, which a slice may fill: the rest is for what threads share
LEAST_LENGTH = 8  # rows of a register tile
WORTH = 0.05  # of the predicted time of the equations, which a chain in slices must save: less is not trusted


@dataclass(frozen=True)
class Chain:
    """Equations by position, in order; the index of each that is cut, and at which position of its result it stands.

    The results of all but the last are intermediates that only the next equation reads.
    """

    positions: tuple[int, ...]
    indices: tuple[str, ...]
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Slices:
    """A chain at known sizes: the extent of the index, and how long a slice is."""

    chain: Chain
    extent: int
    length: int

    @property
    def count(self) -> int:
        """How many slices there are; the last one may be shorter."""
        return -(-self.extent // self.length)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """First value and number of values of each slice.

        >>> Slices(Chain((0, 1), ("b", "b"), (0, 0)), 20, 8).bounds
        ((0, 8), (8, 8), (16, 4))
        """
        starts = [*range(0, self.extent, self.length), self.extent]
        return tuple((a, b - a) for a, b in pairwise(starts))


def chains(program: Program, templates: Sequence[EquationTemplate]) -> tuple[Chain, ...]:
    """All chains that a program has, the longest for each equation that one may begin with and each of its indices."""
    readers: dict[str, list[int]] = {}
    kept = set(program.outputs) | {t.equation.update for t in templates}
    for k, template in enumerate(templates):
        for name in {r.tensor for r in reads(template.equation.expr)}:
            readers.setdefault(name, []).append(k)

    def following(k: int, index: str, dim: int) -> tuple[int, str, int] | None:
        """The equation that alone reads result `k`, its index that runs along `dim`, and where it writes that."""
        equation = templates[k].equation
        if equation.name in kept or not templates[k].whole or len(readers.get(equation.name, ())) != 1:
            return None
        (after,) = readers[equation.name]
        if not _cuttable(templates[after]):
            return None
        found = {_along(r, dim) for r in reads(templates[after].equation.expr) if r.tensor == equation.name}
        name = found.pop() if len(found) == 1 else None
        place = _written(templates[after], name) if name is not None else None
        return None if name is None or place is None else (after, name, place)

    found: dict[tuple[int, str], Chain] = {}
    for k, template in enumerate(templates):
        for dim, slot in enumerate(template.equation.slots):
            index = slot.bare
            if index is None or not _cuttable(template) or _written(template, index) is None:
                continue
            links = [(k, index, dim)]
            while (link := following(*links[-1])) is not None:
                links.append(link)
            if len(links) > 1:
                found[k, index] = Chain(*(tuple(column) for column in zip(*links, strict=True)))
    return tuple(found.values())


def _cuttable(template: EquationTemplate) -> bool:
    return not template.copies and not template.lookups and template.equation.update is None


def _written(template: EquationTemplate, index: str) -> int | None:
    """The dimension of the result that an index alone stands for; None if there is none, or several have it."""
    slots = template.equation.slots
    places = [d for d, slot in enumerate(slots) if index in slot.indices]
    return places[0] if len(places) == 1 and slots[places[0]].bare == index else None


def _along(read: Read, dim: int) -> str | None:
    """The index that alone runs along one dimension of what is read, and along no other."""
    name = read.slots[dim].bare
    others = [slot for d, slot in enumerate(read.slots) if d != dim]
    return None if name is None or read.pad is not None or any(name in s.indices for s in others) else name


def slices(
    found: Sequence[Chain],
    templates: Sequence[EquationTemplate],
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
    machine: Machine,
    rates: Callable[[], Rates],
    threads: int,
) -> tuple[Slices, ...]:
    """The chains that are worth slicing, no equation in two of them: those that save the most first."""
    offers = []
    for chain in found:
        traffic = _Traffic.of(chain, templates, sizes, layouts)
        if traffic.between <= machine.level2:
            continue
        offer = _best(chain, traffic, machine, rates(), threads)
        if offer is None:
            continue
        whole, parts = _predicted(offer[1], templates, sizes, layouts, machine)
        saved = offer[0] - max(0.0, parts - whole) / threads
        if saved > WORTH * whole / threads:
            offers.append((saved, offer[1]))
    taken: set[int] = set()
    chosen = []
    for _, one in sorted(offers, key=lambda offer: -offer[0]):
        span = range(one.chain.positions[0], one.chain.positions[-1] + 1)
        if taken.isdisjoint(span):
            taken |= set(span)
            chosen.append(one)
    return tuple(chosen)


def _best(chain: Chain, traffic: _Traffic, machine: Machine, rates: Rates, threads: int) -> tuple[float, Slices] | None:
    """(nanoseconds saved, slices of the best length); None where no length is shorter than the whole."""
    lengths = {-(-traffic.extent // (1 << k)) for k in range(1, 12)}
    lengths = {-(-n // LEAST_LENGTH) * LEAST_LENGTH for n in lengths}
    prices = {n: traffic.price(n, machine, rates, threads) for n in lengths if n < traffic.extent}
    if not prices:
        return None
    length = min(prices, key=lambda n: (prices[n], -n))
    saved = traffic.price(traffic.extent, machine, rates, threads) - prices[length]
    return saved, Slices(chain, traffic.extent, length)


def _predicted(
    one: Slices,
    templates: Sequence[EquationTemplate],
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
    machine: Machine,
) -> tuple[float, float]:
    """Predicted nanoseconds of the equations on one core, whole and in slices: less than full tiles, and operands that
    are laid anew for each slice, cost something. The second is infinite where an equation is not a single step.
    """
    whole = parts = 0.0
    lengths = [length for _, length in one.bounds]
    inner = frozenset(templates[k].equation.name for k in one.chain.positions[:-1])
    short = {**layouts, **shrunk(one, templates, layouts)}
    for k, index in zip(one.chain.positions, one.chain.indices, strict=True):
        steps, cuts = (templates[k].contractions(sizes, dict(found)) for found in (layouts, short))
        if len(steps) != 1 or len(cuts) != 1:
            return 1.0, float("inf")
        whole += schedule(steps[0].problem, machine=machine).nanoseconds
        for length in set(lengths):
            piece = cut(cuts[0], templates[k], index, inner, 0, length)
            parts += lengths.count(length) * schedule(piece.problem, machine=machine).nanoseconds
    return whole, parts


@dataclass(frozen=True)
class _Traffic:
    """Bytes that a chain moves: of the intermediates, of other tensors that the index cuts, and of those that each
    slice reads again; and in how many calls.
    """

    extent: int
    between: int
    cut: int
    again: int
    calls: int

    @staticmethod
    def of(
        chain: Chain, templates: Sequence[EquationTemplate], sizes: Mapping[str, int], layouts: Mapping[str, Layout]
    ) -> _Traffic:
        """What the layouts say."""
        names = [templates[k].equation.name for k in chain.positions]
        inner = set(names[:-1])
        cut, again = {names[-1]}, set[str]()
        for k, index in zip(chain.positions, chain.indices, strict=True):
            for read in reads(templates[k].equation.expr):
                if read.tensor not in inner:
                    moves = any(index in slot.indices for slot in read.slots)
                    (cut if moves else again).add(read.tensor)

        def total(tensors: set[str]) -> int:
            return sum(layouts[n].nbytes for n in tensors)

        extent = layouts[names[0]].shape[chain.dims[0]]
        return _Traffic(extent, total(inner), total(cut), total(again), len(names))

    def price(self, length: int, machine: Machine, rates: Rates, threads: int) -> float:
        """Nanoseconds of what depends on the length of a slice."""
        count = -(-self.extent // max(1, length))
        part = length / max(1, self.extent)
        here = int((self.between + self.cut) * part) + self.again
        level = _level(here, machine, rates, threads)
        passing = 2 * self.between / rates.bandwidth[level]
        again = (count - 1) * self.again / rates.bandwidth[level]
        return (passing + again) / threads + count * self.calls * (rates.launch + (rates.region if threads > 1 else 0))


def _level(nbytes: int, machine: Machine, rates: Rates, threads: int) -> str:
    """The smallest cache, of those that the threads have together, that holds this many bytes."""
    if nbytes <= FILLED * machine.level2 * threads:
        return "level2"
    return "level3" if nbytes <= rates.level3 else "memory"


def shrunk(one: Slices, templates: Sequence[EquationTemplate], layouts: Mapping[str, Layout]) -> dict[str, Layout]:
    """The layouts of a chain's intermediates, as long as a slice, in the order that was chosen for them."""
    found = {}
    for k, dim in zip(one.chain.positions[:-1], one.chain.dims[:-1], strict=True):
        name = templates[k].equation.name
        layout = layouts[name]
        shape = tuple(one.length if d == dim else n for d, n in enumerate(layout.shape))
        order = tuple(sorted(range(len(shape)), key=lambda d: -layout.strides[d]))
        found[name] = Layout.dense(layout.dtype, shape, order)
    return found


def cut(step: Step, template: EquationTemplate, index: str, inner: frozenset[str], start: int, length: int) -> Step:
    """A step for some values of an index. Tensors in `inner` hold nothing but the slice; all others are read (and
    written) from where it begins.
    """
    number = [i.name for i in template.axes].index(index)
    axes = step.problem.axes
    axis = axes[number]
    assert len(axes) == len(template.axes) and not axis.reduced, "an equation of one step, cut along a free index"
    shorter = (*axes[:number], Axis(length, axis.strides), *axes[number + 1 :])
    operands = tuple(
        o if o.tensor in inner else Operand(o.tensor, o.offset + start * stride)
        for o, stride in zip(step.operands, axis.strides, strict=True)
    )
    return Step(replace(step.problem, axes=shorter, sources=sources_of(operands)), operands)
