import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moedge_panel.batch import BatchBuilder  # noqa: E402
from moedge_panel.model_config import build_config, build_model  # noqa: E402
from moedge_panel.network import VisionPath, patchify, text_logits  # noqa: E402
from moedge_panel.state import sample_state  # noqa: E402
from moedge_panel.tokenizer import build_tokenizer  # noqa: E402


def test_the_training_forward_equals_transformers() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = build_tokenizer()
    model = build_model(build_config(tokenizer)).eval()
    states = [sample_state(rng) for _ in range(3)]
    images = torch.from_numpy(rng.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8))
    batch = BatchBuilder(tokenizer, 0).build(states, (2, 3), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.03)
        features = VisionPath(model)(images)
        logits, _ = text_logits(model, batch.ids, batch.positions, batch.groups, batch.wanted, features, batch.image_of)
        patches = patchify(images)
        doubled = patches.view(*patches.shape[:2], 3, 1, -1).expand(-1, -1, -1, 2, -1).flatten(2)
        start = 0
        for sequence, image in enumerate(batch.image_of.tolist()):
            places = (batch.sequence_of == sequence) & (batch.targets != -100)
            wanted = batch.wanted[places]
            ids = batch.ids[None, start : int(wanted[-1]) + 1]
            expected = model(
                input_ids=ids,
                pixel_values=doubled[image],
                image_grid_thw=torch.tensor([[1, 4, 6]]),
                mm_token_type_ids=(ids == model.config.image_token_id).int(),
            ).logits[0, wanted - start]
            torch.testing.assert_close(logits[places], expected, atol=2e-3, rtol=2e-3)
            start = int(wanted[-1]) + 1
