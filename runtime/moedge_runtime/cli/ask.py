"""`moedge ask`: one question about pictures, answered on the terminal."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from moedge_runtime.command_line import FiniteRange, examples
from moedge_runtime.errors import ConfigError, RequestError
from moedge_runtime.strict_json import parse_json

if TYPE_CHECKING:
    from moedge_runtime.inference import Answer, AskRequest, Engine, ExpertStatistics

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

MLOCK_HELP = "Lock the memory of the experts at the start: it is there before the first picture and never swapped out."
VERIFY_HELP = (
    "Check every byte of the bundle at start, or none; else all but the experts, which are checked as they are read."
)


def size_option(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes from a text as moedge.yaml has it, e.g. 512M."""
    if value is None:
        return None
    from moedge_runtime.config.values import MAX_SIZE_BYTES, parse_size  # noqa: PLC0415

    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"'{value}' is no size: {error}.") from error
    if not 1 <= size <= MAX_SIZE_BYTES:
        raise click.BadParameter(f"'{value}' is not possible: give 1 to {MAX_SIZE_BYTES >> 30}G.")
    return size


@click.command(
    epilog=examples(
        'moedge ask qwen3-vl-int4 "What is on the shelf?" --image shelf.jpg --memory 8G',
        'moedge ask qwen3-vl-int4 "How many?" --image shelf.jpg --json-schema count.json --json',
    )
)
@click.argument("bundle", type=click.Path(path_type=str))
@click.argument("question")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=str), help="A picture; may be repeated.")
@click.option("--image-first", is_flag=True, help="Put the pictures before the question.")
@click.option("--system", help="System prompt.")
@click.option("--json-schema", metavar="FILE_OR_JSON", help="Make the answer fit this JSON Schema.")
@click.option(
    "--thinking/--no-thinking", default=None, help="Let the model reason first, or not; else the model's way."
)
@click.option("--thinking-budget", type=click.IntRange(0), metavar="TOKENS", help="Most tokens of reasoning.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Most tokens generated.")
@click.option("--sample", is_flag=True, help="Draw tokens as the model's generation config says, instead of greedily.")
@click.option("--temperature", type=FiniteRange(0, min_open=True), help="With --sample; above 0.")
@click.option("--top-p", type=FiniteRange(0, 1, min_open=True), help="With --sample; 1 is off.")
@click.option("--top-k", type=click.IntRange(0), help="With --sample; 0 is off.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="With --sample.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with text, data, token counts and timing.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads that compute; default one a core.")
@click.option("--provider", default="cpu", show_default=True, help="cpu, cuda or tensorrt.")
@click.option("--max-context", type=click.IntRange(2), help="Tokens that prompt and answer may have.  [default: 4096]")
@click.option("--max-pixels", type=click.IntRange(1), help="Upper limit of a picture's area after resizing.")
@click.option(
    "--memory",
    metavar="SIZE",
    callback=size_option,
    help="Memory for the whole process, e.g. 8G; experts get what the rest leaves.  [default: what is there]",
)
@click.option(
    "--expert-memory", metavar="SIZE", callback=size_option, help="Of it for experts.  [default: what the rest leaves]"
)
@click.option(
    "--hot-set",
    type=click.Path(path_type=Path),
    help="File that keeps which experts were needed, to read them first at the next start.",
)
@click.option("--mlock", is_flag=True, help=MLOCK_HELP)
@click.option(
    "--experts",
    type=click.Choice(["core", "numpy"]),
    default="core",
    show_default=True,
    help="What computes the experts: the native core, or its slow reference.",
)
@click.option(
    "--layers",
    type=click.Choice(["auto", "core", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="What computes dense layers and vision tower: the native core, ONNX Runtime, or the core where it can.",
)
@click.option("--verify/--no-verify", default=None, help=VERIFY_HELP)
def ask(bundle: str, question: str, **options: Any) -> None:
    """Ask BUNDLE a QUESTION about pictures.

    The answer goes to standard output, reasoning and timing go to standard error. Ctrl-C ends the answer. What cannot
    be answered is refused before the model is loaded.
    """
    from moedge_runtime.bundle import Bundle, verify_bundle  # noqa: PLC0415  `moedge --help` stays fast
    from moedge_runtime.inference import Engine, EngineOptions, Sampling  # noqa: PLC0415

    sampling_changes = _sampling_changes(options)
    request = _request(question, options)
    opened = Bundle.open(bundle)
    if options["verify"] is not False:
        verify_bundle(opened, experts=options["verify"] is True)
    if options["sample"]:
        recommended = opened.json("generation_config.json")
        request = replace(request, sampling=Sampling.from_generation_config(recommended, **sampling_changes))
    engine_options = EngineOptions(
        max_context=options["max_context"],
        threads=options["threads"],
        provider=options["provider"],
        max_pixels=options["max_pixels"],
        reuse_prefix=False,
        experts=options["experts"],
        layers=options["layers"],
        memory_bytes=options["memory"],
        expert_budget_bytes=options["expert_memory"],
        hot_set=options["hot_set"],
        mlock=options["mlock"],
    )
    with _wrong_usage():
        engine = Engine.open(opened, engine_options, first=request)
    with engine:
        if engine.plan is not None:
            click.echo(f"[{engine.plan.line()}]", err=True)
        answer = _answer(engine, request, stream=not (options["no_stream"] or options["as_json"]))
    if options["as_json"]:
        click.echo(json.dumps(answer.to_json(), ensure_ascii=False))
    elif options["no_stream"]:
        click.echo(answer.text)
    if not options["as_json"]:
        click.echo(timing_line(answer), err=True)
    if answer.finish_reason == "cancelled":
        sys.exit(EXIT_INTERRUPTED)


def timing_line(answer: Answer) -> str:
    """One line about where tokens and time went."""
    timing = answer.timing
    rate = "" if timing.decode_tokens_per_s is None else f", {timing.decode_tokens_per_s:.1f} tokens/s"
    reasoning = f" + {answer.reasoning_tokens} of reasoning" if answer.reasoning_tokens else ""
    experts = "" if answer.experts is None else f"; {_expert_line(answer.experts)}"
    ended = "" if answer.finish_reason == "stop" else f" ({answer.finish_reason})"
    return (
        f"[prompt {answer.prompt_tokens} tokens ({answer.image_tokens} of images), answer {answer.answer_tokens}"
        f"{reasoning}{ended}; preprocess {timing.preprocess_ms:.0f} ms, vision {timing.vision_ms:.0f} ms, "
        f"prefill {timing.prefill_ms:.0f} ms, decode {timing.decode_ms:.0f} ms{rate}{experts}]"
    )


def _expert_line(experts: ExpertStatistics) -> str:
    return (
        f"experts {experts.hits:,} hits, {experts.misses:,} misses, {experts.read_bytes / (1 << 20):,.1f} MiB read, "
        f"{experts.preload_used:,} used that were read while idle, "
        f"compute {experts.compute_ms:.0f} ms, flash wait {experts.flash_wait_ms:.0f} ms"
    )


def _answer(engine: Engine, request: AskRequest, stream: bool) -> Answer:
    """Ask, printing while the answer comes if `stream`; Ctrl-C cancels the answer instead of the process."""
    interrupted = Event()
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        answer = engine.ask(
            request,
            on_text=(lambda text: click.echo(text, nl=False)) if stream else None,
            should_stop=interrupted.is_set,
            on_reasoning=(lambda text: click.echo(text, nl=False, err=True)) if stream else None,
        )
    finally:
        signal.signal(signal.SIGINT, previous)
    if stream:
        click.echo()
    return answer


def _request(question: str, options: dict[str, Any]) -> AskRequest:
    """What the command line asks; all that can be refused without a bundle is."""
    from moedge_runtime.image_file import read_image  # noqa: PLC0415
    from moedge_runtime.inference import AskRequest  # noqa: PLC0415
    from moedge_runtime.inference.constraint import check_schema  # noqa: PLC0415

    if not question.strip():
        raise ConfigError("The question is empty. Ask something, for example 'What is on the shelf?'.")
    schema = _schema(options["json_schema"])
    with _wrong_usage():
        if schema is not None:
            check_schema(schema)
        return AskRequest(
            question=question,
            images=[read_image(path) for path in options["images"]],
            system=options["system"],
            json_schema=schema,
            thinking=options["thinking"],
            thinking_budget=options["thinking_budget"],
            max_new_tokens=options["max_tokens"],
            seed=options["seed"],
            image_first=options["image_first"],
        )


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """A request that is refused is here a command line that is wrong."""
    try:
        yield
    except RequestError as error:
        raise ConfigError(str(error), key=error.key) from error


def _schema(value: str | None) -> dict[str, Any] | None:
    """The schema given as a file or, beginning with a brace, as JSON itself."""
    if value is None:
        return None
    inline = value.lstrip().startswith("{")
    try:
        schema = parse_json(value if inline else Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"--json-schema '{value}' cannot be read: {error.strerror}. Give a file, or the schema itself: '{{…}}'."
        ) from error
    except ValueError as error:
        raise ConfigError(f"--json-schema {'' if inline else repr(value) + ' '}is not valid JSON: {error}.") from error
    if not isinstance(schema, dict):
        raise ConfigError(f"--json-schema must be a JSON object; '{value}' holds a {type(schema).__name__}.")
    return schema


def _sampling_changes(options: dict[str, Any]) -> dict[str, Any]:
    """What --temperature and its like say; refused before a model is loaded for nothing."""
    given = {name: options[name] for name in ("temperature", "top_p", "top_k") if options[name] is not None}
    if given and not options["sample"]:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ConfigError(f"{flags} changes how tokens are drawn and needs --sample. Add --sample, or leave it out.")
    return given
