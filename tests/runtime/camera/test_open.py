import pytest
from moedge_runtime.camera import SourceOptions, open_source
from moedge_runtime.camera.folder import FolderSource
from moedge_runtime.camera.video import VideoFileSource
from moedge_runtime.errors import CameraError


def test_the_scheme_chooses_the_source_and_nothing_is_opened_yet() -> None:
    assert isinstance(open_source("file:/no/such.mp4", SourceOptions()), VideoFileSource)
    assert isinstance(open_source("file:///no/such.mp4", SourceOptions()), VideoFileSource)
    assert isinstance(open_source("folder:/no/such", SourceOptions(fps=2)), FolderSource)


@pytest.mark.parametrize("url", ["rtsp://10.0.0.7/s1", "panel.mp4"])
def test_an_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_source(url, SourceOptions())
    assert str(caught.value) == (
        f"Camera source '{url}' has a scheme that moedge does not know. Known are file:, folder:."
    )
