"""One example of every payload, by the name of its golden file."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from moedge_runtime.mqtt.home_assistant import announcement, watch_state
from moedge_runtime.mqtt.payloads import (
    AlertPayload,
    AnswerFrame,
    AnswerModel,
    AnswerPayload,
    AnswerTiming,
    AnswerTokens,
    BackupResult,
    CameraHealth,
    CameraStatus,
    ConfigChanges,
    ConfigHistoryResult,
    DeviceHealth,
    DeviceInfo,
    DeviceStatus,
    ErrorInfo,
    EventAlert,
    EventPayload,
    KeptConfig,
    LogPayload,
    ModelInfo,
    MotionPayload,
    MqttHealth,
    Payload,
    Response,
    Snapshot,
    SnapshotRef,
    SpoolHealth,
    SystemInfo,
    UpdateStarted,
    UpdateState,
    WatchHealth,
)
from moedge_runtime.mqtt.topics import Topics

CAPTURED = datetime(2026, 11, 23, 8, 15, 30, 250_000, timezone.utc)
MODEL = AnswerModel(
    name="Qwen/Qwen3-VL-30B-A3B-Instruct", bundle="qwen3-vl-30b-int4", version="2026.11", precision="int4"
)
SNAPSHOT = SnapshotRef(
    topic="moedge/panel-01/panel/snapshot",
    bytes=48_211,
    width=1280,
    height=720,
    sha256="5d41402abc4b2a76b9719d911017c592ae1f0f1c2b3d4e5f60718293a4b5c6d7",
)
ANSWER = AnswerPayload(
    id="01KAR41TTSFZ9N4S2V4R6E0Q7M",
    status="ok",
    camera="panel",
    watch="level",
    zones=["display"],
    question="Which number does the display show, and is the red lamp on?",
    schema_id="sha256-3f1c0ab2d94e",
    question_id="sha256-b07d61c5e823",
    captured_at=CAPTURED,
    answered_at=CAPTURED + timedelta(seconds=4.512),
    clock_synced=True,
    text='{"reading":"42.5","red":false}',
    data={"reading": "42.5", "red": False},
    finish_reason="stop",
    model=MODEL,
    timing=AnswerTiming(queue_s=0.21, vision_s=0.62, prefill_s=2.4, decode_s=1.282, decode_tok_s=9.36, total_s=4.512),
    tokens=AnswerTokens(prompt=412, image=330, cached=61, answer=13, reasoning=0),
    frame=AnswerFrame(index=1260, pts_s=42.0),
    snapshot=SNAPSHOT,
)
FAILED = ANSWER.model_copy(
    update={
        "id": "01KAR41Z8N5X1WQ3T7B9C2D4FG",
        "status": "error",
        "error": ErrorInfo(
            key="request.too_long",
            message="The prompt has 4,130 tokens and the answer may have 256; together that is more than "
            "max_context=4,096. Shorten the question, make the images smaller, let the answer have fewer tokens, or "
            "raise max_context.",
        ),
        "text": None,
        "data": None,
        "finish_reason": None,
        "timing": None,
        "tokens": None,
        "snapshot": None,
    }
)

PENDING = EventPayload(
    id=ANSWER.id,
    type="new",
    status="pending",
    camera="panel",
    watch="level",
    trigger="motion",
    zones=["display"],
    captured_at=CAPTURED,
    at=CAPTURED + timedelta(seconds=0.008),
    clock_synced=True,
    frame=ANSWER.frame,
)
SPOOL = SpoolHealth(
    messages=0,
    bytes=0,
    dropped=0,
    expired=0,
    damaged=0,
    replayed=17,
    written_bytes=25_160,
    syncs=19,
    error=None,
)

EXAMPLES: dict[str, Payload] = {
    "status_online": DeviceStatus(state="online"),
    "status_stopped": DeviceStatus(state="stopped"),
    "status_offline": DeviceStatus(state="offline"),
    "camera_status_online": CameraStatus(state="online"),
    "camera_status_offline": CameraStatus(
        state="offline",
        reason=ErrorInfo(
            key="camera.not_found",
            message="Camera 'shelf' (folder:/media/shelf) failed: Folder '/media/shelf' cannot be listed (No such file "
            "or directory). Give a directory of images. Retrying within 10 s.",
        ),
    ),
    "answer": ANSWER,
    "answer_error": FAILED,
    "event_pending": PENDING,
    "event_answered": PENDING.model_copy(
        update={
            "type": "end",
            "status": "answered",
            "at": ANSWER.answered_at,
            "text": ANSWER.text,
            "data": ANSWER.data,
            "alert": EventAlert(state="off", changed=False),
        }
    ),
    "event_dropped": PENDING.model_copy(
        update={
            "type": "end",
            "status": "dropped",
            "at": CAPTURED + timedelta(seconds=5.008),
            "reason": ErrorInfo(
                key="event.replaced",
                message="A newer frame took its place before the model was free. Ask less often, or about fewer "
                "things.",
            ),
        }
    ),
    "alert": AlertPayload(
        state="on",
        since=ANSWER.answered_at,
        clock_synced=True,
        id=ANSWER.id,
        data={"reading": "42.5", "red": True},
    ),
    "motion": MotionPayload(state="on", zones=["display"], at=CAPTURED, clock_synced=True),
    "info": DeviceInfo(
        device="panel-01",
        version="0.1.0",
        started_at=CAPTURED - timedelta(minutes=5),
        clock_synced=True,
        system=SystemInfo(
            board="Raspberry Pi 5 Model B Rev 1.0",
            name="Debian GNU/Linux 12 (bookworm)",
            image_version="2026.12",
            slot="B",
            confirmed=True,
        ),
        model=ModelInfo(
            name=MODEL.name,
            architecture="Qwen3VLMoeForConditionalGeneration",
            bundle=MODEL.bundle,
            version=MODEL.version,
            form="paged",
            precision=MODEL.precision,
            manifest_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        config_file="/var/lib/moedge/pushed/moedge.yaml",
        config={"version": 1, "device": "panel-01"},
        config_schema={"title": "moedge.yaml"},
    ),
    "health": DeviceHealth(
        at=CAPTURED,
        uptime_s=300.0,
        rss_bytes=6_442_450_944,
        clock_synced=True,
        last_answer_age_s=1.25,
        cameras={
            "panel": CameraHealth(
                state="online",
                frames=1261,
                skipped=1201,
                answered=57,
                dropped=2,
                waiting=1,
                reasons={"failed": 1, "interval": 52, "no_motion": 1149, "replaced": 1},
                last_frame_age_s=0.031,
            )
        },
        watches={"level": WatchHealth(due=60, answered=57, late=0, failed=1, dropped=1)},
        requests_waiting=0,
        mqtt=MqttHealth(
            connected=True,
            connects=1,
            published=121,
            received=2,
            queued=0,
            dropped=0,
            refused=0,
            certificate_ends_at=CAPTURED + timedelta(days=90),
            spool=SPOOL,
        ),
    ),
    "log": LogPayload(
        at=CAPTURED,
        clock_synced=True,
        level="error",
        namespace="moedge_runtime.daemon.reader",
        message="Camera 'panel' (rtsp://10.0.0.7/s1) failed: It gave no frame for 10.0 s. Check the address and the "
        "cable. Retrying within 10 s.",
        dropped=0,
    ),
    "watch_state": watch_state(ANSWER),
    "home_assistant": announcement(
        Topics("moedge", "panel-01"),
        version="0.1.0",
        model=MODEL.name,
        cameras={"panel": ["level"]},
        alerts=["level"],
        motion=["panel"],
        updates=True,
        can_update=True,
    ),
    "response_snapshot": Response(
        status="ok",
        data=Snapshot(
            id="01KAR428M2Q7C5X9B1D3F4G6HJ", camera="panel", captured_at=CAPTURED, clock_synced=True, snapshot=SNAPSHOT
        ).model_dump(mode="json"),
        transaction="s-3",
    ),
    "response_backup": Response(
        status="ok",
        data=BackupResult(
            name="moedge-panel-01-20261123T081530Z.zip",
            bytes=48_211,
            sha256=SNAPSHOT.sha256,
            left_out=[],
            zip="UEsDBBQAAAAIAA…",
        ).model_dump(mode="json"),
        transaction="b-1",
    ),
    "update_state": UpdateState(
        installed_version="2026.11",
        latest_version="2026.12",
        can_start=True,
        looked_at=CAPTURED,
        status="waiting",
        text="qwen3-vl-30b-int4@2026.12 waits: none of its windows is open. `--now` updates anyway.",
    ),
    "response_update": Response(
        status="ok", data=UpdateStarted(started=["model"], check=False).model_dump(mode="json"), transaction="u-4"
    ),
    "response_config_error": Response(
        status="error",
        error=ErrorInfo(
            key="config.invalid",
            message="Configuration '/var/lib/moedge/pushed/moedge.yaml' has 1 error:\n"
            "  line 12: watches[0].camera: there is no camera 'panle'; known are: panel",
        ),
        transaction="c-9",
    ),
    "response_config_history": Response(
        status="ok",
        data=ConfigHistoryResult(
            running="sha256-3d9a1f40b7ce",
            configurations=[
                KeptConfig(
                    id="sha256-3d9a1f40b7ce",
                    at=CAPTURED,
                    clock_synced=True,
                    changes=ConfigChanges(
                        added=["watches.door"], changed=["cameras.panel.masks", "watches.level.question"]
                    ),
                    watches={"level": "sha256-b07d61c5e823", "door": "sha256-5c21f0e9a674"},
                ),
                KeptConfig(
                    id="sha256-90e4c2aa518d",
                    at=CAPTURED - timedelta(days=30),
                    clock_synced=True,
                    changes=ConfigChanges(),
                    watches={"level": "sha256-17f3b8d0e45a"},
                ),
            ],
            problems=[],
        ).model_dump(mode="json"),
        transaction="h-1",
    ),
    "response_ask": Response(
        status="ok",
        data=ANSWER.model_copy(update={"watch": None, "zones": [], "id": "01KAR423C0QJ5M8N2P4R6S8T0V"}).model_dump(
            mode="json"
        ),
        transaction="a-17",
    ),
    "response_error": Response(
        status="error",
        error=ErrorInfo(
            key="request.invalid",
            message="The request 'ask' is not valid: question: is required; qestion: unknown key.",
        ),
        transaction="a-18",
    ),
}
