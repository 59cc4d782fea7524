"""Looks inside the built distributions: `python tests/dist_check.py dist`, run by `make dist-check` (slow to build).

The wheel holds the packages of pyproject.toml and nothing else at its top level; the source distribution holds what is
needed to run the tests.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def check_wheel(path: Path, packages: list[str]) -> list[str]:
    """What is wrong with the wheel at `path`."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    wrong = []
    tops = {name.split("/")[0] for name in names}
    extra = {top for top in tops if top != "stein" and not top.endswith(".dist-info")}
    if extra:
        wrong.append(f"top-level names beside stein: {sorted(extra)}")
    shipped = {".".join(name.split("/")[:-1]) for name in names if name.endswith(".py")}
    if shipped != set(packages):
        wrong.append(f"packages differ from pyproject.toml: {sorted(shipped ^ set(packages))}")
    for needed in ("stein/py.typed", "stein/frontend/einsum.lark"):
        if needed not in names:
            wrong.append(f"{needed} is missing")
    return [f"{path.name}: {each}" for each in wrong]


def check_sdist(path: Path) -> list[str]:
    """What is wrong with the source distribution at `path`."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ("Makefile", "README.md", "LICENSE", "constraints.txt", "pyproject.toml", "tests/test_layout.py")
    return [f"{path.name}: {name} is missing" for name in needed if name not in names]


def main(folder: Path) -> int:
    """Check every distribution in `folder`; returns the exit code."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages: list[str] = tomllib.load(file)["tool"]["setuptools"]["packages"]
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    wrong = [] if wheels and sdists else [f"{folder} lacks a wheel or a source distribution"]
    for wheel in wheels:
        wrong += check_wheel(wheel, packages)
    for sdist in sdists:
        wrong += check_sdist(sdist)
    print("\n".join(wrong) if wrong else f"{len(wheels) + len(sdists)} distributions are in order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
