"""Makes a tiny Llama with random weights and a byte-level BPE tokenizer, the same each time, without a network.

usage: make_tiny_model.py OUT [--seed N]        (run it with the engine environment's Python)
It speaks nonsense, but by the real code paths: 2 layers, 4 heads, 2 KV heads, head dimension 32, bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import string
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
CONTEXT = 4096
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + (m['content'] | string) + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TEXT = """A forebay is the pool that holds water ready in front of a turbine. The quick brown fox jumps over the
lazy dog. Requests come in; the prompt is read by one engine, and its keys and values move to another, which writes
the answer token by token. How much room is kept ready for the models nobody has asked for yet?"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    vocabulary = write_tokenizer(options.out)
    parameters = write_weights(options.out, vocabulary, options.seed)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(json.dumps({"out": str(options.out), "parameters": parameters, "bytes": size, "vocabulary": vocabulary}))


def write_tokenizer(out: Path) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT, string.printable] * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT
    fast.save_pretrained(out)
    return len(fast)


def write_weights(out: Path, vocabulary: int, seed: int) -> int:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-vocabulary // 64) * 64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        rms_norm_eps=1e-5,
        initializer_range=0.5,  # wide, so that the greedy answer depends on the prompt
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config.do_sample = False
    model.save_pretrained(out, safe_serialization=True)
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
