"""The choice among the variants of an encrypted program: each is lowered, bounded, and planned if it may win.

A bound is what the products alone take; a variant whose bound exceeds the best plan so far stands in the table with the
bound in place of a time. So does one whose steps have the sizes of another's, and what is left after the few most
promising ones were planned; the table says which, and why.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from ..ir.errors import NOWHERE, BackendError, EncryptionError, Source
from ..ir.expr import Program
from ..passes.base import Context
from ..passes.encrypted import Variant, variants

if TYPE_CHECKING:
    from ..backends.ckks.lowering.problem import EncryptedProgram
    from ..backends.ckks.lowering.state import Blocks
    from ..backends.ckks.planning.cost import Rates
    from ..backends.ckks.planning.plan import Plan, Plans
    from ..passes.recognise import Finding, NearMiss

MOST_PLANNED = 4  # candidates, in the order in which they are promising
HOPELESS = 1.5  # times the rough effort of the most promising one, from which on none is planned: it errs by 40 %
SHOWN_AFTER = 1.0  # seconds of planning after which a terminal is told what is going on


@dataclass(frozen=True)
class Wanted:
    """What the user asked for: error relative to the largest result, rings to consider, whether to use structure."""

    precision: float = 1e-5
    rings: tuple[int, ...] = (8192, 16384)
    structure: bool = True


@dataclass(frozen=True)
class Row:
    """A row of the table of candidates: a variant, its steps, a lower bound of its time, and its plans if it has any.

    `reason` says why there is no plan. Times are milliseconds of one core.
    """

    variant: Variant
    problem: EncryptedProgram
    bound: float
    plans: Plans | None = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What `explain` calls it."""
        return self.variant.name

    @property
    def best(self) -> Plan:
        """The best plan."""
        assert self.plans is not None
        return self.plans.best

    @property
    def milliseconds(self) -> float:
        """The predicted time of the server, or its bound."""
        return self.best.work.milliseconds if self.plans is not None else self.bound

    @property
    def price(self) -> float:
        """What candidates are ranked by: the time of the server, and of the client to encrypt and send its inputs."""
        return self.milliseconds + (self.best.client_milliseconds if self.plans is not None else 0.0)


@dataclass(frozen=True)
class Choice:
    """The table, planned candidates first, the quickest on top; what was proved; the seconds that it all took."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def chosen(self) -> Row:
        """The quickest candidate."""
        return self.rows[0]


def choose(
    program: Program, wanted: Wanted, ranges: Mapping[str, float], blocks: Mapping[str, Blocks] | None = None
) -> Choice:
    """Plans the variants of a program at known sizes; `blocks` are those of constants that were declared sparse.

    Raises `EncryptionError` where no variant can be evaluated.
    """
    from ..backends.ckks.lowering.dense import dense
    from ..backends.ckks.lowering.lower import lower
    from ..backends.ckks.planning.target import lower_bound

    start, rates = perf_counter(), _rates()
    written = lower(program, ranges, blocks)  # of the program as it was written: errors speak of places in the source
    found = variants(program, Context(target="ckks"), wanted.structure)
    rows: list[Row] = []
    for variant in found.variants:
        problem = lower(variant.program, ranges, blocks if wanted.structure else None)
        if not wanted.structure:
            problem = dense(problem)
        rows.append(Row(variant, problem, lower_bound(problem, wanted.rings, rates)))
    try:
        with _shown(len(rows)) as tell:
            table = _planned(rows, wanted, rates, tell)
    except EncryptionError as error:
        raise _placed(error, written, program.source) from None
    return Choice(tuple(table), found.findings, found.near_misses, perf_counter() - start)


def _planned(rows: Sequence[Row], wanted: Wanted, rates: Rates, tell: Callable[[str], None]) -> list[Row]:
    """The rows with plans where these may win, ranked."""
    from ..backends.ckks.planning.planner import plan
    from ..backends.ckks.planning.target import sizes_of_steps

    done: list[Row] = []
    best, tried = float("inf"), 0
    failure: EncryptionError | None = None
    alike: dict[tuple[tuple[int, ...], ...], str] = {}
    for row in rows:
        same = alike.setdefault(sizes_of_steps(row.problem), row.name)
        if same != row.name:
            done.append(Row(row.variant, row.problem, row.bound, None, f"steps of the same sizes as {same}"))
            continue
        if row.bound >= best:
            done.append(Row(row.variant, row.problem, row.bound, None, "its products alone take longer"))
            continue
        if tried == MOST_PLANNED or row.variant.effort >= HOPELESS * max(rows[0].variant.effort, 1.0):
            done.append(Row(row.variant, row.problem, row.bound, None, "not planned: others promise more"))
            continue
        tried += 1
        tell(f"planning {row.name}")
        start = perf_counter()
        try:
            plans = plan(row.problem, wanted.rings, wanted.precision, rates=rates, progress=tell, limit=best)
        except EncryptionError as error:
            failure = failure or error
            done.append(Row(row.variant, row.problem, row.bound, None, error.sentence))
            continue
        if not plans.plans:
            done.append(Row(row.variant, row.problem, row.bound, None, "no plan of it is quicker than the best"))
            continue
        made = Row(row.variant, row.problem, row.bound, plans, "", perf_counter() - start)
        best = min(best, made.price)
        done.append(made)
    if not any(r.plans is not None for r in done):
        assert failure is not None
        raise failure
    return sorted(done, key=lambda r: (r.plans is None, r.price))


def _rates() -> Rates:
    """What operations take on this machine; the usual figures where SEAL is not installed to measure them."""
    from ..backends.ckks.calibration import machine_rates
    from ..backends.ckks.planning.cost import DEFAULTS

    try:
        return machine_rates()
    except BackendError:
        return DEFAULTS


def _placed(error: EncryptionError, written: EncryptedProgram, source: Source) -> EncryptionError:
    """The error of a program that is too deep, with the places of its products in a row and what would save some."""
    from ..backends.ckks.lowering.problem import Polynomial
    from ..backends.ckks.planning.target import depth

    if error.code != "too-deep":
        return error
    path = depth(written)[1]
    spans = [s.span for s in path if s.span != NOWHERE]
    helps = [error.help] if error.help else []
    for step in path:
        degree = len(step.coefficients) - 1 if isinstance(step, Polynomial) and step.function else 0
        if degree > 3:
            saved = degree.bit_length() - 2
            helps.append(f"approx({step.function}, degree=3) instead of {degree} saves {saved}")  # type: ignore[union-attr]
            break
    return EncryptionError(
        error.sentence, code=error.code, source=source, spans=tuple(dict.fromkeys(spans)), help=", or ".join(helps)
    )


@contextmanager
def _shown(count: int) -> Iterator[Callable[[str], None]]:
    """What tells a terminal, once planning has taken a while, which candidate is planned."""
    start, shown = perf_counter(), False

    def tell(name: str) -> None:
        nonlocal shown
        if sys.stderr.isatty() and perf_counter() - start > SHOWN_AFTER:
            shown = True
            sys.stderr.write(f"\r{name} ({count} candidates)\x1b[K")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
