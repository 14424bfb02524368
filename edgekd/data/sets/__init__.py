"""Named data sets: file name = name in a recipe; each file registers one that gives a `Source`."""

from edgekd.registry import Registry

SETS = Registry("data set", "edgekd.data.sets", listed=False)
