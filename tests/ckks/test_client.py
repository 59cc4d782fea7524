"""Client and server in one process: what comes back is right, and every mistake of a caller is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stein
from stein import DTypeError, EncryptionError, EnvelopeError, ShapeError
from stein.backends.ckks.core import circuit as c

pytest.importorskip("tenseal", reason="encrypted programs need tenseal")

Pair = tuple[Any, Any]
rng = np.random.default_rng(1)
x = rng.uniform(-1, 1, 8)
ONES = np.ones(8)


@pytest.fixture(scope="module")
def other(linear: Any) -> Pair:
    """Another pair for the same plan."""
    client, server = linear.keygen()
    return client, server


def close(a: Any, b: Any, error: float = 1e-5) -> None:
    np.testing.assert_allclose(a, b, atol=error * np.abs(b).max())


def test_results(linear_pair: Pair, W: Any) -> None:
    client, server = linear_pair
    for v in (rng.standard_normal(8), rng.standard_normal(8)):
        request = client.encrypt(x=x)
        found = client.decrypt(server.run(request, v=v), answers=request)
        assert list(found) == ["y", "z", "w2"]
        close(found["y"], W @ x)
        close(found["z"], v @ x)
        np.testing.assert_array_equal(found["w2"], 2 * v)  # never encrypted, so exact


def test_executed_is_what_was_planned(linear_pair: Pair) -> None:
    client, server = linear_pair
    server.run(client.encrypt(x=x), v=ONES)
    counts, circuit = client.plan.circuit.counts(), client.plan.circuit
    assert server.executed["rotations"] == counts.get(c.ROTATE, 0)
    assert server.executed["plain_products"] == counts.get(c.MULTIPLY_PLAIN, 0)
    assert server.executed["rescales"] == counts.get(c.RESCALE, 0)
    assert server.executed["levels"] == circuit.levels
    assert server.executed["uploads"] == counts[c.INPUT]


def test_another_value_of_the_constant(linear_pair: Pair) -> None:
    """The pair is for a plan, and the plan for every value: a server may be given another matrix."""
    client, server = linear_pair
    V = rng.standard_normal((5, 8)) / 2
    close(client.decrypt(server.run(client.encrypt(x=x), v=ONES, W=V))["y"], V @ x)


def test_encodings_are_made_once(linear_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = linear_pair
    v = np.arange(8.0) / 8
    request = client.encrypt(x=x)
    server.run(request, v=v)

    def encode(*args: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(type(server._exchange.scheme), "encode", encode)
    server.run(request, v=v.copy())
    v[3] += 1  # the same array with another value
    with pytest.raises(AssertionError, match="encoded again"):
        server.run(request, v=v)


def test_bound_tensors_are_kept(linear: Any) -> None:
    client, server = linear.keygen()
    v = np.arange(8.0) / 8
    server.bind(v=v)
    v[:] = 5  # a copy was kept
    request = client.encrypt(x=x)
    kept = np.arange(8.0) / 8
    for _ in range(2):
        close(client.decrypt(server.run(request))["z"], kept @ x)
        assert set(server.seconds) == {"check", "load", "bind", "evaluate", "answer"}
    close(client.decrypt(server.run(request, v=ONES))["z"], ONES @ x)
    close(client.decrypt(server.run(request))["z"], kept @ x)
    server.bind(v=-kept)
    close(client.decrypt(server.run(request))["z"], -kept @ x)


def test_progress(linear_pair: Pair) -> None:
    client, server = linear_pair
    seen: list[tuple[int, int]] = []
    server.progress = lambda done, total: seen.append((done, total))
    server.run(client.encrypt(x=x), v=ONES)
    server.progress = None
    total = len(client.plan.circuit.nodes)
    assert seen == [(k + 1, total) for k in range(total)]


def test_two_encryptions_differ(linear_pair: Pair) -> None:
    client, _ = linear_pair
    one, other = client.encrypt(x=x), client.encrypt(x=x)
    assert one.data != other.data and one.nbytes == pytest.approx(other.nbytes, rel=0.01)


def test_lists_and_integers_are_numbers(linear_pair: Pair, W: Any) -> None:
    client, server = linear_pair
    whole = [0, 1, -1, 1] * 2
    close(client.decrypt(server.run(client.encrypt(x=whole), v=ONES))["y"], W @ np.array(whole))


@pytest.mark.parametrize(
    ("arrays", "error", "code", "words"),
    [
        ({}, EncryptionError, "missing-tensor", "'x' is missing"),
        ({"x": x, "v": x}, EncryptionError, "unknown-tensor", "'v' is no encrypted input"),
        ({"x": x[:7]}, ShapeError, "wrong-shape", r"shape \(7,\).*\(8,\)"),
        ({"x": x + 0j}, DTypeError, "complex", "complex"),
        ({"x": np.where(x > 0.5, np.nan, x)}, EncryptionError, "not-finite", "finite"),
        ({"x": None}, DTypeError, "not-an-array", "None"),
    ],
)
def test_mistakes_of_the_client(
    linear_pair: Pair, arrays: dict[str, Any], error: type[Exception], code: str, words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        linear_pair[0].encrypt(**arrays)
    assert caught.value.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({}, EncryptionError, "'v' is missing"),
        ({"v": ONES, "x": x}, EncryptionError, "'x' is no clear input"),
        ({"v": np.ones(9)}, ShapeError, "shape"),
        ({"v": ONES, "W": np.ones((5, 9))}, ShapeError, "shape"),
    ],
)
def test_mistakes_of_the_server(linear_pair: Pair, arrays: dict[str, Any], error: type[Exception], words: str) -> None:
    client, server = linear_pair
    with pytest.raises(error, match=words):
        server.run(client.encrypt(x=x), **arrays)


def test_beyond_the_declared_range(square_pair: Pair) -> None:
    client, server = square_pair
    close(client.decrypt(server.run(client.encrypt(x=2 * ONES))), 4 * ONES)
    with pytest.raises(EncryptionError, match=r"values up to 2\.5; the plan is for magnitudes up to 2") as caught:
        client.encrypt(x=2.5 * ONES)
    assert caught.value.code == "out-of-range" and "range=2.5" in caught.value.help


def test_results_have_their_declared_type() -> None:
    p: Any = stein.compile("x: encrypted f32[8]; y[i] = x[i] + x[7-i]", target="ckks", rings=(8192,))
    client, server = p.keygen()
    values = np.linspace(-1, 1, 8, dtype=np.float32)
    found = client.decrypt(server.run(client.encrypt(x=values)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values + values[::-1], atol=2e-5)


class TestMixedUp:
    """Messages, plans and keys that do not belong together."""

    def refused(self, call: Callable[[], Any], code: str) -> None:
        with pytest.raises(EnvelopeError) as caught:
            call()
        assert caught.value.code == code, caught.value

    def test_other_keys(self, linear_pair: Pair, other: Pair) -> None:
        request = linear_pair[0].encrypt(x=x)
        self.refused(lambda: other[1].run(request, v=x), "wrong-key")
        answer = linear_pair[1].run(request, v=x)
        self.refused(lambda: other[0].decrypt(answer), "wrong-key")

    def test_other_plan(self, linear_pair: Pair, square_pair: Pair) -> None:
        request = linear_pair[0].encrypt(x=x)
        self.refused(lambda: square_pair[1].run(request), "wrong-plan")
        self.refused(lambda: square_pair[0].decrypt(linear_pair[1].run(request, v=x)), "wrong-plan")

    def test_a_request_is_no_result(self, linear_pair: Pair) -> None:
        client, server = linear_pair
        request = client.encrypt(x=x)
        self.refused(lambda: client.decrypt(request), "wrong-kind")
        self.refused(lambda: server.run(server.run(request, v=x), v=x), "wrong-kind")

    def test_an_old_answer(self, linear_pair: Pair) -> None:
        client, server = linear_pair
        first, second = client.encrypt(x=x), client.encrypt(x=-x)
        answer = server.run(first, v=x)
        client.decrypt(answer, answers=first)
        self.refused(lambda: client.decrypt(answer, answers=second), "wrong-request")
