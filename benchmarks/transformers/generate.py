"""Greedy generation by the deployed file, one token at a time, its cache going in and out."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached import Step, empty_cache, step
from safetensors.torch import load_file

HERE = Path(__file__).parent
PROMPT, TEXTS = 16, 50


def generation(
    taught: Path, out: Path, weights: Path, compressed: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Compress the step network with the student of a finished run, and let its file write.

    `taught` is the run's folder; the student's float weights are copied to `weights`.
    """
    report = json.loads((taught / "report.json").read_text(encoding="utf-8"))
    last = [stage for stage in report["stages"] if stage["kind"] == "distill"][-1]
    weights.parent.mkdir(parents=True, exist_ok=True)
    stored = load_file(taught / "stages" / f"distill-{last['key']}" / "weights.safetensors")
    arguments = {"n_embd": 64, "n_layer": 2}
    network = step(**arguments).eval()
    save_for(network, stored, weights)
    report = compressed(HERE / "gpt2_step.toml", out, ["onnx"])
    artifact = report["targets"][0]["artifacts"][0]
    from texts import letters

    prompts = torch.from_numpy(letters(train=1, test=TEXTS)["test"][0][:, :PROMPT])
    by_file = written_by_file(out / artifact["path"], prompts, network)
    start = time.perf_counter()
    by_network = written_by_whole(network, prompts)
    return {
        "what": f"{TEXTS} texts of {network.model.config.n_positions} characters, {PROMPT} given",
        "file": {key: artifact[key] for key in ("format", "precision", "bytes", "accuracy")},
        "teacher_bytes": report["targets"][0]["baseline"]["bytes"],
        "same_characters_as_the_float_student_percent": _same(by_file["tokens"], by_network),
        "ms_a_token_by_the_file": by_file["ms_a_token"],
        "ms_a_token_by_pytorch_without_cache": round(
            1e3 * (time.perf_counter() - start) / by_network[:, PROMPT:].numel(), 3
        ),
        "example": _text(by_file["tokens"][0]),
    }


def save_for(network: Step, stored: dict[str, Any], path: Path) -> None:
    """The weights of the whole network under the names that the step network has for them."""
    from safetensors.torch import save_model

    network.model.load_state_dict(stored, strict=False)
    network.model.tie_weights()
    save_model(network, str(path))


def written_by_file(path: Path, prompts: torch.Tensor, network: Step) -> dict[str, Any]:
    """What an ONNX file writes behind each prompt, and the time that a token takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    length, texts, seconds = network.model.config.n_positions, [], 0.0
    for prompt in prompts.tolist():
        tokens = list(prompt)
        cache = {k: v.numpy() for k, v in empty_cache(network.model.config, 1).items()}
        for place in range(length - 1):
            given = {"token": np.array([[tokens[place]]]), "position": np.array([[place]])}
            start = time.perf_counter()
            logits, keys, values = session.run(None, {**given, **cache})
            seconds += time.perf_counter() - start
            cache = {"keys": keys, "values": values}
            if place + 1 == len(tokens):
                tokens.append(int(logits[0].argmax()))
        texts.append(tokens)
    steps = len(prompts) * (length - 1)
    return {"tokens": torch.tensor(texts), "ms_a_token": round(1e3 * seconds / steps, 3)}


@torch.no_grad()
def written_by_whole(network: Step, prompts: torch.Tensor) -> torch.Tensor:
    """What the float network writes, which reads the whole text for each token."""
    tokens = prompts
    for _ in range(network.model.config.n_positions - prompts.shape[1]):
        following = network.model(tokens).logits[:, -1].argmax(1, keepdim=True)
        tokens = torch.cat([tokens, following], 1)
    return tokens


def _same(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return round(100 * float((mine == theirs)[:, PROMPT:].float().mean()), 2)


def _text(tokens: torch.Tensor) -> str:
    from edgekd.data.sets.python_text import LETTERS

    return "".join(LETTERS[token] if token < len(LETTERS) else "?" for token in tokens.tolist())
