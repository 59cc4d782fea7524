"""What the planner tells a kind of step when it asks for options, and what it expects of the answer.

Each kind of step has one module with two functions of these signatures:

    options(step, context, arguments: tuple[Argument, ...]) -> Iterator[Option]
    restore(step, context, arguments: tuple[Argument, ...], decision) -> Option

`arguments` has one entry for each encrypted operand of the step, in order: a `Placed` (where the value lies, and its
level), or `Free`: an encrypted input that nobody has packed yet, so the option chooses. An option's `takes` says where
each operand has to be; for a `Placed` one it is that very value (an option that wants it elsewhere moves it itself and
counts that into its work), for a `Free` one the packing that the client is to use, at level 0. An input that occurs
twice among the operands of one step is packed once or twice, as the option's `takes` say. Options come best first, and
an option that needs more levels than `context.levels` is not offered. `work` is the step's own: uploads and keys are
priced by the planner, from `takes` and `steps`.

`restore` makes the option of a saved plan again from `Option.decision()` (JSON) without a search. It gives the same
operations for the same step, context and arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from .option import Placed


class Pricing(Protocol):
    """Predicted milliseconds of one core for one operation, by how many data primes the operand has (`cost.Prices`)."""

    def rotate(self, primes: int) -> float:
        """A rotation (one key switch)."""
        ...

    def relinearise(self, primes: int) -> float:
        """A relinearisation."""
        ...

    def multiply_plain(self, primes: int) -> float:
        """A product with a plain vector, its encoding not counted."""
        ...

    def multiply(self, primes: int) -> float:
        """A product of two ciphertexts."""
        ...

    def rescale(self, primes: int) -> float:
        """A rescaling; `primes` before it."""
        ...

    def add(self, primes: int) -> float:
        """A sum of two ciphertexts."""
        ...

    def upload(self, primes: int) -> float:
        """What one ciphertext less to be sent by the client is worth."""
        ...


@dataclass(frozen=True)
class Free:
    """An encrypted input whose packing is still open."""

    name: str
    shape: tuple[int, ...]


Argument: TypeAlias = Placed | Free


@dataclass(frozen=True)
class Context:
    """Where a step is to be computed.

    `levels` is how many primes a value at level 0 can lose. `shapes` has the shape of every encrypted value and of
    every clear tensor that a step names, `axes` the virtual axes of encrypted values (`candidates.virtual_axes`).
    `final` are the values that only the client reads: their layout is nobody's business; `single` says that the step is
    the whole program. `limit` is the most
    milliseconds that an option may take and still be of interest (others need not be offered). `memory` keeps what is
    worth keeping during one search, by keys that start with the name of the module.
    """

    ring: int
    levels: int
    prices: Pricing
    shapes: Mapping[str, tuple[int, ...]]
    axes: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    final: frozenset[str] = frozenset()
    single: bool = False
    limit: float = float("inf")
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def slots(self) -> int:
        """Slots of a ciphertext.

        >>> from ..planning.cost import Prices
        >>> Context(8192, 1, Prices(8192), {}).slots
        4096
        """
        return self.ring // 2

    def primes(self, level: int) -> int:
        """Data primes that a value at this level still has: what prices depend on."""
        return self.levels - level + 1
