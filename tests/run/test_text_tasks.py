"""Whole runs of tasks on sentences: answers as spans, embeddings, and texts that a file writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgekd
from edgekd.data.tasks.ctc import edits
from edgekd.data.tasks.own import own

WORDS, LENGTH = 20, 10
OPEN, CLOSE = 1, 2
"""The words before and after an answer."""

TEACHING = {"kind": "distill", "epochs": 12, "batch_size": 32, "learning_rate": 1e-2}


class Encoder(nn.Module):
    """Embeddings and two convolutions over a sentence."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, width)
        self.inner = nn.Conv1d(width, width, 3, padding=1)
        self.outer = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, input_ids: Tensor) -> Tensor:
        words = self.table(input_ids).transpose(1, 2)
        return torch.relu(self.outer(torch.relu(self.inner(words))))


class Answering(nn.Module):
    """Where an answer starts and ends."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.head = nn.Conv1d(width, 2, 1)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        start, end = self.head(self.encoder(input_ids)).unbind(1)
        return {"start_logits": start, "end_logits": end}


class Embedding(nn.Module):
    def __init__(self, width: int = 32, to: int = 16) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.head = nn.Linear(width, to)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.encoder(input_ids).mean(2))


def both_ends(outputs: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
    first = F.cross_entropy(outputs["start_logits"], y["start"])
    return first + F.cross_entropy(outputs["end_logits"], y["end"])


def same_span(outputs: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
    starts = outputs["start_logits"].argmax(1) == y["start"]
    return (starts & (outputs["end_logits"].argmax(1) == y["end"])).double()


def answers(count: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sentences in which the answer stands between the two words."""
    random = np.random.default_rng(seed)
    ids = random.integers(3, WORDS, (count, LENGTH))
    start = random.integers(1, LENGTH - 3, count)
    end = start + random.integers(0, 3, count).clip(max=LENGTH - 2 - start)
    ids[np.arange(count), start - 1], ids[np.arange(count), end + 1] = OPEN, CLOSE
    x = {"input_ids": torch.from_numpy(ids)}
    return x, {"start": torch.from_numpy(start), "end": torch.from_numpy(end)}


def compressed(tmp_path: Path, networks: tuple[nn.Module, nn.Module], **keys: Any) -> Any:
    model, student = networks
    return edgekd.compress(
        model, student=student, target="x86", out=tmp_path / "out", quick=True, **keys
    )


def files_of(report: Any, formats: set[str]) -> dict[str, Any]:
    files = {each.format: each for each in report.targets[0].artifacts}
    assert set(files) == formats
    for artifact in files.values():
        assert artifact.precision == "int8"
        assert artifact.parity is not None
        assert artifact.parity.verdict == "pass", artifact.path
    return files


def session_outputs(path: Path, x: dict[str, Tensor]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {name: leaf.numpy() for name, leaf in x.items()})


def taught(model: nn.Module, x: dict[str, Tensor], loss: Any, steps: int = 150) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(**x)).backward()
        optimizer.step()
    return model


@pytest.mark.slow
def test_answers_are_spans_of_two_outputs_and_two_targets(tmp_path: Path):
    torch.manual_seed(0)
    x, y = answers(400, 1)
    teacher = taught(Answering(), x, lambda outputs: both_ends(outputs, y))
    losses = [{"name": "kl", "output": name} for name in ("start_logits", "end_logits")]
    report = compressed(
        tmp_path,
        (teacher, Answering(16)),
        data={"train": answers(400, 1), "test": answers(100, 2),
              "task": own(metric=same_span, loss=both_ends)},
        backends=("onnx", "tflite"),
        stages=[{**TEACHING, "label_weight": 0.5, "losses": losses},
                {"kind": "quantize", "method": "calibrate"}],
    )  # fmt: skip
    files = files_of(report, {"onnx", "tflite"})
    assert report.data.metric == "same_span"
    x, y = answers(100, 2)
    start, end = session_outputs(tmp_path / "out" / files["onnx"].path, x)
    right = (start.argmax(1) == y["start"].numpy()) & (end.argmax(1) == y["end"].numpy())
    assert files["onnx"].accuracy == pytest.approx(right.mean())
    assert files["onnx"].accuracy > 0.8


def alike(count: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Pairs of sentences that share some of their words; how alike is the share."""
    random = np.random.default_rng(seed)
    first = random.integers(0, WORDS, (count, LENGTH))
    shared = random.integers(0, LENGTH + 1, count)
    other = random.integers(0, WORDS, (count, LENGTH))
    second = np.where(np.arange(LENGTH) < shared[:, None], first, other)
    ids = torch.from_numpy(np.stack([first, second], 1).reshape(2 * count, LENGTH))
    number = torch.arange(count).repeat_interleave(2).float()
    share = torch.from_numpy(shared / LENGTH).float().repeat_interleave(2)
    return {"input_ids": ids}, torch.stack([number, share], 1)


@pytest.mark.slow
def test_embeddings_learn_from_the_teacher_and_are_judged_by_pairs(tmp_path: Path):
    torch.manual_seed(0)
    teacher = Embedding()
    x, _ = alike(300, 1)
    alone = (x, torch.full((600, 2), -1.0))  # sentences alone: the teacher says where each lies
    parts = {"train": alone, "validation": alike(40, 2), "test": alike(60, 3)}
    report = compressed(
        tmp_path,
        (teacher, Embedding(16)),
        data={**parts, "task": "embedding"},
        backends=("onnx",),
        stages=[{**TEACHING, "label_weight": 0.0, "losses": [{"name": "cosine", "output": 0}]},
                {"kind": "quantize", "method": "calibrate"}],
    )  # fmt: skip
    file = files_of(report, {"onnx"})["onnx"]
    from scipy.stats import spearmanr

    x, y = alike(60, 3)
    (found,) = session_outputs(tmp_path / "out" / file.path, x)
    cosines = F.cosine_similarity(*torch.from_numpy(found).view(60, 2, 16).unbind(1)).numpy()
    assert file.accuracy == pytest.approx(spearmanr(cosines, y[::2, 1].numpy()).statistic, abs=1e-6)
    assert file.accuracy > 0.6
    assert file.agreement_with_teacher > 0.9
    assert file.accuracy_drop_ci is not None


@pytest.mark.long
def test_a_speech_network_of_transformers_is_measured_by_what_its_file_writes(tmp_path: Path):
    """Whisper's architecture on strings of handwritten digits: an image's rows are the bands of a
    spectrogram, its columns the frames."""
    pytest.importorskip("transformers")
    from edgekd.data.sets.digit_strings import digit_strings

    start, end = 10, 11

    def part(samples: Any) -> tuple[dict[str, Tensor], Tensor]:
        digits = torch.where(samples.y < 0, -1, samples.y - 1)
        y = torch.cat([digits, torch.full((len(digits), 1), -1)], 1)
        y[torch.arange(len(y)), (digits >= 0).sum(1)] = end
        fed = torch.cat([torch.full((len(y), 1), start), y[:, :-1].where(y[:, :-1] >= 0, end)], 1)
        return {"input_features": samples.x.squeeze(1), "decoder_input_ids": fed}, y

    source = digit_strings(train=200, test=40, most=2)
    torch.manual_seed(0)
    config = tmp_path / "config.json"
    config.write_text(WHISPER)
    report = edgekd.compress(
        {"source": f"transformers:{config}"},
        data={"train": part(source.train), "test": part(source.test), "classes": 12,
              "task": {"name": "seq2seq", "end": end}},
        target="x86", backends=("onnx",), out=tmp_path / "out", quick=True,
        budgets={"word_error_rate": 0.01, "character_error_rate": 50.0},
        stages=[{**TEACHING, "epochs": 2, "learning_rate": 3e-3, "label_weight": 1.0,
                 "losses": []}, {"kind": "quantize", "method": "calibrate"}],
    )  # fmt: skip
    file = files_of(report, {"onnx"})["onnx"]
    measured = {each.metric: each.value for each in file.measurements}
    x, y = part(source.test)
    found = written(tmp_path / "out" / file.path, x, end)
    wanted = [[token for token in row if token not in (-1, end)] for row in y.tolist()]
    wrong = sum(edits(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))
    assert measured["word_error_rate"] == pytest.approx(wrong / sum(map(len, wanted)))
    judged = {each.metric: each.verdict for each in file.budgets}
    assert (judged["word_error_rate"], judged["character_error_rate"]) == ("fail", "pass")
    same = [mine == theirs for mine, theirs in zip(found, wanted, strict=True)]
    assert measured["exact_match"] == pytest.approx(sum(same) / len(same))


def written(path: Path, x: dict[str, Tensor], end: int) -> list[list[int]]:
    """What the file writes for each sample, one sample at a time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    texts = []
    for number in range(len(x["input_features"])):
        tokens, fed = [], x["decoder_input_ids"][number : number + 1].clone()
        for place in range(fed.shape[1]):
            fed[:, place + 1 :] = end
            features = x["input_features"][number : number + 1].numpy()
            logits = session.run(
                ["logits"], {"input_features": features, "decoder_input_ids": fed.numpy()}
            )[0]
            following = int(logits[0, place].argmax())
            if following == end:
                break
            tokens.append(following)
            fed[:, place + 1 : place + 2] = following
        texts.append(tokens)
    return texts


WHISPER = """{"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"],
"vocab_size": 12, "num_mel_bins": 8, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1,
"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
"decoder_ffn_dim": 64, "max_source_positions": 20, "max_target_positions": 8, "pad_token_id": 11,
"bos_token_id": 10, "eos_token_id": 11, "decoder_start_token_id": 10, "suppress_tokens": null,
"begin_suppress_tokens": null}"""
