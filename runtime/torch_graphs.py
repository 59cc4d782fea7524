"""Calls of stein inside of `torch.compile`: they are written into the graph as they are.

The tracer of torch.compile follows Python code only, and what stein's callables run is machine code, so they must be
known to it (`torch.compiler.allow_in_graph`). When the graph is lowered, each of them is traced to the operator of
`torch_op`. The tracer takes seconds to load and most programs never use it: so callables are remembered here, and made
known when something else loads it.

In a graph NumPy arrays are tensors. `stein.einsum` of arrays gives an array there too; a compiled program gives a
tensor.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from threading import Lock
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

TRACER = "torch._dynamo"


class _Admitted:
    """The callables that torch.compile may write into a graph, until its tracer knows them."""

    def __init__(self) -> None:
        self.waiting: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        self.finder: _AfterTracer | None = None
        self._lock = Lock()

    def add(self, function: Callable[..., Any], arrays: bool) -> None:
        """Make `function` known now or when the tracer is loaded."""
        with self._lock:
            tracer = sys.modules.get(TRACER)
            if tracer is not None and hasattr(tracer, "substitute_in_graph"):
                _make_known(tracer, function, arrays)
                return
            self.waiting[function] = arrays
            if self.finder is None:
                self.finder = _AfterTracer(self)
                sys.meta_path.insert(0, self.finder)

    def settle(self, tracer: ModuleType) -> None:
        """Make known what waited."""
        with self._lock:
            for function, arrays in list(self.waiting.items()):
                _make_known(tracer, function, arrays)
            self.waiting.clear()


def _make_known(tracer: ModuleType, function: Callable[..., Any], arrays: bool) -> None:
    if not arrays:
        tracer.allow_in_graph(function)
        return
    import torch

    def written(*operands: Any, **keywords: Any) -> Any:
        return function(*operands, **keywords)

    def followed(*operands: Any, **keywords: Any) -> Any:
        found = written(*operands, **keywords)
        return found if any(isinstance(o, torch.Tensor) for o in operands) else found.numpy()

    tracer.allow_in_graph(written)
    tracer.substitute_in_graph(function, skip_signature_check=True)(followed)


class _AfterTracer(importlib.abc.MetaPathFinder):
    """Finds the tracer of torch.compile where it is, and sees to it that `settle` follows its loading."""

    def __init__(self, admitted: _Admitted) -> None:
        self._admitted = admitted

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders have for the tracer, None for all other modules."""
        if name != TRACER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._admitted.settle(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_ADMITTED = _Admitted()


def admit(function: Callable[..., Any], arrays: bool = False) -> None:
    """Let torch.compile write calls of `function` into its graphs. Its results must be a tensor or a tuple of them.

    With `arrays`, calls with NumPy arrays only have an array as result there too; the tracer keeps such a function.
    """
    _ADMITTED.add(function, arrays)
