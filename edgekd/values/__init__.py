"""The typed, frozen values that the steps of a run hand to each other."""
