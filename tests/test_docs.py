"""What the documents say is true: docstring examples run, and so do the code blocks of the README and of docs/.

In a page, the ```python blocks run from top to bottom in one namespace. A ```text block that follows one is what it
prints, to the letter. An ```ein block is a program of the language that must compile. A ```console block holds
commands: `make x` must be a target and `stein ...` must be a command.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import pytest

import stein

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
OPTIONAL = {"torch", "triton", "tenseal", "matplotlib", "mpmath", "jax", "cotengra"}
NEEDED = {"torch": "import torch", "tenseal": 'target="ckks"'}  # libraries, and what says that a block needs one
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _module_names() -> list[str]:
    found = [info.name for info in pkgutil.walk_packages(stein.__path__, "stein.") if info.name != "stein.__main__"]
    layers = {"backends", "frontend", "ir", "passes", "runtime"}
    return ["stein", *(name for name in found if name.split(".")[1] in layers)]


@pytest.mark.parametrize("name", _module_names())
def test_docstrings(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
    text = Path(module.__file__ or "").read_text(encoding="utf-8")
    for library in sorted(OPTIONAL):
        if f">>> import {library}\n" in text:
            pytest.importorskip(library)
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failed, report.getvalue()


def test_the_walk_finds_the_layers() -> None:
    assert {"stein.ir.types", "stein.runtime.explain", "stein.backends.cpu.launch"} <= set(_module_names())


def _blocks(page: Path) -> list[tuple[int, str, str]]:
    """Line, language and text of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)) for m in FENCE.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    printed: str | None = None
    for line, language, text in _blocks(page):
        if language == "python":
            for library, sign in NEEDED.items():
                if sign in text:  # the blocks before have run
                    pytest.importorskip(library, reason=f"{page.name}:{line} needs {library}")
            output = io.StringIO()
            code = compile("\n" * line + text, str(page), "exec")  # line numbers of a failure are the page's
            with contextlib.redirect_stdout(output):
                exec(code, names)
            printed = output.getvalue()
        elif language == "text":
            assert printed is not None, f"{page.name}:{line}: a text block needs a python block before it"
            assert printed.rstrip() == text.rstrip(), f"{page.name}:{line}"
            printed = None
        elif language == "ein":
            stein.compile(text, dtype="float32")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    from stein.runtime.cli import cli

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for line, language, text in _blocks(page):
        if language != "console":
            continue
        for command in (each[2:].split() for each in text.splitlines() if each.startswith("$ ")):
            if command[0] == "make":
                assert command[1] in targets, f"{page.name}:{line}: make {command[1]}"
            if command[0] == "stein" and not command[1].startswith("-"):
                assert command[1] in cli.commands, f"{page.name}:{line}: stein {command[1]}"


def test_pages_have_the_files_they_name() -> None:
    """Relative links lead somewhere."""
    broken = []
    for page in PAGES:
        prose = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", prose):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken, broken
