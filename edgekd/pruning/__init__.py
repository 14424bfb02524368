"""Removing channels, heads and single weights: what belongs together, what goes, and how much."""
