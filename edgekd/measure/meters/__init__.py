"""What turns raw samples into measurements."""
