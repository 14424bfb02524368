"""From an exported program to a compiled TVM library: layouts, our own schedules, and linking."""
