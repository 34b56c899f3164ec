"""An RTSP camera that drops its connection again and again; `make soak` does it 300 times and looks at memory, too."""

from __future__ import annotations

from cameras.reconnects import MAX_GROWTH, reconnected
from runtime.camera.rtsp import need_server


def test_reconnects_leave_no_file_no_thread_and_no_memory_behind() -> None:
    need_server()
    outcome = reconnected(15)
    assert outcome.count == 15
    assert outcome.more_files <= 0 and outcome.more_threads <= 0
    assert outcome.growth <= MAX_GROWTH
