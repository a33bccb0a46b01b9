"""The documents as a site, where mkdocs-material is installed (pip install -e ".[docs]")."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")


@pytest.fixture(scope="module")
def site(repo, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(repo / "mkdocs.yml")]
    done = subprocess.run([*command, "--site-dir", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_every_document_is_a_page_and_in_the_navigation(site, repo):
    start = (site / "index.html").read_text()
    for document in (repo / "docs").rglob("*.md"):
        page = document.relative_to(repo / "docs").with_suffix("")
        assert (site / page / "index.html").is_file(), document.name
        assert f'href="{page.as_posix()}/"' in start, f"{document.name} is not in mkdocs.yml's nav"
    assert "What it gained" in start and "<table>" in start


def test_links_and_pictures_of_the_first_page_are_there(site):
    start = (site / "index.html").read_text()
    own = {link for link in re.findall(r'(?:href|src)="([^":#]+)(?:#[^"]*)?"', start) if not link.startswith("http")}
    missing = [link for link in own if not (site / link).exists()]
    assert not missing


def test_figures_lead_to_their_runs(site):
    start, runs = (site / "index.html").read_text(), (site / "results/small_real/index.html").read_text()
    anchors = re.findall(r'href="results/small_real/#([\w-]+)"', start)
    assert len(anchors) >= 6
    assert all(f'id="{anchor}"' in runs for anchor in anchors)
