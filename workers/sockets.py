"""Where an engine's own processes meet: a folder of Unix sockets for each, on CPU slots with its temporary files. vLLM
would put them among the host's, and an engine that is killed leaves them there for good."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)
PATH_MOST = 107  # bytes of a Unix socket's path: sun_path of unix(7), less the zero that ends it
NAME_BYTES = 1 + 36  # what vLLM adds: a UUID
FOLDER_BYTES = 24  # and we: a partition and a generation
_NAME = re.compile(r"\d+-\d+")  # of a folder: partition and generation
MOST = PATH_MOST - NAME_BYTES - FOLDER_BYTES


class Sockets:
    """`home` is the agent's; `instance` tells its folder apart where the home's path is too long for sockets."""

    def __init__(self, home: Path, instance: str) -> None:
        near = home / "sockets"
        fits = len(bytes(near)) <= MOST
        self._root = near if fits else Path(tempfile.gettempdir()) / f"forebay-{instance[:12]}"

    def folder(self, marker: str) -> str:
        """That the engine of this marker may use, made anew; "" where there can be none: then it uses vLLM's own."""
        folder = self._root / _name(marker)
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours():
                raise OSError(f"{self._root} is not this user's folder")
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            log.warning("an engine's sockets go to the host's folder for temporary files: %s", error)
            return ""
        return str(folder) if len(bytes(folder)) + NAME_BYTES <= PATH_MOST else ""

    def sweep(self, live: Iterable[str]) -> None:
        """Remove those of engines that are not among these markers, and the folder of all when there are none."""
        names = {_name(marker) for marker in live}
        try:
            if not self._is_ours():
                return
            folders = [path for path in self._root.iterdir() if _NAME.fullmatch(path.name) and path.name not in names]
        except OSError:
            return  # none was made yet
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if not names:
            with contextlib.suppress(OSError):
                self._root.rmdir()

    def _is_ours(self) -> bool:
        """Among the host's temporary files another user may have put a link to some other folder."""
        found = self._root.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _name(marker: str) -> str:
    """A marker is home/partition/generation."""
    return "-".join(marker.split("/")[1:])
