"""Plans: what the scheduler decided for a contraction, as plain values that can be printed before anything is compiled.

A `Stage` is one kernel with its arguments; `launch` in `schedule` turns it into a `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from ...ir.loops import Follow, Guard, Kernel, Local, Loop, Nest, Outer, Pack, Runs, Seq, Share, Tile, Triangle


@dataclass(frozen=True)
class Stage:
    """One kernel and its arguments: `words` with addresses left 0, and which word is which buffer or table.

    `pointers` are (word, buffer, byte offset), `tables` (word, (extent, stride) of each axis), `scratch` (word, bytes).
    `nanoseconds`
    is the estimate for one core.
    """

    kernel: Kernel
    family: str
    words: tuple[int, ...]
    pointers: tuple[tuple[int, int, int], ...]
    scratch: tuple[tuple[int, int], ...]
    count: int
    nanoseconds: float
    tables: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The schedule of a contraction: stages in order, bytes of each temporary buffer, and the estimates behind it.

    Buffers are numbered: 0 the output, 1.. the operands, then the temporaries. `flops` counts a multiply-add as two.
    A `stand_in` uses a kernel that was there because the best one would have to be compiled first.
    """

    stages: tuple[Stage, ...]
    temporaries: tuple[int, ...]
    flops: float
    bytes: float
    stand_in: bool = False

    @property
    def family(self) -> str:
        """The kernel families in order: "direct", "laid + packed", "8 x lower packed + mirrored diagonal", ..."""
        groups = [(family, len(list(same))) for family, same in groupby(self.families)]
        return " + ".join(family if n == 1 else f"{n} x {family}" for family, n in groups) or "nothing"

    @property
    def families(self) -> tuple[str, ...]:
        """The family of each stage."""
        return tuple(stage.family for stage in self.stages)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernel of each stage."""
        return tuple(stage.kernel for stage in self.stages)

    @property
    def nanoseconds(self) -> float:
        """Estimated time on one core."""
        return sum(stage.nanoseconds for stage in self.stages)

    def describe(self) -> str:
        """The plan for people: estimates, then the loops of each kernel."""
        lines = [
            f"{self.family}: {self.flops:.3g} flops, {self.bytes:.3g} bytes, "
            f"about {self.nanoseconds / 1e3:.3g} us on one core"
        ]
        if self.stand_in:
            lines.append("  a kernel of other sizes, until these have been used often enough to compile their own")
        for size in self.temporaries:
            lines.append(f"  temporary of {size} bytes")
        for stage in self.stages:
            types = ", ".join(str(t) for t in stage.kernel.dtypes[1:])
            lines.append(f"  {stage.family}: {types or 'nothing'} -> {stage.kernel.dtypes[0]}, {stage.count} shares")
            lines += ["    " + line for line in describe_nest(stage.kernel.nest)]
        return "\n".join(lines)


def describe_nest(nest: Nest) -> list[str]:
    """A loop tree as indented lines."""
    match nest:
        case Tile():
            free, reduced = " ".join(nest.free) or "scalar", " ".join(nest.reduced)
            sums = f" {nest.semiring.name} over {reduced}" if reduced else ""
            return [f"tile {free}{sums}; {nest.vector} in {nest.lanes} lanes of {nest.accumulate}"]
        case Loop(axis, steps, body, cut, reduced_):
            head = f"for {axis} in steps of {', '.join(map(str, steps))}" + (", cut" if cut else "")
            return [head + (", adding" if reduced_ else "")] + ["  " + x for x in describe_nest(body)]
        case Pack(_, panel, dtype, axis, steps, inner, _, body):
            head = f"pack tensor {panel} as {dtype} panels of {steps[0]} along {axis} by {' '.join(inner)}"
            return [head, *describe_nest(body)]
        case Local(tensor, axes, dtype, _, body):
            return [f"scratch tensor {tensor} of {dtype} over {' '.join(axes)}", *describe_nest(body)]
        case Seq(bodies):
            return [line for body in bodies for line in describe_nest(body)]
        case Outer(body, shared):
            return [f"for {'shared ' if shared else ''}outer axes"] + ["  " + x for x in describe_nest(body)]
        case Share(axis, grain, body):
            return [f"for shared blocks of {grain} of {axis}"] + ["  " + x for x in describe_nest(body)]
        case Follow(index, axis, body, absent, owned):
            head = f"at the {axis} that tensor {index} holds" + (", if it is in the share" if owned else "")
            other = ["else", *("  " + x for x in describe_nest(absent))] if absent is not None else []
            return [head, *("  " + x for x in describe_nest(body)), *other]
        case Runs(axis, lookups, _, _, body, _, owned):
            head = f"for runs along {axis} of the integers in {', '.join(f'tensor {t}' for t, _ in lookups)}"
            head += ", of those in the share" if owned is not None else ""
            return [head, *("  " + x for x in describe_nest(body))]
        case Guard(index, axis, grouped, body):
            head = f"if the integers in tensor {index} {'' if grouped else 'do not '}stand in groups along {axis}"
            return [head, *("  " + x for x in describe_nest(body))]
        case Triangle(row, column, block, body):
            head = f"for shared blocks of {block} of {row}, {column} below {row}"
            return [head, *("  " + x for x in describe_nest(body))]
    raise AssertionError(nest)
