"""What Prometheus reads: the counts that `health` has, times and tokens of the answers. docs/metrics.md lists all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from moedge_runtime import __version__
from moedge_runtime.daemon.answerer import Reply
from moedge_runtime.daemon.clock import written_bytes
from moedge_runtime.daemon.protection import Level, Protection
from moedge_runtime.daemon.schedule import Job, Result
from moedge_runtime.frames.gate import SKIP_REASONS
from moedge_runtime.mqtt.payloads import AnswerPayload, CameraHealth, CameraState, DeviceHealth

PREFIX = "moedge_"

TIME_BUCKETS_S = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
"""From a workstation to a model that reads all of its experts from a slow card."""

Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True)
class Snapshot:
    """What is exported of one moment.

    Attributes:
        device: Its name.
        model: Its model.
        health: What `health` says.
        waiting: Questions that wait for the model.
        oldest_s: Age of the oldest frame among them; None if there is none.
    """

    device: str
    model: str
    health: DeviceHealth
    waiting: int
    oldest_s: float | None


@dataclass(frozen=True)
class Family:
    """A metric that is read when it is asked for.

    Attributes:
        name: Without PREFIX, and without `_total` for a counter.
        counter: Whether it only grows; else it is a gauge.
        help: One line.
        labels: Names of its labels.
        samples: Label values and values.
    """

    name: str
    counter: bool
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Snapshot], Iterable[Sample]]

    def metric(self, samples: Iterable[Sample]) -> Metric:
        """As prometheus_client writes it."""
        kind = CounterMetricFamily if self.counter else GaugeMetricFamily
        metric = kind(PREFIX + self.name, self.help, labels=self.labels)
        for labels, value in samples:
            metric.add_metric(labels, value)
        return metric


def _one(value: Callable[[DeviceHealth], float | None]) -> Callable[[Snapshot], Iterable[Sample]]:
    def samples(now: Snapshot) -> Iterator[Sample]:
        number = value(now.health)
        if number is not None:
            yield (), float(number)

    return samples


def _by_camera(value: Callable[[CameraHealth], float | None]) -> Callable[[Snapshot], Iterable[Sample]]:
    def samples(now: Snapshot) -> Iterator[Sample]:
        for name, camera in now.health.cameras.items():
            number = value(camera)
            if number is not None:
                yield (name,), float(number)

    return samples


def _reasons(skipped: bool) -> Callable[[Snapshot], Iterable[Sample]]:
    def samples(now: Snapshot) -> Iterator[Sample]:
        for name, camera in now.health.cameras.items():
            for reason, count in camera.reasons.items():
                if (reason in SKIP_REASONS) is skipped:
                    yield (name, reason), float(count)

    return samples


def _states(now: Snapshot) -> Iterator[Sample]:
    for name, camera in now.health.cameras.items():
        for state in get_args(CameraState):
            yield (name, state), float(camera.state == state)


def _by_watch(key: str) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda now: [((name,), float(getattr(watch, key))) for name, watch in now.health.watches.items()]


def _mqtt(key: str) -> Callable[[Snapshot], Iterable[Sample]]:
    return _one(lambda health: getattr(health.mqtt, key))


def _spool(key: str) -> Callable[[Snapshot], Iterable[Sample]]:
    return _one(lambda health: None if health.mqtt.spool is None else getattr(health.mqtt.spool, key))


FAMILIES = (
    Family("uptime_seconds", False, "Since the start or the last reload.", (), _one(lambda health: health.uptime_s)),
    Family("clock_synced", False, "1 if the clock is set.", (), _one(lambda health: health.clock_synced)),
    Family("camera_frames_seen", True, "Frames a camera gave.", ("camera",), _by_camera(lambda camera: camera.frames)),
    Family("camera_frames_skipped", True, "No watch asked about them.", ("camera", "reason"), _reasons(True)),
    Family(
        "camera_frames_answered",
        True,
        "A watch that asked got an answer.",
        ("camera",),
        _by_camera(lambda camera: camera.answered),
    ),
    Family("camera_frames_dropped", True, "Watches asked, none got an answer.", ("camera", "reason"), _reasons(False)),
    Family(
        "camera_frames_waiting",
        False,
        "Frames with the model now.",
        ("camera",),
        _by_camera(lambda camera: camera.waiting),
    ),
    Family("camera_state", False, "1 for the state that the camera is in.", ("camera", "state"), _states),
    Family(
        "camera_last_frame_age_seconds",
        False,
        "Since the newest frame.",
        ("camera",),
        _by_camera(lambda camera: camera.last_frame_age_s),
    ),
    Family("watch_due", True, "Times that a watch asked.", ("watch",), _by_watch("due")),
    Family("watch_answered", True, "Of these, answered.", ("watch",), _by_watch("answered")),
    Family("watch_late", True, "Of the answered, later than freshness.", ("watch",), _by_watch("late")),
    Family("watch_failed", True, "Of the due, failed.", ("watch",), _by_watch("failed")),
    Family("watch_dropped", True, "Of the due, given up before their turn.", ("watch",), _by_watch("dropped")),
    Family("queue_questions", False, "Questions that wait for the model.", (), lambda now: [((), float(now.waiting))]),
    Family(
        "queue_age_seconds",
        False,
        "Age of the oldest frame that waits for the model; 0 if none does.",
        (),
        lambda now: [((), now.oldest_s or 0.0)],
    ),
    Family("requests_waiting", False, "Requests among them.", (), _one(lambda health: health.requests_waiting)),
    Family(
        "last_answer_age_seconds",
        False,
        "Since the last good answer.",
        (),
        _one(lambda health: health.last_answer_age_s),
    ),
    Family("mqtt_connected", False, "1 while connected to the broker.", (), _mqtt("connected")),
    Family("mqtt_connects", True, "Connections made.", (), _mqtt("connects")),
    Family("mqtt_published", True, "Messages published.", (), _mqtt("published")),
    Family("mqtt_received", True, "Messages received.", (), _mqtt("received")),
    Family("mqtt_queued", False, "Messages not acknowledged by the broker.", (), _mqtt("queued")),
    Family("mqtt_dropped", True, "Messages dropped from memory.", (), _mqtt("dropped")),
    Family("mqtt_refused", True, "Messages that the broker refused.", (), _mqtt("refused")),
    Family("mqtt_log_dropped", True, "Lines of the log not published.", (), _mqtt("log_dropped")),
    Family(
        "mqtt_certificate_end_timestamp_seconds",
        False,
        "When the device's certificate ends.",
        (),
        _one(lambda health: end.timestamp() if (end := health.mqtt.certificate_ends_at) else None),
    ),
    Family("spool_messages", False, "Answers on disk.", (), _spool("messages")),
    Family("spool_bytes", False, "Bytes of them.", (), _spool("bytes")),
    Family("spool_dropped", True, "Dropped for the bound in bytes.", (), _spool("dropped")),
    Family("spool_expired", True, "Dropped for the bound in age.", (), _spool("expired")),
    Family("spool_damaged", True, "Not readable any more.", (), _spool("damaged")),
    Family("spool_replayed", True, "Published from disk.", (), _spool("replayed")),
    Family("spool_written_bytes", True, "Written to the flash.", (), _spool("written_bytes")),
    Family("spool_syncs", True, "Times that the disk was told to make it last.", (), _spool("syncs")),
)
"""Everything that is known only while the daemon serves."""

BOARD_FAMILIES = (
    ("temperature_celsius", "Of a sensor of the board.", ("zone",)),
    ("under_voltage", "1 while the power supply is too weak.", ()),
    ("pace", "0 for full speed; 1 and 2 while answers are spaced out.", ()),
    ("power_mode", "1 for the power mode of a Jetson.", ("mode",)),
    ("flash_life_used_ratio", "Of an eMMC's life, as it says itself, in tenths, at most.", ("device", "memory")),
)


class AnswerMetrics:
    """Counts the answers of the model, over reloads. May be used from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(PREFIX + name, text, registry=registry, buckets=TIME_BUCKETS_S)

        self._first_token = histogram("time_to_first_token_seconds", "From the model's begin to the first token.")
        self._answer = histogram("answer_seconds", "From the model's begin to the end of the answer.")
        self._age = histogram("answer_age_seconds", "From the frame to the end of the answer.")
        self._answers = counter("answers", "Answers made, to watches and requests.", ("camera", "status"))
        self._prompts = counter("prompts", "Prompts answered, by how many shared the prefill.", ("together",))
        self._prompt = counter("prompt_tokens", "Tokens of the prompts.")
        self._cached = counter("cached_prompt_tokens", "Of these, not computed anew.")
        self._generated = counter("generated_tokens", "Tokens generated, reasoning included.")
        self._decode = counter("decode_seconds", "Time in which they were generated.")
        self._hits = counter("expert_hits", "Experts needed that were in memory.")
        self._misses = counter("expert_misses", "Experts needed that had to be read, or waited for.")
        self._read = counter("flash_read_bytes", "Bytes of experts read while answers were made.")
        self._wait = counter("flash_wait_seconds", "Time in which the model had nothing to do but wait for flash.")

    def note(self, job: Job, result: Result, answer: AnswerPayload) -> None:
        """Count an answer."""
        self._answers.labels(job.camera, answer.status).inc()
        self._answer.observe(result.ended_s - result.began_s)
        self._age.observe(result.ended_s - job.frame.monotonic_s)
        reply = result.outcome
        if not isinstance(reply, Reply):
            return
        self._first_token.observe(reply.waited_s + reply.vision_s + reply.prefill_s)
        self._prompts.labels(str(reply.prefilled_together)).inc()
        self._prompt.inc(reply.prompt_tokens)
        self._cached.inc(reply.cached_tokens)
        self._generated.inc(reply.answer_tokens + reply.reasoning_tokens)
        self._decode.inc(reply.decode_s)
        if reply.experts is not None:
            self._hits.inc(reply.experts.hits)
            self._misses.inc(reply.experts.misses)
            self._read.inc(reply.experts.read_bytes)
            self._wait.inc(reply.experts.wait_s)


class DaemonMetrics(Collector):
    """All metrics of the daemon.

    Args:
        protection: What knows the board.
        snapshot: What is now; None while the daemon does not serve.
    """

    def __init__(self, protection: Protection, snapshot: Callable[[], Snapshot | None]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._protection, self._snapshot = protection, snapshot
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.answers = AnswerMetrics(self._registry)
        self._registry.register(self)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """See Collector; nothing is read at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        now = self._snapshot()
        info = {"version": __version__}
        if now is not None:
            info |= {"device": now.device, "model": now.model}
        yield InfoMetricFamily(PREFIX + "build", "What runs here.", value=info)
        yield from self._board()
        written = written_bytes()
        yield Family("written_bytes", True, "Written to disks by this process.", (), lambda now: ()).metric(
            [] if written is None else [((), float(written))]
        )
        yield GaugeMetricFamily(PREFIX + "serving", "0 while it starts or reloads.", value=float(now is not None))
        if now is not None:
            for family in FAMILIES:
                yield family.metric(family.samples(now))

    def _board(self) -> Iterator[Metric]:
        reading, level = self._protection.reading, self._protection.level
        samples: tuple[Iterable[Sample], ...] = (
            [((zone.name,), zone.temperature_c) for zone in reading.zones],
            [] if reading.under_voltage is None else [((), float(reading.under_voltage))],
            [((), float(level))],
            [] if reading.power_mode is None else [((reading.power_mode,), 1.0)],
            [((life.device, life.memory), life.used) for life in reading.flash],
        )
        for (name, text, labels), values in zip(BOARD_FAMILIES, samples, strict=True):
            yield Family(name, False, text, labels, lambda now: ()).metric(values)


def pace(level: Level) -> str:
    """A level as messages name it."""
    return level.name.lower()
