"""What a layer's graph foresees: the next layer's router on its own residual; and that it changes no answer."""

import numpy as np
import onnxruntime as ort
import pytest
from export.random_checkpoint import SHAPES, save_random_checkpoint
from moedge_runtime.bundle import Bundle

TOKENS = 5


def run_layer(bundle: Bundle, layer: int, hidden: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of a layer's graph for tokens at the start of an empty cache."""
    text = bundle.manifest.model.text
    session = ort.InferenceSession(str(bundle.file(bundle.manifest.graphs.layers[layer])))
    cache = np.zeros((1, text.num_key_value_heads, 16, text.head_dim), np.float32)
    angles = np.arange(TOKENS, dtype=np.float32)[:, None] / np.arange(1, text.head_dim // 2 + 1, dtype=np.float32)
    names = [output.name for output in session.get_outputs()]
    inputs = {
        "hidden": hidden,
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "past_key": cache,
        "past_value": cache.copy(),
        "seqlens_k": np.array([TOKENS - 1], np.int32),
        "total_sequence_length": np.array(TOKENS, np.int32),
    }
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.03)])
def test_the_guess_is_the_next_router_on_the_last_token_of_the_residual(tmp_path, export, precision, tolerance):
    model = save_random_checkpoint(tmp_path / "checkpoint", SHAPES["large heads, many experts, six layers"])
    bundle = export(tmp_path / "checkpoint", precision=precision)
    hidden = np.random.default_rng(1).standard_normal((1, TOKENS, 96), dtype=np.float32)
    for layer in range(5):
        outputs = run_layer(bundle, layer, hidden)
        following = model.model.language_model.layers[layer + 1]
        last = outputs["residual"][0, -1]
        normed = last / np.sqrt(np.mean(last**2) + 1e-6) * following.post_attention_layernorm.weight.detach().numpy()
        wanted = normed @ following.mlp.gate.weight.detach().numpy().T
        guess = outputs["next_router_logits"]
        assert guess.shape == (1, 16)
        assert np.abs(guess[0] - wanted).max() <= tolerance * np.abs(wanted).max()


def test_only_a_layer_that_is_followed_by_experts_has_it(checkpoint, export):
    bundle = export(checkpoint[0], precision="int4")  # of three layers the middle one has no experts
    for layer in range(3):
        session = ort.InferenceSession(str(bundle.file(bundle.manifest.graphs.layers[layer])))
        assert "next_router_logits" not in [output.name for output in session.get_outputs()]
