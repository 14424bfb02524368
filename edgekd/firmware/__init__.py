"""Inputs of a firmware build: C generated from an int8 TFLite graph, and what goes with it."""
