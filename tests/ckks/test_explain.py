"""What `explain` tells of an encrypted program, before there are keys."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import stein

E = stein.encrypted


@pytest.fixture(autouse=True)
def usual_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans that do not depend on the machine."""
    monkeypatch.setenv("STEIN_CALIBRATION", "off")


@pytest.fixture(scope="module")
def product() -> stein.EncryptedCompiled:
    shapes = {"A": (4, 4), "B": (4, 4), "x": E((4, 4))}
    return stein.compile("y[i,k] = A[i,j]*B[k,l]*x[j,l]", target="ckks", rings=8192, **shapes)


def test_everything_is_told(product: stein.EncryptedCompiled) -> None:
    text, stats = str(product.explain()), product.stats
    for part in ("encryption", "program", "structure", "candidates", "steps", "layouts", "notes"):
        assert f"\n{part} ──" in text
    assert "y is Kronecker in x" in text and "[proved: Kronecker]" in text
    assert f"{stats['rotations']} rotations" in text and "ring 8192" in text
    assert f"{stats['levels']} level" in text and "4096 in each ciphertext" in text
    for row in product.choice.rows:
        assert row.name in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_table_has_one_chosen_candidate(product: stein.EncryptedCompiled) -> None:
    note = product.explain()
    (chosen,) = (c for c in note.candidates if c.chosen)
    assert chosen is note.candidates[0] and chosen.name == product.stats["candidate"]
    planned = [c for c in note.candidates if not c.reason]
    assert chosen.rotations == product.stats["rotations"] and len(planned) < len(note.candidates)


def test_the_explanation_is_data(product: stein.EncryptedCompiled) -> None:
    note = product.explain()
    data = json.loads(json.dumps(note.as_dict()))
    assert data["figures"]["ring"] == 8192 and data["parameters"].startswith("ring 8192")
    assert note.summary.startswith("y[i,k] = A[i,j]*B[k,l]*x[j,l]  for ckks: ")
    html = note._repr_html_()
    assert "<pre" in html and "encryption" in html


def test_several_ciphertexts_are_warned_of(golden: Callable[[str, str], None]) -> None:
    """Message 27 of the language page."""
    compiled = stein.compile("y[i] = d[i]*x[i]", d=(10_000,), x=E(10_000), target="ckks", rings=8192)
    (warning,) = compiled.explain().warnings
    assert warning in " ".join(str(compiled.explain()).split())
    golden("several-ciphertexts.txt", warning + "\n")


def test_alternatives_trade_time_uploads_and_keys() -> None:
    compiled = stein.compile("ij,jk->ik", E((8, 8)), E((8, 8)), target="ckks", rings=8192)
    found = compiled.explain().alternatives
    for one in found:
        others = [o for o in found if o is not one]
        assert not any(
            o.milliseconds <= one.milliseconds and o.uploads <= one.uploads and o.key_bytes < one.key_bytes
            for o in others
        )


def test_the_circuit_is_text(product: stein.EncryptedCompiled) -> None:
    lines = product.source("ckks").splitlines()
    assert lines[1] == "%0 = input x[0]" and lines[-1].startswith("return y = %")
    with pytest.raises(stein.BackendError, match="source"):
        product.source("llvm")
