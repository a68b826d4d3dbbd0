"""Rationales written by a language model: asking it, and what becomes of its answers."""
