"""What a model is, read from its config: enough to say where it can run and what its KV cache costs.

The reading of folders is in this file's `read_folder` alone; everything else is arithmetic on a config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from controlplane.domain import model_config, model_files
from controlplane.domain.problems import FactsError

__all__ = ["FactsError", "ModelFacts", "from_config", "read_folder"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of a model's weights. Zero and "" mean unknown; `is_known` says whether anything is known at all."""

    architecture: str = ""
    model_type: str = ""
    layers: int = 0
    hidden_size: int = 0
    intermediate_size: int = 0
    moe_intermediate_size: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocab_size: int = 0
    context_length: int = 0
    dtype: str = ""
    quantization: str | None = None
    experts: int = 0
    experts_per_token: int = 0
    tied_embeddings: bool = False
    parameter_bytes: int | None = None  # of the weights as stored, which is what the engine loads
    kv_bytes_per_token: int = 0  # all layers, 2 bytes an element; an upper bound where windows or hybrid layers exist
    kv_layers: int = 0  # layers that keep a KV cache; fewer than `layers` in hybrid models
    is_mla: bool = False  # one compressed KV vector a token and layer, whole on every GPU
    is_hybrid: bool = False  # has layers with a running state (mamba, linear attention) instead of a KV cache
    is_multimodal: bool = False
    sliding_window: int | None = None
    windowed_layers: int = 0  # layers that keep no more than `sliding_window` tokens
    warnings: tuple[str, ...] = ()

    @classmethod
    def unknown(cls, reason: str = "") -> ModelFacts:
        """Facts of a model that is not here to be read, such as a repository that the engine will download."""
        return cls(warnings=(reason,) if reason else ())

    @property
    def is_known(self) -> bool:
        return self.layers > 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFacts:
        """The inverse of `to_dict`. Keys of an older or newer version are left out rather than refused."""
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in data.items() if key in known}
        return cls(**{**kept, "warnings": tuple(kept.get("warnings", ()))})


def from_config(config: Mapping[str, Any], parameter_bytes: int | None = None) -> ModelFacts:
    """Facts from a Hugging Face config.json. Raises FactsError where it is none that an engine could serve. A config
    that leaves its numbers to its library is no reason to refuse the model: its fit then stays unchecked."""
    try:
        read = model_config.read(config)
    except FactsError as error:
        if error.problem.code != model_config.INCOMPLETE or not config.get("model_type"):
            raise
        read = {**model_config.read_names(config), "warnings": (f"{error.message} The fit is not checked.",)}
    return ModelFacts(**read, parameter_bytes=parameter_bytes)


def read_folder(path: str | Path) -> ModelFacts:
    """Facts of a model folder on this machine. The folder is untrusted: sizes and counts are bounded."""
    folder = model_files.open_folder(path)
    config = model_files.read_config(folder)
    weights = model_files.weights_bytes(folder)
    facts = from_config(config, weights.total_bytes)
    if not weights.warnings:
        return facts
    return ModelFacts.from_dict({**facts.to_dict(), "warnings": [*facts.warnings, *weights.warnings]})
