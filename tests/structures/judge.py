"""The numeric judge: whether the claim of a finding's kind holds of the dense matrix, for random operands.

It knows nothing of the recogniser's rules: kinds are tested by ranks, patterns and equality of numbers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from stein.ir.expr import Equation, Program, reads
from stein.ir.index import Affine
from stein.ir.text import print_program
from stein.passes.recognise import Finding, recognise
from stein.tests.structures import oracle, randoms

Array = Any
METHODS = 5  # of one finding that are run, where a product or a sum has many


def rank_of(matrix: Array) -> int:
    """The numeric rank."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return int((values > 1e-9 * max(values[0], 1e-300)).sum()) if values.size else 0


class Judge:
    """The dense W of a program over named digits, one slice for each value of the batch digits.

    Batch digits are those that result and argument have under one name, and the pairs (row, column) in `tied`.
    """

    def __init__(self, program: Program, finding: Finding, tied: tuple[tuple[str, str], ...] = ()) -> None:
        given = oracle.random_inputs(program)
        equation = program.tensors[finding.value]
        assert isinstance(equation, Equation)
        read = next(r for r in reads(equation.expr) if r.tensor == finding.argument)
        extents = {n: e.evaluate({}) for n, e in equation.extents.items()}
        out = _digits(equation.slots, [e.evaluate({}) for e in equation.shape], extents)
        xs = _digits(read.slots, given[finding.argument].shape, extents)
        self.flat = oracle.matrix_of(program, finding, given)
        w = self.flat.reshape([extents[i] for i in (*out, *xs)])
        names = [f"r:{i}" for i in out] + [f"c:{i}" for i in xs]
        self.norm = float(np.linalg.norm(w))
        slices = [w]
        pairs = [(f"r:{i}", f"c:{i}") for i in out if i in xs] + list(tied)
        for pair in pairs:
            a, b = names.index(pair[0]), names.index(pair[1])
            slices = [np.moveaxis(np.diagonal(v, 0, a, b), -1, 0)[k] for v in slices for k in range(v.shape[a])]
            names = [n for n in names if n not in pair]
        self.slices, self.names = slices, names
        self.rows = [n for n in names if n[0] == "r"]
        self.cols = [n for n in names if n[0] == "c"]

    def ties(self) -> list[tuple[str, str]]:
        """Pairs of a row and a column digit off whose diagonal nothing stands: batch digits that a delta made."""
        found = []
        for r in self.rows:
            for c in self.cols:
                a, b = self.names.index(r), self.names.index(c)
                same = self.slices[0].shape[a] == self.slices[0].shape[b]
                if same and all(_off(np.moveaxis(w, (a, b), (0, 1))) <= 1e-9 * self.norm for w in self.slices):
                    found.append((r, c))
        return found

    def matrix(self, w: Array, names: list[str], left: list[str]) -> Array:
        """w as a matrix from the digits `left` to the rest."""
        order = [names.index(n) for n in left] + [names.index(n) for n in names if n not in left]
        return w.transpose(order).reshape(prod(w.shape[names.index(n)] for n in left), -1)

    def block_diagonal(self) -> bool:
        """Whether nothing stands off the batch diagonals."""
        return bool(
            abs(self.norm - np.sqrt(sum(float(np.linalg.norm(w)) ** 2 for w in self.slices))) <= 1e-9 * self.norm
        )

    def kronecker(self, terms: int = 1) -> bool:
        """Whether some split of the digits has rank <= terms, each side but not all with rows or columns."""
        for a in _subsets(self.rows):
            for b in _subsets(self.cols):
                both = (a and b and len(a) + len(b) < len(self.names)) or (
                    (a or b) and len(a) < len(self.rows) and len(b) < len(self.cols)
                )
                if both and all(rank_of(self.matrix(w, self.names, a + b)) <= terms for w in self.slices):
                    return True
        return False

    def low_rank(self, rank: int) -> bool:
        """Whether the rank from rows to columns is at most `rank`."""
        return all(rank_of(self.matrix(w, self.names, self.rows)) <= rank for w in self.slices)

    def two_factors(self, rank: int) -> bool:
        """Whether for each value of some row and column digits the rest has rank at most `rank`."""
        for f in _subsets(self.rows)[1:-1]:
            for g in _subsets(self.cols)[1:-1]:
                if all(self._fixed(w, f + g, rank) for w in self.slices):
                    return True
        return False

    def _fixed(self, w: Array, fixed: list[str], rank: int) -> bool:
        rest = [n for n in self.names if n not in fixed]
        moved = np.moveaxis(w, [self.names.index(n) for n in fixed], range(len(fixed)))
        rows = [n for n in rest if n[0] == "r"]
        blocks = moved.reshape((-1, *moved.shape[len(fixed) :]))
        return all(rank_of(self.matrix(m, rest, rows)) <= rank for m in blocks)

    def shifts(self, kind: str, scaled: bool) -> int:
        """How many (row, column) pairs have the pattern in every slice."""
        return sum(self._shift(a, b, kind, scaled) for a in self.rows for b in self.cols)

    def _shift(self, a: str, b: str, kind: str, scaled: bool) -> bool:
        for w in self.slices:
            m = np.moveaxis(w, (self.names.index(a), self.names.index(b)), (-2, -1)).reshape(
                (-1, w.shape[self.names.index(a)], w.shape[self.names.index(b)])
            )
            m = m[..., ::-1] if "hankel" in kind or "anti" in kind else m
            for block in m:
                if scaled:
                    if not _scaled(block):
                        return False
                    continue
                if not np.allclose(block[1:, 1:], block[:-1, :-1]):
                    return False
                if "circulant" in kind:
                    square = block.shape[0] == block.shape[1]
                    if not square or not np.allclose(block[0, 1:], block[1:, 0][::-1]):
                        return False
        return True


def _off(w: Array) -> float:
    """The norm of what stands off the diagonal of the first two axes."""
    mask = ~np.eye(w.shape[0], dtype=bool)
    return float(np.linalg.norm(w[mask]))


def _digits(slots: tuple[Affine, ...], shape: Sequence[int], extents: dict[str, int]) -> list[str]:
    """The digits of bare or mixed-radix slots, major first; an axis that is read otherwise is a digit of its own.

    The extents of such axes are added to `extents`.
    """
    found = []
    for k, (s, size) in enumerate(zip(slots, shape, strict=True)):
        terms = sorted(((w.evaluate({}), i) for i, w in s.terms), reverse=True)
        weight, plain = 1, s.modulus is None and not s.offset.evaluate({})
        for w, i in reversed(terms):
            plain = plain and w == weight
            weight *= extents[i]
        if plain and weight == size:
            found += [i for _, i in terms]
        else:
            found.append(f"axis {k} of {len(extents)}")
            extents[found[-1]] = size
    return found


def _subsets(items: list[str]) -> list[list[str]]:
    return [list(c) for k in range(len(items) + 1) for c in itertools.combinations(items, k)]


def is_true(program: Program, finding: Finding) -> bool | None:
    """Whether the claim of a finding's kind holds on random values; None if there is no test for the kind.

    A claim on each value of batch digits may see those that only a delta makes: every choice of them is tried.
    """
    judge = Judge(program, finding)
    answer = holds(judge, finding)
    if answer is not False:
        return answer
    ties = judge.ties()
    for k in range(1, len(ties) + 1):
        for tied in itertools.combinations(ties, k):
            ends = [d for pair in tied for d in pair]
            if len(set(ends)) == len(ends) and holds(Judge(program, finding, tied), finding):
                return True
    return False


def holds(judge: Judge, finding: Finding) -> bool | None:
    """Whether the claim holds of each slice, None where kinds have no test."""
    kind, options = finding.kind, finding.options
    if finding.term is None:
        return fact_holds(judge.flat, kind, options)
    if "batch" in options and not judge.block_diagonal():
        return False
    if kind in _WHOLE:
        return _WHOLE[kind](judge.flat)
    if kind == "kronecker":
        return judge.kronecker()
    if kind in ("outer_product", "low_rank"):
        return judge.low_rank(options["rank"])
    if kind in ("monarch", "btt", "block_low_rank"):
        return judge.two_factors(options["rank"])
    if kind == "kronecker_sum_of":
        return judge.kronecker(options["terms"])
    if kind in ("block_diagonal", "diagonal"):
        return judge.block_diagonal()
    if any(word in kind for word in ("toeplitz", "hankel", "circulant")) and not kind.endswith("_sum_of"):
        scaled = "scaled" in kind
        levels = options.get("levels", (kind,))
        plain = levels[0] if kind.startswith("block") else kind
        return judge.shifts(plain, scaled) >= (1 if scaled else len(levels))
    return None


def _scaled(w: Array) -> bool:
    """Whether w[i+1,j+1] / w[i,j] is a product of a number for i and one for j, as in D1 T D2; without division."""
    top, low = w[1:, 1:], w[:-1, :-1]
    left = np.einsum("ij,kl,il,kj->ijkl", top, top, low, low)
    right = np.einsum("il,kj,ij,kl->ijkl", top, top, low, low)
    return bool(np.allclose(left, right, atol=1e-9 * max(np.abs(left).max(initial=0), 1e-300)))


def _zero_one(w: Array) -> bool:
    """Whether all entries are 0 or one number."""
    values = w[np.abs(w) > 1e-12 * max(np.abs(w).max(initial=0), 1e-300)]
    return bool(np.allclose(values, values[0])) if values.size else True


def _permutation(w: Array) -> bool:
    """Whether each row and each column has one entry, all equal."""
    marks = np.abs(w) > 1e-12
    return w.shape[0] == w.shape[1] and bool((marks.sum(0) == 1).all() and (marks.sum(1) == 1).all()) and _zero_one(w)


def _identity(w: Array) -> bool:
    return w.shape[0] == w.shape[1] and bool(np.allclose(w, w[0, 0] * np.eye(len(w)))) if w.size else True


def _orthogonal(w: Array) -> bool:
    return w.shape[0] == w.shape[1] and bool(np.allclose(w @ w.T, np.eye(len(w))))


_WHOLE: dict[str, Callable[[Array], bool]] = {
    "identity": lambda w: _identity(w) and (not w.size or bool(np.isclose(w[0, 0], 1))),
    "scaled_identity": _identity,
    "permutation": lambda w: _permutation(w) and (not w.size or bool(np.isclose(w.max(), 1))),
    "scaled_permutation": _permutation,
    "selection": _zero_one,
    "householder": lambda w: _orthogonal(w) and bool(np.allclose(w, w.T)),
}


def fact_holds(w: Array, kind: str, options: Any) -> bool | None:
    """Whether a matrix has a property; None if there is no test for it."""
    if kind == "rank":
        return rank_of(w) <= int(options["rank"])
    if kind in ("symmetric_operator", "symmetric_matrix"):
        return bool(np.allclose(w, w.T))
    if kind == "orthogonal":
        return _orthogonal(w)
    if kind == "doubly_stochastic":
        return bool((w > -1e-9).all() and np.allclose(w.sum(0), 1) and np.allclose(w.sum(1), 1))
    if kind == "psd":
        size = max(np.abs(w).max(initial=0), 1e-300)
        return bool(np.allclose(w, w.T) and (np.linalg.eigvalsh((w + w.T) / 2) > -1e-9 * size * len(w)).all())
    if kind == "permutation":
        return _permutation(w)
    if kind == "diagonal":
        return _spread(w) == (0, 0)
    if kind in ("bandwidth", "lower_triangular", "upper_triangular"):
        below, above = _spread(w)
        most = {"lower_triangular": (len(w), 0), "upper_triangular": (0, len(w))}.get(kind)
        limits = (options["below"], options["above"]) if most is None else most
        return bool(below <= limits[0] and above <= limits[1])
    if kind == "toeplitz":
        return bool(np.allclose(w[1:, 1:], w[:-1, :-1]))
    return None


def _spread(w: Array) -> tuple[int, int]:
    """How far below and above the diagonal entries stand (0 at least)."""
    i, j = np.nonzero(np.abs(w) > 1e-12 * max(np.abs(w).max(initial=0), 1e-300))
    return int((i - j).max(initial=0)), int((j - i).max(initial=0))


@dataclass
class Tally:
    """What a run of networks gave: findings by kind, those with a test of their kind, and the false ones."""

    networks: int = 0
    found: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def judge_network(program: Program, tally: Tally) -> None:
    """Every finding for x as a whole against the numbers: its term in each of its methods, and its kind."""
    tally.networks += 1
    given = oracle.random_inputs(program)
    for finding in recognise(program, "x"):
        if finding.argument != "x" or finding.number is not None:
            continue
        tally.found[finding.kind] += 1
        try:
            oracle.check_term(program, finding, given, METHODS)
            answer, reason = is_true(program, finding), "the numbers of its kind"
        except (AssertionError, ValueError) as error:
            answer, reason = False, repr(error)[:300]
        tally.judged[finding.kind] += answer is not None
        if answer is False:
            text = f"{finding.kind} {dict(finding.options)}: {reason}\n{print_program(program)}"
            tally.wrong.append(text)


def judge_networks(count: int, seed: int, start: int = 0, stop: bool = False) -> Tally:
    """Networks start .. start+count of a seed; with `stop` only up to the first false finding."""
    tally = Tally()
    for k in range(start, start + count):
        judge_network(randoms.numbered_network(seed, k), tally)
        if stop and tally.wrong:
            break
    return tally
