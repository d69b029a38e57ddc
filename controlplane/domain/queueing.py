"""Closed forms of waiting in line: quick, right under Poisson, and off by far on real bursts. Pure."""

from __future__ import annotations

import math

from scipy.special import pdtr, pdtrik  # scipy.stats has the same in a second more of importing


def erlang_c(servers: int, load: float) -> float:
    """P(an arrival waits) in M/M/c (Erlang 1917), `load` in servers; 1 where it is not below `servers`."""
    if load >= servers:
        return 1.0
    blocked = 1.0
    for server in range(1, servers + 1):  # Erlang B, by its recursion: no factorial overflows
        blocked = load * blocked / (server + load * blocked)
    return blocked / (1.0 - load / servers * (1.0 - blocked))


def mean_wait(servers: int, rate: float, service: float, *, ca2: float = 1.0, cs2: float = 1.0) -> float:
    """Mean wait in GI/G/c, in the unit of `service`, arrivals at `rate` per that unit (Allen-Cunneen: Allen,
    "Probability, Statistics and Queueing Theory", 1990). `ca2`, `cs2`: squared coefficients of variation of the times
    between arrivals and of service. inf where there is more work than servers."""
    load = rate * service
    if load >= servers:
        return math.inf
    return (ca2 + cs2) / 2.0 * erlang_c(servers, load) * service / (servers - load)


def wait_at(level: float, servers: int, rate: float, service: float, *, ca2: float = 1.0, cs2: float = 1.0) -> float:
    """The quantile of the wait, taken to be exponential for those who wait: exact in M/M/c, asymptotic elsewhere."""
    mean = mean_wait(servers, rate, service, ca2=ca2, cs2=cs2)
    waits = erlang_c(servers, rate * service)
    if math.isinf(mean) or waits <= 1.0 - level:
        return mean if math.isinf(mean) else 0.0
    return mean / waits * math.log(waits / (1.0 - level))


def busy_at(level: float, load: float) -> int:
    """The quantile of how many are in service at once where none has to wait (M/G/inf: Poisson with mean `load`)."""
    if load <= 0:
        return 0
    most = math.ceil(float(pdtrik(level, load)))
    return most - 1 if most > 0 and pdtr(most - 1, load) >= level else most
