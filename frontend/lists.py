"""Lists of positions in slots: `x[J[s],b]` and `y[I[s],a] = ...`, written out before elaboration.

A slot may read a tensor of integers. On the right, `x[J[s],b]` is short for `sum[p](x[p,b] * (p == J[s]))`; on the
left, `y[I[s],a] = e` for `y[p,a] = (p == I[s]) * (e)`, which sums over s, so that positions which are named several
times hold the sum. As the comparison says, a value outside of the axis selects nothing: 0 is read, nothing is added.
No dense selection is ever made of it (`ir.lookup`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ..ir.errors import Source
from . import syntax as s


def written_out(program: s.Program) -> s.Program:
    """The program without lists in slots.

    >>> from .parser import parse_program
    >>> statement = parse_program("y[s] = x[J[s]]").statements[0]
    >>> statement.value.operation.text, statement.value.body.right.operator.text
    ('sum', '==')
    """
    if "[" not in program.source.text:
        return program
    names = _fresh(program.source)
    statements = tuple(_statement(t, names) if isinstance(t, s.Assign) else t for t in program.statements)
    same = all(a is b for a, b in zip(statements, program.statements, strict=True))
    return program if same else replace(program, statements=statements)


def has_list(slot: s.Slot) -> bool:
    """Whether a slot reads a tensor."""
    match slot:
        case s.IndexList():
            return True
        case s.IndexNegative(operand=operand):
            return has_list(operand)
        case s.IndexBinary(left=left, right=right):
            return has_list(left) or has_list(right)
    return False


def _fresh(source: Source) -> Iterator[str]:
    """Names of indices that the text does not use."""
    used = set(re.findall(r"\w+", source.text))
    count = 0
    while True:
        count += 1
        if f"p{count}" not in used:
            yield f"p{count}"


def _statement(assign: s.Assign, names: Iterator[str]) -> s.Assign:
    value = _expr(assign.value, names)
    assert isinstance(value, EXPRESSIONS)
    slots, tests = _slots(assign.slots or (), names)
    for test in tests:
        value = s.Binary(s.Name("*", assign.left), test, value, assign.value.span)
    if not tests and value is assign.value:
        return assign
    return replace(assign, slots=slots if tests else assign.slots, value=value)


def _slots(slots: tuple[s.Slot, ...], names: Iterator[str]) -> tuple[tuple[s.Slot, ...], list[s.Binary]]:
    """The slots with an index for each list, and the comparisons that say what the index is."""
    out: list[s.Slot] = []
    tests = []
    for slot in slots:
        if not has_list(slot):
            out.append(slot)
            continue
        assert isinstance(slot, s.IndexList | s.IndexNegative | s.IndexBinary)
        name, span = next(names), slot.span
        out.append(s.IndexName(name, span))
        here = s.Access(s.Name(name, span), None, span)
        tests.append(s.Binary(s.Name("==", span), here, _value(slot, names), span))
    return tuple(out), tests


def _value(slot: s.IndexExpr, names: Iterator[str]) -> s.Expr:
    """An index expression as a number."""
    span = slot.span
    match slot:
        case s.IndexList(access=access):
            found = _expr(access, names)
            assert isinstance(found, EXPRESSIONS)
            return found
        case s.IndexName(name=name):
            return s.Access(s.Name(name, span), None, span)
        case s.IndexNumber(value=value):
            return s.Number(value, span)
        case s.IndexNegative(operand=operand):
            return s.Sign(s.Name("-", span), _value(operand, names), span)
    assert isinstance(slot, s.IndexBinary)
    return s.Binary(s.Name(slot.operator, span), _value(slot.left, names), _value(slot.right, names), span)


def _expr(node: s.Argument, names: Iterator[str]) -> s.Argument:
    """An expression with every access that has lists written out."""
    match node:
        case s.Access(slots=tuple() as slots):
            plain, tests = _slots(slots, names)
            if not tests:
                return node
            product: s.Expr = replace(node, slots=plain)
            for test in tests:
                product = s.Binary(s.Name("*", node.span), product, test, node.span)
            bound = tuple(t.left.name for t in tests if isinstance(t.left, s.Access))
            return s.Reduce(s.Name("sum", node.span), bound, product, node.span)
        case s.Binary(left=left, right=right):
            return _rebuilt(node, names, left=left, right=right)
        case s.Sign(operand=operand) | s.Transpose(operand=operand):
            return _rebuilt(node, names, operand=operand)
        case s.Reduce(body=body):
            return _rebuilt(node, names, body=body)
        case s.Keyword(value=value):
            return _rebuilt(node, names, value=value)
        case s.Interval(low=low, high=high):
            return _rebuilt(node, names, low=low, high=high)
        case s.Tuple(items=items):
            return _with_all(node, "items", items, names)
        case s.Call(args=args, body=more):
            new = _with_all(node, "args", args, names)
            return new if more is None else _rebuilt(new, names, body=more)
    return node


def _rebuilt(node: s.Argument, names: Iterator[str], **parts: s.Argument) -> s.Argument:
    new = {key: _expr(part, names) for key, part in parts.items()}
    return node if all(new[key] is parts[key] for key in parts) else replace(node, **new)  # type: ignore[arg-type]


def _with_all(node: s.Argument, key: str, parts: tuple[s.Argument, ...], names: Iterator[str]) -> s.Argument:
    new = tuple(_expr(part, names) for part in parts)
    same = all(a is b for a, b in zip(new, parts, strict=True))
    return node if same else replace(node, **{key: new})  # type: ignore[arg-type]


EXPRESSIONS = (s.Number, s.Access, s.Call, s.Reduce, s.Binary, s.Sign, s.Transpose)
