"""One run of `edgekd compress`, from plan to report, and the firmware build on top of it."""
