"""Whether rows are right on the machine that is here: results, captured calls, streams, layouts, gradients, full sizes.

Outside the compiler. Every result is held against its definition in double precision, computed by torch on the same
device: an item of the batch by its norm, and the worst element of all by the size of its item's elements. What goes
wrong with one check is told in its line; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from gpu_machine import Machine, named, poisoned
from gpu_rows import UNIT, Row, Scale, compiled, given_and_places, operands

WORST = 1e9  # an error that is no number
SIGMA = 8  # no rounding error among 10^9 is that many standard deviations off


@dataclass(frozen=True)
class Outcome:
    """One check: errors of an item and of an element as shares of what is allowed, or what went wrong."""

    row: str
    what: str
    item: float = 0.0
    element: float = 0.0
    sentence: str = ""

    @property
    def right(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.sentence and self.item <= 1 and self.element <= 1

    @property
    def text(self) -> str:
        """What the table shows."""
        return self.sentence or f"{self.item:.2f} {self.element:.2f}" + ("" if self.right else " WRONG")


class Wrong(Exception):
    """A result is not what it has to be."""


def sentence_of(problem: BaseException) -> str:
    """The kind of an error and its first line: what stands in a table."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[0].strip()[:160]}" if lines else type(problem).__name__


def outcome(row: str, what: str, check: Callable[[], tuple[float, float]]) -> Outcome:
    """The outcome of a check that gives both errors, or raises."""
    try:
        return Outcome(row, what, *check())
    except Exception as problem:  # whatever it is: it belongs to this check alone
        return Outcome(row, what, sentence=sentence_of(problem))


def errors(row: Row, torch: Any, scale: Scale, given: dict[str, Any], found: Any) -> tuple[float, float]:
    """The worst item of the batch and the worst element, as shares of what is allowed.

    The definition takes an eighth of the batch at a time: its values are four times as wide.
    """
    every = given_and_places(row, torch, scale, found_device(found), given)
    wide = {n: t.double() if t.is_floating_point() and n not in row.batched else t for n, t in every.items()}
    length = len(every[row.batched[0]])
    allowed = row.tolerance(scale.dtype, scale.n)
    item = element = torch.zeros((), dtype=torch.float64, device=found_device(found))
    for start in range(0, length, max(1, length // 8)):
        part = slice(start, start + max(1, length // 8))
        want = row.exact(torch, wide | {n: every[n][part].double() for n in row.batched})
        got = row.value({n: t[part] for n, t in found.items()} if isinstance(found, dict) else found[part]).double()
        if got.shape != want.shape:
            raise Wrong(f"the result has shape {tuple(got.shape)}, the definition {tuple(want.shape)}")
        want, off = want.reshape(len(want), -1), (got - want).reshape(len(want), -1)
        norms = want.norm(dim=1)
        item = torch.maximum(item, (off.norm(dim=1) / norms).max())
        element = torch.maximum(element, (off.abs().amax(1) / norms).max() * want.shape[1] ** 0.5)
    return finite(float(item) / allowed), finite(float(element) / (SIGMA * allowed))


def finite(error: float) -> float:
    """The error, of infinity and NaN a number that can be written to any file."""
    return min(error, WORST) if error == error else WORST


def found_device(found: Any) -> Any:
    """Where a result is."""
    return next(iter(named(found).values())).device


def same(found: Any, wanted: Any, what: str) -> tuple[float, float]:
    """No error, if two results agree bit by bit."""
    for name, tensor in named(wanted).items():
        if not bool((named(found)[name] == tensor).all()):
            raise Wrong(what)
    return 0.0, 0.0


def poison(found: Any) -> None:
    """Overwrite a result."""
    for tensor in named(found).values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else 77)


@dataclass
class Checked:
    """A row at one size: its program, operands and the result of a first call in poisoned memory."""

    machine: Machine
    row: Row
    scale: Scale

    @cached_property
    def run(self) -> Any:
        """The compiled program."""
        return compiled(self.row, self.scale)

    @cached_property
    def given(self) -> dict[str, Any]:
        """The operands."""
        return operands(self.row, self.machine.torch, self.scale, self.machine.device)

    @cached_property
    def found(self) -> Any:
        """The result of the first call."""
        with poisoned(self.machine.torch):
            return self.run(**self.given)

    def errors_of(self, found: Any) -> tuple[float, float]:
        """Of a result for the operands."""
        return errors(self.row, self.machine.torch, self.scale, self.given, found)

    def value(self) -> tuple[float, float]:
        """The result of the first call."""
        return self.errors_of(self.found)

    def captured(self) -> tuple[float, float]:
        """A recorded call that is made again on other values gives what a call gives."""
        given = {n: t.clone() for n, t in self.given.items()}
        self.run(**given)
        recorded = self.machine.captured(lambda: self.run(**given))
        for name in self.row.batched:
            given[name].copy_(self.given[name].flip(0))
        poison(recorded.result)
        recorded.replay()
        self.machine.wait()
        return same(recorded.result, self.run(**given), "a replayed call gives another result than a call")

    def stream(self) -> tuple[float, float]:
        """A call on another stream waits for what came before it there, and gives the same."""
        given = {n: t.clone() for n, t in self.given.items()}
        poison(tuple(given[n] for n in self.row.batched))
        with self.machine.elsewhere():
            for name in self.row.batched:
                given[name].copy_(self.given[name])
            found = self.run(**given)
        self.machine.wait()
        return same(found, self.found, "a call on another stream gives another result")

    def lying(self, view: Callable[[Any, Any], Any]) -> tuple[float, float]:
        """Operands that lie in another way."""
        with poisoned(self.machine.torch):
            return self.errors_of(self.run(**{n: view(self.machine.torch, t) for n, t in self.given.items()}))


def transposed(torch: Any, tensor: Any) -> Any:
    """The last two axes lie the other way around."""
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2) if tensor.ndim > 1 else with_gaps(torch, tensor)


def with_gaps(torch: Any, tensor: Any) -> Any:
    """Every other element is NaN."""
    base = torch.full((*tensor.shape, 2), float("nan"), dtype=tensor.dtype, device=tensor.device)
    base[..., 1] = tensor
    return base[..., 1]


def unaligned(torch: Any, tensor: Any) -> Any:
    """The first element is at no multiple of 16 bytes."""
    base = torch.full((tensor.numel() + 1,), float("nan"), dtype=tensor.dtype, device=tensor.device)
    base[1:].view(tensor.shape).copy_(tensor)
    return base[1:].view(tensor.shape)


def small_checks(machine: Machine, row: Row, scale: Scale) -> Iterator[Outcome]:
    """Everything that is checked on a small batch."""
    at = Checked(machine, row, row.at(scale))
    yield outcome(row.name, "small", at.value)
    yield outcome(row.name, "captured", at.captured)
    yield outcome(row.name, "stream", at.stream)
    for view in (transposed, with_gaps, unaligned):
        yield outcome(row.name, view.__name__.replace("_", " "), partial(at.lying, view))
    if row.gradient:
        yield outcome(row.name, "gradients", lambda: gradients(machine, row, row.at(scale)))


def full_checks(machine: Machine, row: Row, scale: Scale) -> Iterator[Outcome]:
    """What is checked at the size that is timed."""
    at = Checked(machine, row, row.at(scale))
    yield outcome(row.name, "full", at.value)


def gradients(machine: Machine, row: Row, scale: Scale) -> tuple[float, float]:
    """Derivatives of a random sum of the results by every operand, in single precision."""
    torch, scale = machine.torch, replace(scale, dtype="float32")
    run, given = compiled(row, scale), operands(row, torch, scale, machine.device)
    narrow = {n: t.requires_grad_() for n, t in given.items()}
    wide = {n: t.detach().double().requires_grad_() for n, t in given.items()}
    exact = row.exact(torch, given_and_places(row, torch, scale, machine.device, wide))
    weights = torch.randn(exact.shape, device=machine.device)
    exact.backward(weights.double())
    run(**narrow).backward(weights)
    return worst_gradient([(narrow[n].grad, wide[n].grad) for n in given], scale), 0.0


def worst_gradient(pairs: list[tuple[Any, Any]], scale: Scale) -> float:
    """The worst error of found and exact derivatives in single precision, as a share of what is allowed.

    Rounding errors of a sum of t random terms add up to sqrt(t) of them, of its norm; t is at most batch times n.
    """
    allowed = SIGMA * (scale.batch * scale.n) ** 0.5 * UNIT["float32"]
    worst = 0.0
    for found, exact in pairs:
        if found is None:
            raise Wrong("a gradient is missing")
        worst = max(worst, finite(float((found.double() - exact).norm() / exact.norm()) / allowed))
    return worst
