"""The lock file of a run: hashes of its inputs, tools and outputs, and what has changed since."""

# code-key: presents
