"""Key bundles: what the client keeps, what the server gets, and their files.

The client's bundle has the secret key. The server's has evaluation keys for exactly the plan's rotations, a
relinearisation key only if the plan relinearises, and nothing that decrypts. Both have the plan and the *integrity
key*, with which messages between the two are tagged: whoever has it can pass off messages as the other side's, so
the server's bundle, too, is for the server's eyes only. It is no protection from the server itself, which can send
back what it likes.

The key id is a hash of the plan, the evaluation keys and the integrity key. Both sides show it, so that a server can
make sure, by any channel that an attacker does not control, that its bundle is the client's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import envelope
from .envelope import Envelope, Header, rejected


@dataclass(frozen=True)
class ClientKeys:
    """The client's side of a pair: SEAL's secret key, the shared integrity key, the plan (canonical JSON), the id."""

    plan: str
    secret: bytes = field(repr=False)
    integrity: bytes = field(repr=False)
    id: bytes

    def to_bytes(self) -> bytes:
        """The client's file."""
        parts = {"plan": self.plan.encode(), "secret": self.secret, "integrity": self.integrity}
        return envelope.wrap(Envelope(Header(envelope.CLIENT, envelope.plan_hash(self.plan), self.id), parts))

    @staticmethod
    def from_bytes(data: bytes) -> ClientKeys:
        """The client's keys in a file. Raises `EnvelopeError` for anything else."""
        found = envelope.unwrap(data, envelope.CLIENT)
        return ClientKeys(_plan(found), found.part("secret"), found.part("integrity"), found.header.key)


@dataclass(frozen=True)
class ServerKeys:
    """The server's side: Galois keys and relinearisation key as SEAL stores them (empty where the plan needs none)."""

    plan: str
    galois: bytes = field(repr=False)
    relinearisation: bytes = field(repr=False)
    integrity: bytes = field(repr=False)

    @cached_property  # some ten milliseconds, and every message has it
    def id(self) -> bytes:
        """The id of the pair: it follows from all that the server has."""
        hashed = hashlib.blake2b(envelope.plan_hash(self.plan), digest_size=16, person=b"stein key id")
        for part in (self.galois, self.relinearisation, self.integrity):
            hashed.update(hashlib.blake2b(part, digest_size=32).digest())
        return hashed.digest()

    @property
    def nbytes(self) -> int:
        """The size of the evaluation keys."""
        return len(self.galois) + len(self.relinearisation)

    def to_bytes(self) -> bytes:
        """The server's file."""
        parts = {
            "plan": self.plan.encode(),
            "galois": self.galois,
            "relinearisation": self.relinearisation,
            "integrity": self.integrity,
        }
        return envelope.wrap(Envelope(Header(envelope.SERVER, envelope.plan_hash(self.plan), self.id), parts))

    @staticmethod
    def from_bytes(data: bytes) -> ServerKeys:
        """The server's keys in a file. Raises `EnvelopeError` for anything else."""
        found = envelope.unwrap(data, envelope.SERVER)
        keys = ServerKeys(_plan(found), found.part("galois"), found.part("relinearisation"), found.part("integrity"))
        if keys.id != found.header.key:
            raise rejected("the server keys are not those of their key id", "damaged")
        return keys


def canonical(plan: Mapping[str, Any]) -> str:
    """A plan's JSON in the one spelling that is hashed.

    >>> canonical({"b": 1, "a": [1, 2]})
    '{"a":[1,2],"b":1}'
    """
    return json.dumps(plan, sort_keys=True, separators=(",", ":"))


def _plan(found: Envelope) -> str:
    """The plan of a bundle, of the hash that its header states."""
    try:
        plan = found.part("plan").decode()
    except UnicodeDecodeError:
        raise rejected("the plan is damaged", "damaged") from None
    if envelope.plan_hash(plan) != found.header.plan:
        raise rejected("the plan is not the one of its hash", "wrong-plan")
    return plan
