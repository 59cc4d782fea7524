"""A small static translator: a subset of Python becomes textual LLVM IR in which every value is a 64-bit integer.

The native entry (`native_dispatch.py`), the executor (`native_execute.py`) and the thread pool (`pool_program.py`)
are machine code. They are written as Python functions over the intrinsics below, so that editors, linters and readers
see ordinary code, and this module turns their text into one LLVM module. They are never run as Python. Addresses are
integers; memory is reached only through `load64` and its kin; functions of C are called by address through the table
`env`, so that the object code refers to no symbol and can be kept on disk.

The subset: module-level integer constants; functions of integers; assignment to names, `if`, `while`, `break`,
`continue`, `return`; integer arithmetic (`//` and `%` truncate, so keep them to non-negative numbers), comparison,
`and`, `or`, `not` in conditions, and `a if c else b`.
"""

from __future__ import annotations

import ast
import platform
from collections.abc import Sequence
from contextlib import suppress

ENV_WORDS = 64


class _MachineCodeOnlyError(RuntimeError):
    """An intrinsic was called from Python; the functions that use it exist as machine code only."""


def load64(address: int) -> int:
    """The 64-bit word at `address`."""
    raise _MachineCodeOnlyError


def load32(address: int) -> int:
    """The 32-bit integer at `address`, with its sign."""
    raise _MachineCodeOnlyError


def store64(address: int, value: int) -> None:
    """Write a 64-bit word."""
    raise _MachineCodeOnlyError


def atomic_load64(address: int) -> int:
    """The word at `address`, sequentially consistent."""
    raise _MachineCodeOnlyError


def atomic_store64(address: int, value: int) -> None:
    """Write a word, sequentially consistent."""
    raise _MachineCodeOnlyError


def atomic_add64(address: int, value: int) -> int:
    """Add to the word at `address`; the value before."""
    raise _MachineCodeOnlyError


def swap64(address: int, old: int, new: int) -> int:
    """Compare and exchange: 1 if the word at `address` was `old` and is `new` now, else 0."""
    raise _MachineCodeOnlyError


def low32(value: int) -> int:
    """The low 32 bits with their sign: what a C function returning `int` means."""
    raise _MachineCodeOnlyError


def pause() -> None:
    """Tell the processor that this is a waiting loop."""
    raise _MachineCodeOnlyError


def stack(words: int) -> int:
    """The address of `words` uninitialised words of this function's stack frame; `words` is a constant."""
    raise _MachineCodeOnlyError


def env(index: int) -> int:
    """Word `index` (a constant) of the table that Python fills at load: addresses of C functions and settings."""
    raise _MachineCodeOnlyError


def env_address() -> int:
    """The address of that table."""
    raise _MachineCodeOnlyError


def address_of(name: object) -> int:
    """The address of a function of the same program."""
    raise _MachineCodeOnlyError


def call(address: int, *args: int) -> int:
    """Call a C function whose arguments and result are integers or addresses (a narrower result needs `low32`)."""
    raise _MachineCodeOnlyError


def translate(sources: Sequence[str], exports: Sequence[str]) -> str:
    """The LLVM IR of the functions in `sources` (texts of modules in the subset); those in `exports` are visible
    outside.

    Raises `SyntaxError` for text outside the subset, which is a mistake in this package.

    >>> "add i64" in translate(["def twice(a: int) -> int:\\n    return a + a"], ["twice"])
    True
    """
    trees = [ast.parse(source) for source in sources]
    constants: dict[str, int] = {}
    functions: dict[str, ast.FunctionDef] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                constants[node.targets[0].id] = _constant(node.value, constants)
    pause_declaration, pause_call = _pause()
    parts = [f"@env = internal global [{ENV_WORDS} x i64] zeroinitializer, align 64", pause_declaration]
    for name, definition in functions.items():
        parts.append(_Function(definition, constants, functions, name in exports, pause_call).text())
    # no-builtins: copying loops must not become calls of memcpy, as the object refers to no symbol.
    parts.append('attributes #0 = { nounwind uwtable "no-builtins" }')
    return "\n".join(parts) + "\n"


def _pause() -> tuple[str, str]:
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"
    if machine in ("aarch64", "arm64"):
        return "declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"
    return "", ""


_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "sdiv", ast.Mod: "srem",
    ast.LShift: "shl", ast.RShift: "ashr", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
}  # fmt: skip
_COMPARISON: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge",
}  # fmt: skip


def _constant(node: ast.expr, constants: dict[str, int]) -> int:
    """The value of a constant integer expression; `SyntaxError` if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return int(node.value)
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_constant(node.operand, constants)
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left, constants), _constant(node.right, constants)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.LShift():
                return left << right
    raise SyntaxError(f"line {node.lineno}: not a constant of the native subset: {ast.unparse(node)}")


class _Function:
    """The translation of one function: locals are stack slots, which LLVM turns into registers."""

    def __init__(
        self,
        node: ast.FunctionDef,
        constants: dict[str, int],
        functions: dict[str, ast.FunctionDef],
        exported: bool,
        pause_call: str,
    ) -> None:
        self.node, self.constants, self.functions = node, constants, functions
        self.exported, self.pause_call = exported, pause_call
        self.lines: list[str] = []
        self.slots: list[str] = []
        self.locals: set[str] = set()
        self.loops: list[tuple[str, str]] = []
        self.numbers = 0

    def text(self) -> str:
        """The `define` of the function."""
        names = [a.arg for a in self.node.args.args]
        for name in names:
            self.local(name)
            self.emit(f"store i64 %arg.{name}, ptr %v.{name}")
        for statement in self.node.body:
            self.statement(statement)
        self.emit("ret i64 0")
        linkage = "" if self.exported else "internal "
        head = f"define {linkage}i64 @{self.node.name}({', '.join(f'i64 %arg.{n}' for n in names)}) #0 {{"
        return "\n".join([head, "entry:", *self.slots, *self.lines, "}"])

    def emit(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def fresh(self, stem: str = "t") -> str:
        self.numbers += 1
        return f"{stem}{self.numbers}"

    def value(self, operation: str) -> str:
        name = f"%{self.fresh()}"
        self.emit(f"{name} = {operation}")
        return name

    def label(self, name: str) -> None:
        """Begin block `name`; the block before falls into it (harmless after a return: that code is unreachable)."""
        self.emit(f"br label %{name}")
        self.lines.append(f"{name}:")

    def local(self, name: str) -> None:
        if name not in self.locals:
            self.locals.add(name)
            self.slots.append(f"  %v.{name} = alloca i64")

    def pointer(self, address: ast.expr) -> str:
        return self.value(f"inttoptr i64 {self.expression(address)} to ptr")

    def fail(self, node: ast.stmt | ast.expr) -> SyntaxError:
        return SyntaxError(f"{self.node.name}, line {node.lineno}: outside the native subset: {ast.unparse(node)}")

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=value):
                self.expression(value)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                result = self.expression(value)
                self.local(name)
                self.emit(f"store i64 {result}, ptr %v.{name}")
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                before = self.value(f"load i64, ptr %v.{name}")
                after = self.value(f"{_ARITHMETIC[type(op)]} i64 {before}, {self.expression(value)}")
                self.emit(f"store i64 {after}, ptr %v.{name}")
            case ast.Return(value=value):
                self.emit(f"ret i64 {self.expression(value) if value is not None else 0}")
                self.lines.append(f"{self.fresh('after')}:")
            case ast.Break() | ast.Continue():
                self.emit(f"br label %{self.loops[-1][isinstance(node, ast.Continue)]}")
                self.lines.append(f"{self.fresh('after')}:")
            case ast.If(test=test, body=body, orelse=orelse):
                then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("end")
                self.branch(test, then, other)
                self.lines.append(f"{then}:")
                for inner in body:
                    self.statement(inner)
                self.emit(f"br label %{end}")
                self.lines.append(f"{other}:")
                for inner in orelse:
                    self.statement(inner)
                self.label(end)
            case ast.While(test=test, body=body):
                head, inside, end = self.fresh("while"), self.fresh("body"), self.fresh("done")
                self.label(head)
                self.branch(test, inside, end)
                self.lines.append(f"{inside}:")
                self.loops.append((end, head))
                for inner in body:
                    self.statement(inner)
                self.loops.pop()
                self.emit(f"br label %{head}")
                self.lines.append(f"{end}:")
            case _:
                raise self.fail(node)

    def branch(self, test: ast.expr, then: str, other: str) -> None:
        """Go to block `then` if `test` holds, else to `other`, evaluating no more than Python would."""
        match test:
            case ast.BoolOp(op=op, values=values):
                for part in values[:-1]:
                    rest = self.fresh("rest")
                    self.branch(part, *((rest, other) if isinstance(op, ast.And) else (then, rest)))
                    self.lines.append(f"{rest}:")
                self.branch(values[-1], then, other)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.branch(operand, other, then)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                sides = self.expression(left), self.expression(right)
                flag = self.value(f"icmp {_COMPARISON[type(op)]} i64 {sides[0]}, {sides[1]}")
                self.emit(f"br i1 {flag}, label %{then}, label %{other}")
            case _:
                flag = self.value(f"icmp ne i64 {self.expression(test)}, 0")
                self.emit(f"br i1 {flag}, label %{then}, label %{other}")

    def expression(self, node: ast.expr) -> str:
        """The LLVM operand that holds the value of `node`."""
        with suppress(SyntaxError):
            if not isinstance(node, ast.Name) or node.id not in self.locals:
                return str(_constant(node, self.constants))
        match node:
            case ast.Name(id=name) if name in self.locals:
                return self.value(f"load i64, ptr %v.{name}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.value(f"sub i64 0, {self.expression(operand)}")
            case ast.BinOp(left=left, op=op, right=right):
                sides = self.expression(left), self.expression(right)
                return self.value(f"{_ARITHMETIC[type(op)]} i64 {sides[0]}, {sides[1]}")
            case ast.IfExp(test=test, body=body, orelse=orelse):
                then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("end")
                slot = f"chosen.{self.fresh()}"
                self.local(slot)
                self.branch(test, then, other)
                for name, choice in ((then, body), (other, orelse)):
                    self.lines.append(f"{name}:")
                    self.emit(f"store i64 {self.expression(choice)}, ptr %v.{slot}")
                    self.emit(f"br label %{end}")
                self.lines.append(f"{end}:")
                return self.value(f"load i64, ptr %v.{slot}")
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.call(name, args, node)
        raise self.fail(node)

    def call(self, name: str, args: list[ast.expr], node: ast.Call) -> str:
        if name in self.functions:
            given = ", ".join(f"i64 {self.expression(a)}" for a in args)
            return self.value(f"call i64 @{name}({given})")
        match name:
            case "load64":
                return self.value(f"load i64, ptr {self.pointer(args[0])}, align 8")
            case "load32":
                narrow = self.value(f"load i32, ptr {self.pointer(args[0])}, align 4")
                return self.value(f"sext i32 {narrow} to i64")
            case "low32":
                narrow = self.value(f"trunc i64 {self.expression(args[0])} to i32")
                return self.value(f"sext i32 {narrow} to i64")
            case "store64":
                target = self.pointer(args[0])
                self.emit(f"store i64 {self.expression(args[1])}, ptr {target}, align 8")
                return "0"
            case "atomic_load64":
                return self.value(f"load atomic i64, ptr {self.pointer(args[0])} seq_cst, align 8")
            case "atomic_store64":
                target = self.pointer(args[0])
                self.emit(f"store atomic i64 {self.expression(args[1])}, ptr {target} seq_cst, align 8")
                return "0"
            case "atomic_add64":
                target = self.pointer(args[0])
                return self.value(f"atomicrmw add ptr {target}, i64 {self.expression(args[1])} seq_cst, align 8")
            case "swap64":
                target, old, new = self.pointer(args[0]), self.expression(args[1]), self.expression(args[2])
                pair = self.value(f"cmpxchg ptr {target}, i64 {old}, i64 {new} seq_cst seq_cst, align 8")
                flag = self.value(f"extractvalue {{ i64, i1 }} {pair}, 1")
                return self.value(f"zext i1 {flag} to i64")
            case "pause":
                self.emit(self.pause_call or "fence seq_cst")
                return "0"
            case "stack":
                slot = f"%stack.{self.fresh()}"
                self.slots.append(f"  {slot} = alloca [{_constant(args[0], self.constants)} x i64], align 16")
                return self.value(f"ptrtoint ptr {slot} to i64")
            case "env":
                word = _constant(args[0], self.constants)
                where = f"getelementptr inbounds ([{ENV_WORDS} x i64], ptr @env, i64 0, i64 {word})"
                return self.value(f"load i64, ptr {where}, align 8")
            case "env_address":
                return self.value("ptrtoint ptr @env to i64")
            case "address_of" if isinstance(args[0], ast.Name) and args[0].id in self.functions:
                return self.value(f"ptrtoint ptr @{args[0].id} to i64")
            case "call":
                target = self.pointer(args[0])
                given = ", ".join(f"i64 {self.expression(a)}" for a in args[1:])
                return self.value(f"call i64 {target}({given})")
        raise self.fail(node)
