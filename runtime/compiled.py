"""`Compiled`: what `stein.compile` returns. Callable, and able to show everything that was made on the way."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..ir.errors import BackendError, DTypeError, ShapeError
from ..ir.expr import Input, Program
from ..ir.types import DType, dtype_of
from .cache import Cache
from .expression import Expression, binding_key, supposed_sizes
from .operands import Array, as_array, library_of, wrapper
from .verify import verify_structures

if TYPE_CHECKING:
    from .explain import Explanation
    from .findings import Finding, NearMiss


class Compiled:
    """A compiled program. Call it with its arguments by name or in order of first mention; `out=` takes the result.

    One result comes back as an array, several as a dict by name, in the library of the arguments. `f.explain()` tells
    what was done, `f.ir(stage)` and `f.source(kind)` show it, `f.stats` counts it.
    """

    def __init__(
        self,
        program: Program,
        elaborate: Callable[[Mapping[str, DType]], Program],
        make: Callable[[Program], Expression],
        target: str,
        constants: Mapping[str, Array],
        open_types: frozenset[str],
        check: bool = False,
    ) -> None:
        self.target = target
        self._elaborate = elaborate
        self._make = make
        self._constants = dict(constants)
        self._open_types = open_types
        self._check = check
        self._expressions: Cache[tuple[DType, ...], Expression] = Cache(64)
        self._default = make(program)
        self.program = self._default.program
        self._arguments = self._default.arguments
        self._names = tuple(i.name for i in self._arguments)
        self._outputs = tuple(n.split(".")[0] for n in self.program.outputs)  # `d.1` is what += made of d
        self._register: Callable[..., Any] | None = None
        self._results: Callable[..., Any] = self.results
        self._last: tuple[Expression, Mapping[str, int]] | None = None
        self._found: tuple[tuple[Finding, ...], tuple[NearMiss, ...]] | None = None
        self.__signature__ = self.signature  # what inspect.signature and help show
        if not open_types:
            self._expressions.get((), lambda: self._default)

    @property
    def __name__(self) -> str:
        """What `torch.compiler.allow_in_graph(f)` asks of a callable."""
        return "stein_program"

    @property
    def signature(self) -> inspect.Signature:
        """The arguments in order, each with its type and shape as annotation.

        >>> import stein
        >>> str(stein.compile("y[i] = A[i,j] * x[j]", A=(2, 3), dtype="f32").signature)
        "(A: 'f32[2, 3]', x: 'f32[3]')"
        """
        kind = parameter_kind(self._names)
        return inspect.Signature(
            [inspect.Parameter(i.name, kind, annotation=_type_text(i, self._open_types)) for i in self._arguments]
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is proved (or declared) of the program: what the chosen program uses, then other structures and facts.

        They hold for all sizes that the program admits; `explain` tells what holds at given ones.

        >>> import stein
        >>> f = stein.compile("y[b,i] = t[i-j+n-1] * x[b,j]", t=("2*n-1",), x=("b", "n"), dtype="f32")
        >>> [(g.value, g.kind, g.argument) for g in f.findings][0]
        ('y', 'toeplitz', 'x')
        """
        from .findings import used_first

        plan = self._last[0].known_plan(self._last[1]) if self._last is not None else None
        chosen = plan.choice.chosen.draft.finding if plan is not None and plan.choice is not None else None
        return used_first(self._facts()[0], chosen)

    @property
    def near_misses(self) -> tuple[NearMiss, ...]:
        """What was nearly found, each with the reason why it was not."""
        return self._facts()[1]

    def _facts(self) -> tuple[tuple[Finding, ...], tuple[NearMiss, ...]]:
        if self._found is None:
            from .findings import found_in

            self._found = found_in(self.program)
        return self._found

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        """The result of the program for these arguments; an array, or a dict of arrays by name.

        Raises `ShapeError` and `DTypeError` for arguments that do not fit, `StructureError` with `check=True`.
        """
        if len(self._outputs) == 1:
            return self.evaluate(*args, **keywords)
        found = self._results(*args, **keywords)  # torch.compile follows this frame, and writes down that call
        return dict(zip(self._outputs, found, strict=True)) if type(found) is tuple else found

    def results(self, /, *args: Any, out: Any = None, **keywords: Any) -> Any:
        """The results of a call, several of them as a tuple in order; `out` itself where it was given."""
        found = self.evaluate(*args, out=out, **keywords)
        return tuple(found.values()) if out is None and type(found) is dict else found

    def evaluate(self, /, *args: Any, out: Any = None, **keywords: Any) -> Any:
        """The long way round of a call: checks, binding, perhaps compilation. The dispatcher answers what it knows."""
        values = self._in_order(args, keywords)
        library = library_of(values)
        if library == "torch":
            from .torch_calls import is_recorded

            if is_recorded(values):
                return self._recorded(values, out)
        arrays = [as_array(v, f"argument {n}") for v, n in zip(values, self._names, strict=True)]
        expression = self._expression_for(arrays)
        arrays = [_converted(a, i, v) for a, i, v in zip(arrays, expression.arguments, values, strict=True)]
        sizes = expression.sizes_of([a.shape for a in arrays])
        if self._check:
            verify_structures(expression.arguments, arrays, sizes, expression.program.source)
        targets = None if out is None else self._targets(out, expression, sizes)
        self._last = (expression, sizes)
        if self.target == "reference":
            results: Sequence[Array] = _interpreted(expression, arrays, sizes)
        else:
            results = self._run(expression, arrays, sizes, targets, library == "numpy" and out is None, values)
        if targets is not None:
            for target, result in zip(targets, results, strict=True):
                if target is not result:
                    np.copyto(target, result, casting="same_kind")
            return out
        wrap = wrapper(library)
        if len(results) == 1:
            return wrap(results[0])
        return {n: wrap(r) for n, r in zip(self._outputs, results, strict=True)}

    def _recorded(self, values: Sequence[Any], out: Any) -> Any:
        """The result through PyTorch's operator, which its autograd and its transforms see."""
        from .torch_calls import call_recorded, is_lowered, prepared

        tensors = prepared(values, self._names, out)
        if self._open_types and is_lowered(self._default):
            tensors = tensors.lowered() or tensors
        expression = self._expression_for(tensors.described)
        results = call_recorded(expression, tensors, self.target, self._check)
        return results[0] if len(results) == 1 else dict(zip(self._outputs, results, strict=True))

    def _run(
        self,
        expression: Expression,
        arrays: Sequence[Array],
        sizes: Mapping[str, int],
        targets: Sequence[Array] | None,
        plain: bool,
        values: Sequence[Any],
    ) -> Sequence[Array]:
        from ..backends.cpu.native import Layout, execute

        staged = expression.run(arrays, sizes)  # programs with solve and its kin
        if staged is not None:
            return staged
        names = expression.program.outputs
        if targets is not None and all(_usable(t, expression, n, arrays) for n, t in zip(names, targets, strict=True)):
            layouts = {n: Layout.of(t) for n, t in zip(names, targets, strict=True)}
            execute(expression.bind(arrays, layouts, sizes).executable, arrays, targets)
            return targets
        bound = expression.bind(arrays, None, sizes)
        if plain and self._register is not None and all(a is v for a, v in zip(arrays, values, strict=True)):
            key, alone = binding_key(arrays), len(names) == 1
            record = self._register(
                bound.executable,
                finish=None if alone or all(self.program.tensors[n].shape for n in names) else _scalars,
                scalars=alone,
                recheck=bound.recheck,
                replaces=expression.records.find(key),
            )
            expression.records.put(key, record)
        return execute(bound.executable, arrays)

    def _targets(self, out: Any, expression: Expression, sizes: Mapping[str, int]) -> list[Array]:
        """The arrays of `out=` in the order of the results, all found fit for them before anything is computed."""
        given = out if isinstance(out, Mapping) else {self._outputs[0]: out}
        if set(given) != set(self._outputs):
            raise ShapeError(
                f"out is for {', '.join(map(str, given))}; the results are {', '.join(self._outputs)}",
                code="out-names",
                help="give one array, or a dict with an array for each result",
            )
        targets: list[Array] = []
        for name, internal in zip(self._outputs, expression.program.outputs, strict=True):
            value, equation = given[name], expression.program.tensors[internal]
            if not isinstance(value, np.ndarray) and library_of([value]) == "numpy":
                raise DTypeError(f"out {name} is a {type(value).__name__}, not an array", code="not-an-array")
            target = value if isinstance(value, np.ndarray) else as_array(value, f"out {name}")
            shape = tuple(s.evaluate(sizes) for s in equation.shape)
            if target.shape != shape:
                raise ShapeError(f"out {name} has shape {target.shape}, the result {shape}", code="out-shape")
            if not target.flags.writeable:
                raise ShapeError(f"out {name} is read-only", code="out-read-only")
            if not np.can_cast(equation.dtype.numpy, target.dtype, "same_kind"):
                raise DTypeError(f"the result {name} is {equation.dtype.numpy}, out is {target.dtype}", code="casting")
            if any(np.may_share_memory(target, other) for other in targets):
                raise ShapeError(f"out {name} shares memory with the array of another result", code="out-overlap")
            targets.append(target)
        return targets

    def _in_order(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any]:
        names = self._names
        if len(args) > len(names):
            raise DTypeError(
                f"{len(args)} arguments were given; there are {len(names)}: {self.signature}", code="too-many"
            )
        values = dict(zip(names, args, strict=False))
        for name, value in keywords.items():
            if name not in names:
                constant = name in self._constants
                raise DTypeError(
                    f"{name!r} is a constant of this program" if constant else f"there is no argument {name!r}",
                    code="unknown-argument",
                    help=f"the arguments are {self.signature}",
                )
            if name in values:
                raise DTypeError(f"argument {name!r} was given twice", code="given-twice")
            values[name] = value
        missing = [n for n in names if n not in values]
        if missing:
            raise DTypeError(
                f"argument{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing",
                code="missing-argument",
                help=f"the arguments are {self.signature}",
            )
        return [values[n] for n in names]

    def _expression_for(self, arrays: Sequence[Array]) -> Expression:
        if not self._open_types:
            return self._default
        types = {n: _dtype(a, n) for n, a in zip(self._names, arrays, strict=True) if n in self._open_types}
        return self._expressions.get(tuple(types.values()), lambda: self._make(self._elaborate(types)))

    def _shown(self) -> tuple[Expression, Mapping[str, int]]:
        """What `explain` and the like speak of: the last call, else the program for the declared (or supposed)
        sizes.
        """
        if self._last is not None:
            return self._last
        expression = self._default
        return expression, supposed_sizes(expression.program)

    def ir(self, stage: str = "planned") -> str:
        """The program as text at a stage: "elaborated", "normal" or "planned"."""
        from ..ir.text import print_program

        expression, sizes = self._shown()
        stages: dict[str, Callable[[], Program]] = {
            "elaborated": lambda: expression.program,
            "normal": lambda: expression.normal,
            "planned": lambda: expression.planned(sizes).program,
        }
        if stage not in stages:
            raise BackendError(f"there is no stage {stage!r}", code="unknown-stage", help=f"one of {', '.join(stages)}")
        return print_program(stages[stage]())

    def source(self, kind: str = "llvm") -> str:
        """The code that runs: "llvm" (IR text) or "asm" (assembly), of every kernel of the program in order."""
        if kind not in ("llvm", "asm") or self.target != "cpu":
            raise BackendError(
                f"there is no source of kind {kind!r} for target {self.target!r}",
                code="unknown-source",
                help="llvm or asm",
            )
        from .explain_program import kernel_sources

        expression, sizes = self._shown()
        return kernel_sources(expression, sizes, kind)

    @property
    def stats(self) -> dict[str, Any]:
        """Figures of the chosen plan at the sizes of the last call (else at the declared ones).

        `flops` and `bytes` of one call, `launches` of kernels, `peak_memory` (bytes of the temporaries), `constants`
        (bytes kept between calls), and `candidate`, the name of the program that was chosen.
        """
        from .explain_program import statistics

        return statistics(*self._shown())

    def explain(self) -> Explanation:
        """What was found and done: structures with their evidence, near misses, the table of candidates, passes,
        contraction tree with sizes, flops and bytes, the kernel chosen for each step.
        """
        from .explain_program import explain_expression

        expression, sizes = self._shown()
        return explain_expression(expression, sizes, self.target)

    def __copy__(self) -> Compiled:
        """Itself: a compiled program does not change."""
        return self

    def __deepcopy__(self, memo: object) -> Compiled:
        return self

    def __reduce__(self) -> NoReturn:
        raise DTypeError(
            "a compiled program cannot be pickled: its kernels are code of this process",
            code="not-picklable",
            help="compile the text again in the other process; kernels come from the cache on disk",
        )

    def __repr__(self) -> str:
        return f"<stein.Compiled {self.signature} -> {', '.join(self._outputs)}, target {self.target!r}>"


def parameter_kind(names: Sequence[str]) -> Any:
    """How parameters of these names are shown: Python admits its own keywords as names of positional ones only."""
    odd = any(keyword.iskeyword(n) for n in names)
    return inspect.Parameter.POSITIONAL_ONLY if odd else inspect.Parameter.POSITIONAL_OR_KEYWORD


def callable_class(dispatch: Callable[..., Any]) -> type[Compiled]:
    """A subclass of `Compiled` whose instances are called by `dispatch`.

    Python looks `__call__` up on the class; a builtin function found there is called as it is, without a frame of
    ours in between, which is what keeps a call of a small kernel near a hundred nanoseconds.
    """
    call = dispatch if inspect.isbuiltin(dispatch) else staticmethod(dispatch)  # a Python function would be bound
    return type(
        "Compiled", (Compiled,), {"__call__": call, "__doc__": Compiled.__doc__, "__module__": Compiled.__module__}
    )


def _scalars(arrays: tuple[Array, ...]) -> tuple[Any, ...]:
    """Several results, with those that have no axes as scalars."""
    return tuple([a if a.ndim else a[()] for a in arrays])


def _dtype(array: Array, name: str) -> DType:
    try:
        return dtype_of(array.dtype.newbyteorder("="))
    except TypeError as error:
        raise DTypeError(f"argument {name}: {error}", code="unsupported-type") from error


def _type_text(declared: Input, open_types: frozenset[str]) -> str:
    element = "any" if declared.name in open_types else declared.dtype.name
    return f"{element}[{', '.join(map(str, declared.shape))}]" if declared.shape else element


def _converted(array: Array, declared: Input, value: Any) -> Array:
    """The array in the declared type, converted only where nothing is lost (a Python number or list: where the kind
    fits).
    """
    wanted = declared.dtype.numpy
    if array.dtype == wanted:
        return array if array.dtype.isnative else array.astype(wanted)
    casting = "same_kind" if isinstance(value, (bool, int, float, complex, list, tuple)) else "safe"
    if casting == "same_kind" and array.dtype.kind in "biu" and wanted.kind in "iu":
        fitting = not array.size or (np.iinfo(wanted).min <= array.min() and array.max() <= np.iinfo(wanted).max)
    else:
        fitting = np.can_cast(array.dtype, wanted, casting)  # type: ignore[arg-type]
        fitting |= casting == "same_kind" and not array.size  # an empty list has no type to speak of
    if not fitting:
        raise DTypeError(
            f"argument {declared.name} is {array.dtype}, declared {wanted}"
            + (", which has no room for its values" if array.dtype.kind in "iu" and wanted.kind in "iu" else ""),
            code="argument-type",
            help=f"{declared.name}.astype({wanted.name!r}) converts it" if casting == "safe" else "",
        )
    with np.errstate(over="ignore"):
        return array.astype(wanted)


def _usable(target: Array, expression: Expression, name: str, others: Sequence[Array]) -> bool:
    """Whether a kernel may write straight into the array, which has the shape of the result."""
    from ..backends.cpu.native import Layout

    return (
        target.dtype == expression.program.tensors[name].dtype.numpy
        and Layout.of(target).is_dense
        and not any(np.may_share_memory(target, a) for a in others)
    )


def _interpreted(expression: Expression, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    from ..ir.interpret import interpret

    by_name = {i.name: a for i, a in zip(expression.arguments, arrays, strict=True)} | expression.constants
    found = interpret(expression.program, by_name, dict(sizes))
    return [found[n] for n in expression.program.outputs]
