"""Batch: a table of any length answered shard by shard, here or on many machines; resumable; only what changed."""
