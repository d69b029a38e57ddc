from __future__ import annotations

import pytest

from controlplane.domain.start_failures import OTHER, kind


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("GPU 3 of n1 is lost", "a GPU failed"),
        ("n1/p0: node n1 fell silent", "its node is not there any more"),
        ("node n1 is to run nothing", "its node is not there any more"),
        ("it was not ready within 900 s", "it did not become ready in time"),
        ("it ended: torch.OutOfMemoryError: CUDA out of memory. Tried", "it found too little memory"),
        ("it ended: ValueError: No available memory for the cache blocks.", "it found too little memory"),
        (
            "it ended: ValueError: To serve at least one request with the models's max seq len (4096), "
            "(1.0 GiB KV cache is needed, which is larger than the available KV cache memory",
            "it found too little memory",
        ),
        (
            "its engine ended with code 1: safetensors_rust.SafetensorError: Error while deserializing header",
            "its model files could not be loaded",
        ),
        ("cannot start: /m/x holds no config.json on this node", "its model files could not be loaded"),
        ("cannot start: no free port in 20000-20100", "its node has not what its engine needs"),
        ("its engine ended with code 3", OTHER),
        ("", OTHER),
    ],
)  # fmt: skip
def test_a_client_is_told_what_kind_of_fault_it_was_and_no_line_of_a_log(why: str, words: str) -> None:
    assert kind(why) == words
