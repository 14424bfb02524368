"""Real text with labels, in words: reviews, editorials and tweets that people judged.

`reviews` reads the archive of vaderSentiment 3.3.2 (MIT), in which twenty people judged each of
24 thousand sentences from -4 to 4:

    pip download --no-deps --no-binary :all: --dest DIRECTORY vaderSentiment==3.3.2

with EDGEKD_DATA=DIRECTORY. `topics` needs no download: which part of Python's language reference a
passage is from.
"""

import hashlib
import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
JUDGED = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")

PADDING, UNKNOWN, FIRST, LAST = range(4)
"""The tokens before the words: as BERT's [PAD], [UNK], [CLS] and [SEP]."""

Sentence = tuple[str, int]


def reviews(length: int = 40, words: int = 4000, test: int = 3000, clear: float = 0.5) -> Any:
    """Whether a sentence speaks well or badly of its subject: those judged to be at least `clear`
    away from zero, as ids and masks (N, length); the last `test` of a fixed order are for tests."""
    folder = os.environ.get("EDGEKD_DATA")
    path = Path(folder or ".") / ARCHIVE
    if not path.is_file():
        command = f"pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 --dest {folder}"
        raise FileNotFoundError(f"{path}; get it with: {command}, and set EDGEKD_DATA")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{path} is another file than that of vaderSentiment 3.3.2")
    judged = [(text, int(score > 0)) for text, score in _judged(content) if abs(score) >= clear]
    return _parts(judged, ("bad", "good"), length, words, test)


def _judged(content: bytes) -> Iterator[tuple[str, float]]:
    """Each sentence with the mean of its judgements."""
    with tarfile.open(fileobj=io.BytesIO(content)) as outer:
        inner = outer.extractfile(JUDGED)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            for source in SOURCES:
                member = archive.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt")
                assert member is not None
                for line in member.read().decode("latin-1").splitlines():
                    _, score, text = line.split("\t", 2)
                    yield text, float(score)


def topics(length: int = 24, words: int = 1000, test: int = 200, most: int = 6) -> Any:
    """Which of the `most` longest parts of the language reference a passage is from."""
    from pydoc_data.topics import topics as texts

    names = sorted(texts, key=lambda name: (-len(texts[name]), name))[:most]
    passages = [
        (" ".join(tokens[start : start + length - 2]), number)
        for number, name in enumerate(names)
        for tokens in [_words(texts[name])]
        for start in range(0, len(tokens) - length, length - 2)
    ]
    return _parts(passages, names, length, words, test)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?|[^\sa-z0-9]", text.lower())


def _parts(
    sentences: Sequence[Sentence], labels: Sequence[str], length: int, words: int, test: int
) -> dict[str, Any]:
    """Training and test sentences as the inputs of BERT, in an order that is always the same; the
    vocabulary is the training sentences' own."""
    order = np.random.default_rng(0).permutation(len(sentences))
    mixed = [sentences[place] for place in order]
    split = [(_words(text), label) for text, label in mixed]
    counted = Counter(word for tokens, _ in split[:-test] for word in tokens)
    known = [word for word, _ in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))]
    ids = {word: number for number, word in enumerate(known[: words - LAST - 1], LAST + 1)}
    return {
        "train": _arrays(split[:-test], ids, length),
        "test": _arrays(split[-test:], ids, length),
        "labels": labels,
    }


def _arrays(
    sentences: Sequence[tuple[list[str], int]], ids: dict[str, int], length: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """[CLS] words [SEP], and zeros up to `length`."""
    tokens = np.full((len(sentences), length), PADDING, np.int64)
    for row, (words, _) in zip(tokens, sentences, strict=True):
        inner = [ids.get(word, UNKNOWN) for word in words[: length - 2]]
        row[: len(inner) + 2] = [FIRST, *inner, LAST]
    inputs = {"input_ids": tokens, "attention_mask": (tokens != PADDING).astype(np.int64)}
    return inputs, np.array([label for _, label in sentences])


def letters(length: int = 32, train: int = 2000, test: int = 300) -> dict[str, Any]:
    """Windows of Python's language reference, character by character, and what follows each."""
    from edgekd.data.sets.python_text import python_text

    found = python_text(length=length, train=train, test=test)
    return {
        "train": (found.train.x.numpy().astype(np.int64), found.train.y.numpy()),
        "test": (found.test.x.numpy().astype(np.int64), found.test.y.numpy()),
        "labels": found.labels,
        "task": "tokens",
    }
