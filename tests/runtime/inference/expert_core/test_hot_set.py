import json

import numpy as np
import pytest
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.inference.expert_core.hot_set import load_counts, save_counts
from runtime.bundle.sample import TEXT as SAMPLE

TEXT = SAMPLE.model_copy(update={"num_hidden_layers": 5, "moe_layers": [1, 4]})
COUNTS = np.array([[5, 0, 7], [7, 2**62, 1]], np.uint64)


def test_counts_survive_the_file(tmp_path):
    path = tmp_path / "counts.json"
    save_counts(path, COUNTS, TEXT)
    loaded = load_counts(path, TEXT)
    assert loaded.dtype == np.uint64
    np.testing.assert_array_equal(loaded, COUNTS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["counts.json"]


def test_the_file_is_as_documented(tmp_path):
    save_counts(tmp_path / "counts.json", COUNTS, TEXT)
    assert json.loads((tmp_path / "counts.json").read_text()) == {
        "format": "moedge-expert-counts",
        "version": 1,
        "moe_layers": [1, 4],
        "num_experts": 3,
        "counts": [[5, 0, 7], [7, 2**62, 1]],
    }


def test_a_writer_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "counts.json"
    save_counts(path, COUNTS, TEXT)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot be written to '.*counts\.json' \(No space left on device\)"):
        save_counts(path, COUNTS * 0, TEXT)
    np.testing.assert_array_equal(load_counts(path, TEXT), COUNTS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["counts.json"]


def test_a_missing_file_and_a_missing_directory_are_errors_of_the_disk(tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        load_counts(tmp_path / "none.json", TEXT)
    with pytest.raises(StorageError, match="cannot be written"):
        save_counts(tmp_path / "none" / "counts.json", COUNTS, TEXT)


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
        ({"counts": [[1, 2, 3], [4, 5, -6]]}, "a count is no natural number"),
        ({"counts": [[1, 2, 3], [4, 5, 6.5]]}, "a count is no natural number"),
        ({"counts": [[1, 2, 3], [4, 5, True]]}, "a count is no natural number"),
        ({"counts": None}, "it holds no counts"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, problem):
    path = tmp_path / "counts.json"
    save_counts(path, COUNTS, TEXT)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=problem) as caught:
        load_counts(path, TEXT)
    assert caught.value.key == "core.counts_unusable"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"counts": NaN}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "counts.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be used: it (is not valid JSON|holds no counts)"):
        load_counts(path, TEXT)
