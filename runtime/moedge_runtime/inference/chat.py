"""Renders a checkpoint's chat template as transformers does, in a sandbox."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.utils

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError

Message = dict[str, Any]
ThinkingMode = Literal["never", "switch", "always"]

_TEMPLATE_FILE = "chat_template.jinja"
_PROBE: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]


class ChatTemplate:
    """A compiled chat template.

    Attributes:
        thinking: Whether the prompt can ask for reasoning: `never`; `switch` by the template's variable
            `enable_thinking`; `always`, because every prompt ends inside `<think>` (Qwen3-VL-Thinking).
    """

    def __init__(self, source: str) -> None:
        """Compile the template `source`.

        Raises:
            BundleError: It is not valid, or cannot render a plain question.
        """
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise _unusable(error) from error
        self.thinking: ThinkingMode = self._thinking_mode(source)

    def render(self, messages: list[Message], **variables: Any) -> str:
        """Prompt text up to where the model goes on.

        Args:
            messages: As transformers takes them: role and content, the latter a string or parts of type text or image.
            **variables: Further variables of the template, e.g. `enable_thinking`.

        Raises:
            BundleError: The template refuses the messages.
        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **variables)
        except (jinja2.TemplateError, TypeError, AttributeError, KeyError) as error:
            raise _unusable(error) from error

    def _thinking_mode(self, source: str) -> ThinkingMode:
        if self.render(_PROBE, enable_thinking=False).rstrip().endswith("<think>"):
            return "always"
        if self.render(_PROBE, enable_thinking=True).rstrip().endswith("<think>"):
            return "switch"
        return "switch" if "enable_thinking" in source else "never"


def load_chat_template(bundle: Bundle) -> ChatTemplate:
    """The bundle's template: chat_template.jinja, or `chat_template` in tokenizer_config.json (older checkpoints).

    Raises:
        BundleError: There is none, or it cannot be used.
    """
    if any(entry.path == _TEMPLATE_FILE for entry in bundle.manifest.files):
        return ChatTemplate(bundle.file(_TEMPLATE_FILE).read_text(encoding="utf-8"))
    source = bundle.json("tokenizer_config.json").get("chat_template")
    if not isinstance(source, str):
        raise BundleError(
            f"Bundle '{bundle.path}' has no chat template: neither {_TEMPLATE_FILE} nor `chat_template` in "
            f"tokenizer_config.json. Export a checkpoint that was made for chatting (Instruct or Thinking).",
            key="bundle.chat_template_missing",
        )
    return ChatTemplate(source)


def _environment() -> jinja2.Environment:
    """The environment of transformers 5.23, utils/chat_template_utils.py, `_compile_jinja_template`."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _plain_dict
    environment.globals["namespace"] = _Namespace
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """Lets `{% generation %}…{% endgeneration %}`, which marks text for training, render as its content."""

    tags = {"generation"}  # noqa: RUF012  the base class declares it so

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own `tojson` escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _plain_dict(*items: Any, **values: Any) -> dict[Any, Any]:
    """`dict` without the class itself, whose attributes lead out of the sandbox."""
    return dict(*items, **values)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace without underscore names, which lead to Python's internals."""

    def __init__(self, *items: Any, **values: Any) -> None:
        attributes = dict(*items, **values)
        for name in attributes:
            _check_name(name)
        super().__init__(attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace attribute may not begin with an underscore: {name!r}")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _unusable(error: Exception) -> BundleError:
    return BundleError(
        f"The bundle's chat template cannot be used: {str(error).rstrip('.')}. Export the checkpoint with its own chat "
        f"template.",
        key="bundle.chat_template_invalid",
    )
