"""The recogniser: which structure a program's values have as linear functions of one of their operands.

Every value (outputs, and what a non-linear function reads) is taken as a network (`network`), brought to canonical form
(`canonical`), cleared of its argument, and shown to the rules of `ir.structures`, term by term and as a sum. A finding
is a fact that holds exactly, with the term of the algebra that proves it: `finding.term.operator()` is the same matrix,
and its `applies` are equal programs. Rules prove, cost chooses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ..ir.errors import NOWHERE, Span
from ..ir.expr import Equation, Input, Program
from ..ir.semiring import PLUS_TIMES
from ..ir.structures import RULES, Batch, Beside, Leaf, Structure, identity, kron
from ..ir.structures.algebra import Defined, arranged, ones
from ..ir.structures.declared import is_part
from ..ir.structures.view import DELTA, STEP, Factor, Match, Near, Port, View, between, defined, leaf
from .canonical import NotLinear, views
from .declared import evidence_of, plain_product
from .facts import Fact, composed, facts_of, symmetric_results
from .network import FIRST_PRIME, Network, known_sizes, networks
from .simplify import restored, simplify
from .sums import factored, whole

INLINED = 8  # values that others inline are looked at by themselves if they are this few
UNIT_KINDS = ("identity", "permutation", "hadamard", "householder")  # these are no longer so times a number


@dataclass(frozen=True)
class Declared:
    """The user said so."""

    span: Span = NOWHERE


@dataclass(frozen=True)
class Proved:
    """It follows from the expression, by the named rule."""

    rule: str
    span: Span = NOWHERE


Evidence: TypeAlias = Declared | Proved


@dataclass(frozen=True)
class Finding:
    """`value`, as a linear function of `argument`, is of this `kind`.

    `number` is the term of a sum that it speaks of, None for the whole. `options` are figures of the kind (rank,
    blocks, kinds of factors). `term` is the structure; None for facts that are no structure (`symmetric`, `rank`).
    """

    value: str
    kind: str
    term: Structure | None
    evidence: Evidence
    span: Span = field(default=NOWHERE, compare=False)
    argument: str = ""
    number: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NearMiss:
    """What was nearly found, and why it was not."""

    value: str
    argument: str
    kind: str
    reason: str


def recognise(
    program: Program, argument: str | None = None, sizes: Mapping[str, int] | None = None
) -> tuple[Finding, ...]:
    """Everything that is proved of the values of a program, by value; the primary argument's findings come first.

    `argument` restricts to one operand. Sizes without a value count as large primes (`network.known_sizes`).

    >>> from ..ir.text import parse_ir
    >>> inputs = "input A: f64[2, 3]\\ninput B: f64[4, 5]\\ninput x: f64[3, 5]\\n"
    >>> product = "y[i, k]: f64[2, 4] = einsum[plustimes, f64](j, l; A[i, j], B[k, l], x[j, l]) over i<2, j<3, k<4, l<5"
    >>> recognise(parse_ir(inputs + product + "\\nreturn y"))[0].kind
    'kronecker'
    """
    return examine(program, argument, sizes)[0]


def near_misses(
    program: Program, argument: str | None = None, sizes: Mapping[str, int] | None = None
) -> tuple[NearMiss, ...]:
    """What was nearly found, with the reasons."""
    return examine(program, argument, sizes)[1]


def examine(
    program: Program, argument: str | None = None, sizes: Mapping[str, int] | None = None
) -> tuple[tuple[Finding, ...], tuple[NearMiss, ...]]:
    """Findings and near misses together.

    Values that were inlined are looked at by themselves if nothing was found for one that reads them.
    """
    findings: list[Finding] = []
    missed: list[NearMiss] = []
    found = networks(program, sizes)
    search = Search()
    _look_at(program, found, argument, findings, missed, search)
    known = {f.value for f in findings if f.term is not None and f.number is None}
    inlined = [e.name for e in program.equations if e.name not in {n.name for n in found}]
    if 0 < len(inlined) <= INLINED and any(n.name not in known for n in found):
        inner = networks(program, sizes, inlined)
        _look_at(program, [n for n in inner if n.name in inlined], argument, findings, [], search)
    if search.exhausted:
        missed.append(NearMiss(found[0].name, "", "search", f"too many ways to look at it; {BUDGET} were tried"))
    stand_in = {v: n for n, v in known_sizes(program, sizes).items() if v >= FIRST_PRIME and n not in (sizes or {})}
    return tuple(findings), tuple(replace(m, reason=_in_sizes(m.reason, stand_in)) for m in missed)


def _in_sizes(text: str, stand_in: Mapping[int, str]) -> str:
    """A reason with sizes that are not known by their names, where primes stand for them."""
    return re.sub(r"\d{6,}", lambda m: stand_in.get(int(m[0]), m[0]), text)


def _look_at(
    program: Program,
    found: Iterable[Network],
    argument: str | None,
    findings: list[Finding],
    missed: list[NearMiss],
    search: Search,
) -> None:
    """Add what is found, and nearly found, for some values."""
    for network in found:
        groups = []
        names = candidates(program, network)
        for name in names if argument is None else [argument] if argument in network.operands else []:
            mine, near = _of_argument(program, network, name, search)
            groups.append((_rank(program, network, name, mine), mine))
            missed += near
        groups.sort(key=lambda g: g[0])
        findings += [f for _, group in groups for f in group]
        findings += _symmetric(program, network)


def candidates(program: Program, network: Network) -> list[str]:
    """The operands that may be the argument: read once in at least one term, and no constant."""
    constant = {i.name for i in program.inputs if i.const} | network.declared
    read = {n for _, t in network.terms for n, _ in t.atoms}
    lists = {n for n in network.operands if n not in read and program.tensors[n].dtype.kind in "iu"}
    return [n for n in network.operands if n not in constant | lists]


def _rank(program: Program, network: Network, name: str, found: Sequence[Finding]) -> tuple[bool, int, bool, bool, int]:
    """Primary first: encrypted, read in the most terms, with an open size of its own, with a finding, written last."""
    tensor = program.tensors[name]
    encrypted = isinstance(tensor, Input) and tensor.encrypted
    without = sum(all(n != name for n, _ in t.atoms) for _, t in network.terms)
    others = {n for o in network.operands if o != name for s in program.tensors[o].shape for n in s.names}
    alone = any(s.names - others for s in tensor.shape)
    structural = any(f.term is not None and f.term.operator().operands for f in found)  # `+ b` is the identity in b
    return not encrypted, without, not alone, not structural, -network.operands.index(name)


def _of_argument(program: Program, network: Network, name: str, search: Search) -> tuple[list[Finding], list[NearMiss]]:
    try:
        found = views(network, name)
    except NotLinear as reason:
        return [], [NearMiss(network.name, name, "linear", str(reason))]
    if not found:
        return [], []
    near: list[Near] = []
    pairs = recognise_views(found, network.semiring == PLUS_TIMES, near, search)
    findings = []
    for number, view, match in pairs:
        if match is None and view is not None:
            match = plain_product(program, network.declared, view)
        if match is None:
            continue
        term = match.term or (defined(leaf(view), view) if view is not None else None)
        span = _span(program, network)
        place = evidence_of(program, network.declared, network.operands, match)
        evidence = Proved(match.kind, span) if place is None else Declared(place)
        factor = (view is not None and view.coefficient != 1) or match.options.get("scaled")
        kind = f"scaled_{match.kind}" if factor and match.kind in UNIT_KINDS else match.kind
        findings.append(Finding(network.name, kind, term, evidence, span, name, number, match.options))
    facts = list(facts_of(found))
    whole = next((f for f in findings if f.number is None and f.term is not None), None)
    if whole is not None and whole.term is not None and not network.opaques and network.semiring == PLUS_TIMES:
        facts += composed(whole.term, {whole.kind, *(f.kind for f in facts)})
    complex_values = program.tensors[network.name].dtype.kind == "c"
    findings += [_fact(program, network, name, f) for f in facts if f.kind != "psd" or not complex_values]
    return findings, [NearMiss(network.name, name, n.kind, n.reason) for n in near]


def _span(program: Program, network: Network) -> Span:
    equation = program.tensors[network.name]
    return equation.span if isinstance(equation, Equation) else NOWHERE


def _fact(program: Program, network: Network, name: str, fact: Fact) -> Finding:
    evidence = Proved(fact.rule, _span(program, network))
    return Finding(network.name, fact.kind, None, evidence, evidence.span, name, None, fact.options)


def _symmetric(program: Program, network: Network) -> list[Finding]:
    try:
        found = views(network, None, merge=False)
    except NotLinear:
        return []
    pairs = symmetric_results(found)
    evidence = Proved("exchange of two positions leaves the label", _span(program, network))
    return [
        Finding(network.name, "symmetric", None, evidence, evidence.span, "", None, {"axes": pair}) for pair in pairs
    ]


# --- one term, and a sum ----------------------------------------------------------------------------------------------


BUDGET = 3000  # views that one search looks at: networks of dozens of operands fall apart in very many ways


class Search:
    """What was found of views so far, and how many were looked at: no search takes longer than its budget allows."""

    def __init__(self) -> None:
        self.found: dict[Any, Match | None] = {}
        self.count = 0

    @property
    def exhausted(self) -> bool:
        """Whether the budget was used up, so that something may have been missed."""
        return self.count > BUDGET

    def again(self, view: View) -> Match | None:
        """What a part of a view is, for rules; each part is looked at once."""
        key = _key(view)
        if key not in self.found:
            self.found[key] = recognise_view(view, None, self)
        return self.found[key]


def _key(view: View) -> Any:
    """All that tells a view from others of its network."""
    indices = tuple((i, view.extents[i], view.fine.get(i)) for i in sorted(view.indices))
    operands = tuple((view.shapes.get(a.name), view.known(a)) for a in view.atoms)
    return view.coefficient, view.out, view.x, view.atoms, indices, operands, tuple(x.name for x in view.lets)


def recognise_views(
    found: Sequence[View], ring: bool = True, near: list[Near] | None = None, search: Search | None = None
) -> list[tuple[int | None, View | None, Match | None]]:
    """(number, view, match) for the whole (number None) and, in a sum, for each term."""
    near = [] if near is None else near
    search = Search() if search is None else search
    terms = factored(found) if ring and len(found) > 1 else tuple(found)
    if not terms:
        return []
    if len(terms) == 1:
        return [(None, terms[0], recognise_view(terms[0], near, search))]
    matches = [recognise_view(v, near, search) for v in terms]
    total = whole(terms, matches)
    if isinstance(total, Near):
        near.append(total)
        total = None
    out: list[tuple[int | None, View | None, Match | None]] = [(None, None, total)]
    out += [(k, v, m) for k, (v, m) in enumerate(zip(terms, matches, strict=True))]
    return out


def recognise_view(given: View, near: list[Near] | None = None, search: Search | None = None) -> Match | None:
    """What one term is: batch digits are set aside, then the first rule that proves something decides.

    A digit that no operand has stands for an identity, one that operands have for a batch of equal operators.
    """
    near = [] if near is None else near
    search = Search() if search is None else search
    search.count += 1
    if search.exhausted:
        return None
    view = simplify(replace(given, coefficient=1))
    scalars = _scalars(view)
    if scalars:
        return _with_scalars(given, view, scalars, near, search)
    carried = [i for i in view.batch if view.at(i)]
    free = [i for i in view.batch if not view.at(i)]
    core = view
    if free and (view.atoms or view.rows or view.cols):
        core = replace(
            view, out=tuple(i for i in view.out if i not in free), x=tuple(i for i in view.x if i not in free)
        )
    fixed = set(carried) - {i for _, q in view.affine for i in q.indices}
    fixed -= {i for a in view.atoms if a.name in (DELTA, STEP) for i in a.touch}
    if carried and (core.rows or core.cols):
        if not core.rows or not core.cols or len(fixed) < len(carried):  # a batch digit inside of a sum of digits
            return None
        return _batched(given, view, core, carried, near, search)
    match = _first_match(core, near, search)
    if match is None:
        return None
    term = _completed(given, view, match.term or leaf(core), core)
    return replace(match, term=term, options={**match.options, **_notes(view, free)})


def _scalars(view: View) -> list[int]:
    """The operands without any index."""
    return [k for k, a in enumerate(view.atoms) if not a.touch and a.name not in (DELTA, STEP)]


def _with_scalars(given: View, view: View, scalars: Sequence[int], near: list[Near], search: Search) -> Match | None:
    """Operands without any index are factors beside what the rest is."""
    rest = replace(view, atoms=tuple(a for k, a in enumerate(view.atoms) if k not in scalars))
    match = recognise_view(rest, near, search)
    if match is None or match.term is None:
        return match
    term = Beside(Leaf(between(view, scalars, (), ())), match.term)
    return replace(match, term=_completed(given, view, term, rest), options={**match.options, "scaled": True})


def _notes(view: View, free: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"identity": view.size(free)} if free else {}
    return found | ({"first": tuple(n[0] for n in view.notes)} if view.notes else {})


def _first_match(view: View, near: list[Near], search: Search) -> Match | None:
    """What the first rule that proves something proves; what was nearly proved is worth saying only if none does."""
    missed: list[Near] = []
    for rule in RULES:
        found = rule(view, search.again)
        if isinstance(found, Near):
            missed.append(found)
        elif found is not None:
            return found
    near += missed
    return None


def _batched(given: View, view: View, core: View, carried: list[str], near: list[Near], search: Search) -> Match | None:
    """One operator for each value of the digits `carried`: block diagonal, or a batch of what each block is."""
    lead = view.digits(carried)
    extents = tuple(view.extents[d] for d in lead)
    for k in range(len(core.atoms)):
        if core.touches[k] & set(carried):
            core = restored(core, k, lead=carried)
    shared = [frozenset(a.name for a in core.atoms if i not in a.touch) for i in carried]
    block = _block(core, carried)
    simple = simplify(block)
    numbers = _scalars(simple)
    match = _with_scalars(simple, simple, numbers, near, search) if numbers else _first_match(simple, near, search)
    if match is None and len(block.atoms) > 1 and not any(is_part(a.name) for a in view.atoms):
        return None
    term: Structure = defined((match.term if match else None) or leaf(simple), simple)
    if simple.x != block.x or _cropped(core, carried):  # no block for each value: the network itself is the term
        return match and replace(match, term=defined(leaf(given), given), options={**match.options, "batch": extents})
    for i, names in reversed(list(zip(carried, shared, strict=True))):
        for d in reversed(view.digits((i,))):
            term = Batch(term, view.extents[d], names)
    out, x = (tuple(carried) + tuple(i for i in side if i not in carried) for side in (core.out, core.x))
    placed = replace(core, out=out, x=x)
    free = [i for i in view.batch if not view.at(i)]
    options = {**(match.options if match else {"blocks": view.size(carried)}), **_notes(view, free), "batch": extents}
    kind = match.kind if match else "block_diagonal"
    return Match(kind, options, _completed(given, core, term, placed), match.parts if match else ())


def _cropped(core: View, carried: Sequence[str]) -> bool:
    """Whether an operand's leading axes are longer than the digits that read them."""
    for a in core.atoms:
        if a.name not in (DELTA, STEP):
            sizes = tuple(core.extents[d] for d in core.digits(i for i in carried if i in a.touch))
            if core.shapes[a.name][: len(sizes)] != sizes:
                return True
    return False


def _block(core: View, carried: Sequence[str]) -> View:
    """The view for one value of some digits, its operands without their leading axes."""
    atoms, shapes = [], dict(core.shapes)
    for a in core.atoms:
        if a.name in (DELTA, STEP):
            atoms.append(a)
            continue
        count = len(core.digits(i for i in carried if i in a.touch))
        ports: list[Port] = []
        for keys, q in a.ports:
            if q.bare not in carried:
                ports.append((tuple((axis - count, weight) for axis, weight in keys), q))
        shapes[a.name] = core.shapes[a.name][count:]
        atoms.append(Factor(a.name, tuple(ports)))
    out, x = (tuple(i for i in side if i not in carried) for side in (core.out, core.x))
    return replace(core, out=out, x=x, atoms=tuple(atoms), shapes=shapes, lets=(), notes=())


def _completed(given: View, view: View, term: Structure, placed: View) -> Structure:
    """The structure of a core as one of the term that was given: identities, sums, order, lets and the factor."""
    rows, cols = view.digits(placed.out), view.digits(placed.x)
    parts = [term]
    free = tuple(i for i in given.digits(given.x) if i in given.digits(given.out) and i not in cols)
    if free:
        parts.append(identity(*(given.extents[i] for i in free)))
    summed = tuple(i for i in given.digits(given.x) if i not in cols and i not in free)
    if summed:
        parts.append(ones((), tuple(given.extents[i] for i in summed)))
    have = (rows + free, cols + free + summed)
    want = (given.digits(given.out), given.digits(given.x))
    if sorted(have[0]) != sorted(want[0]) or sorted(have[1]) != sorted(want[1]):
        return defined(leaf(given), given)  # a digit twice in the argument: the network itself
    out = arranged(kron(*parts), have, want)
    out = defined(out, view)
    return out if given.coefficient == 1 else Defined(out, coefficient=given.coefficient)
