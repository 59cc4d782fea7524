"""The kinds of steps and the modules that offer ways to compute them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..linear import diagonals, sums
from ..lowering.problem import Linear, Polynomial, Product, Step, Sum
from ..products import product
from ..steps import polynomial
from ..steps.context import Argument, Context
from ..steps.option import Option


class Kind(Protocol):
    """A module for one kind of step (the two functions that `context` describes)."""

    def options(self, step: Any, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Option]:
        """Ways to compute a step."""
        ...

    def restore(
        self, step: Any, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any]
    ) -> Option:
        """The option of a saved plan."""
        ...


KINDS: dict[type[Any], Kind] = {Linear: diagonals, Product: product, Sum: sums, Polynomial: polynomial}


def options(step: Step, context: Context, arguments: tuple[Argument, ...]) -> Iterator[Option]:
    """Ways to compute a step of any kind, best first."""
    return KINDS[type(step)].options(step, context, arguments)


def restore(step: Step, context: Context, arguments: tuple[Argument, ...], decision: Mapping[str, Any]) -> Option:
    """The option of a saved plan, for a step of any kind."""
    return KINDS[type(step)].restore(step, context, arguments, decision)
