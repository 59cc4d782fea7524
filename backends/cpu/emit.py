"""Text of LLVM functions, with integers folded while it is written: the lowest layer of the CPU code generator.

A number is a Python int (known now) or the name of an SSA value (known at run time); arithmetic on two ints leaves no
trace in the text. That is why a kernel for constant sizes needs no generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Number = int | str
Carried = tuple[str, str]  # an LLVM type and a value that a loop carries

_Fold = Callable[[int, int], int]


class Code:
    """One function body under construction, with the declarations and helper functions that it needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.helpers: dict[str, str] = {}
        self.block = "entry"
        self._names = 0

    def fresh(self) -> str:
        """A new SSA name."""
        self._names += 1
        return f"%v{self._names}"

    def label_name(self) -> str:
        """A new block name."""
        self._names += 1
        return f"b{self._names}"

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append("  " + text)

    def op(self, text: str) -> str:
        """An instruction with a result; its name."""
        name = self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self, name: str) -> None:
        """Begin a block."""
        self.lines.append(name + ":")
        self.block = name

    def call(self, result: str, function: str, *args: str) -> str:
        """Call a function of LLVM or of the process; each argument is written "type value"."""
        types = (a[: a.index(">") + 1] if a[0] == "<" else a[: a.index(" ")] for a in args)
        self.declarations.add(f"declare {result} @{function}({', '.join(types)})")
        return self.invoke(result, function, *args)

    def invoke(self, result: str, function: str, *args: str, flags: str = "") -> str:
        """Call a function that is declared or defined elsewhere in the module."""
        text = f"call {flags}{result} @{function}({', '.join(args)})"
        if result == "void":
            self.do(text)
            return ""
        return self.op(text)

    # --- integers, folded -------------------------------------------------------------------------------------------

    def _binary(self, opcode: str, a: Number, b: Number, fold: _Fold) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return fold(a, b)
        return self.op(f"{opcode} i64 {a}, {b}")

    def add(self, a: Number, b: Number) -> Number:
        """a + b."""
        if a == 0:
            return b
        return a if b == 0 else self._binary("add", a, b, lambda x, y: x + y)

    def sub(self, a: Number, b: Number) -> Number:
        """a - b."""
        return a if b == 0 else self._binary("sub", a, b, lambda x, y: x - y)

    def mul(self, a: Number, b: Number) -> Number:
        """a * b."""
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        return a if b == 1 else self._binary("mul", a, b, lambda x, y: x * y)

    def minimum(self, a: Number, b: Number) -> Number:
        """The smaller of two numbers."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.call("i64", "llvm.smin.i64", f"i64 {a}", f"i64 {b}")

    def floor(self, a: Number, step: Number) -> Number:
        """The largest multiple of `step` that is at most `a`, which is not negative."""
        if step == 1:
            return a
        if isinstance(a, int) and isinstance(step, int):
            return a // step * step
        if isinstance(step, int) and step & (step - 1) == 0:
            return self.op(f"and i64 {a}, {-step}")
        return self.mul(self.op(f"udiv i64 {a}, {step}"), step)

    def offset(self, pointer: str, bytes_: Number) -> str:
        """`pointer` moved by a number of bytes."""
        return pointer if bytes_ == 0 else self.op(f"getelementptr i8, ptr {pointer}, i64 {bytes_}")

    # --- control ----------------------------------------------------------------------------------------------------

    def loop(
        self,
        low: Number,
        high: Number,
        step: Number,
        carried: Sequence[Carried],
        body: Callable[[Number, list[str]], list[str]],
    ) -> list[str]:
        """for i in range(low, high, step), carrying values; what they are afterwards.

        `body(i, values)` writes one pass and returns the new values. No trip or one known trip leaves no loop.
        """
        if isinstance(low, int) and isinstance(high, int) and isinstance(step, int):
            if low >= high:
                return [value for _, value in carried]
            if low + step >= high:
                return body(low, [value for _, value in carried])
        enter = self.op(f"icmp slt i64 {low}, {high}")
        before, inside, after = self.block, self.label_name(), self.label_name()
        self.do(f"br i1 {enter}, label %{inside}, label %{after}")
        self.label(inside)
        at = len(self.lines)
        index = self.fresh()
        values = [self.fresh() for _ in carried]
        # Frozen values are opaque to LLVM's search for induction variables, which takes most of the time of compiling
        # and finds nothing: addresses are carried from step to step as they should be.
        new = body(self.op(f"freeze i64 {index}"), values)
        new = [
            self.op(f"freeze ptr {result}") if type_ == "ptr" else result
            for result, (type_, _) in zip(new, carried, strict=True)
        ]
        following = self.op(f"add i64 {index}, {step}")
        again = self.op(f"icmp slt i64 {following}, {high}")
        end = self.block
        phis = [f"  {index} = phi i64 [{low}, %{before}], [{following}, %{end}]"]
        for value, (type_, start), result in zip(values, carried, new, strict=True):
            phis.append(f"  {value} = phi {type_} [{start}, %{before}], [{result}, %{end}]")
        self.lines[at:at] = phis
        self.do(f"br i1 {again}, label %{inside}, label %{after}")
        self.label(after)
        return [
            self.op(f"phi {type_} [{start}, %{before}], [{result}, %{end}]")
            for (type_, start), result in zip(carried, new, strict=True)
        ]

    def branch(self, condition: str, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """if condition: then() else: otherwise(); neither leaves a value."""
        yes, no, after = self.label_name(), self.label_name(), self.label_name()
        self.do(f"br i1 {condition}, label %{yes}, label %{no}")
        self.label(yes)
        then()
        self.do(f"br label %{after}")
        self.label(no)
        otherwise()
        self.do(f"br label %{after}")
        self.label(after)

    def module(self, name: str, attributes: str) -> str:
        """The whole module: helpers, declarations and `void name(ptr args, i64 lo, i64 hi)`."""
        helpers = "\n".join(self.helpers[key] for key in sorted(self.helpers))
        defined = {
            line.split("@", 1)[1].split("(", 1)[0] for line in helpers.splitlines() if line.startswith("declare")
        }
        declared = [d for d in sorted(self.declarations) if d.split("@", 1)[1].split("(", 1)[0] not in defined]
        head = f"define void @{name}(ptr %args, i64 %lo, i64 %hi) {attributes} {{"
        return "\n".join([helpers, *declared, head, "entry:", *self.lines, "  ret void", "}", ""])


def split_definitions(text: str) -> dict[str, str]:
    """The top-level definitions, declarations and globals of a module's text, by their symbol: so that two helper texts
    which share a function can stand in one module.

    >>> sorted(split_definitions("declare float @g(float)\\ndefine float @f() {\\n  ret float 0.0\\n}"))
    ['f', 'g']
    """
    parts: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        chunk = [line]
        if line.startswith("define"):
            while chunk[-1].rstrip() != "}":
                chunk.append(next(lines))
        symbol = line.split("@", 1)[1] if "@" in line else line
        parts[symbol.split("(", 1)[0].split(" ", 1)[0].strip('"')] = "\n".join(chunk)
    return parts
