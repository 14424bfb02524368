"""The errors of types of weights by layer, kept beside other results that runs share."""

import hashlib
import json
from collections.abc import Sequence

from edgekd.quant.weight_options import OptionTrial, OutputError, WeightOption, option_errors
from edgekd.store import code_key, key_of, make_folder, write_beside
from edgekd.training.checkpoint import sha256_of_state
from edgekd.training.context import Context
from edgekd.values.tree import leaves

FOLDER = "sensitivities"


def kept_option_errors(
    trial: OptionTrial, options: Sequence[WeightOption], error: OutputError, context: Context
) -> dict[str, list[float]]:
    """For each layer, the outputs' error when only that layer has each of the types: read from the
    cache where the same network was measured on the same samples before."""
    if context.cache is None:
        return option_errors(trial, options, error, context.progress)
    texts = [option.text for option in options]
    layers = list(trial.weights)
    content = hashlib.sha256()
    for leaf in (*leaves(error.samples), *error.expected):
        content.update(leaf.detach().cpu().contiguous().numpy().tobytes())
    state = sha256_of_state(trial.graph)
    key = key_of(code_key(measured=True), state, layers, texts, content.hexdigest())
    path = context.cache / FOLDER / f"{key}.json"
    if path.is_file():
        found: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
        return found
    found = option_errors(trial, options, error, context.progress)
    make_folder(path.parent)
    write_beside(path, json.dumps(found) + "\n")
    return found
