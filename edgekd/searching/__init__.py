"""Compress to budgets: propose recipes, run few, prove each, and keep the best as recipes.

A search chooses a value for every range of a recipe (`edgekd.values.ranges`), or of the default
space of a network's family (`spaces/`). Each trial is a normal run in a folder of its own; all of
them share one store of finished stages.
"""

# code-key: presents
