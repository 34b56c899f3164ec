"""Measurements at the size of Qwen3-VL-30B-A3B, on weights that are made up as they are read."""
