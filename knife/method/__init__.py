"""The method, pure torch: backbones, bottleneck, alignment, objectives, teacher states."""
