"""The steps that each network of the suite goes through, and how each of them ended.

A step is "worked"; "refused" by the plan, with its words; "failed" after the plan accepted it; or
"wrong": it ended, and its result does not compute what it should.
"""

import dataclasses
import re
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import HERE, Input, Row
from torch.utils.data import Dataset

import edgekd
from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import totals
from edgekd.network.evaluation import predict
from edgekd.network.load import load_network
from edgekd.run.compiled import Compiled, publish_artifact
from edgekd.run.compress import _original as teacher_outputs
from edgekd.run.pipeline import run_stages
from edgekd.run.plan import Plan
from edgekd.run.plan.keys import start_key
from edgekd.run.proof.outputs import proof_of
from edgekd.run.proof.place import place_for
from edgekd.stages.prune import Prune
from edgekd.values.recipe import Network
from edgekd.values.tree import leaves

COUNTS = {"train": 12, "validation": 4, "test": 6}
EVERY = ("onnx", "tflite")
FEATURES = {"name": "similarity", "weight": 0.5, "layers": "auto"}
LOGITS = {"name": "kl", "weight": 0.5}
VALUES = {"name": "regression", "weight": 0.5}
"""Where a task has no classes, `kl` has nothing to compare."""

SHARE = 0.3
SETTLING = 30
"""Batches after which a batch norm's running statistics are those of its inputs."""
PRUNED = {"channels": 0.95, "heads": 0.99}
"""At most this share of the parameters is left where 30 % of the units went; heads have few."""

Outcome = dict[str, Any]


def run_step(row: Row, step: str) -> Outcome:
    """One step of one network, in this process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        try:
            plan = _plan(row, step, Path(folder))
        except EdgekdError as error:
            return {"status": "refused", "words": _words(error)}
        except Exception as error:
            return {"status": "failed", "words": f"the plan raised {_raised(error)}"}
        try:
            left = plan.targets[0].notes
            return {**CHECKS[step](plan), **({"left": left} if left else {})}
        except EdgekdError as error:
            return {"status": "failed", "words": _words(error)}
        except Exception as error:
            return {"status": "failed", "words": _raised(error)}


def _plan(row: Row, step: str, out: Path) -> Plan:
    soft = VALUES if row.task == "same" else LOGITS
    every: dict[str, dict[str, Any]] = {
        "ptq": {"kind": "quantize", "method": "calibrate"},
        "prune": {
            "kind": "prune",
            "granularity": row.prune,
            "amount": SHARE,
            "epochs": 1,
            "losses": [soft],
        },
        "distill": {"kind": "distill", "losses": [soft, FEATURES], "epochs": 1, "batch_size": 6},
        "qat": {
            "kind": "quantize",
            "method": "qat",
            "epochs": 1,
            "batch_size": 6,
            "losses": [soft],
        },
    }
    chosen = ("distill", "prune", "qat") if step == "trained" else (step,)
    stages = [{**every[each], **row.settings.get(each, {})} for each in chosen]
    backends = EVERY if step == "ptq" else ("onnx",)
    task: str | dict[str, Any] = {
        "classes": "classification", "map": "segmentation", "tokens": "tokens",
        "same": {"name": "regression", "output": 0},
    }[row.task]  # fmt: skip
    source = {**parts_of(row), "task": task}
    if row.task == "classes":
        source["classes"] = row.classes  # more than there are samples
    plan = edgekd.plan(
        model_of(row, out),
        target="x86",
        backends=backends,
        data={"source": source, "validation": 0.3},
        stages=stages,
        out=out,
        settings={"calibration.samples": 8},
    )
    return dataclasses.replace(plan, request=dataclasses.replace(plan.request, baseline=False))


def folder_of_factories() -> None:
    """Make this folder's modules importable for factories."""
    import sys

    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))


def model_of(row: Row, folder: Path) -> dict[str, Any]:
    """The network's table. Random weights are settled first: a checkpoint whose batch norms have
    seen the inputs, so that activations have the range that they have in a trained network."""
    folder_of_factories()
    if row.carried:
        return row.model
    torch.manual_seed(0)
    module = load_network(Network.model_validate(row.model), HERE, "model").train()
    generator = np.random.default_rng(1)
    torch.manual_seed(1)
    try:
        with torch.no_grad():
            for _ in range(SETTLING):
                module(drawn_batch(row, generator))
    except Exception:  # what does not run is for the plan to refuse
        return row.model
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settled.pt"
    torch.save(module.state_dict(), path)
    return {**row.model, "weights": str(path)}


def drawn_batch(row: Row, generator: np.random.Generator) -> Any:
    """A batch of random inputs, in the form in which the network's samples are given."""
    samples = [
        {name: _drawn(each, generator) for name, each in row.inputs.items()} for _ in range(8)
    ]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in row.inputs}
    return batch if len(batch) > 1 else next(iter(batch.values()))


def parts_of(row: Row) -> dict[str, Any]:
    """Small random data sets: lists of (input, target)."""
    generator = np.random.default_rng(0)
    samples = {
        part: [
            {name: _drawn(each, generator) for name, each in row.inputs.items()}
            for _ in range(count)
        ]
        for part, count in COUNTS.items()
    }
    shaped = {
        part: [next(iter(sample.values())) if len(sample) == 1 else sample for sample in several]
        for part, several in samples.items()
    }
    answers = _answers(row, shaped, generator)
    return {part: Pairs(list(zip(shaped[part], answers[part], strict=True))) for part in COUNTS}


@dataclasses.dataclass
class Pairs(Dataset[Any]):
    """Samples and their targets in a list."""

    pairs: list[Any]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> Any:
        return self.pairs[number]


def _drawn(each: Input, generator: np.random.Generator) -> Any:
    if each.kind == "ids":
        return torch.from_numpy(generator.integers(1, each.high, each.shape))
    if each.kind == "mask":
        return torch.ones(each.shape, dtype=torch.int64)
    return torch.from_numpy(generator.standard_normal(each.shape).astype("float32"))


def _answers(row: Row, samples: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    if row.task == "classes":
        return {p: [int(n % row.classes) for n in range(len(s))] for p, s in samples.items()}
    torch.manual_seed(0)
    module = load_network(Network.model_validate(row.model), HERE, "model")
    try:
        with torch.no_grad():
            shown = {
                part: [_main(module(_batch(sample)))[0] for sample in several]
                for part, several in samples.items()
            }
    except Exception:  # what does not run is for the plan to refuse
        return {part: [torch.zeros(1)] * len(several) for part, several in samples.items()}
    if row.task == "same":
        return {part: [out.float() for out in outputs] for part, outputs in shown.items()}
    return {part: [_map(row, out, generator) for out in outs] for part, outs in shown.items()}


def _batch(sample: Any) -> Any:
    from edgekd.values.tree import mapped

    return mapped(lambda leaf: leaf[None], sample)


def _main(output: Any) -> torch.Tensor:
    if isinstance(output, dict) and "logits" in output:
        return output["logits"]
    return leaves(output)[0]


def _map(row: Row, output: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """A class for each position: (H, W) of (C, H, W), (L,) of (L, C) or (C, L)."""
    shape = output.shape[1:] if row.task == "map" else output.shape[:-1]
    return torch.from_numpy(generator.integers(0, row.classes, tuple(shape)))


def _quantized(plan: Plan) -> Outcome:
    """Stages, every backend's file, and its parity with the fake-quantized graph."""
    planned = plan.targets[0]
    made = plan.subject.make(plan, planned, _silent)
    if made.failures:
        words = "; ".join(f"{name}: {_words(error)}" for name, error in made.failures.items())
        return {"status": "failed", "words": words}
    original = teacher_outputs(plan)
    place = place_for(plan, planned.target)
    outcome: Outcome = {"status": "worked"}
    for each in made.files:
        artifact = publish_artifact(each.artifact, plan.request.out / "artifacts")
        placed = Compiled(artifact, each.reference)
        proof = proof_of(plan, planned.target, place, placed, original, _silent)
        parity = proof.parity
        if parity is None:
            return {"status": "failed", "words": f"{artifact.format}: {proof.reason}"}
        outcome[artifact.format] = {"verdict": parity.verdict, "max_lsb": parity.max_lsb}
        words = f"{artifact.format}: {parity.reason or parity.first_difference}"
        if parity.verdict == "fail" and "no single layer" in words:
            outcome["rounding"] = f"{artifact.format}: {parity.max_lsb:g} LSB in all"
        elif parity.verdict == "fail":
            outcome |= {"status": "wrong", "words": f"{words} max {parity.max_lsb} LSB"}
    return outcome | _likeness(plan, made.files[0].reference)


def _likeness(plan: Plan, reference: Any) -> Outcome:
    """The cosine between the quantized outputs and those of the float network."""
    if reference is None:
        return {}
    after = leaves(predict(reference.module, plan.data.test))
    before = leaves(predict(plan.start.module, plan.data.test))
    cosines = [
        float(torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), 0))
        for a, b in zip(after, before, strict=True)
    ]
    return {"cosine": round(min(cosines), 4)}


def _most_left(plan: Plan) -> float:
    stages = [planned.stage for planned in plan.targets[0].stages]
    units = [stage.granularity for stage in stages if isinstance(stage, Prune)]
    return PRUNED[units[0]]


def _pruned(plan: Plan) -> Outcome:
    planned = plan.targets[0]
    staged = run_stages(plan, planned, _silent, start_key(plan))
    before = totals(plan.start.module, plan.start.example)
    after = totals(staged.candidate.module, plan.start.example)
    left = after.parameters / before.parameters
    outcome: Outcome = {"status": "worked", "parameters_left": round(left, 3)}
    if left > _most_left(plan):
        return outcome | {"status": "wrong", "words": f"{left:.0%} of the parameters are left"}
    return outcome | _finite(plan, staged.candidate.module)


def _distilled(plan: Plan) -> Outcome:
    staged = run_stages(plan, plan.targets[0], _silent, start_key(plan))
    return {"status": "worked"} | _finite(plan, staged.candidate.module)


def _finite(plan: Plan, module: torch.nn.Module) -> Outcome:
    outputs = leaves(predict(module, plan.data.test))
    finite = all(bool(torch.isfinite(each.float()).all()) for each in outputs)
    return {} if finite else {"status": "wrong", "words": "NaN in the outputs"}


def _trained(plan: Plan) -> Outcome:
    """Distillation, pruning and quantization-aware training, one after the other."""
    result = _quantized(plan)
    planned = plan.targets[0]
    pruned = run_stages(plan, planned, _silent, start_key(plan)).floating  # stored by now
    left = totals(pruned.module, pruned.example).parameters
    share = left / totals(plan.start.module, plan.start.example).parameters
    if result["status"] == "worked" and share > _most_left(plan):
        result |= {"status": "wrong", "words": f"{share:.0%} of the parameters are left"}
    return result | {"parameters_left": round(share, 3)}


CHECKS: dict[str, Callable[[Plan], Outcome]] = {
    "ptq": _quantized,
    "prune": _pruned,
    "distill": _distilled,
    "qat": _quantized,
    "trained": _trained,
}
STEPS = ("ptq", "prune", "distill", "qat")


def _silent(*_: Any) -> None:
    pass


def _words(error: EdgekdError) -> str:
    """What the user reads of the first faults."""
    faults = error.faults if isinstance(error, InputError) else (error,)
    return re.sub(r"\s+", " ", " | ".join(str(fault) for fault in faults[:3]))[:400]


def _raised(error: Exception) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/edgekd/" in f.filename]
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300] + at
