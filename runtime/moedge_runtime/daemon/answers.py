"""Results of jobs as payloads. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from moedge_runtime.bundle import Manifest
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.daemon.schedule import Job, Result
from moedge_runtime.errors import MoedgeError
from moedge_runtime.mqtt.payloads import (
    AnswerFrame,
    AnswerModel,
    AnswerPayload,
    AnswerTiming,
    AnswerTokens,
    ErrorInfo,
)


def error_info(error: MoedgeError) -> ErrorInfo:
    """An error as it leaves the board."""
    return ErrorInfo(key=error.key, message=str(error))


def precision_of(manifest: Manifest) -> str:
    """Precision of the experts, e.g. int4."""
    bits = manifest.quantization.experts.bits
    return "fp32" if bits == 32 else f"int{bits}"


def schema_id(schema: dict[str, Any] | None) -> str | None:
    """`$id` of a JSON Schema, else sha256- and 12 digits of the digest of its canonical text."""
    if schema is None:
        return None
    given = schema.get("$id")
    if isinstance(given, str) and given:
        return given
    canonical = json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def question_id(question: Question) -> str:
    """sha256- and 12 digits of the digest of all that the model is told beside the picture.

    Keys of the JSON Schema count in their order, which is that of the answer. What is not said does not count, so that
    a new key does not change the identifiers of questions that lack it.
    """
    told = {key: value for key, value in asdict(question).items() if key != "camera" and value not in (None, False)}
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def answer_payload(
    job: Job, result: Result, *, identifier: str, answered_at: datetime, synced: bool | None, model: AnswerModel
) -> AnswerPayload:
    """The answer to `job`, whatever became of it."""
    reply = result.outcome if isinstance(result.outcome, Reply) else None
    assert reply is None or reply.finish_reason != "cancelled"
    return AnswerPayload(
        id=identifier,
        status="ok" if reply else "error",
        error=error_info(result.outcome) if isinstance(result.outcome, MoedgeError) else None,
        camera=job.camera,
        watch=job.watch,
        zones=list(job.zones),
        question=job.question.text,
        schema_id=schema_id(job.question.json_schema),
        question_id=question_id(job.question),
        captured_at=job.frame.captured_at,
        answered_at=answered_at,
        clock_synced=synced,
        text=reply.text if reply else None,
        reasoning=reply.reasoning if reply and job.publish_reasoning else None,
        data=reply.data if reply else None,
        finish_reason=reply.finish_reason if reply else None,
        model=model,
        timing=_timing(job, result, reply) if reply else None,
        tokens=_tokens(reply) if reply else None,
        frame=AnswerFrame(index=job.frame.index, pts_s=job.frame.pts_s),
    )


def _timing(job: Job, result: Result, reply: Reply) -> AnswerTiming:
    return AnswerTiming(
        queue_s=result.began_s - job.frame.monotonic_s,
        vision_s=reply.vision_s,
        prefill_s=reply.prefill_s,
        decode_s=reply.decode_s,
        decode_tok_s=None if reply.decode_tok_s is None else round(reply.decode_tok_s, 2),
        total_s=result.ended_s - job.frame.monotonic_s,
    )


def _tokens(reply: Reply) -> AnswerTokens:
    return AnswerTokens(
        prompt=reply.prompt_tokens,
        image=reply.image_tokens,
        cached=reply.cached_tokens,
        answer=reply.answer_tokens,
        reasoning=reply.reasoning_tokens,
    )
