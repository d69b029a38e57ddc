"""One RequestRecord per request, written in batches by a thread: the path of a request never waits for it.

When the database is away the newest records are kept and the oldest dropped and counted.
"""

from __future__ import annotations

from controlplane.gateway.summary import live_summary

__all__ = ["live_summary"]
