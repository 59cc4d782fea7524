"""Declared structure in front of the recogniser: what `W: toeplitz` says W is, as terms of the network that reads W.

`W: S(...)` is the equation W[..] = S.dense() (the algebra's door): `network` puts its terms where W is read, as it does
with every other equation, so that rules see the diagonal, the band, the blocks or the generator, and a product with
another operand is the recogniser's daily work. Evidence keeps the place of the declaration. Words that a semiring gives
another meaning to are dropped: under max-plus, zeros outside of a band are no zeros of the semiring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ir.errors import NOWHERE, Span
from ..ir.expr import Input, Program, Structure
from ..ir.semiring import PLUS_TIMES, Semiring
from ..ir.structures.declared import EQUALITIES, SUPPORTS, Options, stated
from ..ir.structures.operator import Operator
from ..ir.structures.view import DELTA, STEP, Match, View, defined, leaf


def operator_of(tensor: Input, shape: tuple[int, ...], sizes: Mapping[str, int], semiring: Semiring) -> Operator | None:
    """What the declarations of an argument say that it is, from its last two axes; None if that is only itself.

    Each axis before these stands first in the rows and in the columns: for every place on it, a matrix of its own.

    >>> from ..ir.types import F64
    >>> from ..ir.size import Size
    >>> w = Input("W", (Size.of(4), Size.of(4)), F64, (Structure("diag"),))
    >>> [str(s) for _, slots in operator_of(w, (4, 4), {}, PLUS_TIMES).terms[0].atoms for s in slots]
    ['j0', 'j0']
    """
    if len(shape) < 2:
        return None
    kinds = options_of([s for s in tensor.structure if _holds(s.name, semiring)], sizes)
    term = stated(kinds, (shape[-2], shape[-1]), tensor.name) if kinds else None
    if term is None:
        return None
    operator = term.operator()
    for extent in reversed(shape[:-2]):
        operator = operator.batched(extent)
    return operator


def options_of(structures: Iterable[Structure], sizes: Mapping[str, int]) -> dict[str, Options]:
    """The options of each structure at known sizes; one with an unknown size is left out."""
    found: dict[str, Options] = {}
    for s in structures:
        options: dict[str, tuple[int, ...]] = {}
        if not all(v.names <= sizes.keys() for _, v in s.options):
            continue
        for key, value in s.options:
            options[key] = (*options.get(key, ()), value.evaluate(sizes))
        found[s.name] = options
    return found


def known_words(words: frozenset[str], semiring: Semiring) -> frozenset[str]:
    """The facts (`ir.structures.words`) on an operand that are true of it in a semiring."""
    if semiring == PLUS_TIMES:
        return words
    return frozenset(w for w in words if _holds(w.partition("=")[0].partition(".")[0], semiring))


def _holds(word: str, semiring: Semiring) -> bool:
    """Whether what a word says of numbers is what it says of elements of the semiring."""
    if semiring == PLUS_TIMES or word in EQUALITIES:
        return True
    zero, one = semiring.zero, semiring.one
    plain = not isinstance(zero, str) and not isinstance(one, str) and zero == 0 and one == 1
    return word in SUPPORTS and plain


def plain_product(program: Program, inlined: Iterable[str], view: View) -> Match | None:
    """The contraction of a term over what declared operands have, where no rule has a name for it: `dense @ diag`.

    It says only that a program can do without the rest of these operands. None if the term has no such operand.
    """
    known = {t.name: t.structure[0].name for t in program.inputs if t.name in set(inlined)}
    made = {x.name: next((n for t in x.terms for n, _ in t.atoms if n in known), "") for x in view.lets}
    owners = [made.get(a.name, a.name) for a in view.atoms if a.name not in (DELTA, STEP)]
    if not any(n in known for n in owners) or not view.atoms:
        return None
    factors = tuple(known.get(n, "dense") for n in owners)
    return Match("product", {"factors": factors}, defined(leaf(view), view))


def evidence_of(program: Program, inlined: Iterable[str], operands: Iterable[str], match: Match) -> Span | None:
    """Where it is declared what a match rests on: an operand whose declaration was put in, one that a constant was
    taken apart into (`constant_factors`), or one with a fact that the rule asked for. None if the match follows from
    the expression alone.
    """
    names = {*inlined, *_asked(match), *(n.partition(".")[0] for n in operands if "." in n)}
    for tensor in program.inputs:
        if tensor.name in names and tensor.structure:
            return span_of(tensor)
    return NOWHERE if _rests(match) else None


def span_of(tensor: Input) -> Span:
    """Where the structure of an argument is declared."""
    spans = [s.span for s in tensor.structure if s.span.end]
    return spans[0] if spans else tensor.span


def _rests(match: Match | None) -> bool:
    return match is not None and (bool(match.options.get("declared")) or any(map(_rests, match.parts)))


def _asked(match: Match | None) -> list[str]:
    """The operands whose declared facts the rules of a match asked for."""
    if match is None:
        return []
    own = [match.options["operand"]] if match.options.get("declared") and "operand" in match.options else []
    return own + [n for part in match.parts for n in _asked(part)]
