"""The picture of a circuit: operations of one kind side by side are one box, folds are told from other rotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stein import BackendError
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.drawing import draw, groups


@dataclass(frozen=True)
class Ones:
    slots: int
    reads: tuple[str, ...] = ()

    def vector(self, tensors: Mapping[str, c.Array]) -> c.Array:
        return np.ones(self.slots)


def baby_steps() -> c.Circuit:
    """A map of 3 x 4 diagonals, whose giants and a fold follow the rescaling."""
    b = c.Builder(64)
    x = b.input("x", 0)
    babies = [b.rotate(x, k) for k in range(3)]
    sums = [b.rescale(b.total([b.multiply_plain(v, Ones(64)) for v in babies])) for _ in range(4)]
    y = b.total([b.rotate(v, 3 * k) for k, v in enumerate(sums)])
    y = b.add(y, b.rotate(y, 32))
    return b.circuit({"x": Packing.vector(64)}, {"y": (Packing.vector(64), (y,))})


def test_groups() -> None:
    boxes, edges = groups(baby_steps())
    assert [(g.kind, g.count, g.sums, g.level) for g in boxes] == [
        (c.INPUT, 1, 0, 0),
        (c.ROTATE, 2, 0, 0),
        (c.MULTIPLY_PLAIN, 12, 8, 0),
        (c.RESCALE, 4, 0, 1),
        (c.ROTATE, 3, 3, 1),
        ("fold", 1, 1, 1),
    ]
    assert [g.column for g in boxes] == list(range(6))
    assert edges[1, 2] == 8 and edges[0, 2] == 4


def test_chained_rotations_are_one_box() -> None:
    b = c.Builder(64)
    values = [b.input("x", 0)]
    for _ in range(5):
        values.append(b.rotate(values[-1], 1))
    y = b.total([b.multiply_plain(v, Ones(64)) for v in values])
    boxes, _ = groups(b.circuit({"x": Packing.vector(64)}, {"y": (Packing.vector(64), (b.rescale(y),))}))
    assert [(g.kind, g.count) for g in boxes] == [
        (c.INPUT, 1),
        (c.ROTATE, 5),
        (c.MULTIPLY_PLAIN, 6),
        (c.RESCALE, 1),
    ]


def test_every_operation_is_counted_once() -> None:
    circuit = baby_steps()
    boxes, _ = groups(circuit)
    counts = circuit.counts()
    assert sum(g.count for g in boxes) + sum(g.sums for g in boxes) == len(circuit.nodes)
    assert sum(g.count for g in boxes if g.kind in (c.ROTATE, "fold")) == counts[c.ROTATE]


def test_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    path = draw(baby_steps(), tmp_path / "circuit.svg")
    text = path.read_text()
    assert "<svg" in text and text.count("level") >= 2
    with pytest.raises(BackendError, match="no picture format"):
        draw(baby_steps(), tmp_path / "circuit.txt")
