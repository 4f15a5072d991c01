"""The site builds without a warning, holds every page, and opens in a browser."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from filelock import FileLock

from tests.show.browser import Browser

ROOT = Path(__file__).parent.parent
OURS = [
    page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
    for page in sorted((ROOT / "docs").rglob("*.md"))
]
"""The pages that somebody wrote."""
pytest.importorskip("mkdocs", reason="the site's builder is not installed")


class _Read(HTMLParser):
    """A page's links and its anchors."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, once for all processes that test; that it builds at all means that nothing
    was warned of."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "site"
    with FileLock(shared / "site.lock"):
        if not (folder / "index.html").exists():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Read]:
    return {path: _Read(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_of_the_docs_is_in_the_navigation(site: Path, pages: dict[Path, _Read]) -> None:
    html = (site / "index.html").read_text(encoding="utf-8")
    navigation = set(re.findall(r'<a href="([^"#]+)" class="md-nav__link', html))
    for built in OURS:
        assert site / built in pages
        assert built in navigation | {"index.html"}


def test_every_link_and_every_anchor_of_the_site_is_there(pages: dict[Path, _Read]) -> None:
    missing = []
    for page, read in pages.items():
        for link in read.links if page.name != "404.html" else []:
            if link.startswith(("http://", "https://", "data:")):
                continue
            where, anchor = urldefrag(unquote(link))
            target = (page.parent / where).resolve() if where else page
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else set()
            if not target.is_file() or (
                anchor and not anchor.startswith("__") and anchor not in known
            ):
                missing.append(f"{page.name}: {link}")
    assert not missing


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"[^>]+stylesheet',
            page.read_text(encoding="utf-8"),
        )
        assert not [one for pair in fetched for one in pair if one.startswith(("http", "//"))]


def test_every_public_module_has_a_place_in_the_reference(pages: dict[Path, _Read]) -> None:
    told = set().union(*(read.anchors for read in pages.values()))
    for path in (ROOT / "dlmjoint").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            assert ".".join(parts) in told


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Of a server on this machine: in pages opened from disk nothing can be searched."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("width", [400, 1300])
def test_no_page_is_wider_than_its_window(browser: Browser, address: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    for page in OURS:
        browser.open(f"{address}/{page}")
        wide = browser.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{page} is {wide} pixels wide"


def test_a_search_finds_the_glossarys_word(browser: Browser, address: str) -> None:
    browser.open(f"{address}/index.html")
    browser.wait_for("!document.querySelector('.md-search').hidden")
    browser.evaluate(
        """(() => { const field = document.querySelector("[data-md-component=search-query]");
        field.focus(); field.value = "prophet"; field.dispatchEvent(new Event("input", {bubbles: true}));
        field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true})); })()"""
    )
    found = "[...document.querySelectorAll('.md-search-result__link')].map((one) => one.href)"
    browser.wait_for(f"({found}).some((href) => href.includes('glossary.html'))")
