"""Drift: what is different about a later table, told without labels from the bundle's own fingerprint."""
