"""`stein.einsum`: the drop-in for numpy.einsum and opt_einsum.contract.

A call whose operands look like those of an earlier one never gets here: the native dispatcher answers it. What does get
here is parsed, typed, planned and bound by an `Expression`, run, and, if it was a plain call on NumPy arrays, made
known to the dispatcher.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError
from ..ir.types import BF16, DTYPES, DType, dtype_of
from .cache import Cache
from .expression import Expression, binding_key
from .operands import as_array, library_of, wrapper
from .result_order import result_layouts
from .settings import DEFAULTS, PLAIN, Settings, check_settings

Array = np.ndarray[Any, Any]


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


einsum.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("operands", inspect.Parameter.VAR_POSITIONAL, annotation=Any)]
    + [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=v) for n, v in DEFAULTS.items()]
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
                from .torch_graphs import admit

                words = ", ".join(f"{n}={v!r}" for n, v in DEFAULTS.items())
                doc = f"einsum($self, /, *operands, {words})\n--\n\n{einsum.__doc__}"  # what inspect.signature reads
                dispatch, self.register = make_dispatcher(evaluate, spec_first=True, name="einsum", doc=doc)
                self.dispatch = dispatch
                admit(dispatch, arrays=True)
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
    settings = check_settings(keywords) if keywords else PLAIN
    spec, given = read_operands(operands, settings.names)
    if settings.options.optimize is False and not isinstance(operands[0], str):
        _check_numpy_labels(operands)
    library = library_of(given)
    if library == "torch":
        from .torch_calls import einsum_recorded, is_recorded

        if is_recorded(given):
            return einsum_recorded(spec, given, out, settings)
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
    layouts = result_layouts(expression, arrays, sizes, settings.order)
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
    if settings is PLAIN:
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
