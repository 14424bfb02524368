"""What can't be divided over processes, found by the plan."""

import os

from torch import fx, nn

from edgekd.errors import EdgekdError, InputError
from edgekd.training.context import Context
from edgekd.training.sharding import blocks_of
from edgekd.training.terms import terms_of
from edgekd.values.tree import Tree

NETWORKS = ("student_network", "teacher_network")
"""What losses ask for that run a network, or a part of it, by themselves."""


def sharding_faults(student: nn.Module, context: Context) -> list[EdgekdError]:
    """The reasons why the context's teaching can't divide its networks."""
    shard, where = context.teaching.shard, context.where
    if shard is None:
        return []
    faults: list[EdgekdError] = []
    for term in terms_of(context.losses, where)[0]:
        if set(getattr(term.loss, "needs", ())) & set(NETWORKS):
            message = f"'{term.name}' runs a network by itself, which a divided one does not allow"
            faults.append(InputError(message, where=term.where, hint="leave out shard"))
    data = context.data
    if shard != "teachers":
        faults += _block_faults(student, data.example, "the student", where)
    for teacher in context.teachers if shard != "student" else ():
        if teacher.module is None:
            message = f"the teacher {teacher.name} is a black box: it has nothing to divide"
            hint = 'shard = "student"'
            faults.append(InputError(message, where=f"{where}: shard", hint=hint))
        else:
            faults += _block_faults(teacher.module, data.shown, teacher.name, where)
    return faults


def _block_faults(module: nn.Module, example: Tree, name: str, where: str) -> list[EdgekdError]:
    if not isinstance(module, fx.GraphModule) and blocks_of(module, example):
        return []
    return [
        InputError(
            f"{name} has no blocks to divide: it would be put together as a whole in each step",
            where=f"{where}: shard",
            allowed="parts in an nn.ModuleList or nn.Sequential that the network calls once each",
            hint="leave out shard: the processes still share each batch",
        )
    ]


def sharding_cost(context: Context) -> str:
    """What the plan says of it, after the length of the training."""
    shard = context.teaching.shard
    if shard is None:
        return ""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    what = {"all": "student and teachers"}.get(shard, shard)
    if count == 1:
        return f"; {what} whole in this one process: torchrun --nproc-per-node=2 divides them"
    return f"; {what} divided over {count} processes"
