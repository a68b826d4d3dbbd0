"""The method, pure torch: alignment, objectives and teacher states."""
