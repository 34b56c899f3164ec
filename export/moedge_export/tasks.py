"""moedge as an exporter of Hugging Face Optimum: which model types it exports, and for which task.

Optimum's TasksManager maps library, model type, exporter and task to the class that knows the export. To export one
more model type, register its class here.
"""

from __future__ import annotations

from typing import Any

from moedge_runtime.errors import CheckpointError, ConfigError
from optimum.exporters.tasks import TasksManager

from moedge_export.architecture import MODEL_TYPE, Architecture, read_architecture

EXPORTER = "moedge"
TASK = "image-text-to-text"
LIBRARY = "transformers"

register = TasksManager.create_register(EXPORTER)


@register(MODEL_TYPE, TASK)
class Qwen3VLMoeExport:
    """Qwen3-VL-MoE: what `TasksManager.get_exporter_config_constructor` makes of its config.

    Attributes:
        architecture: The numbers that the export needs.
    """

    def __init__(self, config: Any, task: str = TASK) -> None:
        self.task = task
        self.architecture: Architecture = read_architecture(config)


def architecture_of(config: Any) -> Architecture:
    """Architecture of a transformers config, by the class that is registered for its model type.

    Raises:
        CheckpointError: Nothing is registered for it, or a value of the config cannot be exported.
    """
    try:
        constructor = TasksManager.get_exporter_config_constructor(
            EXPORTER, model_type=config.model_type, task=TASK, library_name=LIBRARY
        )
    except KeyError as error:
        raise CheckpointError(str(error.args[0]), key="checkpoint.architecture") from error
    architecture: Architecture = constructor(config).architecture
    return architecture


def check_task(model: str, task: str) -> None:
    """Check what a user of optimum-cli asks for: the model's library and the task, which `auto` leaves to Optimum.

    Raises:
        ConfigError: The model is of another library, or the task is not one that this exporter knows.
    """
    try:
        library = TasksManager.infer_library_from_model(model)
    except Exception:  # not there or not reachable: opening the checkpoint says so, and what to do about it
        return
    task = TASK if task == "auto" else TasksManager.map_from_synonym(task)
    if library != LIBRARY or task != TASK:
        raise ConfigError(
            f"'{model}' is a model of the library '{library}', wanted for the task '{task}'; moedge exports models of "
            f"'{LIBRARY}' for '{TASK}'.",
            key="config.task",
        )
