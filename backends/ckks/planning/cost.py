"""Prices of homomorphic operations: what the planner of encrypted programs minimises, in milliseconds of one core.

Every operation of SEAL is a number of transforms (NTT) of one polynomial modulo one prime, and of passes over words,
which follow from the ring and the primes left; `Rates` says what this machine takes for each. Switching keys with p
data primes takes p² + 3p + 2 transforms, and passes that take as long as 0.7p + 1 more (measured; the same in all
rings), so a level lower is cheaper by more than its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from ..core import circuit as c
from ..steps.option import Work
from ..steps.tallied import tally

SHARE_OF_UPLOAD = 0.2  # of the client's time for it, which the server's is weighed against
PASSES = (0.7, 1.0)  # of a key switch, in transforms, for each prime and besides


@dataclass(frozen=True)
class Rates:
    """What a machine takes, in nanoseconds: for a butterfly of a transform; for a word (one coefficient modulo one
    prime) of a product with a plain vector, of a product of ciphertexts, of an addition, of fresh randomness in an
    encryption; for a butterfly of the floating-point transform of an encoding.

    `measured` says whether this is a measurement.
    """

    butterfly: float = 1.35
    plain: float = 2.7
    cipher: float = 5.6
    add: float = 0.75
    sample: float = 22.0
    encode: float = 2.8
    measured: bool = False


DEFAULTS = Rates()
CALL = 3000.0  # nanoseconds of a call of the library, whatever it does


@dataclass(frozen=True)
class Prices:
    """Milliseconds of one core for each operation in a ring, by the data primes that are left (levels - level + 1).

    >>> prices = Prices(8192)
    >>> prices.rotate(1) < prices.rotate(2) < prices.rotate(3)
    True
    """

    ring: int
    rates: Rates = DEFAULTS

    def rotate(self, primes: int) -> float:
        """One rotation by a step that has its key: a permutation and a key switch."""
        return self.relinearise(primes)

    def relinearise(self, primes: int) -> float:
        """One key switch of the third polynomial of a product, or of a rotated one."""
        return self._transforms(primes**2 + 3 * primes + 2 + PASSES[0] * primes + PASSES[1])

    def multiply_plain(self, primes: int, size: int = 2) -> float:
        """A product with a plain vector that is encoded already."""
        return self._words(size * primes, self.rates.plain)

    def multiply(self, primes: int) -> float:
        """A product of two ciphertexts, not relinearised."""
        return self._words(2 * primes, self.rates.cipher)

    def rescale(self, primes: int, size: int = 2) -> float:
        """Dropping the last of `primes` primes by division."""
        return self._transforms(size * primes)

    def add(self, primes: int, size: int = 2) -> float:
        """A sum or difference of two ciphertexts; the sum with a plain vector is half of it."""
        return self._words(size * primes, self.rates.add)

    def encode(self, primes: int) -> float:
        """Encoding a plain vector: once for all runs with the same clear tensors."""
        return self._transforms(primes) + self._butterflies() * self.rates.encode / 1e6

    def encrypt(self, primes: int) -> float:
        """Encryption at the client with the secret key, without the encoding."""
        return self._transforms(2 * primes) + self._words(primes, self.rates.sample)

    def upload(self, primes: int = 2) -> float:
        """What the planner gives for one upload less: a share of its encoding and encryption at the client."""
        return SHARE_OF_UPLOAD * (self.encode(primes) + self.encrypt(primes))

    def operation(self, node: c.Node, levels: int) -> float:
        """One operation of a circuit that runs on a chain of `levels` levels (before it: `node.level` is its result's).

        Inputs cost the server nothing.
        """
        primes = levels - node.level + 1
        if node.kind == c.ROTATE:
            return self.rotate(primes)
        if node.kind == c.RELINEARISE:
            return self.relinearise(primes)
        if node.kind == c.MULTIPLY_PLAIN:
            return self.multiply_plain(primes, node.size)
        if node.kind == c.MULTIPLY:
            return self.multiply(primes)
        if node.kind == c.RESCALE:
            return self.rescale(primes + 1, node.size)
        if node.kind == c.ADD_PLAIN:
            return self.add(primes, 1)
        if node.kind in (c.ADD, c.SUBTRACT, c.NEGATE, c.SWITCH):
            return self.add(primes, node.size)
        return 0.0

    def _butterflies(self) -> float:
        return self.ring / 2 * log2(self.ring)

    def _transforms(self, count: float) -> float:
        return (count * self._butterflies() * self.rates.butterfly + CALL) / 1e6

    def _words(self, polynomials: int, nanoseconds: float) -> float:
        return (polynomials * self.ring * nanoseconds + CALL) / 1e6


def work(circuit: c.Circuit, prices: Prices, levels: int) -> Work:
    """Counts and predicted milliseconds of a circuit on a chain of `levels` levels.

    >>> from ..core.layout import Packing
    >>> b = c.Builder(4096)
    >>> x = b.input("x", 0)
    >>> packing = Packing.vector(4096)
    >>> work(b.circuit({"x": packing}, {"y": (packing, (b.rotate(x, 1),))}), Prices(8192), 1).rotations
    1
    """
    return Work(milliseconds=sum(prices.operation(n, levels) for n in circuit.nodes), **tally(circuit.nodes))
