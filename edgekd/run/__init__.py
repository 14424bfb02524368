"""One run of `edgekd compress` from its plan to its report, and what a firmware build adds."""
