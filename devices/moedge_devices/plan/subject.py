"""What is planned: a bundle that is there, or a model that is known and not exported yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.bundle import Bundle, Manifest, VisionTowerInfo
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.dense_sizes import DenseShape
from moedge_runtime.inference.image_processor import ImageProcessorSettings

from moedge_devices.plan.models import find_model, planned_manifest


@dataclass(frozen=True)
class Subject:
    """A paged model.

    Attributes:
        name: As it was asked for.
        manifest: Of the bundle, or computed.
        dense: Of the layers as the native core holds them; None for a bundle whose layers ONNX Runtime computes.
        tower: Likewise of the vision tower.
        max_pixels: The largest area of a picture that the checkpoint allows.
        exported: Whether there is a bundle; otherwise sizes are computed.
    """

    name: str
    manifest: Manifest
    dense: DenseShape | None
    tower: VisionTowerInfo | None
    max_pixels: int
    exported: bool


def find_subject(name: str) -> Subject:
    """The bundle in directory `name`, or the known model of that name.

    Raises:
        BundleError: The bundle is incomplete or damaged.
        ConfigError: It is inline, or there is neither.
    """
    path = Path(name)
    if not path.is_dir():
        shape, precision = find_model(name)
        manifest = planned_manifest(shape, precision)
        return Subject(f"{shape.name}@{precision}", manifest, shape.dense, shape.vision_tower, shape.max_pixels, False)
    bundle = Bundle.open(path)
    if bundle.manifest.form != "paged":
        raise ConfigError(
            f"Bundle '{name}' is inline: it is in memory as a whole, so there is nothing to plan. Export it with "
            f"--experts paged.",
            key="plan.inline",
        )
    settings = ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json"))
    dense = DenseShape.of(bundle.manifest) if bundle.manifest.weights else None
    return Subject(name, bundle.manifest, dense, bundle.manifest.vision_tower, settings.max_pixels, True)
