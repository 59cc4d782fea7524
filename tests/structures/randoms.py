"""Random networks with a numeric judge, and random variants of a program that must not change what is found.

    python tests/structures/randoms.py --networks 20000 --variants 10000

runs at length what the tests run in short.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from stein.ir.expr import Einsum, Equation, Expr, Input, Map, Program, Read, free_indices, reads, substitute, transform
from stein.ir.index import Affine, Index
from stein.ir.text import parse_ir, print_program
from stein.passes.canonical import canonical_label
from stein.passes.recognise import Finding, recognise
from stein.tests.structures import cases, oracle

Array = Any


# --- random networks --------------------------------------------------------------------------------------------------


def random_network(rnd: random.Random) -> Program:
    """A product of up to three operands with x, or a sum of two that may share operands: digits of every role, affine
    and modular slots.
    """
    rows = [f"r{k}" for k in range(rnd.randint(1, 2))]
    cols = [f"c{k}" for k in range(rnd.randint(1, 2))]
    bound = [f"b{k}" for k in range(rnd.choice([0, 0, 1, 1, 2]))]
    batch = ["s"] * rnd.choice([0, 0, 0, 1])
    ext = {i: rnd.choice([2, 3, 4, 5]) for i in rows + cols + bound + batch}
    if rnd.random() < 0.4:
        ext[cols[0]] = ext[rows[0]]
    ext |= {b: rnd.choice([2, 2, 3]) for b in bound}
    first = _factors(rnd, rows, cols, bound, batch, ext)
    terms = [first]
    if rnd.random() < 0.3:
        second = _factors(rnd, rows, cols, bound, batch, ext)
        second = [(f"{n}'", slots) for n, slots in second]
        for k in range(rnd.randint(0, min(len(first), len(second)))):
            second[k] = first[k]
        terms.append(second)
    xs, out = cols + batch, rows + batch
    rnd.shuffle(xs)
    rnd.shuffle(out)
    shapes = {n: [e for _, e in slots] for term in terms for n, slots in term}
    inputs = [f'input "{n}": f64[{", ".join(map(str, shape))}]' for n, shape in shapes.items()]
    inputs.append(f"input x: f64[{', '.join(str(ext[i]) for i in xs)}]")
    texts, used = [], [*out]
    for k, term in enumerate(terms):
        reads = [f'"{n}"[{", ".join(s for s, _ in slots)}]' for n, slots in term]
        reads.insert(rnd.randrange(len(reads) + 1), f"x[{', '.join(xs)}]")
        text = ", ".join(reads)
        summed = [i for i in ext if i not in out and re.search(rf"\b{i}\b", text)]
        if k:  # bound names are bound once
            text = re.sub(r"\b(" + "|".join(summed) + r")\b", r"\1_2", text) if summed else text
            ext |= {f"{i}_2": ext[i] for i in summed}
            summed = [f"{i}_2" for i in summed]
        used += summed
        texts.append(f"einsum[plustimes, f64]({', '.join(summed)}; {text})")
    over = ", ".join(f"{i}<{ext[i]}" for i in used)
    left = f"y[{', '.join(out)}]: f64[{', '.join(str(ext[i]) for i in out)}]"
    body = texts[0] if len(texts) == 1 else f"add({', '.join(texts)})"
    return parse_ir("\n".join([*inputs, f"{left} = {body} over {over}", "return y"]))


def _factors(
    rnd: random.Random, rows: list[str], cols: list[str], bound: list[str], batch: list[str], ext: dict[str, int]
) -> list[tuple[str, list[tuple[str, int]]]]:
    """Operands of one product: name, and (slot, extent) for each axis."""
    atoms: list[list[str]] = [[] for _ in range(rnd.randint(1, 3))]
    for i in rows + cols + bound + batch * rnd.randint(0, 1):
        for a in rnd.sample(atoms, rnd.choice([1, 1, min(2, len(atoms)), min(2, len(atoms))])):
            a.append(i)
    found = []
    for name, a in zip("ABC", atoms, strict=False):
        rnd.shuffle(a)
        slots = [(i, ext[i]) for i in a]
        r, c = [i for i in a if i in rows], [i for i in a if i in cols]
        if r and c and rnd.random() < 0.35:
            slots = [s for s in slots if s[0] not in (r[0], c[0])] + [_affine_slot(rnd, r[0], c[0], ext)]
        if slots:
            found.append((name, slots))
    return found


def _affine_slot(rnd: random.Random, i: str, j: str, ext: dict[str, int]) -> tuple[str, int]:
    u, w = rnd.choice([(1, -1), (1, 1), (2, -1), (2, -2), (1, -1)])
    modulus = rnd.choice([0, 0, ext[i], rnd.choice([2, 3, 4, 6])])
    sign = "-" if w < 0 else "+"
    text = f"{u}*{i}{sign}{abs(w)}*{j}".replace("1*", "")
    if modulus:
        return f"({text}) mod {modulus}", modulus
    low = max(0, -w) * (ext[j] - 1)
    high = low + u * (ext[i] - 1) + max(0, w) * (ext[j] - 1)
    return (f"{text}+{low}" if low else text), high + 1


# --- the numeric judge ------------------------------------------------------------------------------------------------


def rank_of(matrix: Array) -> int:
    """The numeric rank."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return int((values > 1e-9 * max(values[0], 1e-300)).sum()) if values.size else 0


class Judge:
    """The dense W of a program over named digits, one slice for each value of the batch digits."""

    def __init__(self, program: Program, finding: Finding) -> None:
        given = oracle.random_inputs(program)
        equation = program.tensors[finding.value]
        assert isinstance(equation, Equation)
        read = next(r for r in reads(equation.expr) if r.tensor == finding.argument)
        out = [s.bare for s in equation.slots]
        xs = [s.bare for s in read.slots]
        shape = [given[finding.argument].shape, [s.constant for s in equation.shape]]
        w = oracle.matrix_of(program, finding, given).reshape(*shape[1], *shape[0])
        names = [f"r:{i}" for i in out] + [f"c:{i}" for i in xs]
        self.norm = float(np.linalg.norm(w))
        slices = [w]
        for i in [i for i in out if i in xs]:
            a, b = names.index(f"r:{i}"), names.index(f"c:{i}")
            slices = [np.moveaxis(np.diagonal(v, 0, a, b), -1, 0)[k] for v in slices for k in range(w.shape[a])]
            names = [n for n in names if n not in (f"r:{i}", f"c:{i}")]
        self.slices, self.names = slices, names
        self.rows = [n for n in names if n[0] == "r"]
        self.cols = [n for n in names if n[0] == "c"]

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
                    if min(block.shape) >= 3 and rank_of(block[1:, 1:] / block[:-1, :-1]) > 1:
                        return False
                    continue
                if not np.allclose(block[1:, 1:], block[:-1, :-1]):
                    return False
                if "circulant" in kind:
                    square = block.shape[0] == block.shape[1]
                    if not square or not np.allclose(block[0, 1:], block[1:, 0][::-1]):
                        return False
        return True


def _subsets(items: list[str]) -> list[list[str]]:
    return [list(c) for k in range(len(items) + 1) for c in itertools.combinations(items, k)]


def is_true(program: Program, finding: Finding) -> bool | None:
    """Whether the claim of a finding's kind holds on random values; None if there is no test for the kind."""
    kind, options = finding.kind, finding.options
    if finding.term is None:
        if kind == "rank":
            return Judge(program, finding).low_rank(options["rank"])
        return None
    judge = Judge(program, finding)
    if "batch" in options and not judge.block_diagonal():
        return False
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
    if any(word in kind for word in ("toeplitz", "hankel", "circulant")):
        scaled = "scaled" in kind
        levels = options.get("levels", (kind,))
        plain = levels[0] if kind.startswith("block") else kind
        return judge.shifts(plain, scaled) >= (1 if scaled else len(levels))
    return None


def judge_networks(count: int, seed: int, stop: bool = False) -> tuple[dict[str, int], list[str]]:
    """How often each kind was found in random networks, and every finding that the numbers deny (or the first)."""
    rnd, found = random.Random(seed), dict[str, int]()
    wrong: list[str] = []
    for _ in range(count):
        program = random_network(rnd)
        if stop and wrong:
            break
        for finding in recognise(program, "x"):
            if finding.argument != "x" or finding.number is not None:
                continue
            found[finding.kind] = found.get(finding.kind, 0) + 1
            try:
                oracle.check_term(program, finding, oracle.random_inputs(program))
                ok = is_true(program, finding) is not False
                reason = "the numbers of its kind"
            except (AssertionError, ValueError) as error:
                ok, reason = False, repr(error)[:200]
            if not ok:
                wrong.append(f"{finding.kind} {dict(finding.options)}: {reason}\n{print_program(program)}")
    return found, wrong


# --- variants ---------------------------------------------------------------------------------------------------------


def variant(program: Program, argument: str, rnd: random.Random) -> tuple[Program, str]:
    """An equal program: other names, order of factors and summands, storage order, and a product moved into a let."""
    tensors = {
        n: f"{rnd.choice('PQRS')}{k}" for k, n in enumerate(rnd.sample(sorted(program.tensors), len(program.tensors)))
    }
    orders = {i.name: rnd.sample(range(len(i.shape)), len(i.shape)) for i in program.inputs if i.name != argument}
    keep = set(program.outputs)
    orders |= {e.name: rnd.sample(range(len(e.shape)), len(e.shape)) for e in program.equations if e.name not in keep}

    def moved(name: str, items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(items[k] for k in orders[name]) if name in orders else items

    inputs = [Input(tensors[i.name], moved(i.name, i.shape), i.dtype, i.structure, pad=i.pad) for i in program.inputs]
    rnd.shuffle(inputs)
    equations = []
    for e in program.equations:
        fresh = rnd.sample(range(100, 999), len(e.indices))
        names = {i.name: f"{rnd.choice('abcd')}{k}" for i, k in zip(e.indices, fresh, strict=True)}

        def rule(x: Expr) -> Expr:
            if isinstance(x, Read):
                return Read(tensors[x.tensor], moved(x.tensor, x.slots), x.dtype, x.pad)
            if isinstance(x, Einsum):
                return Einsum(
                    tuple(rnd.sample(x.bound, len(x.bound))),
                    tuple(rnd.sample(x.factors, len(x.factors))),
                    x.dtype,
                    x.accumulate,
                    x.semiring,
                )
            if isinstance(x, Map) and x.function == "add" and rnd.random() < 0.5:
                return Map("add", x.args[::-1], x.dtype)
            return x

        values = {old: Affine.of(new) for old, new in names.items()}
        expr = substitute(transform(e.expr, rule), values)
        indices = [Index(names[i.name], i.extent) for i in e.indices]
        rnd.shuffle(indices)
        slots = moved(e.name, tuple(s.substitute(values) for s in e.slots))
        equations.append(
            Equation(tensors[e.name], slots, moved(e.name, e.shape), tuple(indices), expr, e.dtype, e.semiring)
        )
    if rnd.random() < 0.7:
        equations = _nested(equations, rnd)
    outputs = tuple(tensors[n] for n in program.outputs)
    return Program(tuple(inputs), tuple(equations), outputs), tensors[argument]


def _nested(equations: list[Equation], rnd: random.Random) -> list[Equation]:
    """Some factors of the last equation's product moved into an equation of their own."""
    last = equations[-1]
    expr = last.expr
    if not isinstance(expr, Einsum):
        return equations
    plain = [f for f in expr.factors if isinstance(f, Read) and f.pad is None and all(s.bare for s in f.slots)]
    if len(plain) < 2 or len(plain) < len(expr.factors):
        return equations
    inner = rnd.sample(plain, rnd.randrange(1, len(plain)))
    rest = [f for f in expr.factors if f not in inner]
    if len(rest) + len(inner) != len(expr.factors):
        return equations
    outside = {n for f in rest for n in free_indices(f)} | set(last.free)
    own = list(dict.fromkeys(n for f in inner for n in free_indices(f)))
    kept = [n for n in own if n in outside]
    if not kept:
        return equations
    rnd.shuffle(kept)
    summed = tuple(n for n in own if n not in outside)
    extents = last.extents
    slots = tuple(Affine.of(n) for n in kept)
    let = Equation(
        "nested",
        slots,
        tuple(extents[n] for n in kept),
        tuple(Index(n, extents[n]) for n in own),
        Einsum(summed, tuple(inner), expr.dtype, expr.accumulate, expr.semiring),
        expr.dtype,
    )
    read = Read("nested", slots, expr.dtype)
    factors = [*rest]
    factors.insert(rnd.randrange(len(factors) + 1), read)
    bound = tuple(b for b in expr.bound if b not in summed)
    outer = Einsum(bound, tuple(factors), expr.dtype, expr.accumulate, expr.semiring)
    used = {*last.free, *bound}
    indices = tuple(i for i in last.indices if i.name in used)
    return [
        *equations[:-1],
        let,
        Equation(last.name, last.slots, last.shape, indices, outer, last.dtype, last.semiring),
    ]


def judge_variants(per_case: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """(case, variants, how many changed label or finding) for every public case."""
    rnd = random.Random(seed)
    for c in cases.CASES:
        label = canonical_label(c.program)
        kinds = [(f.kind, f.number) for f in recognise(c.program, c.argument)]
        wrong = 0
        for _ in range(per_case):
            program, argument = variant(c.program, c.argument, rnd)
            same = [(f.kind, f.number) for f in recognise(program, argument)]
            if canonical_label(program) != label or sorted(same, key=str) != sorted(kinds, key=str):
                wrong += 1
        yield c.number, per_case, wrong


def main(arguments: list[str]) -> int:
    """The command line."""
    import argparse

    parser = argparse.ArgumentParser(description="random networks and variants, at length")
    parser.add_argument("--networks", type=int, default=20_000)
    parser.add_argument("--variants", type=int, default=10_000, help="for each public case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    found, wrong = judge_networks(options.networks, options.seed)
    print(f"{options.networks} networks, findings {found}, false {len(wrong)}")
    for text in wrong[:5]:
        print(text)
    bad = 0
    for number, count, changed in judge_variants(options.variants, options.seed):
        bad += changed
        print(f"case {number}: {count} variants, {changed} changed")
    return 1 if wrong or bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
