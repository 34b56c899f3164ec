"""A checkpoint under transformers in float32, with one decoder layer in memory at a time."""

from __future__ import annotations

from typing import Any

import torch

from moedge_export.checkpoint import Checkpoint
from moedge_export.tensors import expected_tensors, expert_tensors, layer_prefix


def open_layered(checkpoint: Checkpoint) -> Any:
    """The checkpoint as transformers' model, whose decoder layers are read anew in every call.

    transformers loads everything but the layers, and makes each layer, so that Qwen3-VL-30B-A3B needs a few GB instead
    of 125.
    """
    from transformers import AutoConfig, Qwen3VLMoeForConditionalGeneration  # noqa: PLC0415 (seconds to import)
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    before = logging.get_verbosity()
    # It would list every tensor of the layers.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(checkpoint.directory)
        depth, config.text_config.num_hidden_layers = config.text_config.num_hidden_layers, 0
        model: Any = Qwen3VLMoeForConditionalGeneration.from_pretrained(
            checkpoint.directory, config=config, dtype=torch.float32
        )
    finally:
        logging.set_verbosity(before)
    decoder = model.model.language_model
    decoder.layers = torch.nn.ModuleList(_Layer(checkpoint, decoder.config, layer) for layer in range(depth))
    return model.eval()


class _Layer(torch.nn.Module):
    """A decoder layer of transformers that is loaded when it is called, and let go then."""

    def __init__(self, checkpoint: Checkpoint, config: Any, layer: int) -> None:
        super().__init__()
        self._checkpoint, self._config, self._layer = checkpoint, config, layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As `Qwen3VLMoeTextDecoderLayer.forward`."""
        from transformers.models.qwen3_vl_moe import modeling_qwen3_vl_moe as modeling  # noqa: PLC0415

        with torch.device("meta"):
            layer = modeling.Qwen3VLMoeTextDecoderLayer(self._config, self._layer)
        layer.load_state_dict(self._weights(), assign=True)
        return layer.eval()(*args, **kwargs)

    def _weights(self) -> dict[str, torch.Tensor]:
        """The layer's tensors in float32, by their names in the layer."""
        architecture, prefix = self._checkpoint.architecture, layer_prefix(self._layer) + "."
        experts = expert_tensors(architecture, self._layer)
        names = [name for name in expected_tensors(architecture) if name.startswith(prefix) and name not in experts]
        weights = {name: self._checkpoint.tensor(name) for name in names}
        if self._layer in architecture.text.moe_layers:
            # One expert after the other: a layer of them takes 2.4 GB.
            weights |= {name: torch.empty(shape) for name, shape in experts.items()}
            for expert in range(architecture.text.num_experts):
                for matrix, stack in zip(self._checkpoint.expert(self._layer, expert), experts, strict=True):
                    weights[stack][expert] = matrix
        return {name.removeprefix(prefix): weight for name, weight in weights.items()}
