from pathlib import Path

import numpy as np
import pytest
from moedge_runtime.camera.folder import FolderSource
from moedge_runtime.errors import CameraError
from PIL import Image


def save(path: Path, grey: int, **options: object) -> None:
    Image.fromarray(np.full((8, 12, 3), grey, np.uint8)).save(path, **options)


def test_images_come_in_natural_order_at_the_given_rate(tmp_path: Path) -> None:
    for number, suffix in ((10, "png"), (9, "bmp"), (2, "jpg"), (1, "webp")):
        save(tmp_path / f"frame{number}.{suffix}", number * 20)
    (tmp_path / "notes.txt").write_text("no image")
    frames = list(FolderSource(tmp_path, fps=2).frames())
    assert [round(float(frame.image.mean()) / 20) for frame in frames] == [1, 2, 9, 10]
    assert [frame.pts_s for frame in frames] == [0.0, 0.5, 1.0, 1.5]
    assert frames[0].image.shape == (8, 12, 3)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.jpg", 50, exif=exif)
    assert next(iter(FolderSource(tmp_path).frames())).image.shape == (12, 8, 3)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (next(iter(FolderSource(tmp_path).frames())).image == 255).all()


def test_a_loop_goes_on_until_closed(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / "b.png", 2)
    source = FolderSource(tmp_path, loop=True)
    indices = []
    for frame in source.frames():
        indices.append((frame.index, int(frame.image[0, 0, 0])))
        if len(indices) == 5:
            source.close()
    assert indices == [(0, 1), (1, 2), (2, 1), (3, 2), (4, 1)]


def test_an_empty_folder_and_a_missing_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(CameraError) as caught:
        next(iter(FolderSource(tmp_path).frames()))
    assert str(caught.value) == f"Folder '{tmp_path}' holds no image; looked for .bmp, .jpeg, .jpg, .png, .webp."
    with pytest.raises(CameraError) as caught:
        next(iter(FolderSource(tmp_path / "no").frames()))
    assert str(caught.value) == (
        f"Folder '{tmp_path / 'no'}' cannot be listed (No such file or directory). Give a directory of images."
    )


def test_what_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    save(tmp_path / "c.png", 2)
    (tmp_path / "d.png").mkdir()
    assert [frame.index for frame in FolderSource(tmp_path).frames()] == [0, 2]
    assert [record.getMessage().partition(" is not")[0] for record in caplog.records] == [
        f"Left out: '{tmp_path / 'b.png'}'"
    ]


def test_a_folder_without_any_readable_image_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(CameraError) as caught:
        list(FolderSource(tmp_path).frames())
    assert str(caught.value) == f"No image of folder '{tmp_path}' can be read. Put whole images there."
