"""Distil free-text rationales into small language models with the KNIFE method."""

__version__ = "0.1.0"
