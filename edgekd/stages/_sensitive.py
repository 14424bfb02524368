"""Narrow weights whose most sensitive layers stay in a wider type."""

from dataclasses import replace
from typing import cast

from torch.fx import GraphModule

from edgekd.quant.mixed import Mixed, Wide
from edgekd.quant.narrow import Narrow
from edgekd.quant.weight_only import narrowed
from edgekd.stages._bits import Types
from edgekd.stages._mixed import keep_wide
from edgekd.training.context import Context
from edgekd.values.candidate import Candidate


def keep_sensitive(
    mixed: Mixed,
    wide: Wide,
    types: Types,
    whole: GraphModule,
    candidate: Candidate,
    context: Context,
) -> Types:
    """The types with those layers in `wide` that `mixed` asks for."""
    from edgekd.quant.trials import NarrowTrial  # torchao takes seconds to import

    trial = NarrowTrial(narrowed(whole, types.dtypes, types.groups, search=True), wide)
    found = keep_wide(mixed, {wide: trial}, candidate, context)
    kept = {name: dtype for name, dtype in types.dtypes.items() if name not in found.layers}
    if wide != "float":
        kept = {
            name: cast(Narrow, wide) if name in found.layers else dtype
            for name, dtype in types.dtypes.items()
        }
    return replace(types, dtypes=kept, note=found.note)
