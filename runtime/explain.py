"""What the compiler did, as a value that prints: program, passes, contraction tree, work and memory, kernels.

`Compiled.explain()` fills an `Explanation` from plain data (strings and numbers), so that it can be kept, compared and
written as JSON after the compiler's own objects are gone. This module only draws it: as text 100 columns wide, in a
notebook, in a terminal through rich, or as a picture of the contraction tree through matplotlib.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import BackendError
from .explain_structure import CandidateNote, FindingNote, candidate_table, finding_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.tree import Tree

WIDTH = 100  # columns of the printed form
MOST_STEPS = 120  # a plan with more steps is shown by its costliest ones: nobody reads a tree of a thousand products


@dataclass(frozen=True)
class PassNote:
    """One pass that changed the program: its name, what it is for, the rewrite steps, IR text before and after."""

    name: str
    summary: str
    steps: tuple[str, ...] = ()
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class StepNote:
    """One step of the plan: the equation that a kernel computes.

    `inputs` are names of operands or of earlier steps, `extents` the length of each index; `kernel` describes the
    schedule (tile and loops) and `family` names it. `predicted_ns` is the cost model's figure, 0 where there is none.
    """

    name: str
    expression: str
    inputs: tuple[str, ...] = ()
    extents: tuple[tuple[str, int], ...] = ()
    flops: int = 0
    bytes: int = 0
    kernel: str = ""
    family: str = ""
    predicted_ns: float = 0.0


@dataclass(frozen=True)
class Explanation:
    """What was compiled and why: printed by `print(f.explain())`, shown by notebooks, drawn by `draw`.

    `naive_flops` and `naive_bytes` belong to one loop nest over all indices, without any intermediate; `flops` and
    `bytes` to the plan. All sizes are bytes. `title` is the expression as the user wrote it, `program` its IR text.
    `findings` are structures, `facts` what else is proved, `candidates` the table of the choice, `prices` says where
    its times come from.

    >>> step = StepNote("y", "y[i] = A[i,j]*x[j]", ("A", "x"), (("i", 4), ("j", 8)), flops=64, bytes=176)
    >>> note = Explanation("ij,j->i", "y[i] = ...", steps=(step,), naive_flops=64, flops=64, target="cpu")
    >>> print(note.summary)
    ij,j->i  for cpu: 1 step, 64 flops
    """

    title: str
    program: str = ""
    passes: tuple[PassNote, ...] = ()
    steps: tuple[StepNote, ...] = ()
    naive_flops: int = 0
    flops: int = 0
    naive_bytes: int = 0
    bytes: int = 0
    peak_memory: int = 0
    target: str = ""
    findings: tuple[FindingNote, ...] = ()
    facts: tuple[FindingNote, ...] = ()
    near_misses: tuple[str, ...] = ()
    candidates: tuple[CandidateNote, ...] = ()
    prices: str = ""
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The whole story in one line."""
        steps = f"{len(self.steps)} step" + ("" if len(self.steps) == 1 else "s")
        first = self.title.strip().splitlines()[0] if self.title.strip() else "(empty program)"
        gain = f", {ratio(self.naive_flops, self.flops)} fewer than one loop nest" if self._gains else ""
        return f"{first}  for {self.target}: {steps}, {count(self.flops)} flops{gain}"

    @property
    def _gains(self) -> bool:
        return self.flops > 0 and self.naive_flops > self.flops

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, fit for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False, force_jupyter=False)
        return _captured(console, self)

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(*_sections(self))

    def _repr_html_(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, record=True, legacy_windows=False, force_jupyter=False)
        console.print(self)
        frame = '<pre style="line-height:1.2;font-family:monospace">{code}</pre>'
        return console.export_html(inline_styles=True, code_format=frame)

    def draw(self, path: str | Path) -> Path:
        """Draw the contraction tree into a picture file (PNG, SVG, PDF, by the name's ending); returns the path.

        Raises `BackendError` where matplotlib is not installed, or for a plan of too many steps.
        """
        return _draw_tree(self, Path(path))


def _captured(console: Console, explanation: Explanation) -> str:
    with console.capture() as capture:
        console.print(explanation)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def count(value: float) -> str:
    """A number of operations with three digits and a decimal prefix.

    >>> count(12), count(65_536), count(2.5e9)
    ('12', '65.5 k', '2.50 G')
    """
    return _scaled(value, 1000.0, ("", " k", " M", " G", " T", " P", " E"))


def size(value: float) -> str:
    """A number of bytes with three digits and a binary prefix.

    >>> size(80), size(4096), size(3 << 20)
    ('80 B', '4.00 KiB', '3.00 MiB')
    """
    return _scaled(value, 1024.0, (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"))


def duration(nanoseconds: float) -> str:
    """A time with three digits.

    >>> duration(850), duration(1.25e4), duration(3.1e6)
    ('850 ns', '12.5 us', '3.10 ms')
    """
    return _scaled(nanoseconds, 1000.0, (" ns", " us", " ms", " s"))


def ratio(before: float, after: float) -> str:
    """How many times `before` exceeds `after`.

    >>> ratio(1000, 8)
    '125x'
    """
    return f"{_digits(before / after)}x"


def _scaled(value: float, base: float, units: tuple[str, ...]) -> str:
    step = 0
    while abs(value) >= base and step < len(units) - 1:
        value, step = value / base, step + 1
    text = f"{value:.0f}" if step == 0 else _digits(value)
    return text + units[step]


def _digits(value: float) -> str:
    if value >= 1e6:
        return f"{value:.3g}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _sections(note: Explanation) -> list[RenderableType]:
    """The parts of the printed form, from the user's program down to the notes; empty parts are left out."""
    from rich.rule import Rule
    from rich.text import Text

    def plain(text: str, style: str = "") -> Text:
        return Text(text, style=style, overflow="fold")

    parts: list[RenderableType] = [plain(note.title.strip("\n"), "bold")]
    if note.target:
        parts.append(plain(f"target {note.target}", "dim"))

    def section(name: str, *body: RenderableType) -> None:
        parts.extend((Rule(plain(name, "bold"), align="left", style="dim"), *body))

    if note.program:
        section("program", plain(note.program.strip("\n")))
    if note.findings:
        section("structure", *finding_lines(note.findings))
    if note.facts:
        section("facts", *finding_lines(note.facts))
    if note.near_misses:
        section("not found", *(plain(f"- {line}") for line in note.near_misses))
    if note.candidates:
        section("candidates", candidate_table(note.candidates), plain(note.prices, "dim"))
    if note.passes:
        section("passes", *(line for each in note.passes for line in _pass_lines(each)))
    if 0 < len(note.steps) <= MOST_STEPS:
        section("contraction tree", *contraction_trees(note.steps))
    section("work", _work_table(note))
    if note.steps:
        section(_kernels_title(note.steps), _kernel_table(_costliest(note.steps)))
    if note.notes:
        section("notes", *(plain(f"- {line}") for line in note.notes))
    return parts


def _pass_lines(note: PassNote) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    head = Text.assemble((note.name, "bold cyan"), (f"  {note.summary}" if note.summary else "", ""))
    head.overflow = "fold"
    steps = [Padding(Text(f"- {step}", overflow="fold"), (0, 0, 0, 2)) for step in note.steps]
    return [head, *steps]


def contraction_trees(steps: tuple[StepNote, ...]) -> list[Tree]:
    """One tree for each step whose result no other step reads; a step read twice is drawn in full once."""
    from rich.text import Text
    from rich.tree import Tree

    by_name = {step.name: step for step in steps}
    drawn: set[str] = set()

    def label(step: StepNote) -> Text:
        extents = "  ".join(f"{index}={extent}" for index, extent in step.extents)
        line = Text(_titled(step), overflow="fold")
        line.stylize("bold", 0, len(step.name))
        line.append(f"\n{extents}  " if extents else "\n", "dim")
        line.append(f"{count(step.flops)} flops  {size(step.bytes)}", "green")
        return line

    def grow(name: str, parent: Tree) -> None:
        step = by_name.get(name)
        if step is None:
            parent.add(Text(name, "yellow"))
        elif name in drawn:
            parent.add(Text(f"{name} (above)", "dim"))
        else:
            drawn.add(name)
            branch = parent.add(label(step))
            for child in step.inputs:
                grow(child, branch)

    trees = []
    for root in _roots(steps):
        drawn.add(root.name)
        tree = Tree(label(root), guide_style="dim")
        for child in root.inputs:
            grow(child, tree)
        trees.append(tree)
    return trees


def _titled(step: StepNote) -> str:
    """The step's equation, behind its name if it does not begin with it; ranges are left to the line of extents."""
    expression = step.expression
    head, over, ranges = expression.rpartition(" over ")
    if over and step.extents and "<" in ranges:
        expression = head
    return expression if expression.startswith(step.name) else f"{step.name}  {expression}"


def _roots(steps: tuple[StepNote, ...]) -> list[StepNote]:
    used = {name for step in steps for name in step.inputs if name != step.name}
    return [step for step in steps if step.name not in used]


def _work_table(note: Explanation) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for head in ("one loop nest", "this plan", "gain"):
        table.add_column(head, justify="right")
    rows = (("flops", note.naive_flops, note.flops, count), ("bytes moved", note.naive_bytes, note.bytes, size))
    for name, naive, planned, show in rows:
        gain = ratio(naive, planned) if naive and planned else ""
        table.add_row(name, show(naive) if naive else "", show(planned), gain)
    table.add_row("peak memory of intermediates", "", size(note.peak_memory), "")
    return table


def _costliest(steps: tuple[StepNote, ...]) -> tuple[StepNote, ...]:
    """All steps, or of a long plan the costliest `MOST_STEPS`, in the order of execution."""
    if len(steps) <= MOST_STEPS:
        return steps
    chosen = sorted(range(len(steps)), key=lambda k: (-steps[k].flops, k))[:MOST_STEPS]
    return tuple(steps[k] for k in sorted(chosen))


def _kernels_title(steps: tuple[StepNote, ...]) -> str:
    return "kernels" if len(steps) <= MOST_STEPS else f"kernels (the {MOST_STEPS} costliest of {len(steps)} steps)"


def _kernel_table(steps: tuple[StepNote, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("step", no_wrap=True)
    table.add_column("family", no_wrap=True)
    table.add_column("tile and loops", ratio=1, overflow="fold")
    timed = any(step.predicted_ns for step in steps)
    if timed:
        table.add_column("predicted", justify="right", no_wrap=True)
    for step in steps:
        row = [Text(step.name), Text(step.family), Text(step.kernel)]
        table.add_row(*row, *([Text(duration(step.predicted_ns))] if timed else []))
    return table


def _draw_tree(note: Explanation, path: Path) -> Path:
    """Leaves stand at the bottom in the order of reading, each step above the middle of its inputs."""
    try:
        from matplotlib.figure import Figure  # the object interface: no global state, no display
    except ImportError:
        raise BackendError(
            "drawing needs matplotlib, which is not installed", code="not-installed", help="pip install 'stein[demo]'"
        ) from None
    if len(note.steps) > MOST_STEPS:
        raise BackendError(
            f"a picture of {len(note.steps)} steps would not be legible (at most {MOST_STEPS})", code="too-large"
        )
    places, edges, labels = _layout(note.steps)
    wide = max((x for x, _ in places.values()), default=0.0) + 1
    high = max((y for _, y in places.values()), default=0.0) + 1
    figure = Figure(figsize=(max(5.0, 2.6 * wide), max(2.5, 1.3 * high + 0.6)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(note.summary, fontsize=9)
    for parent, child in edges:
        (x0, y0), (x1, y1) = places[parent], places[child]
        axes.plot((x0, x1), (y0, y1), color="0.6", linewidth=1, zorder=1)
    for key, (x, y) in places.items():
        leaf = y == 0
        box = {"boxstyle": "round", "facecolor": "#fff3cd" if leaf else "#d7ecdf", "edgecolor": "0.5"}
        axes.text(x, y, labels[key], ha="center", va="center", fontsize=7, bbox=box, zorder=2)
    axes.set_xlim(-0.7, wide - 0.3)
    axes.set_ylim(-0.5, high - 0.4)
    if path.suffix.lstrip(".").lower() not in figure.canvas.get_supported_filetypes():
        raise BackendError(
            f"'{path}' ends in no picture format", code="picture-format", help="name it .png, .svg or .pdf"
        )
    figure.savefig(path, dpi=150)
    return path


def wrapped(text: str, width: int = 34, lines: int = 4) -> str:
    """A text broken into at most `lines` lines of at most `width` characters.

    >>> wrapped("y[i] = einsum(j; A[i, j], x[j])", 16)
    'y[i] = einsum(j;\\nA[i, j], x[j])'
    """
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))


Node = tuple[str, int]  # a step's name and 0, or an operand's name and the number of its leaf


def _layout(
    steps: tuple[StepNote, ...],
) -> tuple[dict[Node, tuple[float, float]], list[tuple[Node, Node]], dict[Node, str]]:
    by_name = {step.name: step for step in steps}
    places: dict[Node, tuple[float, float]] = {}
    edges: list[tuple[Node, Node]] = []
    labels: dict[Node, str] = {}
    leaves = 0

    def place(name: str) -> Node:
        nonlocal leaves
        step = by_name.get(name)
        if step is None or not step.inputs:
            leaves += 1
            key: Node = (name, leaves)
            places[key], labels[key] = (leaves - 1.0, 0.0), name if step is None else wrapped(_titled(step))
            return key
        key = (name, 0)
        if key not in places:
            children = [place(child) for child in step.inputs]
            places[key] = (
                sum(places[c][0] for c in children) / len(children),
                1 + max(places[c][1] for c in children),
            )
            labels[key] = f"{wrapped(_titled(step))}\n{count(step.flops)} flops, {size(step.bytes)}"
            edges.extend((key, child) for child in children)
        return key

    for root in _roots(steps):
        place(root.name)
    return places, edges, labels
