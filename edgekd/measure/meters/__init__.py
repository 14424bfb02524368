"""Turns raw samples into measurements."""

# code-key: measures
