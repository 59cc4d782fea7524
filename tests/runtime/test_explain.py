"""The printed explanation: every fact of the data stands in the text, in the order of the story; drawing works."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stein
from stein.ir.errors import BackendError
from stein.runtime.explain import MOST_STEPS, WIDTH, Explanation, PassNote, StepNote
from stein.runtime.explain_structure import CandidateNote, FindingNote

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
    findings=(
        FindingNote(
            "y is kronecker in x", "proved: kronecker", place="1:1", excerpt="  y[i,j] = A\n  ^^^^^^^^^^", used=True
        ),
    ),
    facts=(FindingNote("y is symmetric", "proved: exchange", place="1:1", excerpt="  y[i,j] = A\n  ^^^^^^^^^^"),),
    near_misses=("y is not low rank in x: rank 64 saves nothing",),
    candidates=(
        CandidateNote("factored", 4 * N**3, 24 * N**2, 2, 5600.0, chosen=True, also=("as written",)),
        CandidateNote("dense", 2 * N**4, 4 * N**4, 2, 56000.0, stored=12),
    ),
    prices="times of a test",
    notes=("sizes [are] arguments",),  # square brackets are no markup
)


def test_text_tells_the_story_in_order() -> None:
    text = str(NOTE)
    head = [
        "y[i,j] = A",
        "target cpu",
        "program",
        "structure",
        "1:1   y[i,j] = A",
        "^^^",
        "y is kronecker in x",
        "chosen",
    ]
    head += ["facts", "y is symmetric", "not found", "rank 64 saves nothing", "candidates", "factored = as written"]
    head += ["dense", "10.0x", "times of a test", "passes", "contract", "A*(B*x) costs least"]
    tail = ["contraction tree", "└── t", "work", "48.0x", "16.0 KiB", "kernels", "2.70 us", "packed 8x3"]
    parts = [*head, *tail, "sizes [are] arguments"]
    place = 0
    for part in parts:
        place = text.find(part, place)
        assert place >= 0, part


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


# --- real programs ----------------------------------------------------------------------------------------------------


def test_explain_shows_structure_candidates_and_misses() -> None:
    text = "K[(i k),(j l)] = A[i,j] * B[k,l]\ny[b,m] = K[m,n] * x[b,n]"
    f = stein.compile(text, A=(32, 32), B=(32, 32), x=(64, 1024), dtype="f32")
    note = f.explain()
    (first, *_), chosen = note.findings, next(c for c in note.candidates if c.chosen)
    assert first.text == "y is Kronecker in x (dense ⊗ dense), the same for each of 64" and first.used
    assert first.place == "2:1" and first.excerpt.splitlines() == ["  y[b,m] = K[m,n] * x[b,n]", "  " + "^" * 24]
    assert chosen.name == f.stats["candidate"] and chosen.name.startswith("kronecker")
    assert chosen.flops == note.flops == f.stats["flops"]
    names = {n for c in note.candidates for n in (c.name, *c.also)}
    assert {"dense", "best order", "as written"} <= names
    assert [c.predicted_ns for c in note.candidates] == sorted(c.predicted_ns for c in note.candidates)
    shown = str(note)
    assert "[proved: Kronecker]  <- chosen" in shown and "*   kronecker" in shown
    assert json.loads(json.dumps(note.as_dict()))["candidates"][0]["name"]


def test_explain_says_what_was_nearly_found() -> None:
    f = stein.compile("S[i,k] = G[i,j] * G[k,j]", G=(16, 24), dtype="f64")
    note = f.explain()
    assert note.near_misses == ("S is not linear in G: G occurs 2 times in one term",)
    assert [n.kind for n in note.facts] == ["symmetric"]
    assert "S is symmetric" in str(note)


def test_explain_of_a_contraction_shows_the_table_too() -> None:
    note = stein.compile("ij,jk,kl->il", (8, 9), (9, 10), (10, 11), dtype="f64").explain()
    assert [c.name for c in note.candidates if c.chosen] == ["best order"]
    assert "for comparison" in note.prices


def test_explain_for_the_reference() -> None:
    f = stein.compile("y[i] = t[i-j+3] * x[j]", t=(7,), x=(4,), dtype="f64", target="reference")
    note = f.explain()
    assert note.findings[0].kind == "toeplitz" and not note.candidates


def test_explain_says_whether_prices_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from stein.backends.cpu.calibration import DEFAULTS
    from stein.backends.cpu.machine import host
    from stein.backends.cpu.target import CpuTarget

    f = stein.compile("y[i] = t[i-j+3] * x[j]", t=(7,), x=(4,), dtype="f64")
    f._default.target = CpuTarget(host(), DEFAULTS, 1)
    assert "built-in rates, not measured on this machine" in str(f.explain()).replace("\n", " ")


def test_declared_findings_point_to_the_declaration() -> None:
    f = stein.compile("W: f64[8,8] symmetric\ny[i] = W[i,j] * x[j]", x=(8,))
    note = next(n for n in f.explain().facts if n.evidence == "declared" and n.value == "W")
    assert note.place == "1:13" and note.excerpt.splitlines()[1].strip() == "^" * len("symmetric")
