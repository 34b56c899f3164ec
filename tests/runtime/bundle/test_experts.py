import numpy as np
import pytest
from moedge_runtime.bundle import ExpertLayout, Precision


def test_the_record_of_the_30b_model_has_the_documented_size() -> None:
    layout = ExpertLayout(hidden_size=2048, intermediate_size=768, precision=Precision(bits=4, block_size=32))
    assert layout.record_bytes == 2_654_208
    assert [(s.name, s.offset) for s in layout.sections] == [
        ("fc1.weight", 0),
        ("fc1.scale", 1_572_864),
        ("fc2.weight", 1_769_472),
        ("fc2.scale", 2_555_904),
    ]


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_sections_are_aligned_and_never_overlap(bits: int, symmetric: bool) -> None:
    layout = ExpertLayout(192, 64, Precision.model_validate({"bits": bits, "block_size": 64, "symmetric": symmetric}))
    end = 0
    for section in layout.sections:
        assert section.offset % 4096 == 0
        assert section.offset >= end
        end = section.offset + section.nbytes
    assert layout.record_bytes % 4096 == 0
    assert end <= layout.record_bytes


def test_views_share_memory_with_the_record() -> None:
    layout = ExpertLayout(64, 32, Precision(bits=4, block_size=32, symmetric=False))
    record = np.zeros(layout.record_bytes, np.uint8)
    views = layout.view(record)
    views["fc2.scale"][...] = np.float16(0.5)
    section = next(s for s in layout.sections if s.name == "fc2.scale")
    assert record[section.offset : section.offset + section.nbytes].any()
    assert views["fc1.zero_point"].shape == (2, 2, 16)
    assert views["fc2.weight"].shape == (2, 1, 4, 2, 16, 4)


def test_row_major_arrays_have_the_shapes_of_qmoe_and_the_order_of_the_sections() -> None:
    layout = ExpertLayout(96, 32, Precision(bits=4, block_size=32, symmetric=False))
    assert [array.name for array in layout.row_major] == [section.name for section in layout.sections]
    assert {array.name: array.shape for array in layout.row_major} == {
        "fc1.weight": (64, 48),
        "fc1.scale": (64, 3),
        "fc1.zero_point": (64, 2),
        "fc2.weight": (96, 16),
        "fc2.scale": (96, 1),
        "fc2.zero_point": (96, 1),
    }
