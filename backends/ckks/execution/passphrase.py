"""Secret files under a passphrase: a key is derived by scrypt, and the file encrypted with AES-256-GCM under it.

Without one, a client's file is readable by its owner alone (mode 0600), and by whoever gets at the disk or a backup.
Scrypt (Percival and Josefsson, RFC 7914) takes 128 MiB and about half a second for each guess. Whatever is wrong,
passphrase or file, there is one error. The work is done by the `cryptography` package, imported on first use.
"""

from __future__ import annotations

import secrets
import struct
import unicodedata
from typing import Any, TypeAlias

from ....ir.errors import BackendError, EncryptionError
from . import envelope
from .envelope import Envelope, Header, rejected

Passphrase: TypeAlias = "str | bytes"

COST = 17  # N = 2^17, r = 8, p = 1: what OWASP's password storage recommendations begin with
MOST_COST = 20  # that is believed of a file: a gigabyte of memory
SALT_BYTES, NONCE_BYTES, KEY_BYTES = 16, 12, 32
BOUND = struct.Struct(">32s16sB16s")  # what is authenticated besides: hash of the plan, id of the keys, cost, salt


def lock(data: bytes, passphrase: Passphrase) -> bytes:
    """A file of keys, encrypted: an envelope of its own that holds the other.

    Raises `EncryptionError` for an empty passphrase, `BackendError` where `cryptography` is not installed.
    """
    header = envelope.peek(data)
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    sealed = _cipher(passphrase, salt, COST).encrypt(nonce, data, BOUND.pack(header.plan, header.key, COST, salt))
    parts = {"cost": bytes([COST]), "salt": salt, "nonce": nonce, "sealed": sealed}
    return envelope.wrap(Envelope(Header(envelope.LOCKED, header.plan, header.key), parts))


def unlock(data: bytes, passphrase: Passphrase) -> bytes:
    """The file that was locked.

    Raises `EnvelopeError`, of code "wrong-passphrase" for another passphrase (or a file that was made to fit).
    """
    found = envelope.unwrap(data, envelope.LOCKED)
    cost, salt, nonce = found.part("cost"), found.part("salt"), found.part("nonce")
    if len(cost) != 1 or not 1 <= cost[0] <= MOST_COST or (len(salt), len(nonce)) != (SALT_BYTES, NONCE_BYTES):
        raise rejected("the locked keys are damaged", "damaged")
    bound = BOUND.pack(found.header.plan, found.header.key, cost[0], salt)
    cipher = _cipher(passphrase, salt, cost[0])
    from cryptography.exceptions import InvalidTag

    try:
        opened: bytes = cipher.decrypt(nonce, found.part("sealed"), bound)
    except InvalidTag:
        raise rejected("the passphrase does not open this file", "wrong-passphrase", "try another one") from None
    return opened


def locked(data: bytes) -> bool:
    """Whether a file needs a passphrase."""
    return envelope.peek(data).kind == envelope.LOCKED


def _cipher(passphrase: Passphrase, salt: bytes, cost: int) -> Any:
    """AES-GCM under the key that a passphrase stands for; the same text is the same key on every keyboard."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError:
        raise BackendError(
            "files under a passphrase need cryptography", code="not-installed", help="pip install stein[ckks]"
        ) from None
    if isinstance(passphrase, str):
        passphrase = unicodedata.normalize("NFKC", passphrase).encode()
    if not passphrase:
        raise EncryptionError("the passphrase is empty", code="empty-passphrase", help="leave it out for none")
    return AESGCM(Scrypt(salt=salt, length=KEY_BYTES, n=1 << cost, r=8, p=1).derive(passphrase))
