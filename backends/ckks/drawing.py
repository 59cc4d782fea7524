"""A picture of a circuit: levels from left to right, operations of one kind that stand side by side in one box.

A circuit of thousands of operations has a simple shape: uploads, rotations of the operand, products, rotations of the
partial sums, a fold. `groups` finds that shape; `draw` paints it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import BackendError
from .core import circuit as c

FOLD = "fold"  # rotate and add onto itself
SILENT = (c.ADD, c.SUBTRACT, c.NEGATE, c.ADD_PLAIN, c.SWITCH)  # drawn with what makes their operand
ONCE = (c.MULTIPLY_PLAIN, c.MULTIPLY, c.RELINEARISE, c.RESCALE)  # at most one of each on a path within one level
WORDS = {
    c.INPUT: ("ciphertext", "ciphertexts"),
    c.ROTATE: ("rotation", "rotations"),
    FOLD: ("fold", "folds"),
    c.MULTIPLY_PLAIN: ("plain product", "plain products"),
    c.MULTIPLY: ("product", "products"),
    c.RELINEARISE: ("relinearisation", "relinearisations"),
    c.RESCALE: ("rescaling", "rescalings"),
}
COLOURS = {
    c.INPUT: "#fff3cd",
    c.ROTATE: "#cfe2f3",
    FOLD: "#d9d2e9",
    c.MULTIPLY_PLAIN: "#d7ecdf",
    c.MULTIPLY: "#f4cccc",
    c.RELINEARISE: "#fce5cd",
    c.RESCALE: "#eeeeee",
}


@dataclass(frozen=True)
class Group:
    """Operations drawn as one box: what they are, their level, the column they stand in, how many, and the sums made
    of their results. `tensor` is the name of an input's tensor.
    """

    kind: str
    level: int
    column: int
    count: int
    sums: int
    tensor: str = ""

    @property
    def label(self) -> str:
        """`63 rotations`, with its sums on a second line."""
        words = f"{self.count} {WORDS[self.kind][self.count != 1]}"
        head = f"{self.tensor}\n{words}" if self.tensor else words
        return f"{head}\n{self.sums} sum{'s' * (self.sums != 1)}" if self.sums else head


def groups(circuit: c.Circuit) -> tuple[tuple[Group, ...], dict[tuple[int, int], int]]:
    """The boxes in order of columns, and how many values go from one box to another.

    >>> from .core.layout import Packing
    >>> b = c.Builder(8)
    >>> x = b.input("x", 0)
    >>> made = b.circuit({"x": Packing.vector(8)}, {"y": (Packing.vector(8), (b.add(x, b.rotate(x, 4)),))})
    >>> [g.label for g in groups(made)[0]]
    ['x\\n1 ciphertext', '1 fold\\n1 sum']
    """
    kinds, ranks, tensors = _ranked(circuit)
    keys = [
        (node.level, ranks[n], kinds[n], tensors[n]) if node.kind not in SILENT else None
        for n, node in enumerate(circuit.nodes)
    ]
    own = [key for key in keys if key is not None]
    columns = {place: k for k, place in enumerate(sorted({key[:2] for key in own}))}
    order = sorted(set(own))
    number = {key: k for k, key in enumerate(order)}
    home: list[int] = []
    sums: Counter[int] = Counter()
    edges: Counter[tuple[int, int]] = Counter()
    for node, key in zip(circuit.nodes, keys, strict=True):
        if key is not None:
            home.append(number[key])
        else:  # with the operand that is furthest to the right
            home.append(max((home[a] for a in node.args), key=lambda g: order[g][:2]))
            sums[home[-1]] += node.kind in (c.ADD, c.SUBTRACT)
        for a in node.args:
            if home[a] != home[-1]:
                edges[home[a], home[-1]] += 1
    counts = Counter(own)
    found = tuple(
        Group(kind, level, columns[level, rank], counts[level, rank, kind, tensor], sums[k], tensor)
        for k, (level, rank, kind, tensor) in enumerate(order)
    )
    return found, dict(edges)


def draw(circuit: c.Circuit, path: str | Path, title: str = "") -> Path:
    """Draw a circuit into a picture file (PNG, SVG, PDF, by the name's ending); returns the path.

    Raises `BackendError` where matplotlib is not installed, or the name ends in no picture format.
    """
    try:
        from matplotlib.figure import Figure  # the object interface: no global state, no display
    except ImportError:
        raise BackendError(
            "drawing needs matplotlib, which is not installed", code="not-installed", help="pip install 'stein[demo]'"
        ) from None
    target = Path(path)
    boxes, edges = groups(circuit)
    places = _places(boxes)
    wide = max(x for x, _ in places) + 1
    high = max(y for _, y in places)
    figure = Figure(figsize=(1.7 * wide + 0.6, 1.1 * high + 2.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(title or _title(circuit), fontsize=9)
    for level in sorted({g.level for g in boxes}):
        inside = [x for g, (x, _) in zip(boxes, places, strict=True) if g.level == level]
        axes.axvspan(min(inside) - 0.5, max(inside) + 0.5, color="0.97" if level % 2 else "0.93", zorder=0)
        axes.text((min(inside) + max(inside)) / 2, high + 0.62, f"level {level}", ha="center", fontsize=8, color="0.4")
    for (a, b), values in edges.items():
        bend = -0.25 if boxes[b].column - boxes[a].column > 1 else 0.0  # round the boxes between
        line = {"arrowstyle": "-", "color": "0.6", "connectionstyle": f"arc3,rad={bend}"}
        width = min(3.0, 0.8 + 0.2 * values**0.5)
        axes.annotate("", places[b], places[a], arrowprops={**line, "linewidth": width}, zorder=1)
    for group, (x, y) in zip(boxes, places, strict=True):
        box = {"boxstyle": "round", "facecolor": COLOURS[group.kind], "edgecolor": "0.5"}
        axes.text(x, y, group.label, ha="center", va="center", fontsize=7, bbox=box, zorder=2)
    axes.set_xlim(-0.6, wide - 0.4)
    axes.set_ylim(-0.7, high + 0.9)
    if target.suffix.lstrip(".").lower() not in figure.canvas.get_supported_filetypes():
        raise BackendError(
            f"'{target}' ends in no picture format", code="picture-format", help="name it .png, .svg or .pdf"
        )
    figure.savefig(target, dpi=150)
    return target


def _ranked(circuit: c.Circuit) -> tuple[list[str], list[int], list[str]]:
    """For each operation: its kind (folds told from other rotations), how often the kind changed on the way to it, and
    the tensor of an input.

    A run of operations of one kind, such as rotations that each start where the last one ended, has one rank. So have
    all products of a level, rotated operands or not: no value meets two of them.
    """
    folds = set()
    for node in circuit.nodes:
        if node.kind == c.ADD:
            for one, other in (node.args, node.args[::-1]):
                if circuit.nodes[one].kind == c.ROTATE and circuit.nodes[one].args == (other,):
                    folds.add(one)
    kinds: list[str] = []
    for number, node in enumerate(circuit.nodes):
        kinds.append(FOLD if number in folds else node.kind)
    tensors = [node.upload[0] if node.upload is not None else "" for node in circuit.nodes]
    least: dict[tuple[int, str], int] = {}
    while True:
        ranks, drawn = _ranks(circuit, kinds, least)
        found: dict[tuple[int, str], int] = {}
        for node, rank in zip(circuit.nodes, ranks, strict=True):
            if node.kind in ONCE:
                found[node.level, node.kind] = max(found.get((node.level, node.kind), 0), rank)
        if found == least:
            return drawn, ranks, tensors
        least = found


def _ranks(
    circuit: c.Circuit, kinds: Sequence[str], least: Mapping[tuple[int, str], int]
) -> tuple[list[int], list[str]]:
    """The rank of each operation, at least the one given for its level and kind, and the kind it is drawn with."""
    ranks: list[int] = []
    drawn: list[str] = []
    for node, kind in zip(circuit.nodes, kinds, strict=True):
        before = max(node.args, key=lambda a: ranks[a], default=None)
        if before is None:
            ranks.append(0)
        elif node.kind in SILENT:
            kind = drawn[before]
            ranks.append(ranks[before])
        else:
            ranks.append(max(ranks[before] + (drawn[before] != kind), least.get((node.level, kind), 0)))
        drawn.append(kind)
    return ranks, drawn


def _places(boxes: Sequence[Group]) -> list[tuple[float, float]]:
    """Columns stand side by side; the boxes of one column stand above each other, centred."""
    members: defaultdict[int, int] = defaultdict(int)
    for group in boxes:
        members[group.column] += 1
    most, placed, seen = max(members.values()), [], Counter[int]()
    for group in boxes:
        y = (most - members[group.column]) / 2 + seen[group.column]
        seen[group.column] += 1
        placed.append((float(group.column), y))
    return placed


def _title(circuit: c.Circuit) -> str:
    counts = circuit.counts()
    named = [f"{counts[k]} {WORDS[k][counts[k] != 1]}" for k in (c.ROTATE, c.MULTIPLY_PLAIN, c.MULTIPLY) if k in counts]
    return ", ".join([*named, f"{circuit.levels} level{'s' * (circuit.levels != 1)}", f"{circuit.slots} slots"])
