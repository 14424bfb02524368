"""Losses on sequences, ctc and sequence, against numbers worked out otherwise."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.training.losses.ctc import CTC, counted_frames
from edgekd.training.losses.own_samples import OwnSamples
from edgekd.training.losses.sequence import Sequence

NONE = torch.zeros(1)


def test_ctc_is_the_mean_over_frames_of_kl_with_t_squared_the_blank_included():
    # One frame as in test_kl (T = 2: 0.4437763), one where both agree.
    student = torch.tensor([[[0.0, 0.0], [1.0, 3.0]]])
    teacher = torch.tensor([[[2.0, 0.0], [1.0, 3.0]]])
    found = CTC(temperature=2.0)(student, teacher, NONE, inputs=NONE)
    assert found.item() == pytest.approx(0.4437763 / 2, abs=1e-6)


def test_ctc_leaves_out_the_frames_of_the_padding():
    inputs = torch.ones(2, 1, 8)
    inputs[0, :, 4:] = 0  # half of the first sample
    assert counted_frames(inputs, 4).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert counted_frames(torch.zeros(1, 1, 8), 4).tolist() == [[0, 0, 0, 0]]
    student = torch.zeros(2, 4, 2, requires_grad=True)
    teacher = torch.zeros(2, 4, 2)
    teacher[0, 3, 0] = 9.0  # in the padding
    teacher[1, 3, 0] = 2.0
    loss = CTC(padding="zeros")(student, teacher, NONE, inputs=inputs)
    loss.backward()
    assert loss.item() == pytest.approx(0.3278133 / 6, abs=1e-6)  # plain kl of test_kl, 6 frames
    assert student.grad[0].abs().max() == 0
    # dKL/dz = p_s - p_t = 0.5 - 0.8807971 over the frames
    assert student.grad[1, 3, 0].item() == pytest.approx(-0.3807971 / 6, abs=1e-6)


def test_only_padding_gives_zero():
    loss = CTC(padding="zeros")(torch.randn(1, 4, 2), torch.randn(1, 4, 2), NONE,
                                inputs=torch.zeros(1, 1, 8))  # fmt: skip
    assert loss.item() == 0.0


def test_the_teachers_best_class_of_each_frame_is_learned():
    student = torch.tensor([[[0.0, 0.0], [0.0, math.log(3.0)]]], requires_grad=True)
    teacher = torch.tensor([[[5.0, 1.0], [5.0, 1.0]]])
    loss = Sequence(decode="frames")(student, teacher, NONE, **networks())
    loss.backward()
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert torch.allclose(student.grad[0, 1], torch.tensor([-0.75, 0.75]) / 2)


def test_ctc_decoding_learns_the_collapsed_best_path():
    # The teacher's path 1 1 0 1 2 reads 1 1 2; the oracle is torch's own ctc_loss on that.
    path = torch.tensor([[1, 1, 0, 1, 2]])
    teacher = 10.0 * F.one_hot(path, 3).float()
    student = torch.randn(1, 5, 3, requires_grad=True)
    loss = Sequence(decode="ctc")(student, teacher, NONE, **networks())
    logs = F.log_softmax(student.detach(), 2).transpose(0, 1)
    expected = F.ctc_loss(logs, torch.tensor([[1, 1, 2]]), [5], [3], 0)
    assert torch.allclose(loss, expected)


class Counting(nn.Module):
    """A language model of 5 tokens that says each token's successor, and counts its runs."""

    def __init__(self, step: int = 1) -> None:
        super().__init__()
        self.step, self.runs = step, 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.runs += 1
        return 8.0 * F.one_hot((tokens.long() + self.step) % 5, 5).float()


def networks(**given: object) -> dict:
    plain = {"inputs": NONE, "index": NONE, "student_network": None, "teacher_network": None}
    return {**plain, **given}


def test_a_language_model_learns_what_the_teacher_writes_after_the_prompt():
    teacher, student = Counting(1), Counting(2)
    loss = Sequence(prompt=2)
    loss.prepare((4, 5), (4,), (4,))
    loss.remember(3)
    inputs = torch.tensor([[0.0, 2.0, 4.0, 4.0], [1.0, 3.0, 0.0, 0.0]])
    given = networks(
        inputs=inputs,
        index=torch.tensor([2, 0]),
        student_network=student,
        teacher_network=teacher,
    )
    value = loss(torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), NONE, **given)
    # 2 -> 3 4 and 3 -> 4 0; the student puts 8 on another token: log(4 + e^8) each time.
    assert loss.tokens[2].tolist() == [0, 2, 3, 4, -1]
    assert loss.tokens[0].tolist() == [1, 3, 4, 0, -1]
    assert value.item() == pytest.approx(math.log(4 + math.exp(8.0)), rel=1e-6)
    assert teacher.runs == 2
    loss(torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), NONE, **given)
    assert teacher.runs == 2  # written once for each sample
    agreeing = networks(**{**given, "student_network": Counting(1)})
    same = loss(torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), NONE, **agreeing)
    assert same.item() == pytest.approx(math.log(1 + 4 * math.exp(-8.0)), abs=1e-6)


class Reciting(nn.Module):
    """An encoder and a decoder: each sample's own text, token by token, read from `x`."""

    def __init__(self, step: int = 0) -> None:
        super().__init__()
        self.step, self.fed = step, []

    def forward(self, given: dict[str, Tensor]) -> Tensor:
        self.fed.append(given["decoder_input_ids"].tolist())
        return 8.0 * F.one_hot((given["x"].long() + self.step) % 6, 6).float()


END = 1
SPOKEN = torch.tensor([[3.0, 4.0, 1.0, 5.0], [4.0, 5.0, 2.0, 3.0], [2.0, 1.0, 1.0, 1.0]])
"""What the teacher writes: the second sample goes on to the last place without an end."""


def spoken(student: nn.Module, teacher: nn.Module) -> dict:
    start = torch.tensor([[0, 2, 2, 2]] * 3)
    inputs = {"x": SPOKEN, "decoder_input_ids": start, "decoder_attention_mask": start * 0}
    return networks(
        inputs=inputs,
        index=torch.arange(3),
        student_network=student,
        teacher_network=teacher,
    )


def test_a_decoder_learns_what_the_teacher_writes_until_its_end():
    student, teacher = Reciting(), Reciting()
    loss = Sequence(end=END)
    loss.prepare((4, 6), (4,), (4,))
    loss.remember(3)
    value = loss(torch.zeros(3, 4, 6), torch.zeros(3, 4, 6), NONE, **spoken(student, teacher))
    written = [[0, 3, 4, 1, -1], [0, 4, 5, 2, 3], [0, 2, 1, -1, -1]]
    assert loss.tokens.tolist() == written
    # The teacher reads back what it wrote, and neither the labels nor what lies ahead.
    assert teacher.fed[0] == [[0, 1, 1, 1]] * 3
    assert teacher.fed[3] == [[0, 3, 4, 1], [0, 4, 5, 2], [0, 2, 1, 1]]
    assert student.fed == [[[0, 3, 4, 1], [0, 4, 5, 2], [0, 2, 1, 1]]]
    assert value.item() == pytest.approx(math.log(1 + 5 * math.exp(-8.0)), abs=1e-6)
    other = loss(NONE, NONE, NONE, **spoken(Reciting(1), teacher))
    assert other.item() == pytest.approx(math.log(5 + math.exp(8.0)), rel=1e-6)
    assert len(teacher.fed) == 4  # written once for each sample


def test_what_the_teacher_writes_with_too_many_errors_is_left_out():
    targets = torch.tensor([[3, 4, 1, -1], [4, 5, 1, -1], [-1, -1, -1, -1]])
    loss = Sequence(end=END, most_errors=0.5)
    loss.prepare((4, 6), (4,), (4,))
    loss.remember(3)
    loss(NONE, NONE, targets, **spoken(Reciting(), Reciting()))
    # Right; two edits of three tokens; without targets nothing says that it is wrong.
    assert (loss.tokens[:, 1:] != -1).any(1).tolist() == [True, False, True]
    strict = Sequence(end=END, most_errors=0.0)
    strict.prepare((4, 6), (4,), (4,))
    strict.remember(3)
    wrong = torch.full((3, 4), 5)
    assert strict(NONE, NONE, wrong, **spoken(Reciting(), Reciting())).item() == 0.0


def test_inputs_without_tokens_to_go_on_from_are_refused_before_training():
    several = {"x": torch.zeros(1, 4), "words": torch.zeros(1, 4)}
    with pytest.raises(
        ValueError, match=r"no input 'decoder_input_ids' .* found x, words; set the"
    ):
        Sequence().reads(several)
    Sequence(decoder="words").reads(several)
    Sequence(decode="ctc").reads(several)
    Sequence().reads(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"one input of tokens, found x, words; .* use 'sequence'"):
        OwnSamples().reads(several)


def test_a_prompt_that_leaves_nothing_to_write_is_refused():
    with pytest.raises(ValueError, match="a prompt of 4 leaves none of 4 tokens"):
        Sequence(prompt=4).prepare((4, 5), (4,), (4,))
    with pytest.raises(ValueError, match="needs logits"):
        CTC().prepare((10,), (), (28, 28))
