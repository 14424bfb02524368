"""Readers of model files that never run them: each parses bytes into one `Graph`."""
