"""A backtest on traces of one's own, judged by the server as `manage.py backtest` judges them on its machine."""

from __future__ import annotations

import base64
import gzip
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import click

from controlplane.cli.client import Row, retried
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.options import Length, Share, json_option, wait_options
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, table
from controlplane.cli.waiting import Progress

PATH = "capacity/comparisons"
MOST_BYTES = 780_000  # packed: written as base64 it must stay below the server's limit of a request
MOST_UNPACKED = 64 * 2**20
COLUMNS = (
    ("COVERED", "coverage"), ("BUSY", "coverage_busy"), ("RESERVE", "mean_reserve"), ("PINBALL", "pinball"),
    ("COLD", "cold_per_activation"), ("HELD/USED", "held_over_used"),
)  # fmt: skip
SHARES = {"coverage", "coverage_busy", "cold_per_activation"}


@click.command()
@click.argument(
    "traces", metavar="TRACE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--tau", "tau_s", type=Length(), help="Keep-alive. Default: 5m.")
@click.option("--horizon", "horizon_s", type=Length(), help="That a reserve is for. Default: 10m.")
@click.option("--quantile", "quantiles", type=Share(), multiple=True, help="As 99%; again for more. Default: 95%, 99%.")
@click.option("--method", "methods", multiple=True, help="As best; again for more. Default: all.")
@click.option("--warmup-days", type=float, help="Before the judged ones. Default: from the beginning.")
@click.option("--judge-from-day", type=float, help="From the first midnight, UTC. Default: half of the trace.")
@wait_options
@json_option
@pass_session
def backtest(session: Session, /, *, traces: Sequence[Path], wait: bool, timeout_s: float, **asked: object) -> None:
    """Judge forecasts of active models on TRACE, without a look ahead; several files of one form are one trace.

    CSV or JSON lines, gzipped or not. Nothing is imported, and the choice of a method stays. Takes minutes;
    interrupted, it goes on by itself.
    """
    since = time.monotonic()
    packed = base64.b64encode(_packed(traces)).decode()
    question = {key: value for key, value in asked.items() if value not in (None, ())}
    name = traces[0].name if len(traces) == 1 else f"{traces[0].name} and {len(traces) - 1} more"
    number = session.client.post_for_number(PATH, {"gzip_base64": packed, "name": name[-120:], **question})
    if not wait:
        found = session.client.get(f"{PATH}/{number}")
        session.answer(found, lambda: f"Backtest {number} is to be begun: GET /api/v1/{PATH}/{number}")
        return
    found = _followed(session, number, timeout_s, since)
    session.answer(found, lambda: _told(found))


def _packed(traces: Sequence[Path]) -> bytes:
    """All of them as one, gzipped, without the header of any but the first."""
    parts, head = list[bytes](), b""
    for path in traces:
        first, _, rest = _read(path).partition(b"\n")
        first = first.strip()
        if not parts or first.startswith(b"{"):  # JSON lines: no header
            head = first
            parts.append(first + b"\n" + rest)
        elif first == head:
            parts.append(rest)
        else:
            message = f"{path} does not begin as {traces[0]}: they are no one trace. Nothing was sent."
            raise failure(Exit.USAGE, message, "Send them one by one, or use manage.py backtest.")
    packed = gzip.compress(b"\n".join(part.rstrip(b"\n") for part in parts) + b"\n", mtime=0)
    if len(packed) > MOST_BYTES:
        message = f"Packed, that is {len(packed):,} bytes, more than {MOST_BYTES:,}. Nothing was sent."
        raise failure(Exit.USAGE, message, "Send a part of it, or use manage.py backtest on the server.")
    return packed


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            data = file.read(MOST_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise failure(Exit.USAGE, f"{path} cannot be read: {error}. Nothing was sent.") from error
    if len(data) > MOST_UNPACKED:
        raise failure(Exit.USAGE, f"{path} is larger than {MOST_UNPACKED:,} bytes. Nothing was sent.", "Send a part.")
    return data


def _followed(session: Session, number: int, timeout_s: float, since: float) -> Row:
    progress = Progress(session)
    try:
        while True:
            found = retried(lambda: session.client.get(f"{PATH}/{number}"))
            if not isinstance(found, Failure) and found["state"] == "done":
                return found
            if not isinstance(found, Failure) and found["state"] == "failed":
                raise failure(Exit.NOT_REACHED, f"Backtest {number} failed: {found['error']}", "")
            seconds = time.monotonic() - since
            if seconds >= timeout_s:
                fix = f"It goes on by itself. Look at GET /api/v1/{PATH}/{number}"
                raise failure(Exit.NOT_REACHED, f"After {seconds:.0f} s backtest {number} is not done.", fix)
            progress.show(_far(found), seconds)
            time.sleep(session.pace)
    finally:
        progress.end()


def _far(found: Row | Failure) -> str:
    if isinstance(found, Failure):
        return "the server does not answer"
    if found["state"] == "asked":
        return "waits to be begun by the control worker"
    return f"decided {found['done']}/{found['of'] or '?'}"


def _told(found: Row) -> str:
    peak = "not known" if found["mean_peak"] is None else f"{found['mean_peak']:.1f}"
    head = f"{found['models']} models, {found['windows']} windows, mean peak {peak}"
    levels = list(found["methods"][0]["coverage"])
    heads = ["METHOD", *(f"{word} {_percent(level)}" for word, _ in COLUMNS for level in levels), "MS"]
    rows = [
        [
            one["name"],
            *(_cell(one, key, level) for _, key in COLUMNS for level in levels),
            f"{one['ms_per_decision']:g}",
        ]
        for one in found["methods"]
    ]
    return "\n".join([head, *found["notes"], table(heads, rows, right=range(1, len(heads)))])


def _cell(one: Row, key: str, level: str) -> str:
    value = one[key][level]
    if value is None:
        return UNKNOWN
    return f"{value:.2%}" if key in SHARES else f"{value:.2f}"


def _percent(level: str) -> str:
    return f"{100 * float(level):g}%"
