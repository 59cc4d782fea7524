"""What kernels are launched with, beside what the driver was told: runs of programs, every launch of them compared.

`Recorder.run` runs a bound program; AssertionError says what the driver found wrong, or which parameter of a launch is
not the argument that was given. Imported by tests that run in a process with the stand-in of the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import stein
from stein.backends.gpu import launch as launching
from stein.backends.gpu import run as running
from stein.backends.gpu.choose import Settings
from stein.backends.gpu.kernels import Goal
from stein.backends.gpu.nodes import Kernel, Tensor
from stein.backends.gpu.program import Bound, bind
from stein.backends.gpu.run import torch_type
from stein.backends.gpu.source import arguments, grid
from stein.backends.gpu.views import Layout
from stein.ir.expr import Program
from stein.passes.base import Context
from stein.passes.candidates import BEST, Draft, plan
from stein.tests.gpu.driver.stand_in import Launched, Map, StandIn

CPU = torch.device("cpu")
HOPPER = Settings("tf32", descriptors=True)  # what calls on an H200 are bound with, products of f32 on matrix units
Values = Mapping[str, Any]
Given = tuple[Kernel, dict[str, Any], "int | Mapping[str, int]"]


@dataclass(frozen=True)
class Run:
    """Results, and the launches with what they were given."""

    results: list[torch.Tensor]
    given: tuple[Given, ...]
    launched: tuple[Launched, ...]

    @property
    def maps(self) -> list[Map]:
        """The tensor maps of all launches."""
        return [v for found in self.launched for _, v in found.parameters if isinstance(v, Map)]


class Recorder:
    """Launches kernels, and compares what the driver of this process saw with what was asked for."""

    def __init__(self) -> None:
        self.driver = StandIn()
        self.given: list[Given] = []
        self._launch = launching.launch
        running.launch = self.launch  # what runs of programs call

    def forget(self) -> None:
        """Drop all that was launched since the last comparison."""
        self.given.clear()
        self.driver.forget()

    def launch(self, kernel: Kernel, values: Values, programs: int | Mapping[str, int]) -> None:
        """Launch a kernel, and remember with what."""
        self.given.append((kernel, dict(values), programs))
        self._launch(kernel, values, programs)

    def run(self, bound: Bound, operands: Values) -> Run:
        """Run a program; every launch is compared."""
        results = running.run(bound, operands, CPU)
        return self.compared(results)

    def compared(self, results: list[torch.Tensor]) -> Run:
        """The launches since the last comparison, with these results."""
        given, launched = tuple(self.given), tuple(self.driver.take())
        self.given.clear()
        assert len(given) == len(launched)
        for (kernel, values, programs), found in zip(given, launched, strict=True):
            compare(kernel, values, programs, found)
        return Run(results, given, launched)


def compare(kernel: Kernel, values: Values, programs: int | Mapping[str, int], found: Launched) -> None:
    """Hold a launch to the kernel and its arguments by name: the grid, the block, and every parameter in order."""
    count = programs if isinstance(programs, int) else grid(kernel, programs)[0]
    assert (found.name, found.programs, found.threads) == (kernel.name, count, 32 * kernel.warps)
    described = {t.argument: t for t in kernel.tensors if t.descriptor}
    rest = list(found.parameters)
    for name in arguments(kernel):
        value = values[name]
        if name in described:
            taken = 1 + 2 * len(described[name].axes)
            compare_map(described[name], value, rest[:taken])
            rest = rest[taken:]
        elif not isinstance(value, int):
            assert rest.pop(0) == (8, value.data_ptr()), f"the address of {name}"
        elif value != 1:  # which is part of the code
            size = 4 if -(1 << 31) <= value < 1 << 31 else 8
            assert rest.pop(0) == (size, value % (1 << 8 * size)), f"the number {name}"
    assert rest == [(8, 0), (8, 0)], "no memory of the compiler's own"


def compare_map(tensor: Tensor, value: torch.Tensor, found: list[tuple[int, int | Map]]) -> None:
    """Hold the parameters of a descriptor to its tensor: a map of its memory, then positions and strides again."""
    (_, made), *numbers = found
    assert isinstance(made, Map), f"the descriptor of {tensor.name}"
    assert (made.address, made.bytes) == (value.data_ptr(), value.element_size())
    assert len(made.axes) == len(tensor.axes)
    reach = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    end = value.data_ptr() + (reach + 1) * value.element_size()
    assert made.end <= end, f"{tensor.name} is described beyond its end"
    if made.elements == value.numel():
        assert made.end == end, f"not all of {tensor.name} is described"
    shape = [(4, n) for n, _, _ in made.axes]
    strides = [(8, stride // made.bytes) for _, stride, _ in made.axes]
    assert numbers == [*shape, *strides], f"positions and strides of {tensor.name}"


def planned(text: str, dtype: str, **shapes: Any) -> Program:
    """The planned program of a text for tensors of these shapes (or declared ones)."""
    program: Program = stein.compile(text, dtype=dtype, target="reference", **shapes).program
    return plan(Draft(BEST, program), Context(sizes={})).program


def layout_of(tensor: torch.Tensor, dtype: Any) -> Layout:
    """Where the elements of a tensor lie, as calls say it."""
    return Layout(tuple(tensor.shape), tuple(tensor.stride()), dtype, tensor.data_ptr() % 16 == 0)


def bound_to(program: Program, operands: Values, settings: Settings = HOPPER, goal: Goal | None = None) -> Bound:
    """A program bound to operands as they lie, all of it in kernels of our own."""
    layouts = {i.name: layout_of(operands[i.name], i.dtype) for i in program.inputs}
    return bind(program, {}, layouts, settings, library=False, goal=goal)


def operands_of(program: Program) -> dict[str, torch.Tensor]:
    """Row-major operands: zeros where there are positions, else memory as it comes, which nothing reads."""
    found = {}
    for tensor in program.inputs:
        make = torch.zeros if tensor.dtype.kind in "iu" else torch.empty
        found[tensor.name] = make(tuple(n.evaluate({}) for n in tensor.shape), dtype=torch_type(tensor.dtype))
    return found
