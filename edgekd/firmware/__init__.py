"""What a firmware build takes: C from an int8 TFLite graph, and what goes with it."""
