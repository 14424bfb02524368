import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_report import (
    artifact,
    coral,
    latencies,
    lsb_parity,
    synthetic_report,
    two_outputs,
    x86,
)

from edgekd.report.html import compare_html, html
from edgekd.report.values import Layers, Report

HOSTILE = "<script>alert(1)</script>\"'$x_{$ --> &amp;"


class _Tags(HTMLParser):
    """Every start tag with its attributes, the open tags, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        if tag not in ("meta", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "use", "rect"):
            return
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return html(synthetic_report())


def test_the_page_names_no_address_and_runs_no_script(page: str) -> None:
    assert "http" not in page
    assert "//" not in page.replace("://", "")
    tags = _Tags(page)
    assert tags.open == []
    names = {tag for tag, _ in tags.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for _, attributes in tags.tags:
        assert not any(key.startswith("on") or key == "src" for key in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_ids_are_unique_and_every_reference_has_one(page: str) -> None:
    ids = [attributes["id"] for _, attributes in _Tags(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', page)
    assert wanted
    assert set(wanted) <= set(ids)


def test_every_plot_has_a_text_for_those_who_can_not_see_it(page: str) -> None:
    plots = [attributes for tag, attributes in _Tags(page).tags if tag == "svg"]
    # Two trade-offs, the latencies of two targets, and four parity checks.
    assert len(plots) == 8
    for attributes in plots:
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    assert "Differences between raspberry-pi-5: model.tflite and its reference" in page


def test_a_plots_colours_are_the_pages(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--series-1)" in drawn
    assert not re.findall(r"(?:fill|stroke): #(?!fff)", drawn)


def test_the_same_report_gives_the_same_page(page: str) -> None:
    assert html(synthetic_report()) == page


def test_the_headline_has_what_was_gained_and_lost(page: str) -> None:
    text = " ".join(_Tags(page).text.split())
    # 4,350,000 / 128,400 and 1.361 / 0.094.
    assert "x86-64 with VNNI unverified model.onnx, int8 Smaller 33.9× 128 kB" in text  # noqa: RUF001
    assert "Faster 14.5× 0.094 ms p50" in text  # noqa: RUF001
    assert "Accuracy −0.61 pt 95 % interval −0.92 to −0.31" in text  # noqa: RUF001
    assert "Faster – no Edge TPU is attached" in text  # noqa: RUF001


def test_failing_budgets_and_parity_are_shown_with_their_reasons(
    page: str,
) -> None:
    text = " ".join(_Tags(page).text.split())
    assert "accuracy_drop ≤ 1.00 pt 4.02 pt fail" in text
    assert "latency_ms_p90 ≤ 2 ms 1.18 ms (sim) unverified" in text
    assert "First layer that differs: stages.1.0.conv2 (conv2d): 71 LSB" in text
    assert "coral model_edgetpu.tflite: no accuracy, accuracy_drop" in text


def test_a_hostile_name_stays_text() -> None:
    target = x86().model_copy(
        update={
            "name": HOSTILE,
            "title": HOSTILE,
            "artifacts": (
                artifact(
                    f"artifacts/{HOSTILE}.onnx", 10_000, measurements=latencies(0.1),
                    parity=lsb_parity((1, *[0] * 12), "fail", HOSTILE), notes=(HOSTILE,),
                ),
            ),
        }
    )  # fmt: skip
    report = synthetic_report(name=HOSTILE, targets=(target,), plan=(HOSTILE,))
    for page in (html(report), compare_html([(HOSTILE, report)])):
        assert "<script" not in page
        tags = _Tags(page)
        assert tags.open == []
        assert "<script>alert(1)</script>" in tags.text


def test_a_report_with_almost_nothing_in_it_still_makes_a_page() -> None:
    report: Report = synthetic_report(
        name="", stages=(), layers=Layers(), plan=(), notes=(), targets=(coral(),), created=""
    )
    text = " ".join(_Tags(html(report)).text.split())
    assert "Compressed model" in text
    assert "No budget was set" not in text
    page = html(report.model_copy(update={"targets": ()}))
    assert "No budget was set" in page
    assert "<svg" not in page


def test_only_files_that_nothing_beats_are_on_the_pareto_front() -> None:
    wrong = lsb_parity((1, 0, 0, 1, *[0] * 9), "fail")
    files = (
        artifact("a/good.onnx", 100, accuracy=0.9, measurements=latencies(1.0)),
        artifact("a/worse.onnx", 200, accuracy=0.8, measurements=latencies(2.0)),
        artifact("a/small.onnx", 50, accuracy=0.7, measurements=latencies(3.0)),
        artifact("a/wrong.onnx", 10, accuracy=0.9, measurements=latencies(0.5), parity=wrong),
        artifact("a/unmeasured.onnx", 10, accuracy=0.95),
    )
    target = x86().model_copy(update={"artifacts": files})
    page = compare_html([("run", synthetic_report(targets=(target,)))])
    found = re.findall(r'data-label="Pareto">(.*?)</td>', page)
    assert found == ["yes", "no", "yes", "–", "–"]  # noqa: RUF001


def test_the_templates_travel_with_the_package() -> None:
    import edgekd.report

    folder = Path(edgekd.report.__file__).parent
    names = {path.name for path in folder.iterdir()}
    assert {"report.html.jinja", "comparison.html.jinja", "report.schema.json"} <= names


def test_the_accuracies_of_files_stages_and_the_teacher_stand_with_their_intervals(
    page: str,
) -> None:
    report = synthetic_report()
    known = [report.teacher, *report.stages, *report.targets[0].artifacts]
    known = [one for one in known if one.accuracy_ci is not None]
    assert len(known) > 2
    for one in known:
        low, high = (f"{100 * end:.1f} %" for end in one.accuracy_ci)
        assert f"{100 * one.accuracy:.2f} %<small>{low} to {high}</small>" in page


def test_every_output_has_its_own_parity_and_all_tensors_are_named() -> None:
    page = html(synthetic_report(targets=(two_outputs(),)))
    text = " ".join(_Tags(page).text.split())
    assert "x86: model.onnx, output logits pass" in text
    assert "x86: model.onnx, output embedding fail" in text
    assert "inputs: ids: int64 ?x8, mask: float32 ?x8" in text
    assert "outputs: logits: float32 ?x3, scale 0.1, zero point 4, embedding" in text
    assert "parity: logits 1 LSB, embedding 5e-01 rel FAIL" in text
