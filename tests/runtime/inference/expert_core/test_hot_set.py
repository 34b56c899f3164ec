import json

import numpy as np
import pytest
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.inference.expert_core.hot_set import MAX_CAMERAS, HotSet, load_hot_set, save_hot_set
from runtime.bundle.sample import TEXT as SAMPLE

TEXT = SAMPLE.model_copy(update={"num_hidden_layers": 5, "moe_layers": [1, 4]})
COUNTS = np.array([[5, 0, 7], [7, 2**62, 1]], np.uint64)
HOT_SET = HotSet(COUNTS, {"yard": COUNTS // 5, "gate": COUNTS})


def loaded(path):
    """What can be compared."""
    hot_set = load_hot_set(path, TEXT)
    return hot_set.counts.tolist(), [(camera, counts.tolist()) for camera, counts in hot_set.cameras.items()]


def test_counts_survive_the_file(tmp_path):
    path = tmp_path / "counts.json"
    save_hot_set(path, HOT_SET, TEXT)
    hot_set = load_hot_set(path, TEXT)
    assert {counts.dtype for counts in (hot_set.counts, *hot_set.cameras.values())} == {np.dtype(np.uint64)}
    assert loaded(path) == (COUNTS.tolist(), [("yard", (COUNTS // 5).tolist()), ("gate", COUNTS.tolist())])
    assert [entry.name for entry in tmp_path.iterdir()] == ["counts.json"]


def test_the_file_is_as_documented(tmp_path):
    save_hot_set(tmp_path / "counts.json", HotSet(COUNTS, {"gate": COUNTS // 5}), TEXT)
    assert json.loads((tmp_path / "counts.json").read_text()) == {
        "format": "moedge-expert-counts",
        "version": 1,
        "moe_layers": [1, 4],
        "num_experts": 3,
        "counts": [[5, 0, 7], [7, 2**62, 1]],
        "cameras": {"gate": [[1, 0, 1], [1, 2**62 // 5, 0]]},
    }


def test_a_file_of_an_earlier_version_has_no_cameras(tmp_path):
    path = tmp_path / "counts.json"
    header = {"format": "moedge-expert-counts", "version": 1, "moe_layers": [1, 4], "num_experts": 3}
    path.write_text(json.dumps(header | {"counts": COUNTS.tolist()}))
    assert loaded(path) == (COUNTS.tolist(), [])


def test_a_writer_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "counts.json"
    save_hot_set(path, HOT_SET, TEXT)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot be written to '.*counts\.json' \(No space left on device\)"):
        save_hot_set(path, HotSet(COUNTS * 0), TEXT)
    assert loaded(path)[0] == COUNTS.tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == ["counts.json"]


def test_a_missing_file_and_a_missing_directory_are_errors_of_the_disk(tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        load_hot_set(tmp_path / "none.json", TEXT)
    with pytest.raises(StorageError, match="cannot be written"):
        save_hot_set(tmp_path / "none" / "counts.json", HOT_SET, TEXT)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"moe_layers": [1, 3]}, r"its moe_layers is \[1, 3\], this bundle's is \[1, 4\]"),
        ({"num_experts": 128}, "its num_experts is 128, this bundle's is 3"),
        ({"version": 2}, "its version is 2, this bundle's is 1"),
        ({"format": "other"}, 'its format is "other"'),
        ({"counts": [[1, 2, 3]]}, "its counts are not 2 rows of 3"),
        ({"counts": [[1, 2, 3], [4, 5]]}, "its counts are not 2 rows of 3"),
        ({"counts": [[1, 2, 3], 4]}, "its counts are not 2 rows of 3"),
        ({"counts": [[1, 2, 3], [4, 5, -6]]}, "among its counts is one that is no natural number"),
        ({"counts": [[1, 2, 3], [4, 5, 6.5]]}, "among its counts is one that is no natural number"),
        ({"counts": [[1, 2, 3], [4, 5, True]]}, "among its counts is one that is no natural number"),
        ({"counts": None}, "it holds no counts"),
        ({"cameras": [COUNTS.tolist()]}, f"its cameras are not counts of {MAX_CAMERAS} cameras at most"),
        ({"cameras": None}, f"its cameras are not counts of {MAX_CAMERAS} cameras at most"),
        ({"cameras": dict.fromkeys(map(str, range(MAX_CAMERAS + 1)), [[1, 2, 3]] * 2)}, f"of {MAX_CAMERAS} cameras"),
        ({"cameras": {"gate": 5}}, 'its counts of camera "gate" are not 2 rows of 3'),
        ({"cameras": {"gate": [[1, 2, 3]]}}, 'its counts of camera "gate" are not 2 rows of 3'),
        ({"cameras": {"gate": [[1, 2, 3], [1, "2", 3]]}}, 'its counts of camera "gate" is one that is no natural'),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, problem):
    path = tmp_path / "counts.json"
    save_hot_set(path, HOT_SET, TEXT)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=problem) as caught:
        load_hot_set(path, TEXT)
    assert caught.value.key == "core.counts_unusable"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"counts": NaN}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "counts.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be used: it (is not valid JSON|holds no counts)"):
        load_hot_set(path, TEXT)
