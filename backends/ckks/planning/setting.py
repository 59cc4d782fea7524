"""The `Context` of a whole program: its ring and levels, shapes, virtual axes, and what only the client reads."""

from __future__ import annotations

from ..lowering.problem import EncryptedProgram, arguments, clear_names
from ..steps.candidates import virtual_axes
from ..steps.context import Context
from .cost import DEFAULTS, Prices, Rates


def context_of(program: EncryptedProgram, ring: int, levels: int, rates: Rates = DEFAULTS) -> Context:
    """The context in which the steps of a program are planned."""
    read = {n for s in program.steps for n in arguments(s)}
    final = frozenset(n for n in program.outputs if n not in read)
    shapes = {n: tuple(s) for n, s in program.shapes.items()} | clear_shapes(program)
    single = len(program.steps) == 1
    return Context(ring, levels, Prices(ring, rates), shapes, virtual_axes(program), final, single)


def clear_shapes(program: EncryptedProgram) -> dict[str, tuple[int, ...]]:
    """The shapes of the clear tensors that steps name."""
    found = {}
    for name in dict.fromkeys(n for s in program.steps for n in clear_names(s)):
        sizes = [n.constant for n in program.clear.tensors[name].shape]
        assert None not in sizes, "a clear tensor of unknown size"
        found[name] = tuple(n for n in sizes if n is not None)
    return found
