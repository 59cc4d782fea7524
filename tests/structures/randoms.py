"""Random programs for the recogniser: networks with digits of every role, sums, affine slots, guards, deltas, lets,
reshapes and declared operands. Network k of a seed is the same on every machine.
"""

from __future__ import annotations

import random
import re

from stein.ir.expr import Program
from stein.ir.text import parse_ir

DECLARED = ("toeplitz", "hankel", "circulant", "diag", "permutation", "orthogonal", "symmetric", "lower", "upper")


def numbered_network(seed: int, number: int) -> Program:
    """Network `number` of a seed."""
    return random_network(random.Random(f"{seed}:{number}"))


def random_network(rnd: random.Random) -> Program:
    """A product of up to three operands with x, or a sum of two or three that may share operands.

    Digits of every role; affine and modular slots; now and then a guard, a delta, a factor, declared operands, a result
    or an argument whose digits lie in one axis.
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
    for mark in ("'", "''")[: rnd.choice([0, 0, 0, 0, 0, 1, 1, 2])]:
        other = [(f"{n}{mark}", slots) for n, slots in _factors(rnd, rows, cols, bound, batch, ext)]
        for k in range(rnd.randint(0, min(len(first), len(other)))):
            other[k] = first[k]
        terms.append(other)
    xs, out = cols + batch, rows + batch
    rnd.shuffle(xs)
    rnd.shuffle(out)
    shapes = {n: [e for _, e in slots] for term in terms for n, slots in term}
    inputs = [f'input "{n}": f64[{", ".join(map(str, shape))}]{_fact(rnd, shape)}' for n, shape in shapes.items()]
    x_slots, x_shape = _laid(rnd, xs, ext)
    out_slots, out_shape = _laid(rnd, out, ext)
    inputs.append(f"input x: f64[{', '.join(map(str, x_shape))}]")
    texts, used = [], [*out]
    for k, term in enumerate(terms):
        text = _product(rnd, term, rows, cols, f"x[{', '.join(x_slots)}]", ext)
        summed = [i for i in ext if i not in out and re.search(rf"\b{i}\b", text)]
        if k:  # bound names are bound once
            text = re.sub(r"\b(" + "|".join(summed) + r")\b", rf"\1_{k}", text) if summed else text
            ext |= {f"{i}_{k}": ext[i] for i in summed}
            summed = [f"{i}_{k}" for i in summed]
        used += summed
        texts.append(f"einsum[plustimes, f64]({', '.join(summed)}; {text})")
    over = ", ".join(f"{i}<{ext[i]}" for i in used)
    body = texts[0]
    for text in texts[1:]:
        body = f"add({body}, {text})"
    left = f"y[{', '.join(out_slots)}]: f64[{', '.join(map(str, out_shape))}]"
    return parse_ir("\n".join([*inputs, f"{left} = {body} over {over}", "return y"]))


def _fact(rnd: random.Random, shape: list[int]) -> str:
    """Now and then a declaration for a matrix."""
    if len(shape) != 2 or rnd.random() > 0.15:
        return ""
    square = shape[0] == shape[1]
    name = rnd.choice(DECLARED if square else ("toeplitz", "hankel", "lower", "upper"))
    return f" {name}()" if rnd.random() < 0.7 else f" banded(lo={rnd.randint(0, 2)}, hi={rnd.randint(0, 2)})"


def _laid(rnd: random.Random, digits: list[str], ext: dict[str, int]) -> tuple[list[str], list[int]]:
    """Slots and shape of a tensor of some digits; sometimes all in one axis."""
    if len(digits) < 2 or rnd.random() > 0.15:
        return digits, [ext[i] for i in digits]
    weight, parts = 1, list[str]()
    for i in reversed(digits):
        parts.insert(0, f"{weight}*{i}" if weight > 1 else i)
        weight *= ext[i]
    return ["+".join(parts)], [weight]


def _product(
    rnd: random.Random, term: list[tuple[str, list[tuple[str, int]]]], rows: list[str], cols: list[str], x: str,
    ext: dict[str, int],
) -> str:  # fmt: skip
    """The factors of a term with x among them, and now and then a number, a guard or a delta."""
    reads = [f'"{n}"[{", ".join(s for s, _ in slots)}]' for n, slots in term]
    if rnd.random() < 0.08:
        reads.append(rnd.choice(["2.0:f64", "-1.0:f64"]))
    r, c = rnd.choice(rows), rnd.choice(cols)
    if rnd.random() < 0.06:
        reads.append(f"ge(at({r}), at({c}))")
    elif rnd.random() < 0.06:
        reads.append(f"eq(at({r}), at({c}{rnd.choice(['', '+1', '-1'])}))")
    reads.insert(rnd.randrange(len(reads) + 1), x)
    return ", ".join(reads)


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
    u, w = rnd.choice([(1, -1), (1, 1), (2, -1), (2, -2), (1, -1), (1, 2), (1, -2)])
    modulus = rnd.choice([0, 0, ext[i], rnd.choice([2, 3, 4, 6])])
    sign = "-" if w < 0 else "+"
    text = f"{u}*{i}{sign}{abs(w)}*{j}".replace("1*", "")
    if modulus:
        return f"({text}) mod {modulus}", modulus
    low = max(0, -w) * (ext[j] - 1)
    high = low + u * (ext[i] - 1) + max(0, w) * (ext[j] - 1)
    return (f"{text}+{low}" if low else text), high + 1
