"""A preview in lines: the steps, what they do to those who are served, what stands against it."""

from __future__ import annotations

from controlplane.cli.client import Row
from controlplane.cli.text import counted, plain, size, span


def explained(seen: Row) -> str:
    lines = [_title(seen), *_steps(seen)]
    lines += [f"{row['partition']['name']}: it is so already." for row in seen["moves"] if row["action"] == "none"]
    lines += [_effect(row) for row in seen["effects"]]
    lines += [_memory(row) for row in seen["moves"] if row["fit"] and _memory_matters(row, seen)]
    lines += [f"Starts again: {row['partition']['name']}. {row['text']}" for row in seen["recycles"]]
    lines += [_line("Mind", row) for row in seen["warnings"]]
    lines += [
        _line("Against it (--force overrides)" if row["forceable"] else "Against it", row) for row in seen["problems"]
    ]
    return "\n".join(plain(line) for line in lines)


def assigned(place: Row) -> str:
    return f"{place['deployment']['name']} as {place['role']}" if place["deployment"] else "unassigned"


def _title(seen: Row) -> str:
    changed = sum(1 for row in seen["moves"] if row["action"] != "none")
    if not changed:
        return "No engine moves." if seen["warnings"] and not seen["moves"] else "Nothing would change."
    takes = f", about {span(seen['expected_s'])} in all" if seen["expected_s"] is not None else ""
    return f"{changed} {'partition changes' if changed == 1 else 'partitions change'}{takes}:"


def _steps(seen: Row) -> list[str]:
    by_partition = {row["partition"]["id"]: row for row in seen["moves"]}
    return [_step(step, by_partition[step["partition"]]) for step in seen["steps"]]


def _step(step: Row, move: Row) -> str:
    parts = [step["text"]]
    if move["action"] in ("replace", "stop") and move["in_flight"] is not None:
        parts.append(f"{counted(move['in_flight'], 'request')} in flight.")
    if step["expected_s"] is not None:
        parts.append(f"Likely {span(step['expected_s'])}.")
    elif move.get("at_most_s") is not None:
        parts.append(f"At most {span(move['at_most_s'])}.")
    return f"{step['number']:3}. {' '.join(parts)}"


def _effect(row: Row) -> str:
    engines = f"{row['engines_before']} -> {row['engines_after']} engines"
    gpus = "" if row["gpus_before"] == row["engines_before"] and row["gpus_after"] == row["engines_after"] else (
        f" ({row['gpus_before']} -> {row['gpus_after']} GPUs)"
    )  # fmt: skip
    return f"{row['deployment']['name']} {row['role']}: {engines}{gpus}. {row['text']}".rstrip()


def _memory_matters(move: Row, seen: Row) -> bool:
    return bool(len(seen["moves"]) == 1 or not move["fit"]["fits"])


def _memory(move: Row) -> str:
    fit, name = move["fit"], move["partition"]["name"]
    if fit["fits"] is None:
        return f"Memory of {name}: not checked. {fit['note']}".rstrip()
    parts = ", ".join(f"{part} {size(fit[f'{part}_bytes'])}" for part in ("weights", "kv", "overhead"))
    verdict = "fits" if fit["fits"] else "does not fit"
    needs = f"needs {size(fit['needed_bytes'])} of {size(fit['available_bytes'])} ({parts})"
    return f"Memory of one GPU of {name}: {verdict}, {needs}. {fit['note']}".rstrip()


def _line(title: str, row: Row) -> str:
    return f"{title}: {row['message']} {row['fix']}".rstrip()
