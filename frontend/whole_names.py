"""Names whose number of axes only a call can tell: those of whole-tensor statements and of `...`, if undeclared.

In `y[i] = A[i,j]*x[j]` the brackets say that A has two axes. In `y = A @ x` and `y[...] = A[...]` nothing does, so
such a program is elaborated when its arguments are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from . import syntax as s
from .declare import SPECIAL

CONSTANTS = ("pi", "inf")


def undeclared_whole_names(tree: s.Program, declared: Collection[str]) -> tuple[str, ...]:
    """The names that stand without brackets or with `...`, and are neither assigned nor declared, in text or otherwise.

    >>> from .parser import parse_program
    >>> undeclared_whole_names(parse_program("y = kron(h, h) @ x + 2*b"), {"b"})
    ('h', 'x')
    """
    known = set(declared) | set(CONSTANTS) | _sizes(tree)
    for statement in tree.statements:
        if isinstance(statement, s.Declare):
            known |= {n.text for n in statement.names}
        elif isinstance(statement, s.Assign) and not statement.adds:
            known.add(statement.target.text)
    found = []
    for statement in tree.statements:
        if not isinstance(statement, s.Assign):
            continue
        accesses = [s.Access(statement.target, statement.slots), *_nodes(statement.value, s.Access)]
        whole = statement.slots is None and not any(_brackets(n) for n in _nodes(statement.value))
        found += [a.name.text for a in accesses if (whole or _dotted(a)) and a.name.text not in known]
    return tuple(dict.fromkeys(found))


def argument_names(tree: s.Program, sizes: Collection[str] = ()) -> tuple[str, ...]:
    """The arguments of a program in order of first mention, then those that are only declared.

    A name without brackets is none where it is a size (of the text, or one of `sizes`) or an index of its statement.

    >>> from .parser import parse_program
    >>> argument_names(parse_program("I: identity f64[n,n]; y = (A + s*I) @ x / n; z[i] = y[i]*i; C += z"))
    ('A', 's', 'x', 'C')
    """
    names: dict[str, None] = {}
    none = set(CONSTANTS) | set(sizes) | _sizes(tree)
    for statement in tree.statements:
        if isinstance(statement, s.Declare) and any(
            isinstance(item, s.Word) and item.name.text in SPECIAL for item in statement.items
        ):
            none |= {n.text for n in statement.names}
    assigned: set[str] = set()
    for statement in tree.statements:
        if isinstance(statement, s.Assign):
            read = [statement.target.text] if statement.adds else []
            indices = _indices(statement)
            for access in _nodes(statement.value, s.Access):
                if access.slots is not None or access.name.text not in indices:
                    read.append(access.name.text)
            names.update(dict.fromkeys(n for n in read if n not in assigned | none))
            assigned.add(statement.target.text)
        elif isinstance(statement, s.Return):
            names.update(dict.fromkeys(n.text for n in statement.names if n.text not in assigned | none))
    for statement in tree.statements:
        if isinstance(statement, s.Declare):
            names.update(dict.fromkeys(n.text for n in statement.names if n.text not in assigned | none))
    return tuple(names)


def _sizes(tree: s.Program) -> set[str]:
    """The names in the sizes of declarations."""
    items = [item for t in tree.statements if isinstance(t, s.Declare) for item in t.items]
    return {n.name for item in items if isinstance(item, s.Array) for n in _nodes(item, s.IndexName)}


def _indices(statement: s.Assign) -> set[str]:
    """The indices of a statement: what stands in slots, under a reduction, or in a range."""
    found = {r.index.text for r in statement.ranges}
    for part in (statement.slots or (), *(a.slots or () for a in _nodes(statement.value, s.Access))):
        found |= {n.name for n in _nodes(part, s.IndexName)} | {
            n.text for c in _nodes(part, s.Composite) for n in c.parts
        }
    return found | {n.text for r in _nodes(statement.value, s.Reduce) for n in r.indices}


def _brackets(node: Any) -> bool:
    return isinstance(node, s.Reduce) or (isinstance(node, s.Access) and node.slots is not None)


def _dotted(access: s.Access) -> bool:
    return any(isinstance(slot, s.Dots) for slot in access.slots or ())


def _nodes(node: Any, kind: type[Any] = object) -> Iterator[Any]:
    """Every node of a kind below `node` (itself included), in order of the text."""
    if isinstance(node, kind):
        yield node
    if isinstance(node, tuple):
        for part in node:
            yield from _nodes(part, kind)
    elif hasattr(node, "__dataclass_fields__"):
        for name in node.__dataclass_fields__:
            yield from _nodes(getattr(node, name), kind)
