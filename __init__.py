"""stein: STructured EINsum, a compiler for tensor expressions.

`stein.einsum` is a drop-in for numpy.einsum and opt_einsum.contract; `stein.compile` takes the named language:

>>> import numpy as np, stein
>>> stein.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 2)))
array([[3., 3.],
       [3., 3.]])
>>> f = stein.compile("y[i] = relu(sum[k] A[i,k] * x[k]) + b[i]")
>>> f(A=-np.ones((2, 2)), x=np.ones(2), b=np.ones(2))
array([1., 1.])

Importing stein compiles nothing and loads none of the heavy libraries that it can use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stein.ir.errors import (
        BackendError,
        DTypeError,
        EinsumSyntaxError,
        EncryptionError,
        EnvelopeError,
        ShapeError,
        SingularError,
        SteinError,
        StructureError,
    )
    from stein.ir.semiring import Semiring
    from stein.runtime import nn as nn
    from stein.runtime.client import Client
    from stein.runtime.compile import compile
    from stein.runtime.compiled import Compiled
    from stein.runtime.declare import constant, encrypted, tensor
    from stein.runtime.einsum import einsum
    from stein.runtime.encrypted import EncryptedCompiled
    from stein.runtime.encrypted_files import Ciphertexts
    from stein.runtime.findings import Finding
    from stein.runtime.opt_einsum_backend import tensordot as tensordot
    from stein.runtime.opt_einsum_backend import transpose as transpose
    from stein.runtime.server import Server
    from stein.runtime.threads import get_threads, set_threads
    from stein.runtime.version import VERSION as __version__

# Where each public name lives; it is imported when it is first asked for.
_HOMES = {
    "ir.errors": "BackendError DTypeError EinsumSyntaxError EncryptionError EnvelopeError ShapeError SingularError "
    "SteinError StructureError",
    "ir.semiring": "Semiring",
    "runtime.client": "Client",
    "runtime.compile": "compile",
    "runtime.compiled": "Compiled",
    "runtime.declare": "constant encrypted tensor",
    "runtime.einsum": "einsum",
    "runtime.encrypted": "EncryptedCompiled",
    "runtime.encrypted_files": "Ciphertexts",
    "runtime.findings": "Finding",
    "runtime.opt_einsum_backend": "tensordot transpose",  # what opt_einsum looks up for backend="stein"
    "runtime.server": "Server",
    "runtime.threads": "get_threads set_threads",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()} | {
    "__version__": "runtime.version"
}

__all__ = [
    "BackendError",
    "Ciphertexts",
    "Client",
    "Compiled",
    "DTypeError",
    "EinsumSyntaxError",
    "EncryptedCompiled",
    "EncryptionError",
    "EnvelopeError",
    "Finding",
    "Semiring",
    "Server",
    "ShapeError",
    "SingularError",
    "SteinError",
    "StructureError",
    "__version__",
    "compile",
    "constant",
    "einsum",
    "encrypted",
    "get_threads",
    "set_threads",
    "tensor",
]


def __getattr__(name: str) -> Any:
    if name == "nn":  # loads PyTorch, so it is no part of `from stein import *`
        return _torch_layers()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'stein' has no attribute {name!r}")
    home = import_module(f"stein.{_HOME_OF[name]}")
    value = home.entry() if name == "einsum" else getattr(home, "VERSION" if name == "__version__" else name)
    globals()[name] = value
    return value


def _torch_layers() -> Any:
    """The package `stein.nn`; `BackendError` without PyTorch."""
    try:
        return import_module("stein.runtime.nn")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from stein.ir.errors import BackendError

        raise BackendError("stein.nn needs PyTorch", code="not-installed", help="pip install 'stein[gpu]'") from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "nn"])
