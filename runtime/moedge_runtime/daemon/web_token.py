"""The token of the local page, out of the configuration or its own file."""

from __future__ import annotations

from moedge_runtime.config import WebConfig
from moedge_runtime.config.web import token_problem
from moedge_runtime.errors import ConfigError

_MAX_TOKEN_FILE_BYTES = 4096


def token_of(web: WebConfig) -> str:
    """The page's token.

    Raises:
        ConfigError: Its file cannot be read, or holds none.
    """
    if web.token is not None:
        return web.token.get_secret_value()
    path = web.token_file
    assert path is not None
    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(_MAX_TOKEN_FILE_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"web.token_file: '{path}' cannot be read ({error}). Make it with: openssl rand -hex 24",
            key="config.token_unreadable",
        ) from error
    problem = token_problem(token)
    if problem:
        raise ConfigError(
            f"web.token_file: the first line of '{path}' is no token: {problem}. Make one with: openssl rand -hex 24",
            key="config.token_unreadable",
        )
    return token
