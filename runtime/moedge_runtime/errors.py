"""The errors that a user or an operator can act on, one class per thing they can do about it."""


class MoedgeError(Exception):
    """Base of every error that moedge raises on purpose.

    The text is whole sentences: what failed, the value got, the value allowed, what to do. `key` is stable across
    versions and languages and goes with the text wherever an error leaves the board. `report` is what a command with
    --json prints beside them.
    """

    key = "moedge"
    exit_code = 1

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.report: dict[str, object] = {}
        if key is not None:
            self.key = key


class BundleError(MoedgeError):
    """A bundle cannot be used: not there, of another version, incomplete or damaged. Export or copy it again."""

    key = "bundle"


class CheckpointError(MoedgeError):
    """A checkpoint cannot be exported: not there, truncated, of another architecture. Get a whole one."""

    key = "checkpoint"


class ConfigError(MoedgeError):
    """The configuration or a command-line value is wrong. Change it; exit code 2, as for any usage error."""

    key = "config"
    exit_code = 2


class StorageError(MoedgeError):
    """A disk is full, read-only or failing. Free space or choose another place."""

    key = "storage"


class CameraError(MoedgeError):
    """A camera, video or image gives no usable frame. Check the source."""

    key = "camera"


class BrokerError(MoedgeError):
    """The MQTT broker refuses us or cannot be reached. Check address, credentials and access list."""

    key = "broker"


class RequestError(MoedgeError):
    """One question cannot be answered: too long, an invalid schema, a frame too large. Change the request."""

    key = "request"
