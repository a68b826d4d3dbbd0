"""Statistics: comparisons, the verdict, power, and what rationales are worth."""
