"""Opens a checkpoint, local or from the Hugging Face Hub, and checks it whole before any work begins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from moedge_runtime.errors import CheckpointError

from moedge_export.architecture import MODEL_TYPE, Architecture
from moedge_export.safetensors_reader import DTYPES, SafetensorsReader
from moedge_export.tensors import EMBEDDING, HEAD, expected_tensors, expert_tensors

CONFIG_FILES = ["config.json"]
HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "merges.txt", "vocab.json"]


class WeightSource(Protocol):
    """Hands out weights piece by piece; the shards of a checkpoint, or anything that can make weights up."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor as it is stored; None if there is no such tensor."""

    def dtype(self, name: str) -> str:
        """Data type of a tensor as safetensors names it; F32, F16 and BF16 can be exported."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements `start` to `stop` along the first axis, in the stored data type; thread-safe."""

    def fingerprint(self) -> str:
        """Tells weights apart from any others; the same for a copy of the same weights."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config is supported and whose tensors are all there.

    Attributes:
        directory: Where config, tokenizer and preprocessor files lie.
        name: Hugging Face id, or the name of the local directory.
        revision: Commit of the Hugging Face repository; None for a local directory.
    """

    directory: Path
    name: str
    revision: str | None
    architecture: Architecture
    weights: WeightSource

    def tensor(self, name: str) -> torch.Tensor:
        """A whole tensor as float32."""
        shape = self.weights.shape(name)
        assert shape is not None
        return self.weights.rows(name, 0, shape[0]).float()

    def expert(self, layer: int, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of one expert in the stored data type, maybe with the inputs outermost in memory.

        Returns:
            gate_up [2I, H], the gates first, and down [H, I].
        """
        gate_up, down = (
            self._expert_matrix(name, shape, expert) for name, shape in expert_tensors(self.architecture, layer).items()
        )
        return gate_up, down

    def _expert_matrix(self, name: str, shape: tuple[int, ...], expert: int) -> torch.Tensor:
        # The Hub's files have inputs before outputs, transformers 5 saves outputs first, and its loader tells them
        # apart by shape alone (core_model_loading.Transpose with check_dims, 5.23). So do we.
        matrix = self.weights.rows(name, expert, expert + 1)[0]
        return matrix if self.weights.shape(name) == shape else matrix.T

    @property
    def embedding_name(self) -> str:
        """Name of the tensor with the token embeddings."""
        return EMBEDDING if self.weights.shape(EMBEDDING) is not None else HEAD

    @property
    def head_name(self) -> str:
        """Name of the tensor with the head's weights: the embeddings' if they are tied and stored once."""
        return HEAD if self.weights.shape(HEAD) is not None else EMBEDDING


def open_checkpoint(checkpoint: str | Path, revision: str | None = None) -> Checkpoint:
    """Open a local directory, or download a Hugging Face id into the Hub's cache and open that.

    Raises:
        CheckpointError: Not found, of another architecture, not supported, incomplete or truncated.
    """
    directory, name, commit = _locate(checkpoint, revision, HUB_FILES)
    config = read_config(directory)
    from moedge_export.tasks import architecture_of  # noqa: PLC0415 (seconds to import)

    architecture = architecture_of(config)
    weights = SafetensorsReader(directory)
    check_tensors(weights, architecture)
    return Checkpoint(directory, name, commit, architecture, weights)


def config_architecture(checkpoint: str | Path, revision: str | None = None) -> Architecture:
    """The numbers of a checkpoint from its config alone: of a Hugging Face id no weights are downloaded.

    Raises:
        CheckpointError: Not found, of another architecture, or not supported.
    """
    directory, _, _ = _locate(checkpoint, revision, CONFIG_FILES)
    config = read_config(directory)
    from moedge_export.tasks import architecture_of  # noqa: PLC0415 (seconds to import)

    return architecture_of(config)


def read_config(directory: Path) -> Any:
    """The `Qwen3VLMoeConfig` of a checkpoint directory.

    Raises:
        CheckpointError: There is no readable config.json, or it is of another model type.
    """
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"'{directory}' is no checkpoint: it has no config.json. Give a directory as "
            f"`hf download` makes it, or a Hugging Face id.",
            key="checkpoint.not_found",
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"'{path}' is not valid JSON ({error}).", key="checkpoint.damaged") from error
    if not isinstance(raw, dict):
        raise CheckpointError(
            f"'{path}' holds a JSON {type(raw).__name__}; a config is an object. Download it again.",
            key="checkpoint.damaged",
        )
    if raw.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"'{directory}' has model_type '{raw.get('model_type')}'; moedge exports '{MODEL_TYPE}' "
            f"(Qwen3-VL-30B-A3B and its relatives).",
            key="checkpoint.architecture",
        )
    if "quantization_config" in raw:
        quantized = raw["quantization_config"]
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise CheckpointError(
            f"'{directory}' is quantized already (quant_method '{method}'). Export the original bfloat16 checkpoint.",
            key="checkpoint.quantized",
        )
    from transformers import AutoConfig  # noqa: PLC0415 (seconds to import; a wrong path is answered without)

    try:
        return AutoConfig.from_pretrained(directory)
    except Exception as error:  # transformers raises whatever its validators raise
        raise CheckpointError(f"transformers refuses '{path}': {error}", key="checkpoint.config_invalid") from error


def check_tensors(weights: WeightSource, architecture: Architecture) -> None:
    """Check that every tensor is there, in a shape and data type that can be exported.

    Raises:
        CheckpointError: Names the first problem of each kind.
    """
    expected = expected_tensors(architecture)
    if weights.shape(HEAD) is not None or not architecture.text.tie_word_embeddings:
        expected[HEAD] = expected[EMBEDDING]
        if architecture.text.tie_word_embeddings and weights.shape(EMBEDDING) is None:
            del expected[EMBEDDING]
    missing = [name for name in expected if weights.shape(name) is None]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"The checkpoint lacks the tensor '{missing[0]}'{more}. Its config asks for it: download all shards again.",
            key="checkpoint.tensor_missing",
        )
    for name, shape in expected.items():
        got = weights.shape(name)
        allowed = [shape]
        if ".mlp.experts." in name:
            allowed.append((shape[0], shape[2], shape[1]))
        if got not in allowed:
            wanted = " or ".join(str(list(each)) for each in allowed)
            raise CheckpointError(
                f"Tensor '{name}' has shape {list(got or ())}; the config asks for {wanted}. Config and weights do not "
                f"belong together.",
                key="checkpoint.tensor_shape",
            )
        if weights.dtype(name) not in DTYPES:
            raise CheckpointError(
                f"Tensor '{name}' has data type {weights.dtype(name)}; allowed: {', '.join(DTYPES)}. Export the "
                f"original checkpoint, not a quantized one.",
                key="checkpoint.tensor_dtype",
            )


def _locate(checkpoint: str | Path, revision: str | None, files: list[str]) -> tuple[Path, str, str | None]:
    path = Path(checkpoint)
    if path.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"'{checkpoint}' is a local directory, which has no revision '{revision}'. Leave --revision out, or "
                f"give a Hugging Face id.",
                key="checkpoint.revision",
            )
        return path, path.resolve().name, None
    if isinstance(checkpoint, Path) or str(checkpoint).count("/") != 1 or str(checkpoint).startswith((".", "~", "/")):
        raise CheckpointError(
            f"There is no directory '{checkpoint}', and it is no Hugging Face id (owner/name) either.",
            key="checkpoint.not_found",
        )
    directory = _download(str(checkpoint), revision, files)
    return directory, str(checkpoint), directory.name


def _download(name: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision '{revision}'" if revision else ""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except GatedRepoError as error:
        message = f"The Hugging Face Hub wants a login for '{name}'. Accept its terms there and run `hf auth login`."
        raise CheckpointError(message, key="checkpoint.gated") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        message = (
            f"There is no directory '{name}', and the Hugging Face Hub has no '{name}'{at}. Check the name, or run "
            f"`hf auth login` if it is private."
        )
        raise CheckpointError(message, key="checkpoint.not_found") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        message = (
            f"There is no directory '{name}', and the Hugging Face Hub could not be reached for '{name}'{at} "
            f"({type(error).__name__}). Check the network, or download it elsewhere with `hf download {name} "
            f"--local-dir DIR` and give DIR."
        )
        raise CheckpointError(message, key="checkpoint.offline") from error
