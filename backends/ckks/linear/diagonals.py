"""Linear steps: a clear matrix times an encrypted value, by covering diagonals.

What is offered: a relabelling, where every element goes to one row as it is (transposes, permutations, diagonals: no
operation at all); lanes, where the client repeats its input so that nothing has to move before the product; one product
of polynomials for a convolution between the client and itself (`spectral`); and maps between candidate layouts. Copies
and sums whose slots need no mask take neither products nor a level. `gather` moves a value from one packing to another
for steps of other kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ....ir.errors import NOWHERE, EncryptionError
from ..core.distinct import distinct
from ..core.layout import NOTHING, Layout, Packing
from ..lowering.problem import Linear, Slot, Term
from ..steps import candidates
from ..steps.candidates import Result
from ..steps.context import Argument, Context, Free
from ..steps.option import Option, Placed
from . import babysteps, spectral
from .cover import Cover, Sites, cover, least_by_elements, least_by_rows, sites
from .linear_map import Map, Relabel
from .matrix import Matrix

Array = np.ndarray[Any, Any]

STEP_OF_BAR = 1.5  # by which the time that a map may take is raised until maps are found
MOST_BAR = 1e6  # milliseconds
WORTH = 0.95  # of the time of the best map so far: what takes more is not looked for
MOST_TRIED = (
    800  # diagonals in all of the maps that are tried, at each of these times, to a layout of a result in between
)
GIVE_UP = 2.0  # layouts of a result that take this many times the cheapest one are not looked for
MOST_LANES = 64  # ciphertexts of an input in lanes


def options(step: Linear, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Option]:
    """Ways to compute the step, best first."""
    matrix = matrix_of(step, context)
    (argument,) = arguments
    found: list[Option] = []
    if not matrix.count:
        raise EncryptionError(
            f"`{step.name}` does not depend on `{step.argument}`: every term lies outside of it",
            code="no-terms",
            spans=() if step.span == NOWHERE else (step.span,),
            help="leave the encrypted value out; a ciphertext of nothing but zeros would give itself away",
        )
    if isinstance(argument, Placed):
        relabelled = relabel(matrix, argument)
        if relabelled is not None:
            found.append(relabelled)
        found += maps(matrix, context, [Source(argument)])
    else:
        if context.single:
            found += spectral.choices(matrix, context)
        if not found:  # one product cannot be bettered
            laid = (lanes(matrix, context, target) for target in results_of(matrix, context))
            found += [o for o in laid if o is not None]
            found += maps(matrix, context, sources_of(matrix, context, argument))
    kept = [o for o in found if o.gives.level <= context.levels]
    yield from sorted(kept, key=lambda o: price(o, context, isinstance(argument, Free)))


def restore(step: Linear, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any]) -> Option:
    """The option of a saved plan."""
    matrix = matrix_of(step, context)
    (argument,) = arguments
    if decision["method"] == "relabel":
        assert isinstance(argument, Placed)
        option: Option | None = relabel(matrix, argument)
    elif decision["method"] == "spectral":
        option = spectral.spectral(matrix, context, tuple(decision["strides"]))
    else:
        result = Result.from_json(decision["result"])
        if decision["method"] == "lanes":
            made = lanes(matrix, context, Target.of(result, context))
        else:
            source = Source(argument) if isinstance(argument, Placed) else Source.of(decision["packed"], context)
            made = mapped(matrix, context, source, Target.of(result, context))
        option = replace(made, chained=bool(decision["chained"])) if made is not None else None
    assert option is not None, "a decision that does not fit its step"
    return option


def price(option: Option, context: Context, free: bool) -> float:
    """Time of an option together with its uploads."""
    uploads = sum(p.packing.ciphertexts for p in option.takes) if free else 0
    return option.work.milliseconds + uploads * context.prices.upload(context.primes(0))


def matrix_of(step: Linear, context: Context) -> Matrix:
    """The step's matrix, made once in a search."""
    key = ("linear", "matrix", step)
    if key not in context.memory:
        context.memory[key] = Matrix(step, context.shapes)
    matrix: Matrix = context.memory[key]
    return matrix


# --------------------------------------------------------------------------------------------------------- the two ends


@dataclass(frozen=True, eq=False)
class Source:
    """Where an operand lies, and the layout by which a client packs it."""

    placed: Placed
    packed: Layout | None = None

    @staticmethod
    def of(layout: Layout | Mapping[str, Any], context: Context) -> Source:
        """An input packed by a layout (or its JSON)."""
        made = layout if isinstance(layout, Layout) else Layout.from_json(layout)
        return Source(Placed(made.packing(context.slots), 0, made.text()), made)


@dataclass(frozen=True, eq=False)
class Target:
    """Where partial sums are to lie: a candidate result, or a packing that somebody asks for."""

    packing: Packing
    gives: Packing
    text: str
    result: Result | None = None

    @staticmethod
    def of(result: Result, context: Context) -> Target:
        """A candidate result."""
        slots = context.slots
        given = result.gives(slots)
        packing = result.layout.packing(slots)
        return Target(packing, packing if given is result.layout else given.packing(slots), given.text(), result)

    @cached_property
    def folds(self) -> tuple[int, ...]:
        """The rotations of the fold."""
        if self.result is None or not self.result.fold:
            return ()
        return tuple(self.result.stride << i for i in range(self.result.factor.bit_length() - 1))

    @cached_property
    def unit(self) -> int:
        """The stride below which neighbours are summed anyway."""
        return self.result.stride * self.result.factor if self.result is not None and self.result.fold else 1


def results_of(matrix: Matrix, context: Context) -> list[Target]:
    """Candidate layouts of a step's result, each packing once."""
    name, terms = matrix.step.name, int(matrix.row_counts.max(initial=1))
    key = ("linear", "targets", name, context.slots)
    if key not in context.memory:
        found: dict[tuple[bytes, int], Target] = {}
        for result in candidates.results(axes_of(name, context), context.slots, terms):
            target = Target.of(result, context)
            found.setdefault((target.packing.key, target.unit), target)
        context.memory[key] = list(found.values())
    targets: list[Target] = context.memory[key]
    return targets


def sources_of(matrix: Matrix, context: Context, argument: Free) -> list[Source]:
    """Candidate packings of a free input, each once."""
    own, others = axes_of(argument.name, context), axes_of(matrix.step.name, context)
    copies = int(matrix.column_counts.max(initial=1))
    found: dict[bytes, Source] = {}
    for layout in candidates.sources(own, sorted({n for _, n in (*own, *others)}), context.slots, copies):
        source = Source.of(layout, context)
        found.setdefault(source.placed.packing.key, source)
    return list(found.values())


def axes_of(name: str, context: Context) -> candidates.Axes:
    """The virtual axes of a value."""
    axes = context.axes.get(name)
    return axes if axes is not None else candidates.plain_axes(context.shapes[name])


def sites_of(packing: Packing, count: int, period: int, context: Context) -> Sites:
    """Where the numbers of a packing are, worked out once in a search."""
    key = ("linear", "sites", packing.key, count, period)
    if key not in context.memory:
        context.memory[key] = sites(packing, count, period)
    found: Sites = context.memory[key]
    return found


# -------------------------------------------------------------------------------------------------------------- methods


def relabel(matrix: Matrix, source: Placed) -> Relabel | None:
    """The same ciphertexts under other numbers, if every row is one element that no other row has."""
    if not matrix.ones or (matrix.row_counts != 1).any() or (matrix.column_counts > 1).any():
        return None
    row_of = np.full(matrix.columns + 1, NOTHING, dtype=np.int32)  # the last one: of slots without an element
    rows, elements = matrix.pair(np.arange(matrix.count))
    row_of[elements] = rows
    clean = source.packing.clean and bool((matrix.column_counts == 1).all())
    packing = Packing(row_of[source.packing.at], clean)
    return Relabel(matrix, source, Placed(packing, source.level, f"{source.text} relabelled"))


def lanes(matrix: Matrix, context: Context, target: Target) -> Map | None:
    """The input repeated by the client such that slot by slot products and a fold are enough."""
    result, slots = target.result, context.slots
    assert result is not None
    most = int(matrix.row_counts.max(initial=0))
    factor = result.factor
    if len(target.packing.at) * -(-most // factor) > MOST_LANES or most < 1:
        return None
    lane = (np.arange(slots) // result.stride) % factor
    starts = np.cumsum(matrix.row_counts) - matrix.row_counts
    rows: list[Array] = []
    places, masks = [], []
    known: dict[bytes, int] = {}
    for d, row in enumerate(target.packing.at):
        counts = np.where(row >= 0, matrix.row_counts[row], 0)
        for turn in range(-(-most // factor)):
            number = lane + factor * turn
            held = number < counts
            if not held.any():
                continue
            element = np.full(slots, NOTHING, dtype=np.int32)
            if matrix.full:
                element[held] = number[held]
            else:
                element[held] = matrix.keys[starts[row[held]] + number[held]] % matrix.columns
            data = element.tobytes()
            if data not in known:
                known[data] = len(rows)
                rows.append(element)
            places.append((d, known[data], 0))
            masks.append(np.packbits(held))
    order = sorted(range(len(places)), key=lambda n: places[n])
    found = Cover(np.array([places[n] for n in order], dtype=np.int64), np.array([masks[n] for n in order]), slots)
    source = Source(Placed(Packing(np.array(rows)), 0, f"lanes of {result.layout.text()}"))
    return _built(matrix, context, source, target, slots, found, "lanes")


def mapped(matrix: Matrix, context: Context, source: Source, target: Target, limit: float = float("inf")) -> Map | None:
    """The map between two packings, if it takes less than `limit` milliseconds."""
    period = _period(source.placed.packing, target, context.slots)
    p = sites_of(source.placed.packing, matrix.columns, period, context)
    q = sites_of(target.packing, matrix.rows, period, context)
    toll = Toll.of(matrix, context, source.placed.level)
    operands, outputs = len(p.at), len(q.at)
    most = toll.most(limit, operands, outputs, len(target.folds), period * operands * outputs)
    key = ("linear", "cover", matrix.step, source.placed.packing.key, target.packing.key, period, target.unit)
    known: tuple[Cover | None, int] | None = context.memory.get(key)
    if known is None or (known[0] is None and known[1] < most):
        known = context.memory[key] = (cover(matrix, p, q, target.unit, most), most)
    found = known[0]
    if found is None or len(found) > most:
        return None
    return _built(matrix, context, source, target, period, found, "map")


def gather(context: Context, shape: tuple[int, ...], source: Placed, wanted: Packing) -> Option | None:
    """A value of this shape moved from its packing to another one (one level, unless no slot needs a mask)."""
    indices = tuple((f"i{k}", n) for k, n in enumerate(shape))
    slots = tuple(Slot(((name, 1),)) for name, _ in indices)
    step = Linear("to", "from", (Term(indices, slots, slots),))
    key = ("linear", "identity", shape)
    if key not in context.memory:
        context.memory[key] = Matrix(step, {"to": shape, "from": shape})
    target = Target(wanted, wanted, "gathered")
    return mapped(context.memory[key], context, Source(source), target, context.limit)


def maps(matrix: Matrix, context: Context, starts: Sequence[Source]) -> list[Map]:
    """Maps from any of these sources to the candidate results: the best one to each of them."""
    targets = results_of(matrix, context)
    alone = matrix.step.name in context.final
    upload = context.prices.upload(context.primes(0)) if starts[0].packed is not None else 0.0
    toll = Toll.of(matrix, context, starts[0].placed.level)
    rows = [_bound_of(matrix, t.packing, False, context) for t in targets]
    pairs = []
    for source in starts:
        operands = source.placed.packing.ciphertexts
        columns = _bound_of(matrix, source.placed.packing, True, context)
        for target, bound in zip(targets, rows, strict=True):
            outputs = target.packing.ciphertexts
            count = max(bound, columns)
            least = toll.least(count, operands, outputs, len(target.folds))
            pairs.append((least + operands * upload, count, operands * upload, source, target))
    pairs.sort(key=lambda pair: pair[0])
    best: dict[bytes, tuple[float, Map]] = {}
    bar = pairs[0][0] if pairs else 0.0
    while pairs:
        bar = max(bar, 0.1) * STEP_OF_BAR
        cheapest = min((cost for cost, _ in best.values()), default=float("inf"))
        if bar > (1.0 if alone else GIVE_UP) * STEP_OF_BAR * cheapest or (bar > MOST_BAR and best):
            break
        tried: dict[bytes, int] = {}
        for least, diagonals, uploads, source, target in pairs:
            if least >= min(bar, context.limit):
                break
            bucket = b"" if alone else target.gives.key
            limit = min(context.limit, bar, WORTH * best[bucket][0] if bucket in best else float("inf"))
            if least < limit and (alone or tried.get(bucket, 0) < MOST_TRIED):
                tried[bucket] = tried.get(bucket, 0) + diagonals
                found = mapped(matrix, context, source, target, limit - uploads)
                if found is not None and found.work.milliseconds + uploads < limit:
                    best[bucket] = (found.work.milliseconds + uploads, found)
        if bar >= min(context.limit, MOST_BAR):
            break
    return [found for _, found in best.values()]


def _bound_of(matrix: Matrix, packing: Packing, operand: bool, context: Context) -> int:
    """The diagonals that a packing of the operand or of the result asks for at least."""
    key = ("linear", "bound", matrix.step, packing.key, operand)
    if key not in context.memory:
        found = sites_of(packing, matrix.columns if operand else matrix.rows, context.slots, context)
        context.memory[key] = (least_by_elements if operand else least_by_rows)(matrix, found)
    bound: int = context.memory[key]
    return bound


@dataclass(frozen=True)
class Toll:
    """Milliseconds of the parts of a map whose operand is at one level: lower bounds of its time."""

    baby: float
    giant: float
    product: float
    rescale: float
    fold: float

    @staticmethod
    def of(matrix: Matrix, context: Context, level: int) -> Toll:
        """Those of a matrix; one of ones may need no products."""
        prices, before = context.prices, context.primes(level)
        if matrix.ones:
            baby = prices.rotate(before)
            return Toll(baby, min(baby, prices.rotate(before - 1)), 0.0, 0.0, prices.rotate(before - 1))
        if before < 2:
            return Toll(1.0, 1.0, float("inf"), 0.0, 0.0)
        rescale, after = prices.rescale(before), prices.rotate(before - 1)
        return Toll(prices.rotate(before), after + rescale, prices.multiply_plain(before), rescale, after)

    def least(self, count: int, operands: int, outputs: int, folds: int) -> float:
        """At least so long for a map of `count` diagonals."""
        moves = babysteps.least(-(-count // (operands * outputs)), self.baby, self.giant)
        return moves + count * self.product + outputs * (self.rescale + folds * self.fold)

    def most(self, limit: float, operands: int, outputs: int, folds: int, high: int) -> int:
        """The most diagonals (up to `high`) that a map within `limit` milliseconds can have."""
        low = 0
        while limit < float("inf") and low < high:
            middle = (low + high + 1) // 2
            if self.least(middle, operands, outputs, folds) < limit:
                low = middle
            else:
                high = middle - 1
        return high


def _period(p: Packing, target: Target, slots: int) -> int:
    """What slots can be counted modulo: a period of both packings."""
    if target.result is None or target.result.fold or target.result.layout.ciphertexts:
        return slots
    period = target.result.layout.size
    if slots % period or period == slots:
        return slots
    repeats = p.at.reshape(len(p.at), slots // period, period)
    return period if bool((repeats == repeats[:, :1]).all()) else slots


def _built(
    matrix: Matrix, context: Context, source: Source, target: Target, period: int, found: Cover, method: str
) -> Map | None:
    """The map with its split, and where its result is; None where there is no level to compute in, or nothing to add up
    in some ciphertext of the result.
    """
    p, slots = source.placed.packing, context.slots
    bare, clean = _bare(matrix, p, target, period, found)
    primes = context.primes(source.placed.level)
    if (not bare and primes < 2) or len(distinct(found.places[:, 0])) < len(target.packing.at):
        return None
    given, text = target.gives, target.text
    if period < slots:
        given = Packing(np.tile(given.at[:, :period], (1, slots // period)), given.clean)
        text += " repeated"
    given = Packing(given.at, given.clean and clean)
    split = babysteps.split(found.places, period, context.prices, primes, bare)
    level = source.placed.level + (0 if bare else 1)
    return Map(
        matrix, context, source.placed, target.result, target.packing, Placed(given, level, text), period, found, split,
        target.folds, bare, source.packed, method,
    )  # fmt: skip


def _bare(matrix: Matrix, p: Packing, target: Target, period: int, found: Cover) -> tuple[bool, bool]:
    """(whether plain sums of rotated operands give the result, whether slots without a row are 0 then)."""
    if not matrix.ones or not p.clean:
        return False, True
    clean = True
    for number, (d, c, k) in enumerate(found.places.tolist()):
        live = np.roll(p.at[c, :period] >= 0, -k)
        served = np.zeros(period, dtype=bool)
        served[found.served(number)] = True
        held = target.packing.at[d, :period] >= 0
        if (live & held & ~served).any():
            return False, True
        clean = clean and not bool((live & ~held).any())
    return True, clean
