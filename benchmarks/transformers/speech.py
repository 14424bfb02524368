"""Spoken commands by many synthetic voices, and what was said: speech recognition in small.

Two of Debian's synthesizers speak, whose voices differ in sex, accent, timbre, speed and pitch:

    apt install espeak-ng flite

`commands` writes WAV files once, to a folder, and reads each when it is needed. No voice of the
test speaks in training, and no sentence of the test is among those of training. eSpeak NG makes its
voices by rules; those of flite are from recordings of people (CMU's Arctic voices). `dialled` needs
no program: digits as the tones of a telephone's keys.
"""

import csv
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.sounds import WavReader
from edgekd.store import cache_folder

RATE, SECONDS, LONGEST = 16_000, 3.207, 12
"""128 frames of 512 samples, 400 apart; tokens of a sentence with its end."""

TO_19 = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
ROOMS = "kitchen bedroom bathroom hall garden"
THINGS = "light heater fan radio"
OTHERS = "turn on off the set to a timer for minutes hours seconds what is plus minus"
WORDS = sorted(" ".join([TO_19, TENS, ROOMS, THINGS, OTHERS]).split())
START, END, FIRST = 0, 1, 2
"""The tokens before the words."""

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "en-029")
TIMBRES = ("", "+m1", "+m2", "+m3", "+m5", "+m7", "+f1", "+f2", "+f3")
SPOKEN_BY = {
    "train": (tuple(a + t for a in ACCENTS for t in TIMBRES), ("awb", "rms", "kal16")),
    "test": (tuple("en-gb-x-gbcwmd" + t for t in ("+m4", "+m6", "+f4", "+f5")), ("slt",)),
}
"""eSpeak's voices and flite's; one sentence in five is flite's."""


@dataclass(frozen=True)
class Line:
    """A sentence and how it is spoken: by eSpeak NG at words a minute and a pitch of 0 to 99, by
    flite at a share of its usual speed in percent."""

    text: str
    voice: str
    by: str
    speed: int
    pitch: int

    def command(self, path: Path) -> list[str]:
        """What speaks it into a WAV file."""
        if self.by == "flite":
            how = ["-voice", self.voice, "--setf", f"duration_stretch={100 / self.speed:.3f}"]
            return ["flite", *how, "-t", self.text, "-o", str(path)]
        how = ["-s", str(self.speed), "-p", str(self.pitch)]
        return ["espeak-ng", "-v", self.voice, *how, "-w", str(path), self.text]


def number(random: np.random.Generator) -> str:
    """1 to 99 in words."""
    value = int(random.integers(1, 100))
    if value < 20:
        return TO_19.split()[value - 1]
    tens, ones = divmod(value, 10)
    return TENS.split()[tens - 2] + (f" {TO_19.split()[ones - 1]}" if ones else "")


def sentence(random: np.random.Generator) -> str:
    """One of four forms of commands."""
    form = random.integers(4)
    if form == 0:
        return f"turn {_of('on off', random)} the {_of(ROOMS, random)} {_of(THINGS, random)}"
    if form == 1:
        return f"set the {_of(ROOMS, random)} {_of(THINGS, random)} to {number(random)}"
    if form == 2:
        return f"set a timer for {number(random)} {_of('seconds minutes hours', random)}"
    return f"what is {number(random)} {_of('plus minus', random)} {number(random)}"


def _of(choices: str | Sequence[str], random: np.random.Generator) -> str:
    """One of them: of a text, one of its words."""
    listed = choices.split() if isinstance(choices, str) else choices
    return listed[int(random.integers(len(listed)))]


def lines(part: str, count: int, seed: int = 0) -> Iterator[Line]:
    """`count` sentences of a part: one in five of all possible sentences is for tests."""
    random = np.random.default_rng([seed, part == "test"])
    espeak, flite = SPOKEN_BY[part]
    for _ in range(count):
        while True:
            text = sentence(random)
            if (_hash(text) % 5 == 0) == (part == "test"):
                break
        if random.random() < 0.2:
            yield Line(text, _of(flite, random), "flite", int(random.integers(110, 141)), 0)
        else:
            speed, pitch = int(random.integers(150, 200)), int(random.integers(30, 71))
            yield Line(text, _of(espeak, random), "espeak-ng", speed, pitch)


def _hash(text: str) -> int:
    return int.from_bytes(text.encode(), "big") % 1_000_003


def speak(folder: Path, spoken: Sequence[Line]) -> None:
    """Write each line as a WAV file, and the list of them last."""
    for program in ("espeak-ng", "flite"):
        if shutil.which(program) is None:
            raise FileNotFoundError(f"{program} is not installed; apt install espeak-ng flite")
    folder.mkdir(parents=True, exist_ok=True)
    for place, line in enumerate(spoken):
        subprocess.run(line.command(folder / f"{place:05}.wav"), check=True, capture_output=True)
    with (folder / "lines.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text", "voice"])
        writer.writerows(
            [f"{place:05}.wav", each.text, each.voice] for place, each in enumerate(spoken)
        )


class Spoken:
    """A part as a map-style data set: the sound (samples,), and the sentence as `tokens_of` it."""

    def __init__(self, folder: Path) -> None:
        with (folder / "lines.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.files = [folder / row["file"] for row in rows]
        self.texts = [row["text"] for row in rows]
        self.read = WavReader(RATE, SECONDS)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        fed, y = tokens_of(self.texts[row])
        return {"input_features": self.read(self.files[row]), "decoder_input_ids": fed}, y


def tokens_of(said: str) -> tuple[np.ndarray, np.ndarray]:
    """What the decoder reads, and what it should write after each token (LONGEST,)."""
    written = [FIRST + WORDS.index(word) for word in said.split()] + [END]
    fed, y = np.full(LONGEST, END, np.int64), np.full(LONGEST, -1, np.int64)
    fed[: len(written)] = [START, *written[:-1]]
    y[: len(written)] = written
    return fed, y


def text(tokens: Sequence[int]) -> str:
    """Tokens as the words that they stand for."""
    return " ".join(WORDS[token - FIRST] for token in tokens if token >= FIRST)


def commands(train: int = 4000, test: int = 300, folder: str | None = None) -> dict[str, Any]:
    """Commands to a home of 1 to 3 seconds in 52 words, by 57 voices; the test has 5 others."""
    root = Path(folder) if folder else cache_folder() / "spoken-commands"
    parts = {}
    for part, count in (("train", train), ("test", test)):
        place = root / f"{part}-{count}"
        if not (place / "lines.csv").is_file():
            speak(place, list(lines(part, count)))
        parts[part] = Spoken(place)
    return {
        **parts,
        "labels": ("start", "end", *WORDS),
        "task": {"name": "seq2seq", "end": END, "text": text},
    }


def dialled(train: int = 400, test: int = 60, most: int = 4) -> dict[str, Any]:
    """One to `most` digits from 1 to 9 as a telephone dials them (ITU-T Q.23), and their words."""
    parts = {}
    for part, count in (("train", train), ("test", test)):
        random = np.random.default_rng([0, part == "test"])
        lengths = random.integers(1, most + 1, count)
        digits = [random.integers(1, 10, length) for length in lengths]
        pairs = [tokens_of(" ".join(TO_19.split()[digit - 1] for digit in each)) for each in digits]
        x = {
            "input_features": np.stack([_tones(each, random) for each in digits]),
            "decoder_input_ids": np.stack([fed for fed, _ in pairs]),
        }
        parts[part] = (x, np.stack([y for _, y in pairs]))
    return {
        **parts,
        "labels": ("start", "end", *WORDS),
        "task": {"name": "seq2seq", "end": END, "text": text},
    }


def _tones(digits: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half a second for each digit, with some noise."""
    wave = random.normal(0, 0.01, round(RATE * SECONDS)).astype(np.float32)
    times = np.arange(RATE * 2 // 5) / RATE
    for place, digit in enumerate(digits.tolist()):
        low, high = (697, 770, 852)[(digit - 1) // 3], (1209, 1336, 1477)[(digit - 1) % 3]
        start = place * RATE // 2
        both = np.sin(2 * np.pi * low * times) + np.sin(2 * np.pi * high * times)
        wave[start : start + len(times)] += 0.3 * both.astype(np.float32)
    return wave
