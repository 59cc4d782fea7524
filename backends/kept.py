"""Files that backends keep between processes: written whole or not at all, so that no reader meets half of one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, body: bytes) -> None:
    """Put `body` in place of the file, in one step. Folders are made; `OSError` where the folder cannot be written.

    >>> folder = Path(tempfile.mkdtemp())
    >>> replace_file(folder / "deep" / "rates.json", b"{}")
    >>> (folder / "deep" / "rates.json").read_bytes(), len(list((folder / "deep").iterdir()))
    (b'{}', 1)
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
