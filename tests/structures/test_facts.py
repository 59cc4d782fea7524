"""Facts against numbers: each operation on random matrices that have each fact; claims never say more than holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
import pytest

from stein.ir.interpret import interpret
from stein.ir.structures import Batch, Beside, Ordered, Plus, Structure, Times, Turned, identity, matrix, samples
from stein.ir.structures.facts import Facts, facts_of
from stein.tests.structures.oracle import with_structure

Array = Any
SIZE = 4
# Facts with the declaration that makes values which have them.
MADE: dict[str, tuple[str, dict[str, int]]] = {
    "nothing": ("", {}),
    "symmetric": ("symmetric", {}),
    "psd": ("psd", {}),
    "orthogonal": ("orthogonal", {}),
    "doubly_stochastic": ("doubly_stochastic", {}),
    "permutation": ("permutation", {}),
    "diagonal": ("diag", {}),
    "toeplitz": ("toeplitz", {}),
    "banded": ("banded", {"lo": 1, "hi": 0}),
    "lower": ("lower", {}),
    "upper": ("upper", {}),
    "lower_toeplitz": ("lower toeplitz", {}),
    "upper_toeplitz": ("upper toeplitz", {}),
}


def made(name: str, seed: int, size: int = SIZE) -> tuple[Array, Facts]:
    """A matrix that has a fact, and what is said of it."""
    rng = np.random.default_rng(seed)
    words, options = MADE[name]
    w = rng.standard_normal((size, size))
    for word in reversed(words.split()):
        w = with_structure(w, word, options, rng)
    known: dict[str, Any] = {word: True for word in words.split() if word in {f.name for f in fields(Facts)}}
    known |= {"diagonal": True} if words == "diag" else {}
    known |= {"above": 0} if "lower" in words else {"below": 0} if "upper" in words else {}
    known |= {"below": 1, "above": 0} if words == "banded" else {}
    return w, Facts.of(size, size, **known)


def denied(w: Array, facts: Facts) -> list[str]:
    """The facts that the numbers deny."""
    assert w.shape == (facts.rows, facts.cols)
    size = max(float(np.abs(w).max(initial=0)), 1e-300)
    tiny = 1e-9 * size * max(w.shape)
    i, j = np.nonzero(np.abs(w) > tiny)
    square = w.shape[0] == w.shape[1]
    eye = np.eye(*w.shape)
    true: dict[str, Callable[[], bool]] = {
        "symmetric": lambda: square and bool(np.abs(w - w.T).max() <= tiny),
        "psd": lambda: square and bool(np.linalg.eigvalsh((w + w.T) / 2).min() >= -tiny),
        "orthogonal": lambda: square and bool(np.abs(w @ w.T - eye).max() <= 1e-9),
        "doubly_stochastic": lambda: bool(w.min() >= -1e-9 and np.allclose(w.sum(0), 1) and np.allclose(w.sum(1), 1)),
        "permutation": lambda: bool((np.isclose(w, 1).sum(0) == 1).all() and np.isclose(np.abs(w).sum(), len(w))),
        "diagonal": lambda: bool((i == j).all()),
        "toeplitz": lambda: bool(np.abs(w[1:, 1:] - w[:-1, :-1]).max(initial=0) <= tiny),
    }
    bad = [name for name, test in true.items() if getattr(facts, name) and not test()]
    bad += ["rank"] if np.linalg.matrix_rank(w, tol=tiny) > facts.rank else []
    bad += ["below"] if (i - j).max(initial=0) > facts.below else []
    return bad + (["above"] if (j - i).max(initial=0) > facts.above else [])


Pair: TypeAlias = tuple[Callable[[Array, Array], Array], Callable[[Facts, Facts], Facts]]
PAIRS: dict[str, Pair] = {
    "times": (lambda a, b: a @ b, lambda f, g: f.times(g)),
    "plus": (lambda a, b: a + b, lambda f, g: f.plus(g)),
    "minus": (lambda a, b: a - 2 * b, lambda f, g: f.plus(g, -2)),
    "beside": (np.kron, lambda f, g: f.beside(g)),
}
SINGLES: dict[str, tuple[Callable[[Array], Array], Callable[[Facts], Facts]]] = {
    "turned": (lambda a: a.T, lambda f: f.turned()),
    "gram": (lambda a: a @ a.T, lambda f: f.gram()),
    "inverse": (np.linalg.inv, lambda f: f.inverse()),
    "leading": (lambda a: a[:3, :3], lambda f: f.leading(3, 3)),
    "leading, not square": (lambda a: a[:3, :2], lambda f: f.leading(3, 2)),
    "scaled": (lambda a: -a, lambda f: f.scaled(-1)),
    "half": (lambda a: a / 2, lambda f: f.scaled(0.5)),
    "blocks": (lambda a: np.kron(np.eye(3), a), lambda f: f.blocks(3)),
    "ordered on both sides": (lambda a: a[::-1, ::-1], lambda f: f.ordered(True)),
    "ordered on one side": (lambda a: a[::-1], lambda f: f.ordered(False)),
}


@pytest.mark.parametrize("operation", PAIRS)
@pytest.mark.parametrize(("first", "second"), [*itertools.product(MADE, MADE)])
def test_pairs(operation: str, first: str, second: str) -> None:
    compute, claim = PAIRS[operation]
    for seed in range(2):
        (a, f), (b, g) = made(first, seed), made(second, seed + 10)
        assert denied(compute(a, b), claim(f, g)) == []


@pytest.mark.parametrize("operation", SINGLES)
@pytest.mark.parametrize("name", MADE)
def test_singles(operation: str, name: str) -> None:
    compute, claim = SINGLES[operation]
    for seed in range(3):
        a, f = made(name, seed)
        if operation != "inverse" or abs(np.linalg.det(a)) > 1e-6:
            assert denied(compute(a), claim(f)) == []


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_has_the_fact(name: str) -> None:
    w, facts = made(name, 3)
    assert denied(w, facts) == []


# (operation, facts of the operands) -> facts that must be known of the result: the table is not empty by caution.
KEPT = [
    ("times", ("orthogonal", "orthogonal"), "orthogonal"),
    ("times", ("doubly_stochastic", "permutation"), "doubly_stochastic"),
    ("times", ("permutation", "permutation"), "permutation"),
    ("times", ("diagonal", "diagonal"), "diagonal"),
    ("times", ("lower_toeplitz", "lower_toeplitz"), "toeplitz"),
    ("plus", ("symmetric", "psd"), "symmetric"),
    ("plus", ("psd", "psd"), "psd"),
    ("plus", ("toeplitz", "toeplitz"), "toeplitz"),
    ("beside", ("orthogonal", "permutation"), "orthogonal"),
    ("beside", ("doubly_stochastic", "doubly_stochastic"), "doubly_stochastic"),
    ("beside", ("psd", "psd"), "psd"),
    ("beside", ("symmetric", "diagonal"), "symmetric"),
]


@pytest.mark.parametrize(("operation", "operands", "kept"), KEPT)
def test_kept(operation: str, operands: tuple[str, str], kept: str) -> None:
    facts = [made(n, 0)[1] for n in operands]
    assert getattr(PAIRS[operation][1](*facts), kept)


def test_bands_add_in_products_and_the_greatest_counts_in_sums() -> None:
    a, b = Facts.of(9, 9, below=1, above=2), Facts.of(9, 9, below=2, above=0)
    assert (a.times(b).below, a.times(b).above) == (3, 2)
    assert (a.plus(b).below, a.plus(b).above) == (2, 2)
    assert (a.beside(Facts.of(2, 2)).below, a.inverse().below) == (3, 8)
    assert (b.inverse().below, b.inverse().above) == (8, 0)
    assert (Facts.of(9, 4, rank=2).times(Facts.of(4, 9)).rank, Facts.of(9, 9, rank=2).beside(b).rank) == (2, 18)


P, Q = matrix("P", 3, 3, "orthogonal"), matrix("Q", 4, 4, "permutation")
S, T = matrix("S", 3, 3, "symmetric"), matrix("T", 4, 4, "lower")
TERMS: dict[str, tuple[Structure, str]] = {
    "kron": (Beside(P, Q), "orthogonal"),
    "kron, turned": (Turned(Beside(P, Q)), "orthogonal"),
    "product": (Times(P, Turned(P)), "psd"),
    "kron in another order": (Ordered(Beside(P, Q), (1, 0), (1, 0)), "orthogonal"),
    "sum": (Plus(S, identity(3), 2), "symmetric"),
    "blocks": (Batch(S, 2), "symmetric"),
    "square": (Times(Q, Q), "permutation"),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms(name: str) -> None:
    structure, fact = TERMS[name]
    facts = facts_of(structure)
    assert getattr(facts, fact)
    assert denied(_dense(structure), facts) == []


@pytest.mark.parametrize("name", samples())
def test_samples(name: str) -> None:
    """What is said of every sample holds of its matrix."""
    structure = samples()[name]
    if any(o.complex for o in structure.operator().operands.values()):
        return
    assert denied(_dense(structure), facts_of(structure)) == []


def _dense(structure: Structure) -> Array:
    program = structure.dense()
    rng = np.random.default_rng(5)
    given = {}
    for i in program.inputs:
        value = rng.standard_normal([s.constant or 0 for s in i.shape])
        for s in i.structure:
            value = with_structure(value, s.name, {k: v.evaluate({}) for k, v in s.options}, rng)
        given[i.name] = value
    rows, cols = structure.operator().size
    return interpret(program, given)[program.outputs[0]].reshape(rows, cols)
