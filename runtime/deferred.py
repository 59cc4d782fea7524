"""Programs that can be compiled only when their arguments are there: whole tensors of unknown rank (`y = A @ x`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..ir.errors import BackendError
from .cache import Cache
from .compiled import Compiled, parameter_kind
from .operands import Array, as_array, library_of
from .torch_graphs import admit

if TYPE_CHECKING:
    from .explain import Explanation
    from .findings import Finding, NearMiss


class Deferred(Compiled):
    """A `Compiled` whose arguments decide on each call what it is; one is made for each set of shapes and types.

    `ir`, `source`, `stats` and `explain` speak of the last call; before the first one they raise `BackendError`.
    """

    def __init__(self, names: tuple[str, ...], target: str, make: Callable[[Mapping[str, Array]], Compiled]) -> None:
        self.target = target
        self._names = names
        self._make_compiled = make
        self._compiled: Cache[object, Compiled] = Cache(256)
        self._latest: Compiled | None = None
        self._constants = {}
        self.__signature__ = self.signature
        admit(self)

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        """The result of the program for these arguments; an array, or a dict of arrays by name."""
        return self.evaluate(*args, **keywords)

    @property
    def signature(self) -> inspect.Signature:
        """The arguments in order of first mention; their types and shapes are those of each call."""
        kind = parameter_kind(self._names)
        return inspect.Signature([inspect.Parameter(n, kind) for n in self._names])

    def evaluate(self, /, *args: Any, out: Any = None, **keywords: Any) -> Any:
        """Compile for these arguments if they are of a new kind, and call."""
        values = self._in_order(args, keywords)
        arrays: dict[str, Any] = self._seen(values)
        key = tuple((a.shape, a.dtype.str, a.dtype.name) for a in arrays.values())
        compiled = self._compiled.get(key, lambda: self._make_compiled(arrays))
        self._latest = compiled
        return compiled(out=out, **dict(zip(self._names, values, strict=True)))

    def _seen(self, values: Sequence[Any]) -> dict[str, Any]:
        """What shows shape and type of each argument: an array, or a description where there is no array to look at."""
        if library_of(values) == "torch":
            from .torch_calls import is_recorded, prepared

            if is_recorded(values):
                return dict(zip(self._names, prepared(values, self._names).described, strict=True))
        return {n: as_array(v, f"argument {n}") for n, v in zip(self._names, values, strict=True)}

    def _known(self) -> Compiled:
        if self._latest is None:
            raise BackendError(
                f"the number of axes of {', '.join(self._names)} is known only when the program is called",
                code="not-compiled-yet",
                help=f"declare them: {self._names[0]}: f64[n, m] in the text, or {self._names[0]}=(64, 64) in compile",
            )
        return self._latest

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Structures of the program of the last call."""
        return self._known().findings

    @property
    def near_misses(self) -> tuple[NearMiss, ...]:
        """What was nearly found in the program of the last call."""
        return self._known().near_misses

    def ir(self, stage: str = "planned") -> str:
        """The program of the last call as text at a stage."""
        return self._known().ir(stage)

    def source(self, kind: str = "llvm") -> str:
        """The code of the last call."""
        return self._known().source(kind)

    @property
    def stats(self) -> dict[str, Any]:
        """Figures of the plan of the last call."""
        return self._known().stats

    def explain(self) -> Explanation:
        """What was done for the last call."""
        return self._known().explain()

    def __repr__(self) -> str:
        return f"<stein.Compiled {self.signature}, compiled at each new kind of call, target {self.target!r}>"
