"""Every public case of recognition: the kind, its term against the interpreter, and nothing found where nothing is."""

from __future__ import annotations

import pytest

from stein.passes.recognise import Finding, examine
from stein.tests.structures import cases, oracle


def _whole(case: cases.Case) -> list[Finding]:
    found, _ = examine(case.program, case.argument)
    return [f for f in found if f.argument == case.argument and f.number is None and f.term is not None]


@pytest.mark.parametrize("case", cases.CASES, ids=lambda c: c.number)
def test_case(case: cases.Case) -> None:
    found = _whole(case)
    assert (found[0].kind if found else None) == case.kind
    assert case.has is None or case.has(found[0])


@pytest.mark.parametrize("case", [c for c in cases.CASES if c.kind], ids=lambda c: c.number)
def test_term_is_the_matrix(case: cases.Case) -> None:
    for finding in _whole(case):
        oracle.check_term(case.program, finding, oracle.random_inputs(case.program))
