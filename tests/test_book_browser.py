"""The book in a real browser: it fits the screen, code is not cut off, pictures load, text is readable, links arrive."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.conftest import needs_chromium

pytestmark = needs_chromium

ROOT = Path(__file__).parents[1]
PHONE, DESKTOP = 390, 1280
LETTERS = 10  # pixels
CONTRAST = 4.5  # the least that WCAG 2 asks of text
OUTSIDE = ("http", "https", "mailto")


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("book")
    for command in (
        ["sphinx", "-E", "-q", "-W", "--keep-going", "-b", "html", "docs", str(folder)],
        ["alexnet_from_scratch.xray", "all", "--out", str(folder / "xray"), "--book", ".."],
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, timeout=900)
    return folder


def pages_of(book: Path) -> list[Path]:
    """The pages without search, which needs a server, and without the X-ray's, which have their own tests."""
    return [
        page
        for page in sorted(book.rglob("*.html"))
        if page.name != "search.html" and page.parent.name in (book.name, "operations")
    ]


LOOK = """() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const lines = (element) => {
        const range = document.createRange();
        range.selectNodeContents(element);
        return range.getBoundingClientRect().height / parseFloat(getComputedStyle(element).lineHeight);
    };
    const height = (element) => element.getBoundingClientRect().height;
    const shown = (element) => element.checkVisibility();
    const scrolls = (element) => /auto|scroll/.test(getComputedStyle(element).overflowX);
    const inScrolling = (element) => element && (scrolls(element) || inScrolling(element.parentElement.closest("article *")));
    for (const folded of all("details")) folded.open = true;
    return {
        width: document.documentElement.scrollWidth,
        beyond: all("article *").filter(shown).filter((part) => !inScrolling(part))
            .filter((part) => part.getBoundingClientRect().right > innerWidth).map((part) => part.outerHTML),
        wrapped: all("pre .line").filter(shown)
            .filter((line) => height(line) > 1.5 * parseFloat(getComputedStyle(line).lineHeight)).map((line) => line.textContent),
        broken: all(".code-block-caption").filter(shown).flatMap((caption) => {
            const [text, range] = [caption.querySelector(".caption-text").firstChild, document.createRange()];
            range.setStart(text, 0);
            range.setEnd(text, text.data.indexOf(","));
            return range.getClientRects().length > 1 ? [text.data] : [];
        }),
        gaps: all(".formula mspace").filter((gap) => gap.getBoundingClientRect().width > 16)
            .map((gap) => gap.closest("math").textContent),
        long: all(".formula").filter(shown).filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.textContent),
        letters: all(".drawing text")
            .map((text) => [text.getScreenCTM().a * parseFloat(getComputedStyle(text).fontSize), text.textContent]),
        sideways: all(".table-wrapper").filter(shown).filter((box) => box.scrollWidth > box.clientWidth)
            .map((box) => [...box.querySelectorAll("th")].map((head) => head.textContent)),
        names: all("table.short-names td:first-child").filter(shown).map((name) => [name.textContent, lines(name)]),
        cut: all("pre").filter(shown).filter((block) => block.scrollWidth > block.clientWidth).map((block) => block.textContent),
        pictures: [...document.images, ...all(".drawing svg")]
            .map((picture) => [picture.naturalWidth ?? height(picture), picture.getAttribute("src") ?? picture.ariaLabel]),
    };
}"""


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_each_page_fits_the_screen(page: Any, book: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    pictures = names = 0
    for path in pages_of(book):
        page.goto(path.as_uri())
        seen = page.evaluate(LOOK)
        assert seen["width"] <= width, f"{path.name} moves sideways"
        assert seen["beyond"] == [], f"{path.name} is wider than the screen"
        assert seen["cut"] == [], f"code on {path.name} is cut off"
        assert seen["broken"] == [], f"captions on {path.name} are broken within a word"
        assert seen["long"] == [], f"formulas on {path.name} do not fit"
        assert seen["gaps"] == [], f"two formulas on {path.name} share a line"
        assert [text for size, text in seen["letters"] if size < LETTERS] == [], f"letters on {path.name} are too small"
        if width == DESKTOP:
            assert seen["sideways"] == [], f"a table on {path.name} does not fit"
            assert seen["wrapped"] == [], f"lines of code on {path.name} do not fit"
        for size, which in seen["pictures"]:
            assert size > 0, f"{path.name}: {which} is not shown"
        assert [name for name, lines in seen["names"] if lines > 1.5] == [], f"names on {path.name} are broken"
        pictures += len(seen["pictures"])
        names += len(seen["names"])
    assert pictures > 20
    assert names > 500


def test_what_is_hidden_by_a_few_pixels_shows_it(page: Any, book: Path) -> None:
    page.goto((book / "operations" / "relu.html").as_uri())
    box = page.locator(".table-wrapper").first
    for beyond in (0, 10):
        box.evaluate(
            """(box, beyond) => {
                const inside = document.createElement("div");
                inside.style = `height: 100px; width: ${box.clientWidth + beyond}px`;
                box.replaceChildren(inside);
            }""",
            beyond,
        )
        picture = Image.open(io.BytesIO(box.screenshot())).convert("L")
        row = np.array(picture, int)[50]
        assert (row[-2] < row[picture.width // 2] - 20) == bool(beyond)
        assert (np.ptp(row) <= 2) == (not beyond), "nothing can be seen where nothing is hidden"


def test_the_page_of_search_says_how(book: Path) -> None:
    assert "Write a word into the search field" in (book / "search.html").read_text(encoding="utf-8")


# Every visible piece of text, but once for each pair of colours.
COLOURS = """() => {
    const seen = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("script")) continue;
        const style = getComputedStyle(element);
        const ink = element instanceof SVGElement ? style.fill : style.color;
        let ground = element;
        while (/, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
        const pair = [ink, getComputedStyle(ground).backgroundColor];
        seen.set(pair.join(" on "), [walker.currentNode.textContent.trim().slice(0, 40), ...pair]);
    }
    return [...seen.values()];
}"""


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", as WCAG defines it."""
    shares = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Any, book: Path, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    for path in pages_of(book):
        page.goto(path.as_uri())
        found = page.evaluate(COLOURS)
        assert len(found) > 2
        for text, ink, ground in found:
            dark, light = sorted((luminance(ink), luminance(ground)))
            assert (light + 0.05) / (dark + 0.05) >= CONTRAST, f"{path.name}, {text!r}: {ink} on {ground}"
            assert (luminance(ground) > 0.5) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_follow_the_theme(page: Any, book: Path, scheme: Any) -> None:
    """By their most frequent shade, the ground, which is the page's; and their ink differs from it."""
    page.emulate_media(color_scheme=scheme)
    plots = 0
    for path in pages_of(book):
        page.goto(path.as_uri())
        ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for plot in page.locator('article img[src$=".svg"]').all():
            shades = np.array(Image.open(io.BytesIO(plot.screenshot())).convert("L"))
            shade = luminance(f"rgb({', '.join(3 * [str(np.bincount(shades.ravel()).argmax())])})")
            assert abs(shade - ground) < 0.01, path.name
            assert np.ptp(shades) > 150
            plots += 1
    assert plots > 3


def test_numbers_stay_in_one_piece(page: Any, book: Path) -> None:
    """A browser breaks 2.3e-07 at its hyphen, and 0.93 [0.75 … 0.99] at its spaces."""
    page.set_viewport_size({"width": PHONE, "height": 850})
    page.goto((book / "benchmarks.html").as_uri())
    lines = page.evaluate(
        """() => [...document.querySelectorAll("td.text-right")].map((cell) => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            return [cell.textContent, range.getBoundingClientRect().height / parseFloat(getComputedStyle(cell).lineHeight)];
        })"""
    )
    assert len(lines) > 500
    assert [text for text, count in lines if count > 1.5] == []


def test_the_index_uses_a_phones_width(page: Any, book: Path) -> None:
    page.set_viewport_size({"width": PHONE, "height": 850})
    page.goto((book / "genindex.html").as_uri())
    widths = page.evaluate("[...document.querySelectorAll('.genindextable td')].map((cell) => cell.clientWidth)")
    assert widths
    assert min(widths) > 0.8 * PHONE


def test_the_reference_is_for_people(book: Path) -> None:
    """No path of the machine that built it, no type spelled out in ten lines, no section that a colon has torn off."""
    text = (book / "api.html").read_text(encoding="utf-8")
    for unwanted in (str(ROOT), "numpy._typing", "Return type", "Alias for field"):
        assert unwanted not in text


def test_every_link_arrives(page: Any, book: Path) -> None:
    targets: dict[Path, set[str]] = {}
    links: list[tuple[str, str]] = []
    for path in sorted(book.rglob("*.html")):
        page.goto(path.as_uri())
        targets[path] = set(page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)"))
        links += [(path.name, url) for url in page.evaluate("[...document.querySelectorAll('a[href]')].map((link) => link.href)")]
    assert len(links) > 500
    for name, url in links:
        parts = urlsplit(url)
        if parts.scheme in OUTSIDE:
            continue
        path = Path(unquote(parts.path))
        assert path in targets, f"{name} links {url}"
        assert not parts.fragment or unquote(parts.fragment) in targets[path], f"{name} links {url}"
