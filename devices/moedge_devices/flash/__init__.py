"""System images for boards: build, write, seed, update (docs/flash.md)."""
