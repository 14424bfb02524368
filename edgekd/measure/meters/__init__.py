"""What turns raw samples into measurements."""

# code-key: measures
