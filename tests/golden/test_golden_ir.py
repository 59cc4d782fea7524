"""Golden IR: the files `ir/NAME.STAGE.ir` are in the printer's form, read back, and are legal at their stage.

They are the examples of IR text, and fixed points for anyone who changes the form: `pytest --update-golden` rewrites
them, so that a change is reviewed by reading the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stein.ir.check import STAGES, check_program
from stein.ir.interpret import interpret
from stein.ir.text import parse_ir, print_program

FILES = sorted((Path(__file__).parent / "ir").glob("*.ir"))


def test_there_are_golden_files_of_several_stages() -> None:
    assert len(FILES) >= 10
    assert len({f.suffixes[0] for f in FILES}) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_golden_ir_reads_back_and_is_legal(path: Path, request: pytest.FixtureRequest) -> None:
    text, stage = path.read_text(encoding="utf-8"), path.suffixes[0].removeprefix(".")
    program = parse_ir(text, name=path.name)
    for earlier in STAGES[: STAGES.index(stage) + 1]:
        check_program(program, earlier)
    printed = print_program(program)
    if request.config.getoption("--update-golden", default=False):
        path.write_text(printed, encoding="utf-8")
    else:
        assert printed == text


def test_a_golden_program_computes() -> None:
    """One file in numbers, so that the form is known to carry the meaning: all-pairs shortest paths."""
    (path,) = [f for f in FILES if f.name.startswith("shortest_paths")]
    far = 10**6
    d = [[0, 4, far], [far, 0, 1], [2, far, 0]]
    result = interpret(parse_ir(path.read_text(encoding="utf-8")), {"d": d})["e"]
    assert result.tolist() == [[0, 4, 5], [3, 0, 1], [2, 6, 0]]
