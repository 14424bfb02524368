"""Readers of model files that never execute them: each parses bytes into one `Graph`."""
