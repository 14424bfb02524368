"""`edgekd bench`: its options, the runs, and how the results are shown."""

# code-key: presents
