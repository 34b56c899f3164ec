"""Two cameras that share the demo model: what pinning each one's experts while it is asked saves.

The same questions with and without the names of the cameras, in experts' budgets of several sizes, without reading
ahead or with all of it in time. What `preload` reads while a picture is encoded is waited for: the demo's pictures take
milliseconds. So the counts do not depend on how fast and busy the machine is; there are no times:

    PYTHONPATH=benchmarks:examples/panel python -m expert_core.cameras out/demo/panel-int4
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from moedge_panel.demo import PANEL_SCHEMA
from moedge_panel.video import FRAMES_PER_STATE, frames, video_states
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference import AskRequest, Engine, EngineOptions, camera_counts
from moedge_runtime.inference.expert_core.bank import NativeExperts

CONTEXT = 1024

PLACES = (19, 25, 35, 44)
"""Records that stay in memory, of 64."""

ROUNDS, LEARNED = 18, 6
"""Questions to each camera, and of these such as come before anything is counted."""

READING = AskRequest("What is the reading?", max_new_tokens=12)
REPORT = AskRequest("Report the panel as JSON.", json_schema=PANEL_SCHEMA, max_new_tokens=60)
CASES = {
    "same question, same picture": (READING, READING, False),
    "same question, another picture": (REPORT, REPORT, True),
    "another question, same picture": (READING, REPORT, False),
    "another question, another picture": (READING, REPORT, True),
}
"""What the first camera is asked, the second one, and whether that one sees the panel mirrored and as a negative."""


def rounds(case: str) -> Iterator[tuple[AskRequest, AskRequest]]:
    """The questions of each round, with pictures."""
    first, second, another = CASES[case]
    for frame in islice(frames(video_states(0), 0), 0, ROUNDS * FRAMES_PER_STATE, FRAMES_PER_STATE):
        picture = 255 - np.ascontiguousarray(frame[:, ::-1]) if another else frame
        yield replace(first, images=[frame]), replace(second, images=[picture])


class Settled(NativeExperts):
    """Lets all come that is read ahead before it goes on: how fast the machine is has no part in what it counts."""

    def compute(self, *arguments: Any) -> Any:
        """See `ExpertBank.compute`."""
        result = super().compute(*arguments)
        settle(self)
        return result


def settle(experts: NativeExperts) -> None:
    """Wait until nothing is read any more."""
    reads = -1
    while reads != (reads := experts.statistics().reads):
        time.sleep(0.002)


def open_experts(bundle: Bundle, places: int, ahead: bool) -> NativeExperts:
    """A bank in which so many records stay, beside the ring."""
    kind = Settled if ahead else NativeExperts
    experts = kind(bundle, max_tokens=CONTEXT, prefetch=ahead)
    text, info = bundle.manifest.model.text, bundle.manifest.experts
    assert info is not None
    budget = experts.statistics().budget_bytes - len(text.moe_layers) * text.num_experts * info.record_bytes
    budget += (places + 1) * info.record_bytes
    while _places(experts) != places:
        budget += info.record_bytes
        experts.set_budget(budget)
    return experts


def _places(experts: NativeExperts) -> int:
    statistics = experts.statistics()
    return (statistics.slots or 0) - (statistics.ring_slots or 0)


def measure(bundle: Bundle, case: str, places: int, *, named: bool, ahead: bool) -> tuple[dict[str, Any], list[str]]:
    """What the experts did, and all answers."""
    options = EngineOptions(max_context=CONTEXT, experts=lambda bundle: open_experts(bundle, places, ahead))
    with Engine.open(bundle, options) as engine:
        experts, encode = engine.experts, engine._prefiller._vision.encode
        assert isinstance(experts, NativeExperts)

        def encode_and_wait(images: Any) -> Any:
            features = encode(images)
            settle(experts)
            return features

        engine._prefiller._vision.encode = encode_and_wait  # type: ignore[method-assign]
        before, answers, used = experts.statistics(), [], []
        for index, requests in enumerate(rounds(case)):
            if index == LEARNED:
                before, used = experts.statistics(), []
            for camera, request in zip(("first", "second"), requests, strict=True):
                answer = engine.ask(replace(request, camera=camera if named else None))
                answers.append(answer.text)
                used.append(answer.experts)
        done = experts.statistics() - before
        common = _common(engine)
    return {
        "hits": sum(each.hits for each in used if each),
        "misses": sum(each.misses for each in used if each),
        "reads": done.reads,
        "preloaded": done.preloaded,
        "preload_used": done.preload_used,
        "common": common,
    }, answers


def _common(engine: Engine) -> float | None:
    """Share of the hottest quarter of all records of one camera that is among that of the other."""
    counts = [values.reshape(-1) for values in engine._pins.counts.counts().values()]
    if len(counts) < 2:
        return None
    first, second = (set(np.argsort(-each.astype(float), kind="stable")[: each.size // 4].tolist()) for each in counts)
    return round(len(first & second) / len(first), 2)


def main() -> None:
    """Entry point; prints one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pinned", type=float, default=camera_counts.PINNED_SHARE, help="share of the places for pins")
    parser.add_argument("--ahead", action="store_true", help="look ahead, with a flash as fast as that needs")
    arguments = parser.parse_args()
    camera_counts.PINNED_SHARE = arguments.pinned
    bundle = Bundle.open(arguments.bundle)
    for places in PLACES:
        for case in CASES:
            unnamed, wanted = measure(bundle, case, places, named=False, ahead=arguments.ahead)
            named, answers = measure(bundle, case, places, named=True, ahead=arguments.ahead)
            assert answers == wanted
            print(json.dumps({"case": case, "places": places, "unnamed": unnamed, "named": named}), flush=True)


if __name__ == "__main__":
    main()
