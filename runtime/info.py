"""`stein info`: what is installed here, as text for a bug report."""

from __future__ import annotations

import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version

from .version import VERSION

LIBRARIES = ("numpy", "llvmlite", "opt_einsum", "scipy", "ml_dtypes", "torch", "jax")

VECTOR_FEATURES = ("amx", "avx", "bf16", "dotprod", "f16c", "fma", "neon", "sse4", "sve")


def describe() -> str:
    """Versions, processor, targets, threads and cache folder, a line each.

    >>> "numpy" in describe()
    True
    """
    rows = [
        ("stein", f"{VERSION} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("libraries", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)),
        *_processor(),
        ("targets", "; ".join(f"{name}: {state}" for name, state in targets().items())),
    ]
    return "\n".join(f"{name:10} {text}" for name, text in rows)


def targets() -> dict[str, str]:
    """Each target with "ready", or with what to install."""
    cpu = "ready" if importlib.util.find_spec("llvmlite") is not None else "pip install llvmlite"
    return {"cpu": cpu, "reference": "ready"}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> list[tuple[str, str]]:
    """What the CPU backend knows about the machine."""
    from ..backends.cpu.machine import host
    from ..backends.cpu.native import why_unavailable
    from ..backends.cpu.objects import default_store
    from ..backends.cpu.pool import cpus, get_threads

    machine = host()
    features = [
        each[1:] for each in machine.features.split(",") if each.startswith(tuple("+" + f for f in VECTOR_FEATURES))
    ]
    store = default_store()
    reason = why_unavailable()
    return [
        ("processor", f"{machine.cpu}: {' '.join(sorted(features))}"),
        ("threads", f"{get_threads()} of {cpus()} processors (STEIN_NUM_THREADS sets it)"),
        ("entry", f"Python ({reason})" if reason else "native"),
        ("cache", f"{store.folder} (STEIN_CACHE_DIR sets it)" if store else "off"),
    ]
