from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from workers.sockets import NAME_BYTES, PATH_MOST, Sockets

UUID = "0123456789ab-cdef-0123-4567-89abcdef"


@pytest.fixture
def home() -> Iterator[Path]:
    """With a path as short as those of real homes are."""
    with TemporaryDirectory(prefix="f") as folder:
        yield Path(folder)


def bind(folder: str) -> Path:
    path = Path(folder) / UUID
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    return path  # closed, and still there, as after a SIGKILL


def test_what_an_engine_left_goes_and_what_is_in_use_stays(home: Path) -> None:
    sockets = Sockets(home, "instance")
    left, used = (bind(sockets.folder(f"instance/{partition}/7")) for partition in (1, 2))
    sockets.sweep(["instance/2/7"])
    assert not left.parent.exists() and used.exists()
    assert sockets.folder("instance/2/7") == str(used.parent), "asked for again: the same"
    assert used.is_relative_to(home)
    sockets.sweep([])
    assert not list(home.iterdir())


def test_the_longest_marker_leaves_room_for_a_name_in_a_home_of_any_length(tmp_path: Path) -> None:
    for length in range(1, 120, 7):
        sockets = Sockets(tmp_path / ("h" * length), "f" * 32)
        folder = sockets.folder(f"{'f' * 32}/{2**31}/{2**31}")
        assert folder and len(os.fsencode(folder)) + NAME_BYTES <= PATH_MOST
        bind(folder)
        sockets.sweep([])
        assert not Path(folder).exists()


def test_a_folder_of_somebody_elses_is_not_used(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "sockets").symlink_to(home / "elsewhere")
    assert Sockets(home, "instance").folder("instance/1/1") == ""
    assert not list((home / "elsewhere").iterdir())
    (home / "elsewhere" / "7-7").mkdir()
    Sockets(home, "instance").sweep([])
    assert (home / "elsewhere" / "7-7").exists()


def test_a_sweep_takes_only_what_is_an_engines(home: Path) -> None:
    sockets = Sockets(home, "instance")
    sockets.folder("instance/1/1")
    (home / "sockets" / "mine").mkdir()
    sockets.sweep([])
    assert [path.name for path in (home / "sockets").iterdir()] == ["mine"]


def test_a_sweep_before_anything_was_started_does_nothing(home: Path) -> None:
    Sockets(home, "instance").sweep([])
    assert not list(home.iterdir())
