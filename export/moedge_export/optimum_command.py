"""`optimum-cli export moedge`: the same export, found where users of Hugging Face Optimum look for it.

Optimum imports this module whenever optimum-cli starts, so everything heavy is imported by `run`.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

if TYPE_CHECKING:
    from moedge_export.options import ExportOptions


class MoedgeExportCommand(BaseOptimumCLICommand):  # type: ignore[misc]  # optimum ships no types
    """Subcommand of `optimum-cli export`."""

    COMMAND = CommandInfo(
        name="moedge", help="Export Qwen3-VL-MoE to an ONNX bundle whose experts are paged from flash (moedge)."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Add the arguments: Optimum's usual `-m MODEL OUTPUT`, and the options of `moedge export`."""
        precisions = ("fp32", "int8", "int4")
        parser.add_argument("-m", "--model", required=True, help="Hugging Face id or local directory of a checkpoint.")
        parser.add_argument("output", type=Path, help="Directory to write the bundle to; it must not exist yet.")
        parser.add_argument("--task", default="auto", help="image-text-to-text, or auto to have it looked up.")
        parser.add_argument("--revision", help="Branch, tag or commit of a Hugging Face repository.")
        parser.add_argument("--precision", choices=precisions, default="int4", help="Of the experts [int4].")
        parser.add_argument("--experts", choices=("paged", "inline"), default="paged", help="Apart, or in one model.")
        parser.add_argument("--block-size", type=int, choices=(32, 64, 128), default=32, help="Weights a scale [32].")
        parser.add_argument(
            "--dense-block-size", type=int, choices=(32, 64, 128), help="In attention, head and vision."
        )
        parser.add_argument("--asymmetric", action="store_true", help="With a zero point a block.")
        parser.add_argument("--activations", choices=("int8", "fp32"), default="int8", help="In dense layers [int8].")
        for part in ("attention", "head", "embedding", "vision"):
            parser.add_argument(f"--{part}", choices=precisions, help=f"Precision of the {part}.")
        parser.add_argument("--overwrite", action="store_true", help="Replace OUTPUT if it exists.")
        parser.add_argument("--restart", action="store_true", help="Delete what an interrupted export left.")
        parser.add_argument("--reuse", type=Path, help="Bundle to take over parts from that would come out the same.")

    def run(self) -> None:
        """Export; an error is one sentence on stderr and exit code 1 or 2, as with `moedge export`."""
        import sys  # noqa: PLC0415

        from moedge_runtime.errors import MoedgeError  # noqa: PLC0415

        from moedge_export.cli import run_export  # noqa: PLC0415
        from moedge_export.tasks import check_task  # noqa: PLC0415

        assert self.args is not None
        try:
            check_task(self.args.model, self.args.task)
            run_export(self.args.model, self.args.output, self._options(), show_progress=sys.stderr.isatty())
        except MoedgeError as error:
            sys.exit(f"optimum-cli export moedge: {error}")

    def _options(self) -> ExportOptions:
        from moedge_export.options import PARTS, ExportOptions  # noqa: PLC0415

        args = self.args
        return ExportOptions(
            precision=args.precision,
            form=args.experts,
            block_size=args.block_size,
            dense_block_size=args.dense_block_size,
            symmetric=not args.asymmetric,
            activations=args.activations,
            parts={part: getattr(args, part) for part in PARTS if getattr(args, part)},
            revision=args.revision,
            overwrite=args.overwrite,
            restart=args.restart,
            reuse=args.reuse,
        )
