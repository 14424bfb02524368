"""Takes some of the layers of a repeated stack, as DistilBERT begins with every other one."""

from collections.abc import Mapping, Sequence

from torch import nn

from edgekd.errors import InputError, nearest


def keep_layers(module: nn.Module, layers: Mapping[str, Sequence[int]], where: str) -> None:
    """Keep, of each stack (an `nn.ModuleList` or `nn.Sequential`) that is named, the layers with
    these numbers, in the order of the network. `InputError` for a stack or a layer that isn't
    there.

    Sanh et al. 2019 (DistilBERT, https://arxiv.org/abs/1910.01108), section 3.
    """
    stacks = {
        name: part
        for name, part in module.named_modules()
        if name and isinstance(part, nn.ModuleList | nn.Sequential)
    }
    for name, numbers in layers.items():
        place = f"{where}.{name}"
        stack = stacks.get(name)
        if stack is None:
            known = [each for each in stacks if len(stacks[each]) > 1]
            raise InputError(
                f"the network has no stack of layers '{name}'",
                where=place,
                allowed=", ".join(known[:12]) or "a network with an nn.ModuleList or nn.Sequential",
                hint=nearest(name, known),
            )
        wrong = [number for number in numbers if number >= len(stack)]
        if wrong or not numbers or len(set(numbers)) < len(numbers):
            found = wrong[0] if wrong else list(numbers)
            raise InputError(
                f"can't keep {found} of {len(stack)} layers",
                where=place,
                allowed=f"different numbers from 0 to {len(stack) - 1}",
            )
        for number in reversed(range(len(stack))):
            if number not in numbers:
                del stack[number]
