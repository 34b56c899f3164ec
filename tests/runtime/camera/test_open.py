import pytest
from moedge_runtime.camera import SourceOptions, is_live, open_source
from moedge_runtime.camera.exec import ExecSource
from moedge_runtime.camera.folder import FolderSource
from moedge_runtime.camera.http_source import HttpSource
from moedge_runtime.camera.stream import StreamSource
from moedge_runtime.camera.video import VideoFileSource
from moedge_runtime.errors import CameraError


@pytest.mark.parametrize(
    ("url", "kind", "live"),
    [
        ("file:/no/such.mp4", VideoFileSource, False),
        ("file:///no/such.mp4", VideoFileSource, False),
        ("folder:/no/such", FolderSource, False),
        ("rtsp://10.0.0.7/s1", StreamSource, True),
        ("rtsps://10.0.0.7/s1", StreamSource, True),
        ("http://10.0.0.7/snap.jpg", HttpSource, True),
        ("https://10.0.0.7/snap.jpg", HttpSource, True),
        ("v4l2:/dev/video99", StreamSource, True),
        ("exec:no-such-program --flag", ExecSource, True),
    ],
)
def test_the_scheme_chooses_the_source_and_nothing_is_opened_yet(url: str, kind: type, live: bool) -> None:
    assert isinstance(open_source(url, SourceOptions(fps=2)), kind)
    assert is_live(url) is live


@pytest.mark.parametrize("url", ["gopher://10.0.0.7/s1", "panel.mp4"])
def test_an_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_source(url, SourceOptions())
    assert str(caught.value) == (
        f"Camera source '{url}' has a scheme that moedge does not know. Known are v4l2:, csi:, rtsp:, rtsps:, http:, "
        "https:, exec:, file:, folder:."
    )
