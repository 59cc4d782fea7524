"""`import stein` is cheap: it loads NumPy and our own modules, and leaves the heavy libraries to their first use."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "IPython", "click", "cotengra", "cryptography", "jax", "lark", "llvmlite", "matplotlib", "opt_einsum", "rich",
    "scipy", "tenseal", "torch", "triton",
}  # fmt: skip


def _modules_after(code: str) -> set[str]:
    """The top-level names of the modules that a fresh interpreter holds after running `code`."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    found: list[str] = json.loads(run.stdout.splitlines()[-1])
    return set(found)


def test_import_loads_no_heavy_library() -> None:
    assert _modules_after("import stein") & HEAVY == set()


def test_the_public_names_load_llvmlite_at_most() -> None:
    # They are looked up on first use. `stein.einsum` is a builtin made by LLVM, so that one needs llvmlite.
    assert _modules_after("from stein import *") & HEAVY <= {"llvmlite"}


def test_the_check_would_notice() -> None:
    assert "click" in _modules_after("import click") & HEAVY


def test_star_exports_exist() -> None:
    import stein

    missing = [name for name in stein.__all__ if not hasattr(stein, name)]
    assert not missing
    assert {"einsum", "compile", "SteinError"} <= set(stein.__all__)


def test_version_is_written_once() -> None:
    import stein
    from stein.runtime.version import VERSION

    assert stein.__version__ == VERSION
