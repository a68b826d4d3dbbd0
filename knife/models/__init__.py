"""The models, pure torch: backbones with their bottleneck, tokenizers, files and weights."""
