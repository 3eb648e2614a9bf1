"""Changes: a taxonomy over time: what changed, which cells follow, which products are concerned."""
