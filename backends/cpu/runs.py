"""Walks a list in runs: the stretches in which every position goes to the same place, so that a tile can keep the
sums of a whole run in registers and store once.

Positions with a value outside of its axis (or outside of the call's share) are skipped and end a run. Lists that are
contiguous are compared eight values at a time. The caller writes the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...ir.loops import Guard, Runs
from ...ir.types import DType
from .emit import Code, Number
from .scope import Scope

_WIDE = 8  # values that are compared at a time
_SAMPLE = 256  # steps that decide whether a list stands in groups
_GROUP = 4  # steps of a group that pays

Test = Callable[[str], str]


def load_position(code: Code, pointer: str, dtype: DType) -> str:
    """The integer at an address as i64; as an unsigned number, a negative one is outside of every axis."""
    raw = code.op(f"load i{dtype.bits}, ptr {pointer}, align 1")
    if dtype.bits == 64:
        return raw
    return code.op(f"{'sext' if dtype.kind == 'i' else 'zext'} i{dtype.bits} {raw} to i64")


def owned_by_call(code: Code, value: str) -> str:
    """Whether a position is in the call's share lo..hi."""
    return code.op(f"icmp ult i64 {code.op(f'sub i64 {value}, %lo')}, {code.op('sub i64 %hi, %lo')}")


def emit_runs(code: Code, node: Runs, scope: Scope, body: Callable[[Scope], None]) -> None:
    """Write the loop over the runs of `node.axis`; `body` writes what is done with one, in its scope."""
    lists = _Lists(code, node, scope)
    extent = scope.extents[node.axis]
    before, head, look, skip, go, latch, after = code.block, *(code.label_name() for _ in range(6))
    code.do(f"br label %{head}")
    code.label(head)
    at = len(code.lines)
    position = code.fresh()
    code.do(f"br i1 {code.op(f'icmp slt i64 {position}, {extent}')}, label %{look}, label %{after}")
    code.label(look)
    values = [lists.value(k, position) for k in range(len(node.lookups))]
    fits = [lists.inside(k, v) for k, v in enumerate(values)]
    code.do(f"br i1 {_all(code, 'i1', fits)}, label %{go}, label %{skip}")
    code.label(skip)
    skipped = code.op(f"add i64 {position}, 1")
    if node.dense and node.owned is not None:
        skipped = _advance(code, skipped, _WIDE, extent, lists.all_foreign)
    skip_end = code.block
    code.do(f"br label %{latch}")
    code.label(go)
    end = code.op(f"add i64 {position}, 1")
    if node.dense:
        end = _advance(code, end, _WIDE, extent, lambda p: lists.all_alike(p, values))
    end = _advance(code, end, 1, extent, lambda p: lists.alike(p, values))
    length = code.op(f"sub i64 {end}, {position}")
    inner = replace(scope, via={**scope.via, **{(node.axis, t): pairs for t, pairs in node.moved}})
    inner = inner.at(code, node.axis, position, length, length)
    for k in node.keys:
        inner = inner.at(code, node.lookups[k][1], values[k], 1, 1)
    body(inner)
    go_end = code.block
    code.do(f"br label %{latch}")
    code.label(latch)
    following = code.op(f"phi i64 [{skipped}, %{skip_end}], [{end}, %{go_end}]")
    code.do(f"br label %{head}")
    code.lines.insert(at, f"  {position} = phi i64 [0, %{before}], [{following}, %{latch}]")
    code.label(after)


def emit_guard(code: Code, node: Guard, scope: Scope, body: Callable[[], None]) -> None:
    """Write the test of a list, and `body` behind it. Every call of a kernel decides alike."""
    pointer, dtype = scope.pointers[node.index], scope.dtypes[node.index]
    stride = scope.strides[node.index].get(node.axis, 0)
    steps = code.minimum(code.sub(scope.extents[node.axis], 1), _SAMPLE)

    def step(i: Number, values: list[str]) -> list[str]:
        here = code.offset(pointer, code.mul(i, stride))
        one, two = load_position(code, here, dtype), load_position(code, code.offset(here, stride), dtype)
        differ = code.op(f"icmp ne i64 {one}, {two}")
        return [code.op(f"add i64 {values[0]}, {code.op(f'zext i1 {differ} to i64')}")]

    (changes,) = code.loop(0, steps, 1, [("i64", "0")], step)
    often = code.op(f"icmp sgt i64 {code.mul(changes, _GROUP)}, {steps}")
    if node.grouped:
        code.branch(often, _nothing, body)
    else:
        code.branch(often, body, _nothing)


def _nothing() -> None:
    """The branch that is not taken."""


def _all(code: Code, type_: str, conditions: list[str]) -> str:
    joint = conditions[0]
    for condition in conditions[1:]:
        joint = code.op(f"and {type_} {joint}, {condition}")
    return joint


def _advance(code: Code, start: str, step: int, extent: Number, test: Test) -> str:
    """The first position from `start` on, in steps, at which `test` fails or fewer than `step` positions are left."""
    before, head, look, after = code.block, code.label_name(), code.label_name(), code.label_name()
    code.do(f"br label %{head}")
    code.label(head)
    at = len(code.lines)
    position = code.fresh()
    following = code.op(f"add i64 {position}, {step}")
    code.do(f"br i1 {code.op(f'icmp sle i64 {following}, {extent}')}, label %{look}, label %{after}")
    code.label(look)
    good = test(position)
    code.lines.insert(at, f"  {position} = phi i64 [{start}, %{before}], [{following}, %{code.block}]")
    code.do(f"br i1 {good}, label %{head}, label %{after}")
    code.label(after)
    return position


class _Lists:
    """The integers of the lookups of a node at a position."""

    def __init__(self, code: Code, node: Runs, scope: Scope) -> None:
        self.code, self.node, self.scope = code, node, scope
        self.extents = [scope.extents[axis] for _, axis in node.lookups]

    def _pointer(self, k: int, position: str) -> tuple[str, DType]:
        index = self.node.lookups[k][0]
        stride = self.scope.strides[index].get(self.node.axis, 0)
        pointer = self.code.offset(self.scope.pointers[index], self.code.mul(position, stride))
        return pointer, self.scope.dtypes[index]

    def value(self, k: int, position: str) -> str:
        """The integer of one lookup."""
        return load_position(self.code, *self._pointer(k, position))

    def inside(self, k: int, value: str) -> str:
        """Whether a position is one of its axis, and of the share."""
        fits = self.code.op(f"icmp ult i64 {value}, {self.extents[k]}")
        return _all(self.code, "i1", [fits, owned_by_call(self.code, value)]) if k == self.node.owned else fits

    def alike(self, position: str, values: list[str]) -> str:
        """Whether the run goes on at a position."""
        fits = []
        for k in range(len(self.node.lookups)):
            value = self.value(k, position)
            same = k in self.node.keys
            fits.append(self.code.op(f"icmp eq i64 {value}, {values[k]}") if same else self.inside(k, value))
        return _all(self.code, "i1", fits)

    # eight positions at a time

    def _vector(self, k: int, position: str) -> str:
        pointer, dtype = self._pointer(k, position)
        raw = self.code.op(f"load <{_WIDE} x i{dtype.bits}>, ptr {pointer}, align 1")
        if dtype.bits == 64:
            return raw
        widen = "sext" if dtype.kind == "i" else "zext"
        return self.code.op(f"{widen} <{_WIDE} x i{dtype.bits}> {raw} to <{_WIDE} x i64>")

    def _compare(self, how: str, vector: str, number: Number) -> str:
        code = self.code
        one = code.op(f"insertelement <{_WIDE} x i64> poison, i64 {number}, i64 0")
        zeros = f"<{_WIDE} x i32> zeroinitializer"
        every = code.op(f"shufflevector <{_WIDE} x i64> {one}, <{_WIDE} x i64> poison, {zeros}")
        return code.op(f"icmp {how} <{_WIDE} x i64> {vector}, {every}")

    def _every(self, flags: list[str]) -> str:
        bits = self.code.op(f"bitcast <{_WIDE} x i1> {_all(self.code, f'<{_WIDE} x i1>', flags)} to i{_WIDE}")
        return self.code.op(f"icmp eq i{_WIDE} {bits}, -1")

    def all_alike(self, position: str, values: list[str]) -> str:
        """Whether the run goes on for eight positions."""
        flags = []
        for k in range(len(self.node.lookups)):
            vector = self._vector(k, position)
            same = k in self.node.keys
            flags.append(self._compare("eq" if same else "ult", vector, values[k] if same else self.extents[k]))
        return self._every(flags)

    def all_foreign(self, position: str) -> str:
        """Whether none of eight positions is in the share."""
        assert self.node.owned is not None
        code, vector = self.code, self._vector(self.node.owned, position)
        low = code.op(f"insertelement <{_WIDE} x i64> poison, i64 %lo, i64 0")
        zeros = f"<{_WIDE} x i32> zeroinitializer"
        every = code.op(f"shufflevector <{_WIDE} x i64> {low}, <{_WIDE} x i64> poison, {zeros}")
        distance = code.op(f"sub <{_WIDE} x i64> {vector}, {every}")
        return self._every([self._compare("uge", distance, code.op("sub i64 %hi, %lo"))])
