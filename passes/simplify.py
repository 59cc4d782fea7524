"""N5 and N6 on one view: indices that one atom alone carries are summed first, and atoms that are functions of a slot
of another atom are multiplied into it. What this makes are new, never larger operands, each defined by a let.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..ir.structures.operator import Atom, Term, named_let
from ..ir.structures.slot import Slot, slot, var
from ..ir.structures.view import DELTA, SELECTIONS, STEP, Factor, Port, View, axes_of

KEPT = SELECTIONS | {"hadamard", "vandermonde", "power", "orthogonal", "doubly_stochastic", "bsr", "lowrank", "monarch"}
"""Facts that a product with a vector would destroy: operands that have one stay by themselves."""

RESIDUES = 4096  # moduli up to this are searched for a factor that relates two slots


def simplify(view: View) -> View:
    """The view after N5 and N6; its `notes` tell what was summed first."""
    for k, atom in enumerate(view.atoms):
        if atom.name not in (DELTA, STEP) and any(len(q.terms) < 2 and q.bare is None for _, q in atom.ports):
            view = restored(view, k)
    while True:
        step = _reduced(view) or _absorbed(view)
        if step is None:
            return view
        view = step


def _reduced(v: View) -> View | None:
    """An index of the argument alone, or of one operand alone, is summed first."""
    for i in sorted(v.indices):
        in_x, in_out, at = v.signature(i)
        if in_out:
            continue
        if in_x and not at and v.atoms and v.x.count(i) == 1:
            x = tuple(q for q in v.x if q != i)
            return replace(v, x=x, notes=(*v.notes, ("the argument is summed first over", i)))
        if not in_x and len(at) == 1:
            atom = v.atoms[at[0]]
            if atom.name not in (DELTA, STEP) and all(q.bare == i for _, q in atom.ports if i in q.indices):
                note = ("the operand is summed first", atom.name)
                v = restored(v, at[0], summed=(i,), base=f"sum({atom.name})")
                return replace(v, notes=(*v.notes, note))
    return None


def _absorbed(v: View) -> View | None:
    """An atom all of whose slots are functions of slots of another is stored in that one."""
    for a, b in itertools.permutations(range(len(v.atoms)), 2):
        if not v.touches[a] <= v.touches[b]:
            continue
        guest, host = v.atoms[a], v.atoms[b]
        if host.name in (DELTA, STEP) or guest.name == DELTA or (v.known(guest) | v.known(host)) & KEPT:
            continue
        if all(any(relation(q, r) is not None for r in host.slots) for q in guest.slots):
            return _stored(v, a, b)
    return None


def relation(q: Slot, r: Slot) -> tuple[int, int, int] | None:
    """(factor, offset, modulus) such that q is factor*r + offset, modulo that unless 0; None if there is none."""
    if q == r:
        return 1, 0, 0
    if r.modulus or not q.terms:
        return None
    if r.bare is not None:
        return (q.coefficient(r.bare), q.offset, q.modulus) if q.indices == (r.bare,) else None
    if q.bare is not None:
        return None
    if not q.modulus:
        if q.indices != r.indices:
            return None
        factor = q.terms[0][1] // r.terms[0][1]
        fits = all(c == factor * d for (_, c), (_, d) in zip(q.terms, r.terms, strict=True))
        return (factor, q.offset - factor * r.offset, 0) if fits and factor else None
    if not set(q.indices) <= set(r.indices):
        return None
    tried: Iterable[int] = range(q.modulus) if q.modulus <= RESIDUES else (1, q.modulus - 1)
    for factor in tried:
        if all((factor * c - q.coefficient(i)) % q.modulus == 0 for i, c in r.terms):
            return factor, (q.offset - factor * r.offset) % q.modulus, q.modulus
    return None


def restored(v: View, k: int, summed: Sequence[str] = (), lead: Sequence[str] = (), base: str = "") -> View:
    """Atom k as a new operand that has an axis for each fine digit, and for each affine slot of several indices.

    Slots of one index become that index; `summed` digits are summed in it; `lead` digits stand first.
    """
    atom = v.atoms[k]
    if not summed and _stored_so(v, atom, lead):
        return v
    order = sorted(atom.ports, key=lambda p: lead.index(p[1].bare) if p[1].bare in lead else len(lead))
    slots: list[Slot] = []
    shape: list[int] = []
    ports: list[Port] = []
    extents: dict[str, int] = {}
    reads = list(axes_of(v, atom))
    seen: set[Slot] = set()
    for keys, q in order:
        one = var(q.terms[0][0]) if len(q.terms) == 1 else q
        if one in seen or not q.terms:
            continue
        seen.add(one)
        if one.bare is not None:
            digits = v.digits((one.bare,))
            if one.bare not in summed:
                ports.append((tuple((len(shape) + n, 1) for n in range(len(digits))), one))
                slots += map(var, digits)
                shape += [v.extents[d] for d in digits]
            extents.update({d: v.extents[d] for d in digits})
            continue
        axis = keys[0][0]
        parameter, extent = f"p{axis}", v.shapes[atom.name][axis]
        ports.append((((len(shape), 0),), one))
        slots.append(var(parameter))
        shape.append(extent)
        extents[parameter] = extent
        for n, s in enumerate(reads):
            if s == q:
                reads[n] = var(parameter)
    term = Term(1, (Atom(atom.name, tuple(reads)),))
    let = named_let(base or atom.name, tuple(shape), tuple(slots), (term,), extents)
    name = let.name
    atoms = (*v.atoms[:k], Factor(name, tuple(ports)), *v.atoms[k + 1 :])
    return replace(v, atoms=atoms, shapes={**v.shapes, name: tuple(shape)}, lets=(*v.lets, let))


def _stored_so(v: View, atom: Factor, lead: Sequence[str]) -> bool:
    """Whether an operand is read here only, at one digit for each axis, with those of `lead` first and in order."""
    elsewhere = any(n == atom.name for let in v.lets for t in let.terms for n, _ in t.atoms)
    if elsewhere or sum(a.name == atom.name for a in v.atoms) > 1:
        return False
    ports = sorted(atom.ports, key=lambda p: p[0])
    digits = [q.bare for _, q in ports]
    if any(len(keys) != 1 or keys[0][1] != 1 for keys, _ in ports) or None in digits or len(set(digits)) < len(digits):
        return False
    if len(ports) != len(v.shapes[atom.name]) or [keys[0][0] for keys, _ in ports] != list(range(len(ports))):
        return False
    first = [d for d in lead if d in digits]
    return digits[: len(first)] == first


def _stored(v: View, a: int, b: int) -> View:
    """The product of guest a and host b as one operand with the host's ports."""
    guest, host = v.atoms[a], v.atoms[b]
    if len(set(host.slots)) < len(host.slots):
        v = restored(v, b)
        host = v.atoms[b]
    ports: list[Port] = []
    shape: list[int] = []
    slots: list[Slot] = []
    extents: dict[str, int] = {}
    parameters: dict[Slot, str] = {}
    host_reads = list(axes_of(v, host))
    for keys, q in host.ports:
        digits = v.digits((q.bare,)) if q.bare is not None else (f"p{keys[0][0]}",)
        sizes = [v.extents[d] for d in digits] if q.bare is not None else [v.shapes[host.name][keys[0][0]]]
        ports.append((tuple((len(shape) + n, 1 if q.bare is not None else 0) for n in range(len(digits))), q))
        if q.bare is None:
            host_reads[keys[0][0]] = var(digits[0])
        parameters[q] = digits[0]
        slots += map(var, digits)
        shape += sizes
        extents.update(zip(digits, sizes, strict=True))
    atoms, guards = [Atom(host.name, tuple(host_reads))], []
    if guest.name == STEP:
        guards.append(_through(guest.slots[0], parameters))
    else:
        reads = [Slot()] * len(v.shapes[guest.name])
        for keys, q in guest.ports:
            if q.bare is not None and q in parameters and keys[0][1]:
                for (axis, weight), d in zip(keys, v.digits((q.bare,)), strict=True):
                    reads[axis] = reads[axis].plus(var(d), weight)
            else:
                reads[keys[0][0]] = _through(q, parameters)
        atoms.append(Atom(guest.name, tuple(reads)))
    term = Term(1, tuple(atoms), (), tuple(guards))
    let = named_let(f"{host.name}*{guest.name}", tuple(shape), tuple(slots), (term,), extents)
    name = let.name
    new = Factor(name, tuple(ports))
    kept = tuple(new if k == b else atom for k, atom in enumerate(v.atoms) if k != a)
    return replace(v, atoms=kept, shapes={**v.shapes, name: tuple(shape)}, lets=(*v.lets, let))


def _through(q: Slot, parameters: dict[Slot, str]) -> Slot:
    for r, name in parameters.items():
        found = relation(q, r)
        if found is not None:
            return slot([(name, found[0])], found[1], found[2])
    raise AssertionError(f"{q} is no function of the host's slots")
