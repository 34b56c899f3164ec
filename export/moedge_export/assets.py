"""Tokenizer, chat template, image-processor and generation settings: copied, or made where a checkpoint lacks them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from moedge_runtime.bundle import TokenInfo
from moedge_runtime.errors import CheckpointError
from tokenizers import Tokenizer

from moedge_export.checkpoint import Checkpoint

COPIED = ("config.json", "generation_config.json", "tokenizer_config.json", "preprocessor_config.json")
IMAGE_TOKEN = 151655
"""Default of Qwen3VLMoeConfig (transformers 5.23)."""
THINK_TOKENS = ("<think>", "</think>")


def write_assets(directory: Path, checkpoint: Checkpoint) -> TokenInfo:
    """Put everything that is not weights into the bundle `directory`; returns the token ids that the runtime needs.

    Raises:
        CheckpointError: The checkpoint has no usable tokenizer, chat template or image-processor settings.
    """
    source = checkpoint.directory
    for name in COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, directory / name)
    _write_tokenizer(source, directory)
    (directory / "chat_template.jinja").write_text(chat_template(source), encoding="utf-8")
    if not (source / "preprocessor_config.json").exists():
        settings = _read_json(source / "processor_config.json").get("image_processor")
        if not settings:
            raise _missing(source, "preprocessor_config.json, nor an image_processor in processor_config.json")
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (directory / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")
    return token_info(source, directory / "tokenizer.json")


def token_info(source: Path, tokenizer: Path) -> TokenInfo:
    """Token ids from the config, the generation settings and the tokenizer's own vocabulary."""
    config, vocabulary = _read_json(source / "config.json"), _read_json(tokenizer)
    ids = {entry["content"]: entry["id"] for entry in vocabulary.get("added_tokens", [])}
    text = config.get("text_config", {})
    end = _read_json(source / "generation_config.json").get("eos_token_id") or text.get("eos_token_id")
    if end is None:
        named = _read_json(source / "tokenizer_config.json").get("eos_token")
        end = ids.get(named["content"] if isinstance(named, dict) else named)
    if end is None:
        raise CheckpointError(
            f"Checkpoint '{source}' names no end-of-text token: neither generation_config.json nor config.json has "
            f"eos_token_id. Add generation_config.json of the original checkpoint.",
            key="checkpoint.no_end_of_text",
        )
    image = config.get("image_token_id", IMAGE_TOKEN)
    if image not in ids.values():
        raise CheckpointError(
            f"Checkpoint '{source}' has the image token {image} in config.json, which its tokenizer does not know. "
            f"Config and tokenizer do not belong together.",
            key="checkpoint.image_token",
        )
    start, stop = (ids.get(token) for token in THINK_TOKENS)
    # Defaults of Qwen3VLMoeConfig (transformers 5.23), which older config.json files leave out.
    return TokenInfo(
        image=image,
        video=config.get("video_token_id", 151656),
        vision_start=config.get("vision_start_token_id", 151652),
        vision_end=config.get("vision_end_token_id", 151653),
        end_of_text=end if isinstance(end, list) else [end],
        think_start=start,
        think_end=stop,
    )


def _write_tokenizer(source: Path, directory: Path) -> None:
    if (source / "tokenizer.json").exists():
        try:
            Tokenizer.from_file(str(source / "tokenizer.json"))
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(
                f"'{source / 'tokenizer.json'}' is not a tokenizer that can be read: {error}. Download it again.",
                key="checkpoint.damaged",
            ) from error
        shutil.copyfile(source / "tokenizer.json", directory / "tokenizer.json")
        return
    # Without these files transformers makes an empty tokenizer and says nothing.
    if all((source / name).exists() for name in ("vocab.json", "merges.txt")):
        for preprocessor in _preprocessors(source):
            tokenizer = getattr(preprocessor, "tokenizer", preprocessor)
            if hasattr(tokenizer, "backend_tokenizer"):
                tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
                return
    raise _missing(source, "tokenizer.json, nor vocab.json and merges.txt to make it from")


def chat_template(source: Path) -> str:
    """The checkpoint's chat template, wherever it has it.

    Raises:
        CheckpointError: There is none.
    """
    if (source / "chat_template.jinja").exists():
        return (source / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        template = _read_json(source / name).get("chat_template")
        if isinstance(template, list):
            template = next((each["template"] for each in template if each.get("name") == "default"), None)
        if isinstance(template, str):
            return template
    raise _missing(source, "chat_template.jinja, nor a chat_template in chat_template.json or tokenizer_config.json")


def _preprocessors(source: Path) -> list[Any]:
    from optimum.utils.save_utils import maybe_load_preprocessors  # noqa: PLC0415 (seconds to import, rarely needed)

    preprocessors: list[Any] = maybe_load_preprocessors(str(source))
    return preprocessors


def _missing(source: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"Checkpoint '{source}' has no {what}. Copy it from the original checkpoint.", key="checkpoint.file_missing"
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"'{path}' is not valid JSON ({error}).", key="checkpoint.damaged") from error
    return content if isinstance(content, dict) else {}
