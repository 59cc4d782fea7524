"""The printed explanation: every fact of the data stands in the text, in the order of the story; drawing works."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stein.ir.errors import BackendError
from stein.runtime.explain import MOST_STEPS, WIDTH, Explanation, PassNote, StepNote

N = 64
FIRST = StepNote(
    "t",
    "t[k,j] = B[j,l] * x[k,l]",
    ("B", "x"),
    (("k", N), ("j", N), ("l", N)),
    2 * N**3,
    12 * N**2,
    "v{u{Tile}}",
    "direct",
    2700,
)
SECOND = StepNote(
    "y", "y[i,j] = A[i,k] * t[k,j]", ("A", "t"), (("i", N),), 2 * N**3, 12 * N**2, "packed 8x3", "packed", 2900
)
NOTE = Explanation(
    title="y[i,j] = A[i,k] * B[j,l] * x[k,l]",
    program="y: f32[64, 64] = einsum(...)",
    passes=(PassNote("contract", "the order of pairwise products", ("A*(B*x) costs least",)),),
    steps=(FIRST, SECOND),
    naive_flops=3 * N**4,
    flops=4 * N**3,
    naive_bytes=16 * N**2,
    bytes=24 * N**2,
    peak_memory=4 * N**2,
    target="cpu",
    findings=("A and B: kronecker",),
    notes=("sizes [are] arguments",),  # square brackets are no markup
)


def test_text_tells_the_story_in_order() -> None:
    text = str(NOTE)
    head = ["y[i,j] = A", "target cpu", "program", "kronecker", "contract", "A*(B*x) costs least"]
    tail = ["contraction tree", "└── t", "work", "48.0x", "16.0 KiB", "kernels", "2.70 us", "packed 8x3"]
    parts = [*head, *tail, "sizes [are] arguments"]
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)


def test_text_is_plain_and_fits() -> None:
    text = str(replace(NOTE, notes=("word " * 100,), program="x" * 500))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_empty_parts_are_left_out() -> None:
    text = str(Explanation("ij->ij", target="cpu"))
    assert "passes" not in text and "contraction tree" not in text and "notes" not in text


def test_html() -> None:
    html = replace(NOTE, title="a < b")._repr_html_()
    assert html.startswith("<pre") and "a &lt; b" in html and "contraction tree" in html


def test_a_step_read_twice_is_drawn_once() -> None:
    third = StepNote("z", "z[i] = y[i,i] * t[i,i]", ("y", "t"))
    text = str(replace(NOTE, steps=(FIRST, SECOND, third)))
    assert text.count("t[k,j] = B[j,l]") == 1
    assert "t (above)" in text


def test_long_plans_show_the_costliest_steps() -> None:
    steps = tuple(StepNote(f"s{k}", "", (f"s{k - 1}",), flops=k) for k in range(MOST_STEPS + 50))
    text = str(replace(NOTE, steps=steps))
    assert "contraction tree" not in text
    words = set(text.split())
    assert f"s{MOST_STEPS + 49}" in words and "s3" not in words


def test_json() -> None:
    assert json.loads(json.dumps(NOTE.as_dict()))["steps"][0]["name"] == "t"


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_draw(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    path = NOTE.draw(tmp_path / f"tree.{ending}")
    assert path.stat().st_size > 1000


def test_draw_refuses_what_nobody_can_read(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    steps = tuple(StepNote(f"s{k}", "", (f"s{k - 1}",)) for k in range(MOST_STEPS + 1))
    with pytest.raises(BackendError, match="legible"):
        replace(NOTE, steps=steps).draw(tmp_path / "tree.png")


def test_draw_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendError, match=r"stein\[demo\]"):
        NOTE.draw(tmp_path / "tree.png")
