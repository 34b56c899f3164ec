"""Converts and quantizes a Hugging Face checkpoint into a moedge bundle; runs on a workstation, never on a board."""
