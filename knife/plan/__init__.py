"""What a run will do: its stages with their keys, and what they need."""
