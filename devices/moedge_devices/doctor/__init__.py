"""Checks the board that it runs on, and measures it."""
