"""Names whose number of axes only a call can tell: those of whole-tensor statements that nobody declared.

In `y[i] = A[i,j]*x[j]` the brackets say that A has two axes. In `y = A @ x` nothing does, so such a program is
elaborated when its arguments are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from . import syntax as s

CONSTANTS = ("pi", "inf")


def undeclared_whole_names(tree: s.Program, declared: Collection[str]) -> tuple[str, ...]:
    """The names that stand in statements without brackets, and are neither assigned nor declared, in text or otherwise.

    >>> from .parser import parse_program
    >>> undeclared_whole_names(parse_program("y = kron(h, h) @ x + 2*b"), {"b"})
    ('h', 'x')
    """
    known = set(declared) | set(CONSTANTS)
    for statement in tree.statements:
        if isinstance(statement, s.Declare):
            known |= {n.text for n in statement.names}
            known |= {
                n.name for item in statement.items if isinstance(item, s.Array) for n in _nodes(item, s.IndexName)
            }
        elif isinstance(statement, s.Assign):
            known.add(statement.target.text)
    found = []
    for statement in tree.statements:
        if (
            isinstance(statement, s.Assign)
            and statement.slots is None
            and not any(_brackets(n) for n in _nodes(statement.value))
        ):
            found += [n.name.text for n in _nodes(statement.value, s.Access) if n.name.text not in known]
    return tuple(dict.fromkeys(found))


def argument_names(tree: s.Program) -> tuple[str, ...]:
    """Every tensor that is read and neither assigned before nor a constant, in order of first mention."""
    names: dict[str, None] = {}
    assigned = set(CONSTANTS)
    for statement in tree.statements:
        if isinstance(statement, s.Declare):
            continue
        if isinstance(statement, s.Assign):
            for access in _nodes(statement.value, s.Access):
                if access.name.text not in assigned:
                    names[access.name.text] = None
            assigned.add(statement.target.text)
    return tuple(names)


def _brackets(node: Any) -> bool:
    return isinstance(node, s.Reduce) or (isinstance(node, s.Access) and node.slots is not None)


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
