"""`stein.compile`: from the text of a program, and what keywords say of its tensors, to a `Compiled` callable."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import numpy as np

from ..frontend import syntax
from ..frontend.declare import Declaration
from ..frontend.whole_names import argument_names, undeclared_whole_names
from ..ir.errors import BackendError, DTypeError, EinsumSyntaxError, ShapeError, Source, Span
from ..ir.expr import Constraint, Program
from ..ir.semiring import PLUS_TIMES, Semiring
from ..ir.size import Size
from ..ir.types import F64, DType, parse_dtype
from .compiled import Compiled, callable_class
from .declare import Tensor, check_dtype, declaration_of
from .deferred import Deferred
from .expression import Expression, Options
from .fix import fix_sizes
from .operands import Array
from .settings import check_options, check_semiring
from .stages import expression_of
from .torch_graphs import admit
from .verify import verify_constants

if TYPE_CHECKING:
    from .encrypted import EncryptedCompiled
    from .encrypted_choice import Wanted

TARGETS = ("cpu", "cuda", "reference", "ckks")


@overload
def compile(program: str, /, *shapes: Any, target: Literal["ckks"], **options: Any) -> EncryptedCompiled: ...


@overload
def compile(program: str, /, *shapes: Any, target: str = "cpu", **options: Any) -> Compiled: ...


def compile(
    program: str,
    /,
    *shapes: Any,
    dtype: Any = None,
    target: str = "cpu",
    optimize: Any = "auto",
    memory_limit: Any = None,
    strict: bool = False,
    accumulate: Any = None,
    semiring: str | Semiring = PLUS_TIMES,
    semirings: Mapping[str, Semiring] | None = None,
    names: bool = False,
    diagonal_output: bool = False,
    check: bool = False,
    name: str = "<program>",
    precision: float | str | None = None,
    rings: Any = None,
    structure: bool = True,
    **declarations: Any,
) -> Any:
    """Compile a program of the named language, or an einsum string, into a callable.

    A keyword that names a tensor declares it: a shape (integers and size names), an array (its shape and type), or
    `stein.tensor(...)`, `stein.constant(...)`, `stein.encrypted(...)`; declarations in the text do the same. For an
    einsum string the shapes of the operands follow the string. `dtype` is the type of tensors that are given none;
    without it each call's arguments decide. `semirings` maps names that `over` may use to `Semiring` values,
    `accumulate` is the type that sums are kept in, `check=True` verifies declared structure on each call, `name`
    stands in messages as the file name. For `target="ckks"`, `precision` is the error that is wanted relative to the
    largest result (1e-5), `rings` which rings to consider, and `structure=False` leaves all structure unused, to
    compare; the result is an `EncryptedCompiled`, else a `Compiled`. For `target="cuda"`, `precision` is that of
    products of f32: "ieee" (the default), "tf32", "tf32x3", "bf16" or "fp16". A tensor that bears the name of one of
    these options is declared in the text; `out` is the keyword of every call, so no argument may be called that.

    Raises `EinsumSyntaxError`, `ShapeError`, `DTypeError`, `StructureError`, `EncryptionError` or `BackendError`.

    >>> import numpy as np
    >>> f = compile("y[i] = A[i,k] * x[k] + b[i]", dtype="float64")
    >>> f(A=np.eye(2), x=[1.0, 2.0], b=[10.0, 20.0])
    array([11., 22.])
    """
    if not isinstance(program, str):
        raise DTypeError(f"the program is a {type(program).__name__}, not a text", code="not-a-program")
    _check_target(target)
    options = check_options(optimize, memory_limit, strict)
    element = check_dtype(dtype)
    flags = {"strict": strict, "names": names, "diagonal_output": diagonal_output, "check": check}
    _check_words(flags, name, semirings)
    if target == "cuda":
        from .gpu import checked_precision

        options, precision = replace(options, precision=checked_precision(precision)), None
    wanted = _wanted(target, precision, rings, structure)
    if "=" in program or ":" in program:
        _check_named(shapes, semiring, names, diagonal_output)
        return _compile_named(
            program, declarations, element, target, options, check_dtype(accumulate), semirings or {}, name, check,
            wanted,
        )  # fmt: skip
    if declarations:
        raise DTypeError(
            f"an einsum string names no tensor {next(iter(declarations))!r}",
            code="unknown-keyword",
            help='give the shapes in order: stein.compile("ij,jk->ik", (64, 32), (32, 16))',
        )
    return _compile_classic(
        program,
        shapes,
        element,
        target,
        options,
        check_dtype(accumulate),
        check_semiring(semiring),
        names,
        diagonal_output,
        wanted,
    )


def _wanted(target: str, precision: Any, rings: Any, structure: Any) -> Wanted | None:
    """The options of encrypted programs; None for other targets, which have none of them."""
    if target == "ckks":
        from .encrypted import checked_wanted

        return checked_wanted(precision, rings, structure)
    if precision is not None or rings is not None or structure is not True:
        raise DTypeError(
            "precision, rings and structure are options of encrypted programs",
            code="bad-option",
            help='target="ckks"; a tensor of that name is declared in the text',
        )
    return None


def _check_words(flags: Mapping[str, Any], name: Any, semirings: Any) -> None:
    """`DTypeError` for options of another type, most often shapes of a tensor that is called as an option is."""
    for option, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            _refuse(option, value, "True or False")
    if not isinstance(name, str):
        _refuse("name", name, "a text")
    if semirings is not None and not (
        isinstance(semirings, Mapping) and all(isinstance(s, Semiring) for s in semirings.values())
    ):
        _refuse("semirings", semirings, "a dict of stein.Semiring by name")


def _refuse(option: str, value: Any, wanted: str) -> NoReturn:
    raise DTypeError(
        f"the option {option} is {value!r}; it is {wanted}",
        code="bad-option",
        help=f"a tensor of that name is declared in the text: {option}: f64[n]",
    )


def _check_named(shapes: tuple[Any, ...], semiring: Any, names: bool, diagonal_output: bool) -> None:
    """`DTypeError` for options of einsum strings, which a named program says in its text."""
    if shapes:
        raise DTypeError("shapes of a named program are given by keyword", code="positional-shapes", help="A=(64, 64)")
    for option, given, hint in (
        ("semiring", semiring not in (PLUS_TIMES, PLUS_TIMES.name), "end the statement with `over maxplus`"),
        ("names", names, "leave it out: the names of a program are words"),
        ("diagonal_output", diagonal_output, "leave it out: D[i,i] = x[i] writes a diagonal"),
    ):
        if given:
            raise DTypeError(f"the option {option} is for einsum strings", code="classic-option", help=hint)


def _compile_named(
    text: str,
    keywords: Mapping[str, Any],
    element: DType | None,
    target: str,
    options: Options,
    accumulate: DType | None,
    semirings: Mapping[str, Semiring],
    name: str,
    check: bool,
    wanted: Wanted | None = None,
) -> Any:
    from ..frontend.elaborate import elaborate
    from ..frontend.parser import parse_program

    tree = parse_program(text, name)
    _check_declared(text, keywords)
    declarations = {}
    constants: dict[str, Array] = {}
    for tensor, value in keywords.items():
        declarations[tensor], array = declaration_of(tensor, value)
        if array is not None:
            constants[tensor] = array

    sizes = _size_names(declarations)
    if wanted is None and undeclared_whole_names(tree, {*declarations, *sizes}):
        names = tuple(n for n in argument_names(tree, sizes) if n not in constants)
        _check_arguments(names, tree.source)

        def made(arrays: Mapping[str, Array]) -> Compiled:
            full = {**{n: _keyword(a, element) for n, a in arrays.items()}, **keywords}
            compiled: Compiled = _compile_named(
                text, full, element, target, options, accumulate, semirings, name, check
            )
            return compiled

        return Deferred(names, target, made)

    def typed(types: Mapping[str, DType]) -> Program:
        given = dict(declarations)
        for tensor, dtype in types.items():
            old = given.get(tensor)
            given[tensor] = replace(old, dtype=dtype) if old else Declaration(None, dtype, (), False, False)
        return elaborate(tree, given, default_dtype=element or F64, semirings=semirings, accumulate=accumulate)

    first = typed({})
    _check_arguments([i.name for i in first.inputs if i.name not in constants], tree.source)
    inputs = {i.name for i in first.inputs} - set(constants)
    known = _typed_in_text(tree) | {n for n, d in declarations.items() if d.dtype is not None}
    open_types = frozenset() if element else frozenset(inputs - known)
    return _build(typed, target, options, constants, open_types, check, wanted, _ranges(keywords))


def _size_names(declarations: Mapping[str, Declaration]) -> set[str]:
    """The names in the shapes that keywords gave."""
    texts = [n for d in declarations.values() for n in d.shape or () if isinstance(n, str)]
    return {word for text in texts for word in re.findall(r"[^\W\d]\w*", text)}


def _check_arguments(names: Sequence[str], source: Source) -> None:
    if "out" not in names:
        return
    word = re.search(r"\bout\b", source.text)
    raise EinsumSyntaxError(
        "an argument cannot be called 'out', which is the keyword for the results of a call",
        code="reserved-name",
        source=source,
        spans=(Span(*word.span()),) if word else (),
        help="rename it",
    )


def _keyword(array: Array, element: DType | None) -> Any:
    """What a call's array declares: its shape, and its type where no type was given for all."""
    return array if element is None else Tensor(array.shape, element)


def _check_declared(text: str, keywords: Mapping[str, Any]) -> None:
    """Every keyword names something in the text: one that does not is most often misspelt."""
    words = set(re.findall(r"\w+", unicodedata.normalize("NFKC", text)))
    for keyword in keywords:
        if unicodedata.normalize("NFKC", keyword) not in words and keyword.isidentifier():
            near = difflib.get_close_matches(keyword, sorted(words), 1)
            raise EinsumSyntaxError(
                f"there is no tensor {keyword!r} in the program",
                code="unused-declaration",
                help=f"did you mean {near[0]!r}?" if near else "leave it out",
            )


def _typed_in_text(tree: syntax.Program) -> set[str]:
    """The tensors whose type the text declares."""
    return {
        name.text
        for statement in tree.statements
        if isinstance(statement, syntax.Declare)
        for name in statement.names
        for item in statement.items
        if isinstance(item, syntax.Array)
        or (isinstance(item, syntax.Word) and item.args is None and parse_dtype(item.name.text) is not None)
    }


def _compile_classic(
    text: str,
    shapes: tuple[Any, ...],
    element: DType | None,
    target: str,
    options: Options,
    accumulate: DType | None,
    semiring: Semiring,
    names: bool,
    diagonal_output: bool,
    wanted: Wanted | None = None,
) -> Any:
    from ..frontend.classic import check_shapes, elaborate_spec, parse_spec

    spec = parse_spec(text, names)
    given = [declaration_of(f"operand {k}", s) for k, s in enumerate(shapes)]
    declared = [d.shape or () for d, _ in given]
    _check_size_names(declared)
    if not shapes:
        declared = [("",) * len(t.slots) for t in spec.inputs]
        if any(t.ellipsis is not None for t in spec.inputs):
            raise ShapeError(
                "with an ellipsis the number of axes must be known",
                code="unknown-rank",
                help="give the shapes: stein.compile(spec, (2, 3), (3, 4))",
            )
    ranks = tuple(len(s) for s in declared)
    if len(declared) != len(spec.inputs) or all(isinstance(n, int) for s in declared for n in s):
        check_shapes(spec, tuple(tuple(n if isinstance(n, int) else 2 for n in s) for s in declared))
    ones = tuple(tuple(n == 1 for n in s) for s in declared)
    constants = {f"op{k}": a for k, (_, a) in enumerate(given) if a is not None}
    dtypes = [d.dtype for d, _ in given] or [None] * len(ranks)

    def typed(types: Mapping[str, DType]) -> Program:
        operands = tuple(types.get(f"op{k}", d or element or F64) for k, d in enumerate(dtypes))
        program = elaborate_spec(
            spec, ranks, ones, operands, semiring=semiring, accumulate=accumulate, diagonal_output=diagonal_output
        )
        secret = {f"op{k}" for k, (d, _) in enumerate(given) if d.encrypted}
        inputs = tuple(replace(i, encrypted=True) if i.name in secret else i for i in program.inputs)
        return _with_extents(replace(program, inputs=inputs), declared)

    open_types = frozenset(f"op{k}" for k, d in enumerate(dtypes) if d is None and element is None) - set(constants)
    ranges = _ranges({f"op{k}": s for k, s in enumerate(shapes)})
    return _build(typed, target, options, constants, open_types, wanted=wanted, ranges=ranges)


def _ranges(keywords: Mapping[str, Any]) -> dict[str, float]:
    """The largest magnitudes that were declared, by tensor."""
    return {n: v.range for n, v in keywords.items() if isinstance(v, Tensor) and v.range is not None}


def _check_size_names(shapes: Sequence[Sequence[int | str]]) -> None:
    for number, shape in enumerate(shapes):
        for extent in shape:
            if isinstance(extent, str) and extent and not extent.isidentifier():
                raise ShapeError(
                    f"operand {number} has an axis of size {extent!r}",
                    code="bad-size",
                    help="sizes of the operands of an einsum string are numbers and names",
                )


def _with_extents(program: Program, shapes: Sequence[Sequence[int | str]]) -> Program:
    """The program with the sizes that were declared in numbers, and a constraint for each name that stands twice."""
    fixed: dict[str, int] = {}
    named: dict[str, Size] = {}
    demands: list[Constraint] = []
    for operand, shape in zip(program.inputs, shapes, strict=True):
        for axis, (size, extent) in enumerate(zip(operand.shape, shape, strict=True)):
            if isinstance(extent, int) and size.single is not None:
                fixed[size.single] = extent
                continue
            wanted = Size.of(extent) if isinstance(extent, int) else named.setdefault(extent, size) if extent else size
            sentence = f"axis {axis} of {operand.name} is {{right}}, but {extent} = {{left}}"
            if wanted != size:
                demands.append(Constraint("==", wanted, size, "size-mismatch", sentence))
    return fix_sizes(replace(program, constraints=(*program.constraints, *demands)), fixed)


def _build(
    typed: Callable[[Mapping[str, DType]], Program],
    target: str,
    options: Options,
    constants: dict[str, Array],
    open_types: frozenset[str],
    check: bool = False,
    wanted: Wanted | None = None,
    ranges: Mapping[str, float] | None = None,
) -> Any:
    if wanted is not None:
        from .encrypted import compile_encrypted

        return compile_encrypted(typed({}), constants, wanted, ranges or {})
    from ..backends.cpu.native import make_dispatcher

    holder: list[Compiled] = []

    def slow(*args: Any, **keywords: Any) -> Any:
        return holder[0].results(*args, **keywords)

    first = typed({})
    if check:
        verify_constants(first, constants)
    if target == "cuda":
        from .gpu import GpuCompiled

        on_gpu = GpuCompiled(
            first, typed, lambda program: _expression(program, options, constants), target, constants, open_types, check
        )
        admit(on_gpu if len(first.outputs) == 1 else on_gpu._results)
        return on_gpu
    names = tuple(i.name for i in first.inputs if i.name not in constants)
    dispatch, register = make_dispatcher(slow, spec_first=False, names=names)
    several = len(first.outputs) > 1
    made = (Compiled if several else callable_class(dispatch))(
        first, typed, lambda program: _expression(program, options, constants), target, constants, open_types, check
    )
    holder.append(made)
    if several:
        made._results = dispatch
    admit(dispatch if several else made)
    if target == "cpu" and not check:
        made._register = register
    return made


def _expression(program: Program, options: Options, constants: dict[str, Array]) -> Expression:
    """The expression; its kernels are made for its sizes if all of them are fixed."""
    fixed = all(n.constant is not None for i in program.inputs for n in i.shape)
    return expression_of(program, replace(options, specialise=fixed), constants)


def _check_target(target: str) -> None:
    if target in TARGETS:
        return
    raise BackendError(f"there is no target {target!r}", code="unknown-target", help=f"targets: {', '.join(TARGETS)}")
