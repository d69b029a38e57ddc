"""One node as pages and programs get it: its shape, made when its rows change, the figures of each report, and ages.
Null means unknown, never zero.

As JSON it is made in three steps, each kept until what it is made of changes: a template of its shape, the same with a
report's figures, and the ages, which are another at each look."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

import msgspec

from controlplane.telemetry.columns import LARGEST, known
from controlplane.telemetry.latest import EngineFigures, Latest
from controlplane.telemetry.node_shape import Shape
from workers.contract import DeviceSample

Fill = Literal["utilization", "kv", "memory", "temperature", "power"]

_NO_SAMPLE = DeviceSample(uuid="")
_CELLS = {
    "utilization": ("utilization", 1000),
    "memory": ("memory_used_bytes", 2.0**-20),
    "temperature": ("temperature_c", 1),
    "power": ("power_w", 1),
}
_GPU = ("memory_used_bytes", "utilization", "power_w", "temperature_c", "sm_clock_mhz")
_HOST = ("cpu_utilization", "cpu_count", "memory_bytes", "memory_used_bytes", "disk_free_bytes")
_ENGINE = EngineFigures.__struct_fields__
_read_gpu, _read_host, _read_engine = attrgetter(*_GPU), attrgetter(*_HOST), attrgetter(*_ENGINE)
_json = msgspec.json.Encoder().encode
MOST_FORMS = 8  # of one shape: which figures there are
_FIGURE, _AGE = msgspec.Raw(b"\1"), msgspec.Raw(b"\2")  # no JSON has these bytes


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A shape with the figures of the last report; `last_seen` tells one report from another."""

    shape: Shape
    last_seen: float | None
    skew_s: float | None
    figures: Latest | None
    texts: dict[bool, bytes] = field(default_factory=dict, compare=False, repr=False)  # with and without endpoints

    def text(self, now: float, *, endpoints: bool = False) -> bytes:
        """All of it as JSON, with its ages at `now`."""
        if (made := self.texts.get(endpoints)) is None:
            made = self.texts[endpoints] = _filled(self, endpoints)
        moments = (self.last_seen, *self.shape.since)
        return made % tuple([max(0.0, now - since) for since in moments if since is not None])

    def cells(self, fill: str) -> list[int | None]:
        """One figure as whole numbers. Of each GPU: utilization (in thousandths), memory (MiB), temperature (degrees C)
        and power (W); of each partition: kv (in thousandths)."""
        figures = self.figures
        if fill == "kv":
            engines = figures.engines if figures else {}
            used = (engines.get(facts["id"]) for facts in self.shape.partitions)
            return [_whole(engine.kv_usage, 1000) if engine else None for engine in used]
        name, scale = _CELLS[fill]
        devices = figures.devices if figures else {}
        return [_whole(getattr(devices.get(gpu["uuid"], _NO_SAMPLE), name), scale) for gpu in self.shape.gpus]


def _filled(node: LiveNode, endpoints: bool) -> bytes:
    """The node's text with places for its ages."""
    figures = node.figures
    form = (
        endpoints,
        node.last_seen is None,
        figures is None or figures.host is None,
        tuple(figures.engines) if figures else (),
    )
    if (template := node.shape.templates.get(form)) is None:
        template = _template(node, endpoints)
        if len(node.shape.templates) > MOST_FORMS:
            node.shape.templates.clear()
        node.shape.templates[form] = template
    told = [v if v is not None and -LARGEST < v < LARGEST else None for v in _numbers(node)]
    return template % tuple(_json(told)[1:-1].split(b","))


def _template(node: LiveNode, endpoints: bool) -> bytes:
    made = _json(_object(node, endpoints)).replace(b"%", b"%%%%")
    return made.replace(b"\1", b"%b").replace(b"\2", b"%%.3f")


def _numbers(node: LiveNode) -> list[float | None]:
    """All that comes with reports, in the order of the places in `_object`."""
    shape, figures = node.shape, node.figures
    if figures is None:
        blank = [None] * (len(_GPU) * len(shape.gpus) + len(shape.partitions))
        return [*([None] if shape.facts["drain"] else []), shape.period_s, node.skew_s, *blank]
    told: list[float | None] = [_in_flight(shape, figures)] if shape.facts["drain"] else []
    told += figures.period_s, node.skew_s if figures.skew_s is None else figures.skew_s
    if figures.host:
        told += _read_host(figures.host)
    for gpu in shape.gpus:
        told += _read_gpu(figures.devices.get(gpu["uuid"], _NO_SAMPLE))
    for part in shape.partitions:
        if engine := figures.engines.get(part["id"]):
            told += _read_engine(engine)
        told.append(figures.process_bytes.get(part["id"]))
    return told


def _object(node: LiveNode, endpoints: bool) -> dict[str, Any]:
    """With places for all that `_numbers` gives, in that order, and for the ages."""
    shape, figures = node.shape, node.figures
    drain, engines = shape.facts["drain"], figures.engines if figures else {}
    return {
        **shape.facts,
        "age_s": _age(node.last_seen),
        "drain": {**drain, "in_flight": _FIGURE} if drain else None,
        "period_s": _FIGURE,
        "skew_s": _FIGURE,
        "host": dict.fromkeys(_HOST, _FIGURE) if figures and figures.host else None,
        "gpus": [{**gpu, **dict.fromkeys(_GPU, _FIGURE)} for gpu in shape.gpus],
        "partitions": [
            {
                **facts,
                "since_s": _age(since),
                "engine": dict.fromkeys(_ENGINE, _FIGURE) if facts["id"] in engines else None,
                "memory_bytes": _FIGURE,
                **({"endpoint": endpoint or None} if endpoints else {}),
            }
            for facts, since, endpoint in zip(shape.partitions, shape.since, shape.endpoints, strict=True)
        ],
    }


def _in_flight(shape: Shape, figures: Latest) -> int | None:
    """Requests that the engines of a node that drains still serve, as far as they were sampled."""
    engines = [figures.engines.get(pk) for pk in shape.running]
    loads = [engine.running + (engine.waiting or 0.0) for engine in engines if engine and engine.running is not None]
    return int(sum(loads)) if loads else None


def _whole(value: float | None, scale: float) -> int | None:
    value = known(value)
    return None if value is None else round(value * scale)


def _age(since: float | None) -> msgspec.Raw | None:
    return None if since is None else _AGE
