"""The classes of calls that a compiler gets wrong: each makes scenarios from a seeded generator.

Outside the compiler. `CLASSES` is the table that `run.py` walks; the classes follow section 4 of the language design.
Malformed calls and programs of the named language have modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from fuzz_call import Call, Scenario, Term, result_dtype, with_implicit_output
from fuzz_operands import LAYOUTS, Operand

FLOATS = ("float32", "float64", "complex64", "complex128", "float16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
EVERYTHING = (*FLOATS, *INTEGERS, "bool")
COMMON = ("float32", "float64", "float32", "float64", "complex64", "int32", "int64", "float16")

Rng = np.random.Generator


def _pick(rng: Rng, choices: tuple[str, ...]) -> str:
    return str(choices[int(rng.integers(len(choices)))])


def _seed(rng: Rng) -> int:
    return int(rng.integers(1 << 31))


def random_terms(rng: Rng, operands: int, labels: int, rank: int, repeats: bool = False) -> tuple[Term, ...]:
    """`operands` terms over `labels` labels with up to `rank` axes each."""
    terms = []
    for _ in range(operands):
        n = int(rng.integers(0 if operands > 2 else 1, rank + 1))
        n = n if repeats else min(n, labels)
        terms.append(tuple(int(x) for x in rng.choice(labels, n, replace=repeats)))
    return tuple(terms)


def random_output(rng: Rng, terms: tuple[Term, ...], keep: float = 0.45) -> Term:
    """Some of the labels, in random order."""
    used = list(dict.fromkeys(x for t in terms for x in t))
    return tuple(int(x) for x in rng.permutation([x for x in used if rng.random() < keep]))


def random_sizes(rng: Rng, terms: tuple[Term, ...], choices: tuple[int, ...], points: int = 30_000) -> dict[int, int]:
    """A length per label, shrunk until the index space has at most `points` points."""
    sizes = {x: int(rng.choice(choices)) for x in dict.fromkeys(x for t in terms for x in t)}
    while prod(sizes.values()) > points:
        largest = max(sizes, key=lambda x: sizes[x])
        sizes[largest] = max(1, sizes[largest] // 2)
    return sizes


def make_call(
    rng: Rng,
    terms: tuple[Term, ...],
    output: Term,
    sizes: dict[int, int],
    dtypes: tuple[str, ...] = ("float64",),
    layouts: tuple[str, ...] = ("C",),
    values: str = "plain",
) -> Call:
    """A call with one dtype for all operands (the first of `dtypes` chosen), in random layouts."""
    dtype = _pick(rng, dtypes)
    operands = tuple(Operand(tuple(sizes[x] for x in t), dtype, _pick(rng, layouts), _seed(rng), values) for t in terms)
    return Call(terms, output, operands)


def random_call(
    rng: Rng,
    dtypes: tuple[str, ...] = COMMON,
    layouts: tuple[str, ...] = ("C", "C", "permuted"),
    operands: tuple[int, int] = (1, 3),
    sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17),
    values: str = "plain",
    repeats: bool = False,
) -> Call:
    """A small random call."""
    count = int(rng.integers(operands[0], operands[1] + 1))
    terms = random_terms(rng, count, int(rng.integers(2, 6)), 4, repeats)
    return make_call(rng, terms, random_output(rng, terms), random_sizes(rng, terms, sizes), dtypes, layouts, values)


def computing_call(rng: Rng, **options: object) -> Call:
    """A random call that is no mere view of its operand."""
    while True:
        call = random_call(rng, **options)  # type: ignore[arg-type]
        if not call.is_view:
            return call


def resized(rng: Rng, call: Call, dtypes: tuple[str, ...], layouts: tuple[str, ...]) -> Call:
    """The same expression with other sizes, type and layouts."""
    sizes = random_sizes(rng, call.terms, (1, 2, 3, 5, 8, 9, 15, 16, 17, 33))
    fresh = make_call(rng, call.terms, call.output, sizes, dtypes, layouts)
    return replace(fresh, style=call.style)


# --- the classes ------------------------------------------------------------------------------------------------------


def plain(rng: Rng) -> Scenario:
    """One to three operands, any spelling."""
    call = random_call(rng)
    call = replace(call, style=_pick(rng, ("string", "string", "spaced", "lists")))
    return Scenario("plain", (with_implicit_output(call) if rng.random() < 0.2 else call,))


def cache_keys(rng: Rng) -> Scenario:
    """One expression, eight times, with changing sizes, types and layouts."""
    first = random_call(rng, operands=(2, 3))
    calls = [resized(rng, first, COMMON, LAYOUTS) for _ in range(7)]
    return Scenario("cache keys", (first, *calls))


def earlier_results(rng: Rng) -> Scenario:
    """A later call must not change an earlier result (shared buffers), nor may later changes of an operand."""
    call = computing_call(rng, dtypes=("float32", "float64"))
    again = [replace(call, operands=tuple(replace(o, seed=_seed(rng)) for o in call.operands)) for _ in range(5)]
    return Scenario("earlier results", (call, *again), mutate=True)


def threads(rng: Rng) -> Scenario:
    """Eight calls by four threads: the same expression with two sizes, and others."""
    call = computing_call(rng, operands=(2, 3), dtypes=("float32", "float64"))
    calls = [call, resized(rng, call, ("float32",), ("C", "F")), random_call(rng), random_call(rng)]
    calls += [replace(c, operands=tuple(replace(o, seed=_seed(rng)) for o in c.operands)) for c in calls]
    return Scenario("threads", tuple(calls), threads=4)


def tile_edges(rng: Rng) -> Scenario:
    """Sizes around 8, 16, 32, 64 and 128, where register tiles and masks end."""
    edges = tuple(e + d for e in (8, 16, 32, 64, 128) for d in (-1, 0, 1))
    forms: tuple[tuple[tuple[Term, ...], Term], ...] = (
        (((0, 1), (1, 2)), (0, 2)), (((1, 0), (1, 2)), (0, 2)), (((0, 1), (2, 1)), (2, 0)), (((0, 1), (1,)), (0,)),
        (((0, 1),), (1,)), (((0, 1),), (0,)), (((0,), (0,)), ()), (((0, 1), (0, 1)), ()), (((0,), (1,)), (0, 1)),
        (((3, 0, 1), (3, 1, 2)), (3, 0, 2)), (((0, 1, 2),), (2, 0, 1)), (((0, 1),), ()), (((0, 1), (0, 1)), (1,)),
    )  # fmt: skip
    terms, output = forms[int(rng.integers(len(forms)))]
    labels = dict.fromkeys(x for t in terms for x in t)
    sizes = {x: int(rng.choice(edges)) for x in labels}
    if 3 in sizes:
        sizes = {x: n if x != 3 else int(rng.integers(1, 5)) for x, n in sizes.items()}
    while prod(sizes.values()) > 600_000:
        sizes[max(sizes, key=lambda x: sizes[x])] = int(rng.choice(edges[:6]))
    call = make_call(
        rng, terms, output, sizes, ("float32", "float64", "float32", "complex64"), ("C", "C", "F", "padded")
    )
    return Scenario("tile edges", (call,))


def nan_inf(rng: Rng) -> Scenario:
    """NaN and infinity must spread as the definition says, and nothing may be skipped for being zero.

    One or two operands, and every summed label in both: then no order of evaluation is free, and the answer is unique.
    """
    if rng.random() < 0.3:
        terms = random_terms(rng, 1, 4, 4)
        output = random_output(rng, terms)
    else:
        terms = random_terms(rng, 2, 4, 4)
        shared = set(terms[0]) & set(terms[1])
        output = tuple(
            int(x)
            for x in rng.permutation(list(dict.fromkeys(terms[0] + terms[1])))
            if x not in shared or rng.random() < 0.4
        )
    sizes = random_sizes(rng, terms, (1, 2, 3, 5, 8, 16, 17))
    call = make_call(
        rng, terms, output, sizes, ("float32", "float64", "float16"), ("C", "permuted", "padded"), "special"
    )
    return Scenario("NaN and infinity", (call,))


def strides(rng: Rng) -> Scenario:
    """Negative, zero, padded, stepped and unaligned strides; read-only operands."""
    call = random_call(rng, layouts=LAYOUTS, dtypes=(*COMMON, "int8", "bool"))
    operands = tuple(replace(o, writeable=rng.random() < 0.8) for o in call.operands)
    return Scenario("strides", (replace(call, operands=operands),))


def empty_and_scalar(rng: Rng) -> Scenario:
    """Axes of length 0, operands without axes, Python numbers and lists."""
    call = random_call(rng, dtypes=("float64", "float32", "int64", "complex128", "bool"), sizes=(0, 1, 2, 3))
    if rng.random() < 0.6:
        extra = Operand((), _pick(rng, ("float64", "int64", "float32")), "C", _seed(rng))
        place = int(rng.integers(len(call.terms) + 1))
        terms = (*call.terms[:place], (), *call.terms[place:])
        call = replace(call, terms=terms, operands=(*call.operands[:place], extra, *call.operands[place:]))
    operands = []
    for o in call.operands:
        listed = o.dtype in ("float64", "int64", "complex128", "bool") and 0 not in o.shape and rng.random() < 0.3
        operands.append(replace(o, container="list") if listed else o)
    return Scenario("empty and 0-d", (replace(call, operands=tuple(operands)),))


def mixed_types(rng: Rng) -> Scenario:
    """Operands of different types: promoted together before the first product."""
    call = random_call(rng, operands=(2, 3), dtypes=("float64",))
    names = EVERYTHING if rng.random() < 0.7 else ("bool", "int8", "float32", "int16")
    operands = tuple(
        replace(o, dtype=_pick(rng, names), container="duck" if rng.random() < 0.05 else "array") for o in call.operands
    )
    if result_dtype(operands).name == "float16":  # keep sums away from 65504
        operands = tuple(replace(o, values="small" if o.dtype != "float16" else "plain") for o in operands)
    return Scenario("mixed types", (replace(call, operands=operands),))


def integers(rng: Rng) -> Scenario:
    """Integers of every width wrap modulo 2^k; bool is or-and."""
    values = "wrapping" if rng.random() < 0.6 else "plain"
    return Scenario(
        "integers and bool", (random_call(rng, dtypes=(*INTEGERS, "bool"), layouts=LAYOUTS, values=values),)
    )


def bfloat(rng: Rng) -> Scenario:
    """bfloat16, alone and with others."""
    call = random_call(rng, dtypes=("bfloat16",), sizes=(1, 2, 3, 8, 16, 17))
    if rng.random() < 0.4:
        first = replace(call.operands[0], dtype=_pick(rng, ("float32", "float64", "float16", "int8")))
        call = replace(call, operands=(first, *call.operands[1:]))
    return Scenario("bfloat16", (call,))


def many_labels(rng: Rng) -> Scenario:
    """More than 52 labels: a ring or chain of small matrices, with a few open ends."""
    count = int(rng.integers(54, 66))
    terms = tuple((k, k + 1) for k in range(count))
    ends = tuple(int(x) for x in rng.permutation([0, count])[: int(rng.integers(0, 3))])
    sizes = {x: int(rng.integers(1, 3)) for x in range(count + 1)}
    call = make_call(rng, terms, ends, sizes, ("float64",), ("C", "F"), "positive")
    return Scenario("over 52 labels", (replace(call, style=_pick(rng, ("string", "lists", "hashable"))),))


def spellings(rng: Rng) -> Scenario:
    """Letters of other alphabets, hashable labels in lists, long names."""
    call = random_call(rng, operands=(1, 3))
    return Scenario("spellings", (replace(call, style=_pick(rng, ("unicode", "hashable", "named"))),))


def hyperedges(rng: Rng) -> Scenario:
    """Labels that three or more operands share, kept or summed."""
    count = int(rng.integers(3, 6))
    terms = tuple(
        tuple(
            int(x)
            for x in rng.permutation([0, *({int(y) for y in rng.integers(1, 5, 2)} if rng.random() < 0.8 else ())])
        )
        for _ in range(count)
    )
    sizes = random_sizes(rng, terms, (1, 2, 3, 4, 5, 8), 8_000)
    call = make_call(
        rng, terms, random_output(rng, terms, 0.4), sizes, ("float32", "float64", "int32"), ("C", "permuted")
    )
    return Scenario("hyperedges", (call,))


def dozens(rng: Rng) -> Scenario:
    """Twelve to forty operands: a chain, with a hyperedge or scalars among them."""
    count = int(rng.integers(12, 41))
    terms: list[Term] = [(k, k + 1) if rng.random() < 0.85 else (k + 1, k) for k in range(count)]
    if rng.random() < 0.5:
        for k in rng.integers(0, count, 4):
            terms[int(k)] = (*terms[int(k)], 50)
    if rng.random() < 0.3:
        terms[int(rng.integers(count))] = ()
    output = random_output(rng, tuple(terms), 0.08)[:3]
    sizes = {x: int(rng.integers(1, 4)) for t in terms for x in t}
    # Positive values: with signs, the cancellation of 3^40 terms would make every answer lie within the bound.
    call = make_call(rng, tuple(terms), output, sizes, ("float64", "float32"), ("C", "F"), "positive")
    return Scenario("dozens of operands", (call,))


def fortran(rng: Rng) -> Scenario:
    """Fortran-ordered operands and every `order=`."""
    call = random_call(rng, layouts=("F", "F", "C"), dtypes=("float64", "float32", "int32"), sizes=(2, 3, 4, 5, 8))
    order = _pick(rng, ("C", "F", "A", "K", "c", "f"))
    return Scenario("Fortran order", (replace(call, keywords=(("order", order),)),))


def broadcasting(rng: Rng) -> Scenario:
    """Axes of length 1 under a longer label."""
    call = random_call(rng, operands=(2, 4), dtypes=("float64", "float32", "int32"), sizes=(2, 3, 4, 5, 8))
    operands = []
    for term, operand in zip(call.terms, call.operands, strict=True):
        ones = {x for x in term if rng.random() < 0.35}
        operands.append(
            replace(operand, shape=tuple(1 if x in ones else n for x, n in zip(term, operand.shape, strict=True)))
        )
    return Scenario("size-1 broadcasting", (replace(call, operands=tuple(operands)),))


def ellipsis(rng: Rng) -> Scenario:
    """Batch axes behind "...", of different number in each operand, with broadcasting."""
    call = random_call(rng, operands=(1, 3), dtypes=("float64", "float32", "int64"), sizes=(2, 3, 4, 5))
    batch = tuple(range(40, 40 + int(rng.integers(0, 4))))
    sizes = {x: int(rng.choice((1, 2, 3))) for x in batch}
    terms, operands, dotted = [], [], []
    longest = int(rng.integers(len(call.terms)))
    for k, (term, operand) in enumerate(zip(call.terms, call.operands, strict=True)):
        dots = k == longest or rng.random() < 0.7
        mine = (batch if k == longest else batch[int(rng.integers(len(batch) + 1)) :]) if dots else ()
        place = int(rng.integers(len(term) + 1))
        shape = tuple(1 if k != longest and rng.random() < 0.3 else sizes[x] for x in mine)
        terms.append((*term[:place], *mine, *term[place:]))
        operands.append(replace(operand, shape=(*operand.shape[:place], *shape, *operand.shape[place:])))
        dotted.append(dots)
    place = int(rng.integers(len(call.output) + 1))
    output = (*call.output[:place], *batch, *call.output[place:])
    style = _pick(rng, ("string", "lists", "spaced"))
    call = Call(tuple(terms), output, tuple(operands), style, batch, tuple(dotted))
    if batch and rng.random() < 0.3:
        call = with_implicit_output(call)
    return Scenario("ellipsis", (call,))


def repeated(rng: Rng) -> Scenario:
    """Labels repeated inside an operand: diagonals and traces."""
    dtypes = ("float64", "float32", "int32", "complex64")
    return Scenario(
        "repeated labels", (random_call(rng, repeats=True, dtypes=dtypes, layouts=LAYOUTS, sizes=(1, 2, 3, 4, 5, 8)),)
    )


def output_array(rng: Rng) -> Scenario:
    """`out=` in every layout, wider than the result, and laid over an operand."""
    call = random_call(rng, dtypes=("float32", "float64", "int32"), layouts=("C", "permuted", "padded"))
    dtype = str(call.dtype)
    over = [k for k, t in enumerate(call.terms) if t == call.output and len(set(t)) == len(t)]
    if over and rng.random() < 0.7:
        return Scenario("out=", (replace(call, out=over[0]),))
    layout = _pick(rng, ("C", "F", "permuted", "negative", "stepped", "padded", "unaligned"))
    return Scenario("out=", (replace(call, out=Operand(call.shape(), dtype, layout, _seed(rng))),))


def overlap(rng: Rng) -> Scenario:
    """`out=` is one of the operands of a product: the result must be computed as if it were not."""
    n = int(rng.choice((2, 3, 8, 17, 33, 64)))
    terms, output = (((0, 1), (1, 2)), (0, 2)) if rng.random() < 0.6 else (((0, 1),), (1, 0))
    call = make_call(rng, terms, output, {0: n, 1: n, 2: n}, ("float32", "float64", "int32"), ("C", "F"))
    return Scenario("overlapping out=", (replace(call, out=int(rng.integers(len(terms)))),))


def types_asked(rng: Rng) -> Scenario:
    """`dtype=` with `casting=`, up and down."""
    call = computing_call(
        rng, dtypes=("float32", "int32", "float64", "int16"), values="small"
    )  # NumPy's views ignore dtype=
    current = str(call.dtype)
    wider = {
        "float32": ("float64", "complex64"),
        "int32": ("int64", "float64"),
        "int16": ("int32", "float32"),
        "float64": ("complex128",),
    }
    if rng.random() < 0.6:
        return Scenario("dtype=", (replace(call, keywords=(("dtype", _pick(rng, wider[current])),)),))
    narrower = {"float32": "float16", "int32": "int16", "int16": "int8", "float64": "float32"}
    casting = _pick(rng, ("same_kind", "unsafe"))
    return Scenario("dtype=", (replace(call, keywords=(("dtype", narrower[current]), ("casting", casting))),))


def optimised(rng: Rng) -> Scenario:
    """Every `optimize=`: the answer is the same."""
    call = random_call(rng, operands=(2, 5), dtypes=("float64", "float32", "int32"), sizes=(2, 3, 4, 5))
    optimize = (True, False, "greedy", "optimal")[int(rng.integers(4))]
    return Scenario("optimize=", (replace(call, keywords=(("optimize", optimize),)),))


def semirings(rng: Rng) -> Scenario:
    """The other semirings, checked by brute force and against the IR's interpreter."""
    name = _pick(rng, ("maxplus", "minplus", "logsumexp", "boolean", "maxmin", "maxtimes"))
    types = {"boolean": ("bool",), "logsumexp": ("float32", "float64")}.get(
        name, ("float32", "float64", "int32", "float64")
    )
    values = "positive" if name == "maxtimes" else "plain"
    call = random_call(rng, operands=(1, 3), dtypes=types, layouts=LAYOUTS, sizes=(1, 2, 3, 5, 8, 17), values=values)
    if name == "maxtimes" and call.dtype.kind == "i":
        call = replace(call, operands=tuple(replace(o, values="small") for o in call.operands))
    return Scenario("semirings", (replace(call, keywords=(("semiring", name),)),))


CLASSES: dict[str, Callable[[Rng], Scenario]] = {
    "plain": plain, "cache": cache_keys, "earlier": earlier_results, "threads": threads, "edges": tile_edges,
    "nan": nan_inf, "strides": strides, "empty": empty_and_scalar, "mixed": mixed_types, "integers": integers,
    "bfloat16": bfloat, "labels": many_labels, "spellings": spellings, "hyperedges": hyperedges, "dozens": dozens,
    "fortran": fortran, "broadcast": broadcasting, "ellipsis": ellipsis, "repeated": repeated, "out": output_array,
    "overlap": overlap, "dtype": types_asked, "optimize": optimised, "semirings": semirings,
}  # fmt: skip
# What only stein accepts: a stand-in of another library is not asked.
STEIN_ONLY = ("bfloat16", "labels", "spellings", "semirings", "programs", "malformed")
