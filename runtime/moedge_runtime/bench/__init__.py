"""Measures a bundle on this machine, beside what its memory and its flash allow."""
