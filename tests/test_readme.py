"""The README's claims about the files around it; tests/docs runs its commands."""

import re

from pages import README, ROOT, commands_of

from edgekd.registry import LOSSES, SCHEMES

TEXT = README.read_text(encoding="utf-8")


def test_make_knows_the_commands_of_the_readme():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = [line.split()[1] for line in commands_of(README) if line.startswith("make ")]
    assert named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)", TEXT)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_readme_fits_three_screens():
    assert len(TEXT.splitlines()) <= 110


def test_the_readme_shows_the_table_that_the_results_page_has():
    table = TEXT.split("## One result")[1].split("\n\n")[2]
    assert table.startswith("| file | accuracy |")
    assert table in (ROOT / "docs/results.md").read_text(encoding="utf-8")


def test_the_readme_counts_losses_and_schemes_as_they_are():
    losses, schemes = re.findall(r"with (\d+) losses and (\d+) schemes", TEXT)[0]
    assert (int(losses), int(schemes)) == (len(LOSSES.names()), len(SCHEMES.names()))
