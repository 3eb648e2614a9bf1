"""Backbones, engines, heads, losses and embeddings."""
