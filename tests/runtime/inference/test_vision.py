import gc
import weakref

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference import vision
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings
from moedge_runtime.inference.vision import OnnxVision
from runtime.inference.test_image_processor import picture


@pytest.fixture(scope="module")
def images(paged):
    processor = ImageProcessor(ImageProcessorSettings.from_config(Bundle.open(paged).json("preprocessor_config.json")))
    return [processor(picture(90, 130, 0)), processor(picture(200, 300, 1))]


def test_weights_loaded_for_each_picture_give_the_same_features_and_are_released(paged, images, monkeypatch):
    resident = OnnxVision(Bundle.open(paged)).encode(images)
    opened = []
    real = vision.open_session

    def remembered(*arguments):
        session = real(*arguments)
        opened.append(weakref.ref(session))
        return session

    monkeypatch.setattr(vision, "open_session", remembered)
    encoder = OnnxVision(Bundle.open(paged), resident=False)
    assert opened == []
    for _ in range(2):
        features = encoder.encode(images)
        np.testing.assert_array_equal(features.image, resident.image)
        np.testing.assert_array_equal(features.deepstack, resident.deepstack)
    gc.collect()
    assert [session() for session in opened] == [None, None]
