"""Tells optimum-cli about `optimum-cli export moedge`; Optimum imports every file of this namespace folder."""

from moedge_export.optimum_command import MoedgeExportCommand
from optimum.commands.export.base import ExportCommand

REGISTER_COMMANDS = [(MoedgeExportCommand, ExportCommand)]
