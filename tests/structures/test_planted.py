"""Wrong rules that are planted on purpose must be caught by the numbers: the judge is no formality.

Each changes one important rule or fact as a plausible slip would, and is looked for in one program that it touches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import stein.passes.facts as facts_module
import stein.passes.recognise as module
from stein.ir.structures import RULES, Match, Ordered, Structure, Times, Turned, View
from stein.ir.structures.chain import Chain, Superposed
from stein.ir.structures.convolution import Convolution
from stein.ir.structures.facts import Facts
from stein.ir.structures.kronecker import Kronecker, KroneckerSumOf
from stein.ir.structures.low_rank import LowRank, OuterProduct
from stein.ir.structures.monarch import Monarch
from stein.ir.structures.toeplitz import Toeplitz
from stein.tests.structures import cases, judge

SQUARE = dict.fromkeys("abcdefghijklmnopq", 3)
EXTRA = {
    "square kron": cases.Case("", "y[k,i] = A[i,j]*B[k,l]*x[j,l]", "kronecker", sizes=SQUARE),
    "plain kron": cases.Case("", "y[i,k] = A[i,j]*B[k,l]*x[j,l]", "kronecker", sizes=SQUARE),
    "square blocks": cases.Case("", "y[g,o] = W[g,o,i]*x[g,i]", "block_diagonal", sizes=SQUARE),
    "turn": cases.Case("", "y[j,i] = x[i,j]", "permutation", sizes=SQUARE),
}


def caught(number: str) -> bool:
    """Whether the judge denies a finding in a public case (or one of `EXTRA`)."""
    found = EXTRA.get(number) or next(c for c in cases.CASES if c.number == number)
    tally = judge.Tally()
    judge.judge_network(found.program, tally)
    return bool(tally.wrong)


def _always(kind: str, options: dict[str, Any], when: Callable[[View], bool]) -> Callable[[View, Any], Match | None]:
    return lambda view, again: Match(kind, options) if when(view) else None


def _changed(rule: Any, change: Callable[[Match], Match | None]) -> Callable[[View, Any], Match | None]:
    """A rule whose matches are spoiled."""

    def run(view: View, again: Any) -> Match | None:
        found = rule(view, again)
        return change(found) if isinstance(found, Match) else None

    return run


def _fewer(option: str) -> Callable[[Match], Match]:
    return lambda m: replace(m, options={**m.options, option: max(1, m.options[option] - 1)})


def _term(change: Callable[[Structure], Structure | None]) -> Callable[[Match], Match | None]:
    def run(match: Match) -> Match | None:
        term = change(match.term) if match.term is not None else None
        return replace(match, term=term) if term is not None else None

    return run


def _later(t: Structure) -> Structure | None:
    if not isinstance(t, Toeplitz):
        return None
    return Toeplitz(tuple(replace(v, offset=v.offset + 1) for v in t.levels), t.name)


def _wrong_order(t: Structure) -> Structure | None:
    """The factors of a Kronecker product exchanged without the order of digits that undoes it."""
    return None if not isinstance(t, Ordered) else t.of if t.of.operator().shape == t.operator().shape else None


def _untransposed(t: Structure) -> Structure | None:
    if not isinstance(t, Times):
        return None
    a, b = t.first.operator().shape, t.second.operator().shape
    return Times(Turned(t.first), t.second) if a[0] == a[1] == b[0] else None


def _one_part(t: Structure) -> Structure | None:
    """The second factor of a product lost, where the shapes hide it."""
    shapes = t.first.operator().shape if isinstance(t, Times) else ((), (1,))
    return t.first if isinstance(t, Times) and shapes == t.operator().shape else None


def _missing_sum(t: Structure) -> Structure | None:
    """The sum over an index that copies its first term only."""
    if not isinstance(t, Times) or not isinstance(t.second, Times):
        return None
    op = t.first.operator()
    leads = op.cols[: len(op.cols) - len(op.rows)]
    return replace(t, first=type(t.first)(replace(op, terms=tuple(_at_zero(x, leads) for x in op.terms))))  # type: ignore[call-arg]


def _at_zero(term: Any, indices: tuple[str, ...]) -> Any:
    from stein.ir.structures.slot import slot, var

    return term._replace(deltas=(*term.deltas, *((var(i), slot()) for i in indices)))


RULE_SLIPS: dict[tuple[str, str], Callable[[View, Any], Match | None]] = {
    ("a Khatri-Rao product taken for Kronecker", "6-"): _always(
        "kronecker", {"permuted": False, "factors": ()}, lambda v: len(v.atoms) == 2 and len(v.cols) == 2 and v.exact
    ),
    ("low rank with one rank too few", "14"): _changed(LowRank.recognise, _fewer("rank")),
    ("low rank through any index", "31"): _always(
        "low_rank", {"rank": 1}, lambda v: len(v.bound) == 1 and len(v.atoms) == 2
    ),
    ("circulant for any modulus", "26-"): _always(
        "circulant", {"levels": ("circulant",)}, lambda v: any(q.modulus for _, q in v.affine)
    ),
    ("Toeplitz for a stride", "30-"): _always(
        "toeplitz", {"levels": ("toeplitz",)}, lambda v: any(abs(c) == 2 for _, q in v.affine for _, c in q.terms)
    ),
    ("Toeplitz one diagonal off", "23"): _changed(Toeplitz.recognise, _term(_later)),
    ("Monarch for whatever has two operands", "31"): _always(
        "monarch", {"rank": 1}, lambda v: len(v.atoms) == 2 and len(v.rows) == len(v.cols) == 2
    ),
    ("Monarch of a rank too low", "12b"): _changed(
        Monarch.recognise, lambda m: replace(m, kind="monarch", options={"rank": 1}) if m.options["rank"] > 1 else None
    ),
    ("Kronecker without its order of digits", "square kron"): _changed(Kronecker.recognise, _term(_wrong_order)),
    ("a sum of Kronecker products with a term too few", "31"): _changed(KroneckerSumOf.recognise, _fewer("terms")),
    ("an outer product where one side has both", "1"): _always(
        "outer_product", {"rank": 1}, lambda v: len(v.components()) > 1 and bool(v.rows and v.cols)
    ),
    ("a factor of a product transposed", "45b"): _changed(Chain.recognise, _term(_untransposed)),
    ("a factor of a product lost", "45b"): _changed(Chain.recognise, _term(_one_part)),
    ("a sum over an index cut short", "46"): _changed(Superposed.recognise, _term(_missing_sum)),
    ("a convolution taken for Toeplitz", "43"): _changed(
        Convolution.recognise, lambda m: replace(m, kind="toeplitz", options={"levels": ("toeplitz",)})
    ),
    ("an identity for any digits alone", "turn"): _always("identity", {}, lambda v: not v.atoms and bool(v.x)),
}


@pytest.mark.parametrize(("name", "number"), RULE_SLIPS)
def test_slips_in_rules_are_caught(name: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not caught(number)
    monkeypatch.setattr(module, "RULES", (RULE_SLIPS[name, number], *RULES))
    assert caught(number)


def test_a_rank_bound_that_is_too_low_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = facts_module.rank_bound
    monkeypatch.setattr(facts_module, "rank_bound", lambda v, a, b: max(1, honest(v, a, b) - 1))
    assert caught("14")


@pytest.mark.parametrize(
    ("operation", "number"), [("times", "45"), ("beside", "plain kron"), ("blocks", "square blocks")]
)
def test_slips_in_facts_are_caught(operation: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact that one operation keeps although it should not."""
    honest = getattr(Facts, operation)
    monkeypatch.setattr(Facts, operation, lambda *a: replace(honest(*a), symmetric=True))
    assert caught(number)


def test_random_networks_catch_a_slip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a program that was chosen for it."""
    slip = _changed(OuterProduct.recognise, lambda m: replace(m, term=Turned(m.term) if m.term else None))
    monkeypatch.setattr(module, "RULES", (slip, *RULES))
    assert judge.judge_networks(200, 3, stop=True).wrong
