import logging

import numpy as np
import pytest
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.camera_counts import CameraCounts
from moedge_runtime.inference.expert_core.hot_set import HotSet, load_hot_set, save_hot_set
from moedge_runtime.inference.hot_set_file import SAVE_EVERY_S, HotSetFile
from runtime.bundle.sample import TEXT

SHAPE = (len(TEXT.moe_layers), TEXT.num_experts)


class Experts:
    """The counts of a bank."""

    def __init__(self):
        self.now = np.zeros(SHAPE, np.uint64)

    def counts(self):
        return self.now.copy()

    def set_counts(self, counts):
        self.now = counts.copy()


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hot.json"


def test_an_engine_goes_on_from_the_counts_of_the_last_one(path):
    first, second = Experts(), Experts()
    cameras, restored = CameraCounts(), CameraCounts()
    hot_set = HotSetFile(path, TEXT, first, cameras)
    first.now[1, 2] = 7
    for camera in ("yard", "gate"):
        cameras.prompted(camera, np.full(SHAPE, 8.0 * len(camera)))
    hot_set.save()
    HotSetFile(path, TEXT, second, restored)
    assert second.now[1, 2] == 7
    assert {camera: counts.max() for camera, counts in restored.counts().items()} == {"yard": 4, "gate": 4}


def test_a_camera_that_is_gone_or_has_another_name_is_left_out_of_the_next_file(path):
    experts, cameras = Experts(), CameraCounts()
    for camera in ("yard", "gate"):
        cameras.answered(camera, np.ones(SHAPE))
    save_hot_set(path, HotSet(experts.counts(), cameras.counts()), TEXT)
    restored = CameraCounts()
    hot_set = HotSetFile(path, TEXT, experts, restored)
    restored.keep({"gate", "back yard"})
    experts.now += 1
    restored.answered("back yard", np.ones(SHAPE))
    hot_set.save()
    assert list(load_hot_set(path, TEXT).cameras) == ["gate", "back yard"]


def test_the_file_is_written_once_an_hour_at_most_and_only_if_there_is_news(path):
    clock, experts = Clock(), Experts()
    hot_set = HotSetFile(path, TEXT, experts, CameraCounts(), clock)
    experts.now += 1
    clock.now_s = SAVE_EVERY_S - 1
    hot_set.after_answer()
    assert not path.exists()
    clock.now_s = SAVE_EVERY_S
    hot_set.after_answer()
    assert load_hot_set(path, TEXT).counts.sum() == experts.now.sum()
    path.unlink()
    clock.now_s = 3 * SAVE_EVERY_S
    hot_set.after_answer()
    assert not path.exists()


def test_a_disk_that_cannot_be_written_costs_a_warning_and_is_tried_again(path, monkeypatch, caplog):
    experts = Experts()
    hot_set = HotSetFile(path, TEXT, experts, CameraCounts())
    experts.now += 1
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        hot_set.save()
    assert "cannot be written" in caplog.text
    path.rmdir()
    hot_set.save()
    assert path.is_file()


def test_counts_of_another_model_and_a_missing_directory_are_refused(path):
    other = TEXT.model_copy(update={"num_experts": 5})
    save_hot_set(path, HotSet(np.ones((2, 5), np.uint64)), other)
    with pytest.raises(ConfigError, match="num_experts is 5"):
        HotSetFile(path, TEXT, Experts(), CameraCounts())
    with pytest.raises(ConfigError, match="its directory is not there"):
        HotSetFile(path.parent / "missing" / "hot.json", TEXT, Experts(), CameraCounts())
