"""Several processes: the same ciphertexts to the last bit, every operation once, and nobody left behind."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stein import BackendError, EncryptionError
from stein.backends.ckks.chain.scales import bind
from stein.backends.ckks.core import circuit as c
from stein.backends.ckks.core.layout import Packing
from stein.backends.ckks.execution import partition as p
from stein.backends.ckks.execution import processes
from stein.backends.ckks.execution.execute import run
from stein.backends.ckks.execution.seal import EvaluationKeys, Scheme, Secret, dump
from stein.backends.ckks.planning.cost import Prices
from stein.tests.ckks.encrypted_runs import SMALL, Fixed, Real, circuits, one_output

SLOTS = SMALL.slots
rng = np.random.default_rng(0)
inputs = {"x": rng.uniform(-1, 1, SLOTS), "y": rng.uniform(-1, 1, SLOTS)}
common = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def steps(babies: int, giants: int, outputs: int = 1) -> c.Circuit:
    """Baby steps and giant steps, as dense matrices have them."""
    b = c.Builder(SLOTS)
    x = b.input("x", 0)
    rotated = [b.rotate(x, k) for k in range(babies)]
    found = []
    for _ in range(outputs):
        sums = []
        for g in range(giants):
            vectors = [Fixed(rng.uniform(-1, 1, SLOTS) / babies) for _ in range(babies)]
            products = [b.multiply_plain(r, v) for r, v in zip(rotated, vectors, strict=True)]
            sums.append(b.rotate(b.rescale(b.total(products)), babies * g))
        found.append(b.total(sums))
    packing = Packing(np.arange(outputs * SLOTS).reshape(outputs, SLOTS))
    return b.circuit({"x": Packing.vector(SLOTS)}, {"z": (packing, tuple(found))})


def divided(circuit: c.Circuit, count: int) -> p.Partition:
    return p.partition(circuit, bind(circuit, SMALL), Prices(SMALL.ring), count)


def check(circuit: c.Circuit, parts: p.Partition) -> None:
    """Every operation once, every value known where it is read, and every ciphertext of the results handed in."""
    counts: Counter[str] = Counter()
    sent = {(t.args[0], t.peer) for row in parts.tasks for t in row if t.kind == p.SEND}
    ends: set[int] = set()
    for own, row in enumerate(parts.tasks):
        known: set[int] = set()
        for task in row:
            if task.kind == p.RECEIVE:
                assert (task.args[0], own) in sent
            else:
                assert known.issuperset(task.args)
            if task.kind in (p.LOAD, p.RUN, p.JOIN):
                counts[circuit.nodes[task.node].kind] += task.counted
            if task.kind == p.ANSWER:
                ends.add(task.node)
            known.difference_update(task.freed)
            known.add(task.value)
    assert counts == circuit.counts()
    assert ends == {v for _, values in circuit.downloads.values() for v in values}


@common
@given(circuits(slots=SLOTS, levels=1, operations=12))
def test_every_operation_is_done_once(circuit: c.Circuit) -> None:
    for count in (1, 2, 3):
        check(circuit, divided(circuit, count))


def test_results_of_several_ciphertexts_are_shared_out() -> None:
    circuit = steps(1, 6, outputs=4)
    parts = divided(circuit, 2)
    check(circuit, parts)
    assert parts.transfers == 0  # each has half of the results, and reads the one upload
    assert [sum(t.kind == p.ANSWER for t in row) for row in parts.tasks] == [2, 2]


def test_the_price_decides() -> None:
    prices, small, large = Prices(SMALL.ring), steps(2, 2), steps(30, 40)
    assert p.best(small, bind(small, SMALL), prices, 4).processes == 1
    found = p.best(large, bind(large, SMALL), prices, 2)
    assert found.processes == 2 and found.milliseconds + p.START < found.alone
    assert p.best(large, bind(large, SMALL), prices, 1).processes == 1


# --- for real


linux = pytest.mark.skipif(not processes.available(), reason="several processes need fork and files in memory")


@pytest.fixture(scope="module")
def owner() -> Secret:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    return Secret(Scheme(SMALL))


def work(real: Real, uploads: dict[str, list[Any]]) -> processes.Work:
    """What `processes.run` is given, for ciphertexts that are there already."""

    def upload(number: int) -> Any:
        name, place = real.circuit.nodes[number].upload or ("", 0)
        return real.scheme.load_ciphertext(dump(uploads[name][place]), 0, real.scales.values[number])

    return processes.Work(real.circuit, real.scales, real.scheme, real.keys, real.encodings, upload)


def alike(real: Real, count: int) -> None:
    """One process and several give the same bytes."""
    uploads = real.uploads(inputs)
    alone = run(real.circuit, real.scales, real.scheme, real.keys, uploads, real.encodings)
    shared = processes.run(work(real, uploads), divided(real.circuit, count))
    (numbers,) = (values for _, values in real.circuit.downloads.values())
    assert [shared.answers[n] for n in numbers] == [dump(each) for each in alone.outputs["z"]]
    assert shared.executed == alone.executed == real.circuit.counts()
    assert shared.lowest == real.circuit.levels and shared.seconds > 0
    alone_here()


def alone_here() -> None:
    """No process is left that this one would have to wait for."""
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@linux
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_same_bytes(owner: Secret, count: int, outputs: int) -> None:
    alike(Real(steps(3, 3, outputs), SMALL, owner), count)


@linux
@settings(common, max_examples=6)
@given(circuits(slots=SLOTS, levels=1, operations=10))
def test_the_same_bytes_of_random_circuits(owner: Secret, circuit: c.Circuit) -> None:
    real = Real(circuit, SMALL, owner)
    uploads = real.uploads(inputs)
    alone = run(circuit, real.scales, real.scheme, real.keys, uploads, real.encodings)
    shared = processes.run(work(real, uploads), divided(circuit, 2))
    assert list(shared.answers.values()) == [dump(alone.outputs["z"][0])] and shared.executed == circuit.counts()


@linux
def test_sums_of_products_that_are_not_relinearised_meet(owner: Secret) -> None:
    b = c.Builder(SLOTS)
    x, y = b.input("x", 0), b.input("y", 0)
    products = [b.multiply(b.rotate(x, k), b.rotate(y, 2 * k)) for k in range(4)]
    circuit = one_output(b, b.relinearise(b.rescale(b.total(products))))
    assert any(t.kind == p.JOIN and circuit.nodes[t.node].size == 3 for row in divided(circuit, 2).tasks for t in row)
    alike(Real(circuit, SMALL, owner), 2)


@linux
def test_an_error_in_another_process_is_the_users(owner: Secret) -> None:
    real = Real(steps(3, 3), SMALL, owner)
    found = work(real, real.uploads(inputs))
    rotations = {t.node for t in divided(real.circuit, 2).tasks[1] if real.circuit.nodes[t.node].kind == c.ROTATE}
    step = real.circuit.nodes[min(rotations)].step
    keys = EvaluationKeys(real.keys.galois, real.keys.relinearisation, real.keys.steps - {step})
    lacking = processes.Work(found.circuit, found.scales, found.scheme, keys, found.encodings, found.upload)
    with pytest.raises(EncryptionError, match=f"no key for a rotation by {step}") as caught:
        processes.run(lacking, divided(real.circuit, 2))
    assert caught.value.code == "missing-key"
    alone_here()


@linux
@pytest.mark.parametrize("end", ["killed", "broken"])
def test_a_process_that_ends_early_is_noticed(owner: Secret, end: str) -> None:
    real = Real(steps(3, 3), SMALL, owner)
    found, here = work(real, real.uploads(inputs)), os.getpid()

    def upload(number: int) -> Any:
        if os.getpid() != here and end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.getpid() != here:
            raise ZeroDivisionError("a mistake of ours")
        return found.upload(number)

    bad = processes.Work(found.circuit, found.scales, found.scheme, found.keys, found.encodings, upload)
    kind, text = (BackendError, "was killed") if end == "killed" else (RuntimeError, "a mistake of ours")
    with pytest.raises(kind, match=text):
        processes.run(bad, divided(real.circuit, 2))
    alone_here()


@linux
def test_an_interrupt_ends_all_of_them(owner: Secret) -> None:
    real = Real(steps(3, 3), SMALL, owner)
    found = work(real, real.uploads(inputs))
    before = len(os.listdir("/proc/self/fd"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.run(found, divided(real.circuit, 3), interrupt)
    alone_here()
    assert len(os.listdir("/proc/self/fd")) == before


@linux
def test_a_server_with_two_processes(linear_pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = linear_pair
    request, v = client.encrypt(x=np.linspace(-1, 1, 8)), np.ones(8)
    alone, executed = server.run(request, v=v), server.executed
    monkeypatch.setattr(server, "processes", 2)
    assert server.run(request, v=v).data == alone.data and server.executed == executed
    assert server.divided().processes == 2
    monkeypatch.setattr(server, "processes", 0)  # so little work is done sooner by one
    assert server.divided().processes == 1 and server.run(request, v=v).data == alone.data
    for bad in (-1, 1.5, 1000):
        monkeypatch.setattr(server, "processes", bad)
        with pytest.raises(BackendError, match="no number of processes"):
            server.run(request, v=v)


@linux
def test_without_fork_several_processes_are_refused(owner: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "available", lambda: False)
    real = Real(steps(2, 2), SMALL, owner)
    with pytest.raises(BackendError, match="such as Linux"):
        processes.run(work(real, real.uploads(inputs)), divided(real.circuit, 2))
