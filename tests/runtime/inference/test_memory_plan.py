import re

import pytest
from moedge_runtime.bundle import (
    EmbeddingInfo,
    ExpertLayout,
    ExpertsInfo,
    FileEntry,
    Graphs,
    Manifest,
    Precision,
    Quantization,
    VisionTowerInfo,
)
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.memory_plan import MIB, plan_memory
from runtime.bundle.sample import MODEL, TEXT, VISION

GIB = 1 << 30
INT4, INT8 = Precision(bits=4), Precision(bits=8)
TOWER = VisionTowerInfo(intermediate_size=4304, gelu="tanh", rope_theta=1e4, deepstack_mergers=[0, 1, 2])
CHECKPOINT_PIXELS = 16_777_216


def full_size() -> Manifest:
    """The manifest of Qwen3-VL-30B-A3B in INT4 with INT8 attention, head, embedding and vision."""
    text = TEXT.model_copy(
        update={
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151_936,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "moe_layers": list(range(48)),
            "max_position_embeddings": 262_144,
        }
    )
    vision = VISION.model_copy(
        update={"hidden_size": 1152, "num_heads": 16, "depth": 27, "deepstack_visual_indexes": [8, 16, 24]}
    )
    layers = [f"layers/{layer:02d}.onnx" for layer in range(48)]
    sizes = dict.fromkeys(layers, 22_312_688) | {"head.onnx": 350_069_761, "vision.onnx": 616_613_636}
    layout = ExpertLayout(2048, 768, INT4)
    return Manifest(
        form="paged",
        model=MODEL.model_copy(update={"text": text, "vision": vision}),
        quantization=Quantization(experts=INT4, attention=INT8, head=INT8, embedding=INT8, vision=INT8),
        graphs=Graphs(vision="vision.onnx", layers=layers, head="head.onnx"),
        embedding=EmbeddingInfo(file="embedding.bin", row_bytes=2176),
        experts=ExpertsInfo(file="experts.bin", record_bytes=layout.record_bytes, sections=[], crc32c=[[0] * 128] * 48),
        files=[FileEntry(path=name + ".data", nbytes=nbytes, sha256="0" * 64) for name, nbytes in sizes.items()],
    )


def plan(gib: float, **changes):
    arguments = {"max_context": 4096, "wanted_pixels": CHECKPOINT_PIXELS, **changes}
    return plan_memory(full_size(), int(gib * GIB), **arguments)


@pytest.mark.parametrize("gib", [3.75, 4, 6, 8, 12])
def test_the_parts_add_up_to_the_memory(gib):
    assert sum(plan(gib).parts().values()) == plan(gib).total == gib * GIB


def test_weights_take_what_was_measured_with_onnxruntime():
    sizes = plan(8)
    assert sizes.layers == pytest.approx(48 * 24.0 * MIB, rel=0.02)
    assert sizes.head == pytest.approx(373 * MIB, rel=0.02)
    assert sizes.vision == pytest.approx(648 * MIB, rel=0.02)
    assert sizes.kv_cache == (4096 + 512) * (192 << 10)


def test_more_memory_is_all_for_the_experts_until_they_are_all_there():
    assert plan(8.1).experts - plan(8).experts == pytest.approx(0.1 * GIB, rel=0.02)
    enough = plan(20)
    assert enough.experts == enough.all_experts > 6144 * 2_654_208
    assert sum(enough.parts().values()) < enough.total
    assert "100% of all experts" in enough.line()


def test_a_longer_context_takes_its_memory_from_the_experts():
    short, long = plan(8, max_context=2048), plan(8, max_context=8192)
    assert short.experts - long.experts == long.kv_cache + long.buffers - short.kv_cache - short.buffers
    assert short.experts - long.experts > 6144 * (192 << 10)


def test_the_vision_tower_leaves_when_the_experts_of_a_token_need_its_place():
    assert plan(6).vision_resident and "vision" in plan(6).parts()
    tight = plan(4)
    assert not tight.vision_resident and "vision" not in tight.parts()
    one_token = 48 * 8 * 2_654_208
    assert tight.experts - tight.vision < one_token <= plan(6).experts
    assert re.search(r"vision tower \(0\.6\d\) loaded for each picture", tight.line())


def test_the_core_needs_less_for_a_picture_and_less_of_the_vision_tower_where_it_comes_for_each():
    core, graph = plan(8, tower=TOWER), plan(8)
    assert core.vision_resident and core.native_vision and not graph.native_vision
    assert core.vision < graph.vision and core.patch_bytes < graph.patch_bytes / 2
    tight, loaded = plan(4, tower=TOWER), plan(4)
    assert not tight.vision_resident and not loaded.vision_resident
    assert tight.vision < core.vision / 3 < loaded.vision
    assert tight.experts == loaded.experts and tight.most_patches > 2 * loaded.most_patches
    assert re.search(r"vision tower \(0\.1\d\) loaded for each picture", tight.line())


@pytest.mark.parametrize("gib", [3.75, 4, 8])
def test_a_picture_never_takes_more_than_the_experts_can_leave(gib):
    each = plan(gib)
    fixed = each.process + each.layers + each.head + each.kv_cache + each.free + each.vision
    for patches in (4, each.most_patches // 2, each.most_patches):
        assert fixed + patches * each.patch_bytes + each.experts_beside(patches) <= each.total
        assert each.experts_beside(patches) >= each.least_experts
    assert each.experts_beside(4) <= each.experts


def test_a_small_picture_is_encoded_in_the_memory_of_the_prompt():
    each = plan(8)
    assert each.experts_beside(880) == each.experts > each.experts_beside(8160)


def test_the_area_of_pictures_is_limited_where_memory_is_short_and_that_is_said():
    assert not plan(8).pixels_limited
    assert plan(8).max_pixels == 4096 * 32 * 32  # what the context can hold
    tight = plan(4)
    assert tight.pixels_limited and tight.max_pixels == tight.most_patches * 256 < plan(8).max_pixels
    assert "megapixels, the limit of this memory" in tight.line()


def test_an_area_that_the_user_wants_is_never_lowered_but_refused():
    assert plan(4, max_pixels=640 * 352).max_pixels == 640 * 352
    with pytest.raises(ConfigError, match=r"max_pixels=2,088,960 .* takes [\d,]+ MiB .* or give \d+M with") as caught:
        plan(4, max_pixels=1920 * 1088)
    most = int(re.search(r"at most ([\d,]+)", str(caught.value))[1].replace(",", ""))
    needed = int(re.search(r"give (\d+)M", str(caught.value))[1])
    assert plan(4, max_pixels=most).max_pixels == most
    assert plan(needed / 1024, max_pixels=1920 * 1088).max_pixels == 1920 * 1088


@pytest.mark.parametrize("gib", [0.1, 2, 3])
def test_too_little_memory_is_refused_with_every_part_and_what_would_do(gib):
    with pytest.raises(
        ConfigError, match=r"process \d+, layers [\d,]+, head \d+, KV cache \d+, buffers \d+, free"
    ) as error:
        plan(gib)
    needed = int(re.search(r"at least (\d+)M", str(error.value))[1])
    assert plan(needed / 1024).experts >= plan(needed / 1024).least_experts
    with pytest.raises(ConfigError):
        plan((needed - 2) / 1024)


def test_a_context_that_would_do_is_named_if_there_is_one():
    with pytest.raises(ConfigError, match="max-context") as error:
        plan(3)
    fewer = int(re.search(r"at most ([\d,]+) tokens", str(error.value))[1].replace(",", ""))
    assert plan(3, max_context=fewer).max_context == fewer
    with pytest.raises(ConfigError) as error:
        plan(1)
    assert "max-context" not in str(error.value)


def test_memory_that_the_user_gives_the_experts_is_taken_as_it_is_or_refused():
    assert plan(8, experts=GIB).experts == GIB and plan(8, experts=GIB).vision_resident
    assert not plan(4, experts=int(0.8 * GIB)).vision_resident
    with pytest.raises(ConfigError, match=r"experts, at least 5,120"):
        plan(8, experts=5 * GIB)


def test_a_plan_is_a_line_and_a_table():
    parts = r"process 0\.\d\d, layers 1\.\d\d, head 0\.36, vision 0\.64, KV cache 0\.84, buffers 0\.\d\d, free 0\.19"
    notes = r"\d\d% of all experts; context 4,096 tokens; pictures up to 4\.19 megapixels"
    assert re.fullmatch(rf"memory 8\.00 GiB: {parts}, experts \d\.\d\d \({notes}\)", plan(8).line())
    table = plan(8).table()
    assert [line.split()[0] for line in table[:-1]] == [
        "memory", "process", "layers", "head", "vision", "KV", "buffers", "free", "experts", "of",
    ]  # fmt: skip
