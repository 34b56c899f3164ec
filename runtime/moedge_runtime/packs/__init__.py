"""Ready-made watches: a question, its JSON Schema, settings, and drawn test frames. docs/packs.md shows them."""

from moedge_runtime.packs.read import Pack, load_pack, pack_names

__all__ = ["Pack", "load_pack", "pack_names"]
