"""What is wrong with the watches and cameras of a configuration, told before the first frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moedge_runtime.config import Config, WatchConfig
from moedge_runtime.config.load import config_error
from moedge_runtime.config.problems import LOOP_NEVER_ENDS, got
from moedge_runtime.config.yaml_lines import Problems
from moedge_runtime.daemon.answerer import Question, QuestionProblem
from moedge_runtime.daemon.web_token import token_of
from moedge_runtime.errors import ConfigError


def question_of(watch: WatchConfig) -> Question:
    """What `watch` asks, with the names of its camera and its zones put in."""

    def named(text: str) -> str:
        return text.replace("{camera}", watch.camera).replace("{zones}", ", ".join(watch.zones))

    return Question(
        text=named(watch.question),
        system=None if watch.system is None else named(watch.system),
        json_schema=watch.json_schema,
        thinking=watch.thinking,
        thinking_budget=watch.thinking_budget,
        max_tokens=watch.max_tokens,
        camera=watch.camera,
    )


def check_config(
    config: Config,
    check: Callable[[Question], list[QuestionProblem]] | None = None,
    *,
    sources: bool = False,
    exit_when_done: bool = False,
) -> None:
    """Check what can be checked without a frame.

    Args:
        config: The configuration.
        check: Says what the model would refuse; None to leave the questions out.
        exit_when_done: Whether every camera must come to an end.
        sources: Whether files and folders of enabled cameras must be there now.

    Raises:
        ConfigError: Lists all that is wrong, with its line, key and value.
    """
    problems: Problems = []
    for name, camera in config.cameras.items():
        scheme, _, rest = camera.source.partition(":")
        if exit_when_done and camera.enabled and camera.loop:
            problems.append((("cameras", name, "loop"), LOOP_NEVER_ENDS))
        if sources and camera.enabled and not _is_there(scheme, Path(rest)):
            kind = "file" if scheme == "file" else "folder"
            problems.append((("cameras", name, "source"), f"there is no {kind} '{rest}'"))
    for index, watch in enumerate(config.watches):
        for problem in check(question_of(watch)) if check else []:
            value = getattr(watch, problem.key)
            problems.append((("watches", index, problem.key), got(value, str(problem.error))))
    if config.web is not None:
        try:
            token_of(config.web)
        except ConfigError as error:
            problems.append((("web", "token_file"), str(error).removeprefix("web.token_file: ")))
    if problems:
        raise config_error(config, problems)


def _is_there(scheme: str, path: Path) -> bool:
    return {"file": path.is_file, "folder": path.is_dir}.get(scheme, lambda: True)()
