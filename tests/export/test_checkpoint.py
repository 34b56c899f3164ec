"""A checkpoint that cannot be exported is refused before work begins, in a sentence that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from export.random_checkpoint import exchange_expert_axes
from moedge_export.checkpoint import open_checkpoint
from moedge_runtime.errors import CheckpointError
from safetensors.torch import load_file, save_file

GATE_UP = "model.language_model.layers.0.mlp.experts.gate_up_proj"
Q_PROJ = "model.language_model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(checkpoint: tuple[Path, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint[0], tmp_path / "model"))


def refusal(folder: Path | str, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, **options)
    return caught.value


def change_config(folder: Path, **changes: Any) -> None:
    """Set values of config.json; a key `text_config__x` is x in the section."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_experts_come_out_as_transformers_holds_them(checkpoint: tuple[Path, Any]) -> None:
    opened = open_checkpoint(checkpoint[0])
    gate_up, down = opened.expert(2, 5)
    experts = checkpoint[1].model.language_model.layers[2].mlp.experts
    assert torch.equal(gate_up, experts.gate_up_proj[5]) and torch.equal(down, experts.down_proj[5])


def test_another_architecture_is_refused(folder: Path) -> None:
    change_config(folder, model_type="qwen3_vl")
    assert str(refusal(folder)) == (
        f"'{folder}' has model_type 'qwen3_vl'; moedge exports 'qwen3_vl_moe' (Qwen3-VL-30B-A3B and its relatives)."
    )


def test_a_truncated_shard_is_named_with_its_bytes(folder: Path) -> None:
    shard = folder / "model.safetensors"
    whole = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(whole - 1000)
    assert str(refusal(folder)) == (
        f"Shard '{shard}' is truncated: it has {whole - 1000:,} bytes, its header needs {whole:,}. Download it again."
    )
    with shard.open("r+b") as file:
        file.truncate(100)
    assert refusal(folder).key == "checkpoint.truncated"
    with shard.open("r+b") as file:
        file.truncate(0)
    assert refusal(folder).key == "checkpoint.truncated"


def test_a_file_that_is_no_safetensors_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 10)
    assert refusal(folder).key == "checkpoint.damaged"


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop(Q_PROJ))
    assert str(refusal(folder)) == (
        f"The checkpoint lacks the tensor '{Q_PROJ}'. Its config asks for it: download all shards again."
    )


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {Q_PROJ: "model-2.safetensors"}}))
    assert str(refusal(folder)) == (
        f"Checkpoint '{folder}' lacks the shard 'model-2.safetensors' that its index lists. Download it again."
    )


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({Q_PROJ: tensors[Q_PROJ][:-1].contiguous()}))
    assert str(refusal(folder)) == (
        f"Tensor '{Q_PROJ}' has shape [127, 64]; the config asks for [128, 64]. Config and weights do not belong "
        f"together."
    )
    change_tensors(folder, lambda tensors: tensors.update({GATE_UP: tensors[GATE_UP][:7].contiguous()}))
    change_tensors(folder, lambda tensors: tensors.update({Q_PROJ: torch.zeros(128, 64)}))
    assert "[7, 64, 64]; the config asks for [8, 64, 64]" in str(refusal(folder))


def test_a_tensor_of_another_data_type_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({Q_PROJ: tensors[Q_PROJ].to(torch.float8_e4m3fn)}))
    assert str(refusal(folder)).startswith(
        f"Tensor '{Q_PROJ}' has data type F8_E4M3; allowed: F32, F16, BF16. Export the original checkpoint"
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"text_config__hidden_act": "gelu"}, "hidden_act is 'gelu'; experts and MLPs are exported with 'silu'."),
        (
            {"text_config__rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}},
            "rope_type is 'yarn'; only 'default' is exported",
        ),
        ({"vision_config__hidden_act": "relu"}, "Vision hidden_act is 'relu'; allowed: gelu, gelu_pytorch_tanh"),
        ({"vision_config__out_hidden_size": 48}, "Vision out_hidden_size is 48; it must equal the decoder's"),
        ({"text_config__num_experts_per_tok": 9}, "num_experts_per_tok is 9; it must lie between 1 and num_experts, 8"),
        ({"text_config__mlp_only_layers": [0, 1, 2]}, "No decoder layer has experts"),
        ({"quantization_config": {"quant_method": "fp8"}}, "is quantized already (quant_method 'fp8')"),
    ],
)
def test_config_values_that_no_graph_implements_are_refused(folder: Path, changes: dict[str, Any], part: str) -> None:
    change_config(folder, **changes)
    assert part in str(refusal(folder))


def test_the_older_form_of_rope_settings_is_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"]["rope_theta"] = 123456.0
    config["text_config"]["rope_scaling"] = {
        "rope_type": "default", "mrope_section": rope["mrope_section"], "mrope_interleaved": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    text = open_checkpoint(folder).architecture.text
    assert (text.rope_theta, text.mrope_section) == (123456.0, (6, 5, 5))


def test_both_layouts_of_expert_tensors_are_accepted(folder: Path) -> None:
    before = open_checkpoint(folder).expert(0, 1)[1]
    exchange_expert_axes(folder)
    assert torch.equal(open_checkpoint(folder).expert(0, 1)[1], before)


def test_a_directory_without_a_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    assert "it has no config.json" in str(refusal(tmp_path))
    assert str(refusal(tmp_path / "absent")) == (
        f"There is no directory '{tmp_path / 'absent'}', and it is no Hugging Face id (owner/name) either."
    )


def test_a_local_directory_has_no_revision(folder: Path) -> None:
    assert "which has no revision 'main'" in str(refusal(folder, revision="main"))


def test_a_hub_id_without_a_network_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = str(refusal("example-owner/example-model"))
    assert message.startswith(
        "There is no directory 'example-owner/example-model', and the Hugging Face Hub could not be reached for "
        "'example-owner/example-model'"
    )
    assert message.endswith(
        "Check the network, or download it elsewhere with `hf download example-owner/example-model --local-dir DIR` "
        "and give DIR."
    )


@pytest.mark.parametrize(
    "content, part",
    [("[1]", "holds a JSON list; a config is an object"), ('{"model_type": ', "is not valid JSON")],
)
def test_a_config_that_is_none_is_refused(folder: Path, content: str, part: str) -> None:
    (folder / "config.json").write_text(content)
    assert part in str(refusal(folder))


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": 1}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_says_nothing_of_shards_is_named(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    assert refusal(folder).key == "checkpoint.damaged"
    assert "model.safetensors.index.json' does not say which shard each tensor is in" in str(refusal(folder))
