"""The lock file of a run: hashes of its inputs, tools and outputs, and the check for changes."""

# code-key: presents
