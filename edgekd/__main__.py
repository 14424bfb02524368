"""`python -m edgekd`."""

# code-key: presents

from edgekd.cli import main

main()
