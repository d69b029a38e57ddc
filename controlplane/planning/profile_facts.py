"""What people and programs are shown of a profile: its laws, how far they are off each point, and its knee."""

from __future__ import annotations

from typing import Any

from controlplane.domain.profiles import Fit, PrefillLaw, ProfileError, Speed
from controlplane.planning.models import EngineProfile
from controlplane.planning.profiles import profile_of, speed_of


def shown(row: EngineProfile, *, points: bool) -> dict[str, Any]:
    """`points`: with each, and its residual."""
    try:
        found = speed_of(profile_of(row))
    except ProfileError as error:  # rules may have become stricter since it was kept
        return {**_row(row), "problem": str(error), "prefill": None, "decode": None, "knee": None}
    return {
        **_row(row),
        "problem": "",
        "prefill": {**_prefill(found), **({"points": _prefill_points(row, found)} if points else {})},
        "decode": {**_decode(found), **({"points": _decode_points(row, found)} if points else {})},
        "knee": _knee(found),
    }


def _row(row: EngineProfile) -> dict[str, Any]:
    return {
        "id": row.pk,
        "model": row.model,
        "gpu": row.gpu,
        "tp": row.tp,
        "engine_version": row.engine_version,
        "flags": row.flags,
        "source": row.source,
        "origin": row.origin,
        "notes": row.notes,
        "kv_tokens": row.kv_tokens,
        "max_num_seqs": row.max_num_seqs,
        "created_by": row.created_by,
        "created_at": row.created_at,
    }


def _prefill(found: Speed) -> dict[str, Any]:
    law = found.prefill.law
    return {"floor_ms": law.floor_ms, "a": law.a, "b": law.b, "c": law.c, **_errors(found.prefill)}


def _decode(found: Speed) -> dict[str, Any]:
    law = found.decode.law
    return {"o": law.o, "u": law.u, "v": law.v, **_errors(found.decode)}


def _errors(fit: Fit[Any]) -> dict[str, Any]:
    return {
        "measured": len(fit.errors),
        "left_out": len(fit.left_out),
        "mean_error": float(fit.mean_error),
        "worst_error": float(fit.worst_error),
    }


def _knee(found: Speed) -> dict[str, Any]:
    knee = found.knee
    return {
        "tokens": knee.tokens,
        "plateau_tokens_per_s": float(knee.plateau),
        "fraction": knee.fraction,
        "measured": knee.measured,
    }


def _prefill_points(row: EngineProfile, found: Speed) -> list[dict[str, Any]]:
    law: PrefillLaw = found.prefill.law
    return [
        {
            "tokens": tokens,
            "batch": batch,
            "context": context,
            "step_ms": took,
            "law_ms": float(law.fitted_ms(tokens, context)),
            "error": found.prefill.errors[place],
            "left_out": place in found.prefill.left_out,
        }
        for place, (tokens, batch, context, took) in enumerate(row.prefill)
    ]


def _decode_points(row: EngineProfile, found: Speed) -> list[dict[str, Any]]:
    return [
        {
            "concurrency": concurrency,
            "context": context,
            "itl_ms": took,
            "law_ms": float(found.decode.law.fitted_ms(concurrency, context)),
            "error": float(found.decode.errors[place]),
            "left_out": place in found.decode.left_out,
        }
        for place, (concurrency, context, took) in enumerate(row.decode)
    ]
