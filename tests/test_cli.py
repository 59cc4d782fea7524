"""The command line: every command, its files, its exit codes; mistakes are messages, never tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from stein.runtime.cli import cli, parse_shape
from stein.runtime.version import VERSION


def call(*words: str, stdin: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, list(words), input=stdin)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with A.npy (4, 3), x.npy (3,) and objects.npy, which holds Python objects."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "A.npy", rng.standard_normal((4, 3)))
    np.save(tmp_path / "x.npy", rng.standard_normal(3))
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    return tmp_path


def test_explain_an_einsum_string() -> None:
    result = call("explain", "ij,jk->ik", "64,32", "32,16", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    assert "contraction tree" in result.stdout
    assert "kernels" in result.stdout


def test_explain_a_program_by_name_and_as_json() -> None:
    result = call("explain", "y[i,j] = A[i,k] * B[j,l] * x[k,l]", "A=8,8", "B=8,8", "x=8,8", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["target"] == "cpu"
    # The order of products matters: two products of 8^3 instead of one nest of 8^4.
    assert len(found["steps"]) == 2
    assert found["flops"] < found["naive_flops"]


def test_explain_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    path = tmp_path / "tree.svg"
    result = call("explain", "ij,jk,kl->il", "4,4", "4,4", "4,4", "--draw", str(path))
    assert result.exit_code == 0, result.output
    assert "<svg" in path.read_text()


@pytest.mark.parametrize("stage", ["elaborated", "normal", "planned"])
def test_ir(stage: str) -> None:
    result = call("ir", "y[i] = A[i,j] * x[j]", "A=4,3", "x=3", "--stage", stage)
    assert result.exit_code == 0, result.output
    assert "y" in result.stdout and "A[" in result.stdout


def test_ir_refuses_an_unknown_stage() -> None:
    assert call("ir", "ij->ji", "2,3", "--stage", "molten").exit_code == 2


def test_source() -> None:
    result = call("source", "ij,jk->ik", "8,8", "8,8")
    assert result.exit_code == 0, result.output
    assert "define" in result.stdout


def test_run_writes_one_result(files: Path) -> None:
    A, x = np.load(files / "A.npy"), np.load(files / "x.npy")
    words = ("run", "y[i] = A[i,j] * x[j]", f"A={files / 'A.npy'}", f"x={files / 'x.npy'}", "-o", str(files / "y.npy"))
    result = call(*words)
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load(files / "y.npy"), A @ x)


def test_run_an_einsum_string_and_print(files: Path) -> None:
    result = call("run", "ij,j->i", str(files / "A.npy"), str(files / "x.npy"))
    assert result.exit_code == 0, result.output
    assert "float64[4]" in result.stdout


def test_run_reads_a_program_from_a_file_and_writes_several(files: Path) -> None:
    (files / "sums.ein").write_text("rows[i] = sum[j] A[i,j]\ncols[j] = sum[i] A[i,j]\n", encoding="utf-8")
    A = np.load(files / "A.npy")
    result = call("run", str(files / "sums.ein"), f"A={files / 'A.npy'}", "-o", str(files / "s.npy"))
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load(files / "s-rows.npy"), A.sum(1))
    np.testing.assert_allclose(np.load(files / "s-cols.npy"), A.sum(0))
    result = call("run", str(files / "sums.ein"), f"A={files / 'A.npy'}", "-o", str(files / "s.npz"))
    assert result.exit_code == 0, result.output
    with np.load(files / "s.npz") as stored:
        assert set(stored) == {"rows", "cols"}


def test_run_reads_a_program_from_standard_input(files: Path) -> None:
    result = call("run", "-", f"A={files / 'A.npy'}", stdin="B[j,i] = A[i,j]")
    assert result.exit_code == 0, result.output
    assert "float64[3, 4]" in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("explain", "ij,jk->ik", "2,3", "4,5"), "'j'"),
        (("explain", "y[i] = A[i,k * x[k]"), "expected"),
        (("ir", "y[i] = x[i*j]"), "not affine"),
        (("explain", "ij->ji", "2,3", "--target", "abacus"), "abacus"),
        (("explain", "y[i] = x[i]", "dtype=3"), "option of the compiler"),
        (("run", "y[i] = x[i]", "x=nowhere.npy"), "nowhere.npy"),
        (("run", "missing.ein"), "missing.ein"),
        (("run", "ij->ji", "A=a.npy"), "a.npy"),
    ],
)
def test_mistakes_are_messages(words: tuple[str, ...], says: str) -> None:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_files_with_objects_are_refused(files: Path) -> None:
    result = call("run", "i->i", str(files / "objects.npy"))
    assert result.exit_code == 2
    assert "allow_pickle" in result.stderr


def test_a_name_of_an_odd_result_file_is_refused(files: Path) -> None:
    result = call("run", "ij->ji", str(files / "A.npy"), "-o", str(files / "y.txt"))
    assert result.exit_code == 2
    assert not (files / "y.txt").exists()


def test_a_name_given_twice_is_refused(files: Path) -> None:
    assert call("run", "y[i] = x[i]", f"x={files / 'x.npy'}", f"x={files / 'x.npy'}").exit_code == 2


def test_info() -> None:
    result = call("info")
    assert result.exit_code == 0, result.output
    for word in (VERSION, "numpy", "llvmlite", "threads", "cache", "cpu: ready"):
        assert word in result.stdout


def test_python_m_stein_is_the_command() -> None:
    run = subprocess.run([sys.executable, "-m", "stein", "--version"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0
    assert VERSION in run.stdout
    run = subprocess.run(
        [sys.executable, "-m", "stein", "explain", "ij,jk->il"], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 2
    assert "'l'" in run.stderr and "Traceback" not in run.stderr


def test_shapes() -> None:
    assert parse_shape("64,32") == (64, 32)
    assert parse_shape(" batch , 2*n-1 ") == ("batch", "2*n-1")
    assert parse_shape("()") == ()


def test_programs_in_files_of_other_editors(files: Path) -> None:
    program = files / "p.ein"
    program.write_bytes(b"\xef\xbb\xbfy[i]\t=\tA[i,j]*x[j]\r\n")
    result = call("run", str(program), f"A={files / 'A.npy'}", f"x={files / 'x.npy'}")
    assert result.exit_code == 0, result.output
    program.write_bytes(b"y[i] = x[i] # \xe9\n")
    result = call("run", str(program), f"x={files / 'x.npy'}")
    assert result.exit_code == 2 and "is not UTF-8" in result.output


def test_pictures_have_a_format(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    result = call("explain", "ij,jk->ik", "4,4", "4,4", "--draw", str(tmp_path / "tree.foo"))
    assert result.exit_code == 2 and "picture format" in result.output
