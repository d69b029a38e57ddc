"""The file that keeps who is signed in where: readable by its owner alone."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from controlplane.cli.failures import Exit, failure

_KEYS = {"url", "username", "token", "expires_at", "plain_http"}


@dataclass(frozen=True, slots=True)
class Kept:
    url: str
    username: str
    token: str = field(repr=False)
    expires_at: str
    plain_http: bool = False  # the person agreed to send it unencrypted


def path() -> Path:
    """$XDG_CONFIG_HOME/forebay/config.json; a relative XDG_CONFIG_HOME is ignored, as its specification says."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".config") / "forebay" / "config.json"


def read() -> Kept | None:
    """None where nobody is signed in. A file that others may read is not used: its token is no secret any more."""
    file = path()
    try:
        with file.open(encoding="utf-8") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read(65_536)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(Exit.ACCESS, f"{file} cannot be read: {error.strerror}.", "Mend its permissions.") from error
    if mode & 0o077:
        message = f"{file} can be read or changed by others (mode {mode:04o}), so its token is not used."
        raise failure(Exit.ACCESS, message, f"Run: rm {file}; forebay login")
    try:
        found = json.loads(text)
        return Kept(**{key: value for key, value in found.items() if key in _KEYS})
    except (ValueError, TypeError, AttributeError) as error:
        raise failure(Exit.ACCESS, f"{file} is damaged.", f"Run: rm {file}; forebay login") from error


def write(kept: Kept) -> Path:
    """All of it or nothing, and never for a moment with a wider mode."""
    file = path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")  # made with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as opened:
                json.dump(asdict(kept), opened, indent=2)
                opened.write("\n")
            Path(name).replace(file)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise failure(Exit.ACCESS, f"{file} cannot be written: {error.strerror}.", "Mend its folder.") from error
    return file


def forget() -> None:
    path().unlink(missing_ok=True)
