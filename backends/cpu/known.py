"""Choices that were made before: a known kind of contraction is neither searched nor, mostly, compiled again at new
sizes.

A `Signature` is a problem with each extent replaced by its number of binary digits and each stride by its class.
Problems of one signature share one choice, and so kernels, whose arguments sizes and strides are. A signature that is
new may for a while use the choice of another one with the same classes, whose kernel is there already: it is right for
all sizes, only not the fastest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeAlias

from ...ir.loops import Kernel
from .choose import Choice
from .machine import Machine
from .problem import Form, Problem

Signature: TypeAlias = "tuple[Form, Machine, tuple[object, ...]]"
MOST = 4096  # signatures that are remembered


@dataclass
class Known:
    """A choice, whether it is only a stand-in, and its kernels by (shared axis, grain, outer axes)."""

    choice: Choice
    stand_in: bool = False
    kernels: dict[tuple[str, int, str], Kernel] = field(default_factory=dict)


class Memory:
    """The choices of one process, by signature; bounded, and safe under threads."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._known: OrderedDict[Signature, Known] = OrderedDict()
        self._latest: OrderedDict[Signature, Known] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, problem: Problem, machine: Machine) -> Known | None:
        """What was chosen for a problem of this signature."""
        return self._known.get(signature(problem, machine))

    def latest(self, problem: Problem, machine: Machine) -> Known | None:
        """What was chosen last for other sizes with the same classes of strides, if that suits any sizes."""
        return self._latest.get(classes(problem, machine))

    def remember(self, problem: Problem, machine: Machine, known: Known) -> None:
        """Keep a choice."""
        with self._lock:
            _put(self._known, signature(problem, machine), known, self.most)
            if not known.stand_in and known.choice.family == "direct" and not known.choice.flip:
                _put(self._latest, classes(problem, machine), known, self.most)


MEMORY = Memory()


def signature(problem: Problem, machine: Machine) -> Signature:
    """The signature of a problem."""
    sizes = problem.form.sizes
    rows: list[object] = []
    for extent, strides, reduced in problem.lines:
        rows.append(extent.bit_length())
        rows.append(reduced)
        rows += [0 if s == 0 else 1 if s == size else 2 for s, size in zip(strides, sizes, strict=True)]
    return problem.form, machine, tuple(rows)


def classes(problem: Problem, machine: Machine) -> Signature:
    """The signature without extents."""
    sizes = problem.form.sizes
    rows: list[object] = []
    for _, strides, reduced in problem.lines:
        rows.append(reduced)
        rows += [0 if s == 0 else 1 if s == size else 2 for s, size in zip(strides, sizes, strict=True)]
    return problem.form, machine, tuple(rows)


def _put(table: OrderedDict[Signature, Known], key: Signature, known: Known, most: int) -> None:
    table[key] = known
    while len(table) > most:
        table.popitem(last=False)
