"""The site: every page is in it, its model zoo says what cards say, and it builds strictly."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT

from torchlight.config import ALSO_CALLED, Config
from torchlight.flags import RETIRED

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def zoo() -> str:
    """The page of the weights that come with the code."""
    pytest.importorskip("docutils", reason="the extra [docs] is not installed")
    return runpy.run_path(str(DOCS / "conf.py"))["zoo"](ROOT / "model" / "weights")


def test_every_page_is_in_the_contents():
    listed = re.findall(r"^(\w[\w/-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index", "zoo"}
    assert pages <= {*listed}
    assert {"zoo"} <= {*listed}


def test_links_between_pages_lead_somewhere():
    """Also those to headings, as GitHub and the site number them."""
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            place, _, anchor = link.partition("#")
            if "://" in link or place == "zoo.md":
                continue
            target = page.parent / place if place else page
            assert target.exists(), (page.name, link)
            if anchor:
                headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
                assert anchor in {h.lower().replace(" ", "-") for h in headings}, (page, link)


def test_the_zoo_tells_what_the_cards_say(zoo):
    cards = sorted((ROOT / "model" / "weights").glob("*.json"))
    assert re.findall(r"^## (.*)", zoo, re.MULTILINE) == [path.stem for path in cards]
    for path in cards:
        card = json.loads(path.read_text())
        assert f"{card['training']['accuracy']:.2%}" in zoo
        assert card["sha256"] in zoo
        assert all(name in zoo for name in card["class_names"])


def test_what_is_said_of_published_code_is_here():
    """Files in the right column are there; names in the left one are understood."""
    text = (DOCS / "from-published.md").read_text()
    rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| ")]
    for _, here in rows:
        for name in re.findall(r"`((?:model|feeders|torchlight|data)/[\w/]+\.py)`", here):
            assert (ROOT / name).is_file(), name
    keys = {*Config.model_fields, *RETIRED, *ALSO_CALLED}
    for key in ("only_train_part", "model_saved_name", "nprocs", "step", "warm_up_epoch"):
        assert key in keys
        assert f"`{key}`" in text


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("sphinx", reason="the extra [docs] is not installed")
    words = ["-qW", "--keep-going", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "93.97%" in (tmp_path / "site" / "zoo.html").read_text()
    assert "<math" in (tmp_path / "site" / "mathematics.html").read_text()
    reference = tmp_path / "site" / "reference" / "model" / "model.koopman.html"
    assert "koopman_scores" in reference.read_text()
