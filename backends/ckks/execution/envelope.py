"""The wire format: every file and message of an encrypted program is one envelope, checked before SEAL sees a byte.

SEAL loads most damaged ciphertexts without a complaint, so nothing reaches it that was not authenticated first. An
envelope is a header, named parts, and a tag over all of it:

    magic 8 | version 2 | kind 2 | plan hash 32 | key id 16 | request 16 | parts 4 | length 8      all big-endian
    for each part: length of name 2 | length 8 | name
    the parts, one after the other
    tag 32: HMAC-SHA256 of everything before it

Messages (ciphertexts and results) are tagged with a key derived from the *integrity key* that client and server share,
one for each kind, so that neither an upload nor a plan can be sent back as a result. The integrity key decrypts
nothing. Files that hold keys, and plans, cannot authenticate themselves: their tag has a public key, a checksum that
finds every accident; whom they come from is a matter of the channel that brought them, and of the key id, which
both sides can print and compare.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ....ir.errors import EnvelopeError

MAGIC = b"\x89stein\r\n"  # a transfer in text mode, or in seven bits, changes it
VERSION = 1
HEADER = struct.Struct(">8sHH32s16s16sIQ")
ENTRY = struct.Struct(">HQ")
TAG_BYTES = 32
PUBLIC = b"stein: a checksum, not a secret."  # the key of tags that anybody may make

PLAN, CLIENT, SERVER, CIPHERTEXTS, RESULT = "plan", "client keys", "server keys", "ciphertexts", "result"
LOCKED = "locked client keys"  # the client's file under a passphrase: see `passphrase`
KINDS = (PLAN, CLIENT, SERVER, CIPHERTEXTS, RESULT, LOCKED)
MESSAGES = frozenset({CIPHERTEXTS, RESULT})  # what needs the shared integrity key

NO_KEY, NO_REQUEST, NO_PLAN = bytes(16), bytes(16), bytes(32)


@dataclass(frozen=True)
class Header:
    """What an envelope says of itself: its kind, the hash of its plan (32 bytes), the id of its keys and of the request
    that it belongs to (16 bytes each; zeros where there is none), and how many parts it has.
    """

    kind: str
    plan: bytes = NO_PLAN
    key: bytes = NO_KEY
    request: bytes = NO_REQUEST
    count: int = 0  # set by `wrap`


@dataclass(frozen=True)
class Envelope:
    """A header and named parts."""

    header: Header
    parts: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))

    def part(self, name: str) -> bytes:
        """A part by name. Raises `EnvelopeError` where there is none."""
        found = self.parts.get(name)
        if found is None:
            raise rejected(f"the {self.header.kind} have no part '{name}'", "damaged")
        return found


def plan_hash(canonical: str) -> bytes:
    """The hash of a plan: BLAKE2b of its canonical JSON.

    >>> len(plan_hash("{}"))
    32
    """
    return hashlib.blake2b(canonical.encode(), digest_size=32, person=b"stein plan").digest()


def wrap(envelope: Envelope, integrity: bytes = PUBLIC) -> bytes:
    """The envelope's bytes, tagged.

    >>> sent = wrap(Envelope(Header(RESULT), {"y": b"..."}), b"shared")
    >>> unwrap(sent, RESULT, b"shared").part("y")
    b'...'
    """
    header = envelope.header
    assert header.kind in KINDS and len(header.plan) == 32 and len(header.key) == len(header.request) == 16
    assert (integrity is PUBLIC) == (header.kind not in MESSAGES), "messages have a shared key, files have none"
    names = [name.encode() for name in envelope.parts]
    table = b"".join(
        ENTRY.pack(len(name), len(data)) + name for name, data in zip(names, envelope.parts.values(), strict=True)
    )
    total = HEADER.size + len(table) + sum(map(len, envelope.parts.values())) + TAG_BYTES
    first = HEADER.pack(
        MAGIC, VERSION, KINDS.index(header.kind), header.plan, header.key, header.request, len(names), total
    )
    body = b"".join((first, table, *envelope.parts.values()))
    return body + _tag(body, header.kind, integrity)


def peek(data: bytes) -> Header:
    """The header of an envelope, not yet authenticated: to choose keys by, and for messages.

    Raises `EnvelopeError` for what is no whole envelope of this version.
    """
    if len(data) < HEADER.size + TAG_BYTES or data[: len(MAGIC)] != MAGIC:
        raise rejected("this is no file of stein", "damaged", "it was cut off, changed, or is something else")
    _, version, kind, plan, key, request, count, total = HEADER.unpack_from(data)
    if version != VERSION:
        raise rejected(f"the file has version {version} of the format, not {VERSION}", "damaged", _SAME_VERSION)
    if kind >= len(KINDS):
        raise rejected("the file is of no known kind", "damaged", _SAME_VERSION)
    if total != len(data):
        short = "cut off" if total > len(data) else "followed by other bytes"
        raise rejected(f"the {KINDS[kind]} are {short}: {len(data)} bytes instead of {total}", "damaged", _AGAIN)
    return Header(KINDS[kind], plan, key, request, count)


def unwrap(
    data: bytes, kind: str, integrity: bytes = PUBLIC, plan: bytes | None = None, key: bytes | None = None
) -> Envelope:
    """The envelope, once all of it is known to be as it was wrapped: of this kind, plan and key, untouched.

    Raises `EnvelopeError` otherwise; its code is "damaged", "wrong-kind", "wrong-plan" or "wrong-key".
    """
    header = peek(data)
    if header.kind != kind:
        raise rejected(f"this is a file of the kind '{header.kind}', not '{kind}'", "wrong-kind")
    if plan is not None and header.plan != plan:
        raise rejected(
            f"the {kind} belong to another plan", "wrong-plan", "compile once, and generate keys once for that plan"
        )
    if key is not None and header.key != key:
        raise rejected(
            f"the {kind} belong to keys {header.key.hex()[:8]}, not {key.hex()[:8]}", "wrong-key", "use the pair's own"
        )
    body, tag = memoryview(data)[:-TAG_BYTES], data[-TAG_BYTES:]
    if not hmac.compare_digest(_tag(body, kind, integrity), tag):
        raise rejected(f"the {kind} were changed on their way, or made with other keys", "damaged", _AGAIN)
    return Envelope(header, MappingProxyType(_parts(body, header.count)))


def read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; `OSError` where it cannot be read."""
    return Path(path).read_bytes()


def write(path: str | os.PathLike[str], data: bytes, secret: bool) -> None:
    """Write a file whole or not at all; a secret one can be read by its owner alone, from its first byte on."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


_SAME_VERSION = "client and server need the same version of stein"
_AGAIN = "send it again"


def rejected(sentence: str, code: str, help: str = "") -> EnvelopeError:
    """The one error of everything that is not let in."""
    return EnvelopeError(sentence, code=code, help=help)


def _tag(body: bytes | memoryview, kind: str, integrity: bytes) -> bytes:
    """A key for each kind, so that a message of one kind never passes as another."""
    own = hmac.digest(integrity, b"stein envelope 1: " + kind.encode(), "sha256")
    return hmac.digest(own, body, "sha256")


def _parts(body: memoryview, count: int) -> dict[str, bytes]:
    """The parts of an authenticated body. Whoever holds the key could still send nonsense: every length is checked."""
    place, entries = HEADER.size, []
    try:
        for _ in range(count):
            name_length, length = ENTRY.unpack_from(body, place)
            place += ENTRY.size
            entries.append((bytes(body[place : place + name_length]).decode(), length))
            place += name_length
    except (struct.error, UnicodeDecodeError):
        raise rejected("the table of parts is damaged", "damaged") from None
    if place + sum(length for _, length in entries) != len(body) or len(dict(entries)) != len(entries):
        raise rejected("the table of parts is damaged", "damaged")
    parts = {}
    for name, length in entries:
        parts[name] = bytes(body[place : place + length])
        place += length
    return parts
