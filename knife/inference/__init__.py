"""Answers of a trained student, in this process or on many workers."""
