"""Writes a model as a Hugging Face folder: two bf16 shards, index, tokenizer, processor, generation."""

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen3VLMoeForConditionalGeneration

from moedge_panel.model_config import save_side_files
from moedge_panel.tokenizer import save_tokenizer


def save_checkpoint(model: Qwen3VLMoeForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the checkpoint beside `folder` and moves it there.

    Args:
        model: The model; its own precision is left as it is.
        tokenizer: The tokenizer the token ids come from.
        folder: Destination; an older checkpoint there is replaced as a whole.
    """
    half = folder.with_name(folder.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    saved: Any = copy.deepcopy(model)
    saved.to(torch.bfloat16)
    size = sum(p.numel() * 2 for p in saved.parameters())
    saved.save_pretrained(half, max_shard_size=int(size * 0.6))
    save_tokenizer(half)
    save_side_files(half, tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)
