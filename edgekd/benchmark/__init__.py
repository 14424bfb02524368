"""`edgekd bench`: what it is told, what it runs, and how its results are shown."""

# code-key: presents
