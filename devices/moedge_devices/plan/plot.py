"""Several boards in one picture; needs matplotlib, which is in the dependency group `bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.plan.board_plan import BoardPlan

COLOURS = {"fits": "#2f7f4f", "tight": "#c98a1b", "refuse": "#a03030"}


def save_plot(plans: Sequence[BoardPlan], path: Path) -> None:
    """Draw first token and tokens a second of every plan that is possible.

    Args:
        plans: Of boards.
        path: Its ending says the format: .png, .svg or .pdf.

    Raises:
        ConfigError: matplotlib is not installed, the format is unknown, or every plan is refused.
        StorageError: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra of a workstation
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--plot needs the Python package 'matplotlib', which is not installed. Install it with: "
            "pip install matplotlib",
            key="plan.no_matplotlib",
        ) from error
    if not path.suffix:  # matplotlib would write another name
        raise ConfigError(f"--plot '{path}' names no format. Give a name that ends in .png, .svg or .pdf.")
    possible = [plan for plan in plans if plan.predictions][::-1]
    if not possible:
        raise ConfigError("--plot has nothing to draw: every board refuses this model. Leave --plot out.")
    labels = [f"{plan.setup.profile.name}, {plan.setup.storage}" for plan in possible]
    colours = [COLOURS[plan.verdict] for plan in possible]
    figure = Figure(figsize=(11, 1.5 + 0.32 * len(possible)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    shown = possible[0].predictions
    left.barh(labels, [plan.predictions[0].warm.seconds for plan in possible], color=colours)
    left.plot([plan.predictions[1].warm.seconds for plan in possible], labels, "k|", markersize=9)
    left.set_xscale("log")
    left.set_xlim(left=1)
    left.margins(y=0.01)
    left.set_xlabel("first token, seconds")
    right.barh(labels, [plan.predictions[0].token.per_second for plan in possible], color=colours)
    right.plot([plan.predictions[1].token.per_second for plan in possible], labels, "k|", markersize=9)
    right.set_xscale("log")
    right.set_xlabel("tokens a second")
    figure.suptitle(
        f"{possible[0].setup.subject.name}: bars {shown[0].routing} routing, marks {shown[1].routing}; "
        f"green fits, amber tight. Planned, not measured."
    )
    try:
        figure.savefig(path)
    except ValueError as error:
        raise ConfigError(f"--plot {path}: {error}. Give a name that ends in .png, .svg or .pdf.") from error
    except OSError as error:
        raise StorageError(f"The plot '{path}' cannot be written ({error.strerror}). Choose another place.") from error
