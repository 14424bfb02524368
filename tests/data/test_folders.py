"""Folders of images and sounds, classes by folder: photographs that scikit-learn carries."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile
from sklearn.datasets import load_sample_image

from edgekd.data import Data, load_data
from edgekd.data.calibration import calibration_samples
from edgekd.data.inputs import Held
from edgekd.data.prepare import LogMelFeatures
from edgekd.data.streamed import Streamed
from edgekd.errors import InputError
from edgekd.values.preprocess import LogMel
from edgekd.values.recipe import Calibration, DataTable

PHOTOGRAPHS = {"flower": "flower.jpg", "temple": "china.jpg"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Twelve tiles of each photograph as JPEG files, of three sizes."""
    root = tmp_path_factory.mktemp("photographs")
    for name, file in PHOTOGRAPHS.items():
        picture = load_sample_image(file)
        (root / name).mkdir()
        for number in range(12):
            top, left, size = 30 * number, 40 * number, 48 + 8 * (number % 3)
            tile = Image.fromarray(picture[top : top + size, left : left + size + 6])
            tile.save(root / name / f"{number:02}.jpg", quality=95)
    return root


def load(root: Path, source: str = "image-folder", **table: object) -> Data:
    return load_data(DataTable(source=source, path=root.name, **table), root.parent)


SMALL = {"resize": [24, 24]}


def copy(root: Path, to: Path) -> Path:
    """The folder again, to be damaged."""
    for file in root.rglob("*.jpg"):
        place = to / "damaged" / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    return to / "damaged"


def test_a_folder_of_images_is_a_data_set_with_the_folders_as_classes(photographs) -> None:
    data = load(photographs, preprocess=SMALL)
    assert data.labels == ("flower", "temple")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [18, 2, 4]
    assert isinstance(data.train.inputs, Held)
    assert data.train.inputs.tree.dtype == torch.uint8
    assert data.example.shape == (1, 3, 24, 24)
    assert 0 <= float(data.train.x.min()) <= float(data.train.x.max()) <= 1


def test_images_are_resized_as_pillow_does_and_normalized(photographs) -> None:
    steps = {"resize": 32, "crop": 24, "channels": "bgr", "mean": [0.5, 0.4, 0.3], "std": [0.2] * 3}
    data = load(photographs, preprocess=steps, validation=0.5)
    first = next(row for row in range(18) if int(data.train.rows[row % len(data.train)]) == 0)
    with Image.open(photographs / "flower/00.jpg") as image:
        width = round(image.width * 32 / 48)
        small = image.resize((width, 32), Image.Resampling.BILINEAR)
    left = (width - 24) // 2
    pixels = np.asarray(small.crop((left, 4, left + 24, 28)))[..., ::-1] / 255
    expected = (pixels - [0.5, 0.4, 0.3]) / 0.2
    found = data.train.x[first].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("table", [{}, {"stream": True, "workers": 0}])
def test_a_mean_for_other_channels_is_refused(photographs, table) -> None:
    steps = {**SMALL, "channels": "gray", "mean": [0.5, 0.4, 0.3]}
    with pytest.raises(InputError) as caught:
        load(photographs, preprocess=steps, **table)
    assert "data.preprocess.mean: 3 values, but images have 1 channels" in str(caught.value)


def test_a_large_folder_is_streamed_with_the_same_values(photographs) -> None:
    held = load(photographs, preprocess=SMALL)
    streamed = load(photographs, preprocess=SMALL, stream=True, workers=0)
    assert isinstance(streamed.train.inputs, Streamed)
    assert torch.equal(held.train.x, streamed.train.x)
    assert torch.equal(held.train.y, streamed.train.y)
    assert "train is streamed (read when needed; up to 0 worker processes)" in streamed.notes


def test_parts_may_have_their_own_folders(photographs, tmp_path) -> None:
    root = copy(photographs, tmp_path)
    for part in ("train", "val"):
        (root / part).mkdir()
    for name in PHOTOGRAPHS:
        (root / "val" / name).mkdir()
        for file in sorted((root / name).iterdir())[8:]:
            file.rename(root / "val" / name / file.name)
        (root / name).rename(root / "train" / name)
    data = load(root, preprocess=SMALL)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [14, 2, 8]
    (root / "val/house").mkdir()
    (root / "train/flower/00.jpg").rename(root / "val/house/00.jpg")
    with pytest.raises(InputError, match="class 'house' has no training files"):
        load(root, preprocess=SMALL)


def test_images_of_differing_sizes_are_refused_with_the_step_that_is_missing(photographs) -> None:
    with pytest.raises(InputError) as caught:
        load(photographs)
    assert "has shape (3, 64, 70) (allowed: (3, 48, 54), as sample 0 has)" in str(caught.value)
    assert "resize = [224, 224]" in caught.value.hint
    with pytest.raises(InputError, match="48 x 54 is smaller than the crop of 64 x 64; resize"):
        load(photographs, preprocess={"crop": 64})


@pytest.mark.parametrize("damage", ["truncated", "unreadable"])
def test_a_damaged_image_is_named_or_left_out_and_counted(photographs, tmp_path, damage) -> None:
    root = copy(photographs, tmp_path)
    bad = root / "temple/05.jpg"
    bad.write_bytes(bad.read_bytes()[:700] if damage == "truncated" else b"no picture")
    with pytest.raises(InputError) as caught:
        load(root, preprocess=SMALL)
    assert f"'{bad}' can't be read" in str(caught.value)
    assert "arguments.skip = true" in caught.value.hint
    data = load(root, preprocess=SMALL, arguments={"skip": True})
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 23
    assert "1 unreadable image left out" in data.notes


def test_damage_in_the_middle_is_named_when_it_is_read(photographs, tmp_path) -> None:
    root = copy(photographs, tmp_path)
    Image.open(root / "temple/05.jpg").save(root / "temple/05.png")
    (root / "temple/05.jpg").unlink()
    content = bytearray((root / "temple/05.png").read_bytes())
    content[200:220] = bytes(20)
    (root / "temple/05.png").write_bytes(content)
    with pytest.raises(InputError, match=r"\(temple/05.png\) can't be read: "):
        load(root, preprocess=SMALL)
    data = load(root, preprocess=SMALL, arguments={"skip": True})
    assert "1 unreadable image left out" in data.notes


def test_the_hash_of_streamed_files_follows_the_files(photographs, tmp_path) -> None:
    root = copy(photographs, tmp_path)
    table = {"preprocess": SMALL, "stream": True, "workers": 0}
    before = load(root, **table).sha256
    assert load(root, **table).sha256 == before
    Image.new("RGB", (50, 50)).save(root / "temple/03.jpg")
    assert load(root, **table).sha256 != before
    assert (
        load(root, preprocess={"resize": [24, 24], "mean": [0.1] * 3}, stream=True).sha256 != before
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "reads a folder or file, but none is named"),
        ({"path": "absent"}, "no such folder"),
        ({"path": "empty"}, "no files in folders that name their class"),
    ],
)
def test_a_folder_that_is_not_there_is_refused(tmp_path, table, message) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        load_data(DataTable(source="image-folder", **table), tmp_path)


def test_a_path_is_refused_where_nothing_reads_it(tmp_path) -> None:
    with pytest.raises(InputError, match="'digits' takes no path"):
        load_data(DataTable(path="here"), tmp_path)


AUGMENT = """
import torch
from PIL import Image

def jitter(image):
    return image.rotate(float(torch.rand(())) * 30)

def crop(image):
    side = int(torch.randint(10, 20, ()))
    return image.crop((0, 0, side, side))

def tensor(image):
    return torch.zeros(3, 5, 5)

def fails(image):
    raise RuntimeError("no")
"""


@pytest.fixture
def augmented(photographs, tmp_path, request):
    """Loads the photographs with a transform of a module beside the recipe."""
    name = f"augment_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(AUGMENT)
    (tmp_path / "photographs").symlink_to(photographs)

    def load_with(transform: str, **table: object) -> Data:
        asked = DataTable(
            source="image-folder", path="photographs", transform=f"{name}:{transform}",
            workers=0, **table,
        )  # fmt: skip
        return load_data(asked, tmp_path)

    return load_with


def test_a_transform_changes_training_images_before_they_are_resized(augmented) -> None:
    data = augmented("jitter", preprocess=SMALL)
    plain = augmented("crop", preprocess=SMALL)
    assert isinstance(data.train.inputs, Streamed)
    index = torch.tensor([2])
    (first, _), (again, _), (other, _) = (data.train.gather(index, seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1, 3, 24, 24)
    assert torch.equal(data.train.first(3).x, plain.train.first(3).x), "without a draw"
    assert (
        "train is streamed (new random draws in each epoch; up to 0 worker processes)" in data.notes
    )
    assert data.sha256 != plain.sha256
    assert data.varies


@pytest.mark.parametrize(
    ("transform", "table", "message"),
    [
        ("fails", {"preprocess": SMALL}, "the transform fails on sample 0: RuntimeError: no"),
        ("tensor", {"preprocess": {"crop": 24}}, "the transform turns sample|can't be read"),
        ("absent", {"preprocess": SMALL}, "has no 'absent'"),
    ],
)
def test_a_transform_that_fails_or_changes_the_shape_is_refused(
    augmented, transform, table, message
) -> None:
    with pytest.raises(InputError, match=message):
        augmented(transform, **table)


def test_samples_in_memory_take_a_transform_too(tmp_path) -> None:
    (tmp_path / "noise_of_memory.py").write_text(
        "import torch\ndef noise(x): return x + torch.rand(())\ndef cut(x): return x[:, :4]\n"
    )
    table = DataTable(transform="noise_of_memory:noise", workers=0)
    data, plain = load_data(table, tmp_path), load_data(DataTable(), tmp_path)
    assert torch.equal(data.train.first(4).x, plain.train.first(4).x)
    moved = data.train.gather(torch.tensor([0, 1]), seed=3)[0] - plain.train.first(2).x
    assert 0 < float(moved[0].mean()) != float(moved[1].mean())
    with pytest.raises(InputError, match=r"turns sample 0 into shape \(1, 4, 8\).*\(1, 8, 8\), as"):
        load_data(DataTable(transform="noise_of_memory:cut", workers=0), tmp_path)


def test_a_folder_of_plain_images_calibrates(photographs) -> None:
    data = load(photographs, preprocess=SMALL)
    steps = DataTable(preprocess=SMALL).preprocess
    asked = Calibration(folder=Path(photographs.name), samples=5)
    x = calibration_samples(asked, data, photographs.parent, steps)
    assert x.shape == (5, 3, 24, 24)
    first = photographs / "flower/00.jpg"
    with Image.open(first) as image:
        small = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(x[0].permute(1, 2, 0), small, atol=1e-6)
    with pytest.raises(InputError, match="no such folder"):
        calibration_samples(Calibration(folder=Path("absent")), data, photographs.parent, steps)
    digits = load_data(DataTable(), Path())
    with pytest.raises(InputError, match=r"its images have shape \(3, 24, 24\)"):
        calibration_samples(asked, digits, photographs.parent, steps)


def tone(frequency: float, rate: int, seconds: float) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * time) * 32767).astype(np.int16)


@pytest.fixture
def tones(tmp_path) -> Path:
    for name, frequency in (("high", 2000.0), ("low", 250.0)):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for number in range(6):
            rate = 8000 if number % 2 else 16000
            wave = tone(frequency + 10 * number, rate, 0.3 + 0.1 * number)
            wavfile.write(tmp_path / "tones" / name / f"{number}.wav", rate, wave)
    return tmp_path / "tones"


def test_sounds_become_waveforms_of_one_rate_and_length(tones) -> None:
    data = load(tones, "wav-folder", arguments={"rate": 8000, "seconds": 0.5})
    assert data.example.shape == (1, 4000)
    assert float(data.train.x.abs().max()) == pytest.approx(0.5, abs=0.05)


def test_log_mel_features_have_their_energy_at_the_tones_band(tones) -> None:
    steps = {"log_mel": {"rate": 8000, "window": 256, "hop": 128, "mels": 20}}
    arguments = {"rate": 8000, "seconds": 0.3}
    data = load(tones, "wav-folder", arguments=arguments, preprocess=steps)
    assert data.example.shape == (1, 1, 20, 17)
    strongest = data.train.x[:, 0].mean(2).argmax(1)
    high, low = strongest[data.train.y == 0], strongest[data.train.y == 1]
    mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    expected = [(mel(f) - mel(20)) / (mel(4000) - mel(20)) * 21 - 1 for f in (2025, 275)]
    assert high.float().mean() == pytest.approx(expected[0], abs=1)
    assert low.float().mean() == pytest.approx(expected[1], abs=1)


def test_the_sound_among_several_inputs_becomes_features_as_whisper_reads_them() -> None:
    wave = torch.sin(torch.arange(2400) * (2 * torch.pi * 1000 / 8000))
    steps = LogMel(rate=8000, window=256, hop=128, mels=20)
    named = steps.model_copy(update={"channel": False, "input": "sound"})
    found = LogMelFeatures(named)({"sound": wave, "speaker": 3})
    assert found["speaker"] == 3
    assert torch.equal(found["sound"], LogMelFeatures(steps)(wave)[0])
    assert found["sound"].shape == (20, 17)
    for name, reason in ((None, "none is named"), ("noise", "'noise' is not among them")):
        with pytest.raises(ValueError, match=rf"{reason} \(of sound, speaker\)"):
            LogMelFeatures(named.model_copy(update={"input": name}))({"sound": wave, "speaker": 3})


def test_a_broken_wav_is_named(tones) -> None:
    (tones / "low/3.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"\(low/3.wav\) can't be read"):
        load(tones, "wav-folder")


def test_a_wav_that_is_cut_off_or_empty_is_named(tones) -> None:
    path = tones / "low/3.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"\(low/3.wav\) can't be read: .*Reached EOF prematurely"):
        load(tones, "wav-folder")
    wavfile.write(path, 8000, np.zeros(0, np.int16))
    with pytest.raises(InputError, match=r"\(low/3.wav\) can't be read: .*no samples"):
        load(tones, "wav-folder")


def test_preprocessing_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        DataTable(preprocess={"resize": 8, "log_mel": {"rate": 8000}})
    with pytest.raises(ValueError, match="3 values in 'mean', but 1 in 'std'"):
        DataTable(preprocess={"mean": [0.1] * 3, "std": [1.0]})
    assert json.loads(DataTable().model_dump_json())["preprocess"]["bake"] is False
