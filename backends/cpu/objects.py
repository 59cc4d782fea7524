"""The disk cache of compiled objects: machine code that an earlier process, or another one, has made already.

One file per kernel, in the user's cache folder (`STEIN_CACHE_DIR` names another one; empty or "off" means none).
Files are written whole and renamed into place, so several processes may share the folder; a header with length and
digest tells a damaged file, or one under a wrong name, which is then removed and made again. The folder is bounded:
the entries that were used longest ago go first. The code in it is run, so the folder is made readable and writable for
its owner only.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..kept import replace_file

MAGIC = b"stein-object-2\n"
LIMIT = 256 << 20
_HEAD = len(MAGIC) + 8 + 32
_SWEEP_EVERY = 64


class ObjectStore:
    """Objects by key in one folder, at most `limit` bytes of them.

    >>> import tempfile
    >>> store = ObjectStore(Path(tempfile.mkdtemp()))
    >>> store.save("k", b"code"), store.load("k"), store.load("other")
    (None, b'code', None)
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._saved = 0

    def load(self, key: str) -> bytes | None:
        """The object of a key; None if there is none, or a damaged one (which is removed)."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = data[_HEAD:]
        size, digest = data[len(MAGIC) : len(MAGIC) + 8], data[len(MAGIC) + 8 : _HEAD]
        whole = data.startswith(MAGIC) and int.from_bytes(size, "little") == len(body)
        if not whole or _digest(key, body) != digest:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # used now: what is swept first is what was used longest ago
        return body

    def save(self, key: str, body: bytes) -> None:
        """Keep an object. A folder that cannot be written is no error: the next process compiles again."""
        head = MAGIC + len(body).to_bytes(8, "little") + _digest(key, body)
        with suppress(OSError):
            replace_file(self._path(key), head + body)
            self._saved += 1
            if self._saved % _SWEEP_EVERY == 1:
                self.sweep()

    def sweep(self) -> None:
        """Remove the entries that were used longest ago until the folder is within its limit."""
        entries = []
        with suppress(OSError), os.scandir(self.folder) as files:
            for file in files:
                with suppress(OSError):
                    status = file.stat()
                    entries.append((status.st_mtime_ns, status.st_size, file.path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.o"


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + body).digest()


def default_store() -> ObjectStore | None:
    """The store that the environment asks for; None where caching is off."""
    named = os.environ.get("STEIN_CACHE_DIR")
    if named is None:
        import platformdirs

        return _store(platformdirs.user_cache_dir("stein"))
    return None if named.strip().lower() in ("", "off") else _store(named)


@cache
def _store(folder: str) -> ObjectStore:
    return ObjectStore(Path(folder) / "objects")


@cache
def generator_version() -> str:
    """A digest of the code generator's own sources: objects of another generator are not used."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for folder in (here, here.parent.parent / "ir"):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def object_key(*parts: str) -> str:
    """The key of an object made from `parts` (kernel, processor, features, compiler) by this generator."""
    return hashlib.sha256("\0".join((*parts, generator_version())).encode()).hexdigest()[:40]
