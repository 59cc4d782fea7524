"""`stein.einsum`: the drop-in for numpy.einsum and opt_einsum.contract.

A call whose operands look like those of an earlier one never gets here: the native dispatcher answers it. What does get
here is parsed, typed, planned and bound by an `Expression`, run, and, if it was a plain call on NumPy arrays, made
known to the dispatcher.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError, SteinError
from ..ir.semiring import PLUS_TIMES, SEMIRINGS, Semiring
from ..ir.types import BF16, DTYPES, DType, dtype_of, parse_dtype
from .cache import Cache
from .expression import Expression, Options, binding_key
from .operands import as_array, library_of, wrapper

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Settings:
    """The keywords of a call, checked. `order`, `casting` and `dtype` are NumPy's."""

    dtype: np.dtype[Any] | None = None
    order: str = "K"
    casting: str = "safe"
    out_casting: str = "safe"
    semiring: Semiring = PLUS_TIMES
    names: bool = False
    diagonal_output: bool = False
    accumulate: DType | None = None
    options: Options = Options()


def einsum(*operands: Any, **keywords: Any) -> Any:
    """Evaluate an einsum: `einsum("ij,jk->ik", A, B)`, or `einsum(A, [0, 1], B, [1, 2], [0, 2])`.

    Everything that numpy.einsum and opt_einsum.contract accept means what it means there: ellipsis, implicit output,
    interleaved lists, repeated labels, broadcasting of axes of length 1, `out`, `dtype`, `order`, `casting`,
    `optimize`, `memory_limit`. Labels may be of any alphabet. Beyond them:

    * `semiring=`: "maxplus", "minplus", "logsumexp", "boolean", "maxmin", "maxtimes" or a `Semiring`;
    * `names=True`: labels are words, `"row col, col out -> row out"`;
    * `"(a b)c"`: an axis that is composed of several labels;
    * `diagonal_output=True`: `"i->ii"` puts a vector on a diagonal;
    * `accumulate=`: the type that sums are kept in; `strict=True`: operands are multiplied from left to right.

    Arrays may come from NumPy, torch (CPU) or JAX, or be lists and numbers; the same kind comes back. Raises
    `EinsumSyntaxError` or `ShapeError` (both ValueError), or `DTypeError` (a TypeError).

    >>> import numpy as np
    >>> einsum("ij,j->i", np.eye(2), np.array([3.0, 4.0]))
    array([3., 4.])
    """
    return entry()(*operands, **keywords)


_DEFAULTS = {
    "out": None,
    "dtype": None,
    "order": "K",
    "casting": "safe",
    "optimize": "auto",
    "memory_limit": None,
    "semiring": "plustimes",
    "names": False,
    "diagonal_output": False,
    "accumulate": None,
    "strict": False,
}
einsum.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("operands", inspect.Parameter.VAR_POSITIONAL, annotation=Any)]
    + [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=v) for n, v in _DEFAULTS.items()]
)


class _Entry:
    """The dispatcher, made when it is first asked for, so that importing stein compiles nothing."""

    def __init__(self) -> None:
        self.dispatch: Callable[..., Any] | None = None
        self.register: Callable[..., Any] | None = None
        self._lock = Lock()

    def start(self) -> Callable[..., Any]:
        """The dispatcher, made now if there is none yet."""
        with self._lock:
            if self.dispatch is None:
                from ..backends.cpu.native import make_dispatcher

                dispatch, self.register = make_dispatcher(evaluate, spec_first=True, name="einsum", doc=einsum.__doc__)
                self.dispatch = dispatch
            return self.dispatch


_ENTRY = _Entry()


def entry() -> Callable[..., Any]:
    """What `stein.einsum` is: the native dispatcher itself, which saves each small call a frame of Python."""
    return _ENTRY.dispatch or _ENTRY.start()


_EXPRESSIONS: Cache[object, Expression] = Cache(2048)


def evaluate(*operands: Any, out: Any = None, **keywords: Any) -> Any:
    """The long way round: what `einsum` does when the dispatcher does not know the call."""
    if not operands:
        raise EinsumSyntaxError("no expression and no operands were given", code="no-expression")
    plain = out is None and not keywords
    settings = check_settings(keywords) if keywords else _PLAIN
    spec, given = read_operands(operands, settings.names)
    if settings.options.optimize is False and not isinstance(operands[0], str):
        _check_numpy_labels(operands)
    library = library_of(given)
    arrays = [as_array(a, f"operand {i}") for i, a in enumerate(given)]
    if out is not None and not isinstance(out, np.ndarray):
        raise DTypeError(f"out is a {type(out).__name__}, not a NumPy array", code="not-an-array")
    if not all(_is_known(a.dtype) for a in arrays) or _is_foreign(settings.dtype):
        from .extended import evaluate_extended

        return evaluate_extended(spec, arrays, out, settings)
    if isinstance(settings.options.optimize, tuple):
        from ..passes.paths import explicit_path

        explicit_path(settings.options.optimize, len(arrays))
    expression = find_expression(spec, arrays, settings)
    if out is None and settings.dtype is None:
        view = view_of(expression, arrays, settings.order)
        if view is not None:
            return wrapper(library)(view) if library != "numpy" else view
    try:
        sizes = expression.sizes_of([a.shape for a in arrays])
    except ShapeError:
        from ..frontend.classic import check_shapes

        check_shapes(spec, tuple(a.shape for a in arrays))
        raise
    if out is not None:
        return _into(out, expression, arrays, sizes, settings)
    layouts = _order(expression, arrays, sizes, settings.order)
    bound = expression.bind(arrays, layouts, sizes)
    if plain and library == "numpy" and isinstance(operands[0], str):
        from ..backends.cpu.native import run_record

        key = binding_key(arrays, layouts)
        record = _register()(
            bound.executable,
            operands[0],
            scalars=True,
            recheck=bound.recheck,
            replaces=expression.records.find(key),
        )
        expression.records.put(key, record)
        return run_record(record, arrays)
    from ..backends.cpu.native import execute

    (result,) = execute(bound.executable, arrays)
    return wrapper(library)(result)


def _register() -> Callable[..., Any]:
    if _ENTRY.register is None:
        _ENTRY.start()
    assert _ENTRY.register is not None
    return _ENTRY.register


_PLAIN = Settings()
_TYPES = frozenset(t.numpy for t in DTYPES.values() if t != BF16)  # bf16 would load ml_dtypes


def _is_known(dtype: np.dtype[Any]) -> bool:
    return dtype in _TYPES or dtype.name == "bfloat16"


def _is_foreign(dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and not _is_known(dtype)


def read_operands(operands: Sequence[Any], names: bool) -> tuple[Any, Sequence[Any]]:
    """The parsed expression and the operands of a call, classic or interleaved."""
    from ..frontend.classic import parse_interleaved, parse_spec

    first = operands[0]
    if isinstance(first, str):
        return parse_spec(first, names), operands[1:]
    last = len(operands) - 1
    operands = [_label_list(o) if k % 2 or 0 < k == last else o for k, o in enumerate(operands)]
    if len(operands) == 1 or (
        isinstance(first, (bool, int, float)) and not isinstance(operands[1], (list, tuple, range))
    ):
        raise DTypeError(
            f"the first argument is {'an' if type(first).__name__[0] in 'aeiou' else 'a'} {type(first).__name__}; "
            "give an expression string, or array, list, array, list, ...",
            code="no-expression",
        )
    spec, given = parse_interleaved(operands)
    return spec, given


def _label_list(labels: Any) -> Any:
    """Labels as a list, where they came as a range or an array of integers."""
    if isinstance(labels, range) or (isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"):
        return list(labels)
    return labels


def _check_numpy_labels(operands: Sequence[Any]) -> None:
    """With `optimize=False` a list may hold only the labels that NumPy's own loop has: 0 to 51."""
    for position in (*range(1, len(operands), 2), *([len(operands) - 1] if len(operands) % 2 else [])):
        for label in operands[position]:
            if isinstance(label, (int, np.integer)) and not 0 <= label < 52:
                raise ShapeError(
                    f"label {label} is outside 0..51, NumPy's range, which optimize=False keeps to",
                    code="label-range",
                    help="leave optimize out: then any integer is a label",
                )


def find_expression(spec: Any, arrays: Sequence[Array], settings: Settings) -> Expression:
    """The typed and normalised expression for operands of these types and ranks, made if it is not known."""
    dtypes = tuple([dtype_of(a.dtype) for a in arrays])
    ones = tuple([tuple([n == 1 for n in a.shape]) for a in arrays])
    if settings is _PLAIN:
        return _EXPRESSIONS.get((spec, dtypes, ones), lambda: _make_expression(spec, dtypes, ones, settings, arrays))
    if settings.dtype is not None:
        _check_casting(arrays, settings)
    key = (spec, dtypes, ones, settings)
    try:
        hash(key)
    except TypeError:  # an optimiser object that cannot be a key: nothing is kept
        return _make_expression(spec, dtypes, ones, settings, arrays)
    return _EXPRESSIONS.get(key, lambda: _make_expression(spec, dtypes, ones, settings, arrays))


def _make_expression(
    spec: Any,
    dtypes: tuple[DType, ...],
    ones: tuple[tuple[bool, ...], ...],
    settings: Settings,
    arrays: Sequence[Array],
) -> Expression:
    from ..frontend.classic import check_shapes, elaborate_spec

    check_shapes(spec, tuple(a.shape for a in arrays))
    if settings.dtype is not None:
        _check_casting(arrays, settings)
    program = elaborate_spec(
        spec,
        tuple(a.ndim for a in arrays),
        ones,
        dtypes,
        dtype=dtype_of(settings.dtype) if settings.dtype is not None else None,
        semiring=settings.semiring,
        accumulate=settings.accumulate,
        diagonal_output=settings.diagonal_output,
    )
    return Expression(program, settings.options)


def _check_casting(arrays: Sequence[Array], settings: Settings) -> None:
    for number, array in enumerate(arrays):
        if not np.can_cast(array.dtype, settings.dtype, settings.casting):  # type: ignore[arg-type]
            raise DTypeError(
                f"operand {number} is {array.dtype}, which does not convert to {settings.dtype} "
                f"under casting={settings.casting!r}",
                code="casting",
                help="casting='unsafe' converts all the same",
            )


def view_of(expression: Expression, arrays: Sequence[Array], order: str) -> Array | None:
    """The result as a view of the operand, where it is one: a permutation, a diagonal; None else."""
    from ..ir.expr import Einsum, Read

    equations = expression.program.equations
    if len(arrays) != 1 or len(equations) != 1:
        return None
    equation, expr = equations[0], equations[0].expr
    if isinstance(expr, Einsum) and not expr.bound and len(expr.factors) == 1:
        expr = expr.factors[0]
    slots = [s.bare for s in equation.slots]
    if not isinstance(expr, Read) or equation.update or None in slots or len(set(slots)) != len(slots):
        return None
    labels = [s.bare for s in expr.slots]
    if None in labels or set(labels) != set(slots):
        return None
    expression.sizes_of([arrays[0].shape])
    view = arrays[0][...]
    while len(set(labels)) < len(labels):
        repeated = next(n for n in labels if labels.count(n) > 1)
        first = labels.index(repeated)
        second = labels.index(repeated, first + 1)
        view = view.diagonal(axis1=first, axis2=second)
        labels = [n for i, n in enumerate(labels) if i not in (first, second)] + [repeated]
    view = view.transpose([labels.index(n) for n in slots])
    if arrays[0].flags.writeable and not view.flags.writeable:
        view.flags.writeable = True
    if order in "CF" and not view.flags["C_CONTIGUOUS" if order == "C" else "F_CONTIGUOUS"]:
        view = np.array(view, order=order)  # type: ignore[call-overload]
    return view


def _order(
    expression: Expression, arrays: Sequence[Array], sizes: Mapping[str, int], order: str
) -> Mapping[str, Any] | None:
    """How the result is to lie in memory: None for row-major, else its layout by name."""
    if order == "C":
        return None
    plain = all(a.flags.c_contiguous and 1 not in a.shape and 0 not in a.shape for a in arrays)
    if plain and order in expression.row_major:  # the strides of such operands are in one order for all sizes
        return None
    from ..backends.cpu.native_record import Layout

    equation = expression.program.equations[-1]
    shape = tuple(s.evaluate(sizes) for s in equation.shape)
    axes = list(range(len(shape)))
    if order == "F" or (order == "A" and all(a.flags.f_contiguous for a in arrays)):
        axes.reverse()
    elif order == "K":
        axes = _kept_order(expression, arrays, len(shape))
    if axes == sorted(axes):
        if plain:
            expression.row_major.add(order)
        return None
    return {equation.name: Layout.dense(equation.dtype, shape, tuple(axes))}


def _kept_order(expression: Expression, arrays: Sequence[Array], rank: int) -> list[int]:
    """The axes of the result, outermost first, as NumPy's iterator orders them for these operands.

    The rule is that of numpy's nditer (order "K"): an insertion sort by strides, in which two axes change places only
    if an operand that has both of them says so and none before it says otherwise.
    """
    from ..ir.expr import reads

    equation = expression.program.equations[-1]
    position = {i.name: k for k, i in enumerate(expression.arguments)}
    names = [s.bare for s in equation.slots]
    names += sorted(i.name for i in equation.indices if i.name not in names)
    rows: list[list[int]] = []
    for read in reads(equation.expr):
        array = arrays[position[read.tensor]]
        row = [0] * len(names)
        for slot, stride, extent in zip(read.slots, array.strides, array.shape, strict=True):
            if slot.bare is not None and extent != 1:
                row[names.index(slot.bare)] += stride
        rows.append(row)
    order: list[int] = []  # innermost first
    for axis in range(len(names) - 1, -1, -1):
        place = len(order)
        for k in range(len(order) - 1, -1, -1):
            verdict = _outside(rows, order[k], axis)
            if verdict is None:
                continue
            if not verdict:
                break
            place = k
        order.insert(place, axis)
    return [axis for axis in reversed(order) if axis < rank]


def _outside(rows: list[list[int]], inner: int, axis: int) -> bool | None:
    """Whether axis `inner` should lie outside `axis`; None if no operand has both."""
    verdict = None
    for row in rows:
        if row[axis] and row[inner]:
            if abs(row[inner]) <= abs(row[axis]):
                return False
            verdict = True
    return verdict


def _into(
    out: Array, expression: Expression, arrays: Sequence[Array], sizes: Mapping[str, int], settings: Settings
) -> Array:
    """Evaluate into `out`, directly where its memory allows."""
    from ..backends.cpu.native import execute
    from ..backends.cpu.native_record import Layout

    equation = expression.program.equations[-1]
    shape = tuple(s.evaluate(sizes) for s in equation.shape)
    if out.shape != shape:
        raise ShapeError(f"out has shape {out.shape}, the result {shape}", code="out-shape")
    if not out.flags.writeable:
        raise ShapeError("out is read-only", code="out-read-only")
    if not np.can_cast(equation.dtype.numpy, out.dtype, settings.out_casting):  # type: ignore[arg-type]
        raise DTypeError(
            f"the result is {equation.dtype.numpy}, which does not convert to out's {out.dtype} "
            f"under casting={settings.casting!r}",
            code="casting",
            help="casting='unsafe' converts all the same",
        )
    if out.dtype == equation.dtype.numpy and not any(np.may_share_memory(out, a) for a in arrays):
        layout = Layout.of(out)
        if layout.is_dense:
            execute(expression.bind(arrays, {equation.name: layout}, sizes).executable, arrays, (out,))
            return out
    (result,) = execute(expression.bind(arrays, None, sizes).executable, arrays)
    np.copyto(out, result, casting="unsafe")
    return out


def check_settings(keywords: Mapping[str, Any]) -> Settings:
    """The settings that keywords ask for; `TypeError` for unknown ones, `ValueError` for values that mean nothing."""
    unknown = [k for k in keywords if k not in _KEYWORDS]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], _KEYWORDS, 1)
        raise DTypeError(
            f"einsum has no keyword {unknown[0]!r}",
            code="unknown-keyword",
            help=f"did you mean {near[0]!r}?" if near else "",
        )
    order = keywords.get("order", "K")
    if order is None:
        order = "K"
    if not isinstance(order, str) or order.upper() not in ("C", "F", "A", "K"):
        raise ShapeError(f"order is {order!r}; it is one of 'C', 'F', 'A', 'K'", code="bad-order")
    casting = keywords.get("casting", "safe")
    if casting not in ("no", "equiv", "safe", "same_kind", "unsafe"):
        raise ShapeError(
            f"casting is {casting!r}; it is one of 'no', 'equiv', 'safe', 'same_kind', 'unsafe'", code="bad-casting"
        )
    return Settings(
        dtype=_check_dtype(keywords.get("dtype")),
        order=order.upper(),
        casting=casting,
        # An optimised call of NumPy's assigns to out with any cast (numpy #31350 keeps that so).
        out_casting="unsafe" if keywords.get("optimize") and "casting" not in keywords else casting,
        semiring=check_semiring(keywords.get("semiring", PLUS_TIMES)),
        names=bool(keywords.get("names", False)),
        diagonal_output=bool(keywords.get("diagonal_output", False)),
        accumulate=_check_accumulate(keywords.get("accumulate")),
        options=check_options(
            keywords.get("optimize", "auto"), keywords.get("memory_limit"), bool(keywords.get("strict", False))
        ),
    )


# `backend` and `use_blas` are opt_einsum's: they choose who multiplies, which here is stein, so they change nothing.
_KEYWORDS = (*(k for k in _DEFAULTS if k != "out"), "backend", "use_blas")


def check_options(optimize: Any, memory_limit: Any = None, strict: bool = False) -> Options:
    """How to plan: `optimize` is a name, True, False, a path, an optimiser object, or NumPy's (name, memory limit).

    Raises `EinsumSyntaxError` for a name that is no path finder's.
    """
    from ..passes.paths import PATH_FINDERS

    if isinstance(optimize, (list, tuple)):
        if len(optimize) == 2 and isinstance(optimize[0], str) and isinstance(optimize[1], (int, float)):
            return check_options(optimize[0], int(optimize[1]), strict)
        optimize = tuple(tuple(step) if isinstance(step, list) else step for step in optimize)
    elif isinstance(optimize, str) and optimize.lower() not in PATH_FINDERS:
        raise EinsumSyntaxError(
            f"optimize={optimize!r} names no path finder",
            code="unknown-optimizer",
            help="one of " + ", ".join(PATH_FINDERS) + "; or True, False, a path, an optimiser object",
        )
    return Options("auto" if optimize is None else optimize, memory_limit, strict)


def _check_dtype(dtype: Any) -> np.dtype[Any] | None:
    if dtype is None:
        return None
    named = parse_dtype(dtype) if isinstance(dtype, str) else None
    if named is not None:
        return named.numpy
    try:
        found: np.dtype[Any] = np.dtype(dtype)
        return found
    except TypeError as error:
        raise DTypeError(f"dtype is {dtype!r}: {error}", code="bad-dtype") from error


def _check_accumulate(dtype: Any) -> DType | None:
    checked = _check_dtype(dtype)
    return None if checked is None else dtype_of(checked)


def check_semiring(semiring: Any) -> Semiring:
    """The semiring of a name or value."""
    if isinstance(semiring, Semiring):
        return semiring
    if isinstance(semiring, str) and semiring in SEMIRINGS:
        return SEMIRINGS[semiring]
    raise EinsumSyntaxError(
        f"{semiring!r} is no semiring",
        code="unknown-semiring",
        help=f"one of {', '.join(SEMIRINGS)}, or a stein.Semiring",
    )


__all__ = ["SteinError", "einsum"]
