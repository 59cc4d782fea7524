"""The pipeline: which passes there are and in which order.

`NORMAL_PASSES` do not look at sizes and run once per expression; `PLAN_PASSES` are steered by size hints and run once
per bucket of sizes. Each pass states what it needs and ensures; `check_order` proves that the lists hang together,
and `ir.check` that the programs keep what is promised.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Context, Pass, PassRecord, Run, run_passes
from .common import drop_dead, share_common
from .factor import factor_common
from .fuse import fuse, materialise
from .gather import gather
from .lookups import prepare
from .normalise import normalise
from .softmax import expand_softmax
from .split import order


def _pass(name: str, run: Run, needs: str, ensures: str, summary: str) -> Pass:
    return Pass(name, run, frozenset(needs.split()), frozenset(ensures.split()), summary)


NORMAL_PASSES: tuple[Pass, ...] = (
    _pass("softmax", expand_softmax, "", "no-softmax", "softmax becomes max, exp, sum and a division"),
    _pass("live", drop_dead, "no-softmax", "", "only what an output needs is kept, and counts as a use"),
    _pass(
        "normalise", normalise, "no-softmax", "normal", "rules to a fixpoint; single-use products and views dissolve"
    ),
    _pass("share", share_common, "normal", "shared", "equal equations are computed once"),
    _pass("dead", drop_dead, "normal", "live", "equations that no output needs are removed"),
)

PLAN_PASSES: tuple[Pass, ...] = (
    _pass("factor", factor_common, "normal", "", "common factors are taken out of sums (R11)"),
    _pass("gather", gather, "normal", "copies", "pads and moduli become copies"),
    _pass("lookup", prepare, "normal", "", "index values stand in tensors, and each moves one factor"),
    _pass("order", order, "normal copies", "one-einsum", "contraction order; one einsum an equation"),
    _pass(
        "materialise", materialise, "one-einsum", "cheap-factors", "dear functions inside a reused factor are stored"
    ),
    _pass("share again", share_common, "one-einsum", "", "equal intermediates are computed once"),
    _pass("fuse", fuse, "one-einsum copies", "planned", "elementwise equations join their producers and consumers"),
    _pass("dead again", drop_dead, "planned", "", "equations that no output needs are removed"),
)


def check_order(passes: Sequence[Pass]) -> None:
    """Assert that every pass finds what it needs ensured by an earlier one."""
    have: set[str] = set()
    for step in passes:
        assert step.needs <= have, f"the pass '{step.name}' needs {sorted(step.needs - have)}"
        have |= step.ensures


__all__ = ["NORMAL_PASSES", "PLAN_PASSES", "Context", "Pass", "PassRecord", "check_order", "run_passes"]
