"""The X-ray in a real browser: what a reader sees adds up, is the kernel's and torch's, and can be reached without a mouse."""

from __future__ import annotations

import itertools
import random
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_from_scratch.runs.prediction import SHIPPED
from alexnet_from_scratch.xray import photo
from alexnet_from_scratch.xray.__main__ import PAGES, main, write_page
from alexnet_from_scratch.xray.operations import OPERATIONS
from alexnet_from_scratch.xray.tracing import Number
from scratch import predict
from tests.conftest import needs_chromium

pytestmark = needs_chromium

CELLS = 8  # of every array, picked at random
PHONE = {"width": 360, "height": 740}
LEAST_CONTRAST = 4.5  # what WCAG 2 asks of text


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name in PAGES:
        options: dict[str, Any] = {"variant": "mini", "classes": 10} if name == "network" else {}
        write_page(name, photo.load(None, None), folder / f"{name}.html", list(PAGES), **options)
    return folder


CONTRASTS = """() => {
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (colour) => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [red, green, blue] = [...pen.getImageData(0, 0, 1, 1).data].map((part) => linear(part / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
    };
    return [...document.querySelectorAll(".cell, .code span")].filter((cell) => cell.textContent.trim()).map((cell) => {
        const style = getComputedStyle(cell);
        const ground = getComputedStyle(cell.closest(".cell, .ran, .code")).backgroundColor;
        const [low, high] = [luminance(style.color), luminance(ground)].sort();
        return [high / low, cell.textContent];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_numbers_in_cells_and_code_can_be_read(page: Any, pages: Path, name: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto((pages / f"{name}.html").as_uri())
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert [text for contrast, text in found if contrast < LEAST_CONTRAST] == []


def number(text: str) -> np.float32:
    return np.float32(text.replace("−", "-"))


def seen(page: Any) -> dict[str, Any]:
    """What the panel shows."""
    found: dict[str, Any] = page.evaluate(
        """() => {
            const all = (selector, root) => [...(root ?? document).querySelectorAll(selector)];
            const texts = (selector, root) => all(selector, root).map((found) => found.textContent);
            return {
                name: texts("#panel h2")[0],
                value: texts("#panel .value")[0],
                sums: all("#panel table.adds-up").map((table) => ({
                    terms: texts("td.term", table), sum: texts("td.sum", table)[0], value: table.dataset.value,
                })),
                rungs: all("#panel table.values tr:not(:first-child, .torch)").map((row) => texts("td", row)),
                torch: texts("#panel .theirs")[0],
                allowed: document.querySelector("#panel .allowed")?.dataset.allowed,
                links: all("#panel .lines a").map((link) => link.getAttribute("href")),
            };
        }"""
    )
    return found


def cells_of(page: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".array:not(.turned)")].map((figure) =>
            [figure.dataset.array, [...figure.querySelectorAll(".cell")].map((cell) => Number(cell.dataset.cell))]))"""
    )
    return found


def hold(page: Any, cell: int) -> dict[str, Any]:
    page.keyboard.press("Escape")
    page.locator(f'.cell[data-cell="{cell}"]').dispatch_event("click")
    return seen(page)


def assert_adds_up(shown: dict[str, Any], *, exactly: bool) -> None:
    for table in shown["sums"]:
        total = np.float32(0)
        for term in table["terms"]:
            total += number(term)
        assert total == number(table["sum"]), f"{shown['name']}: the terms add up to {total}, the page says {table['sum']}"
        assert total == np.float32(table["value"]), f"{shown['name']}: {total} is not the kernel's {table['value']}"
    if shown["torch"] is None:
        return
    for rung, value, _ in shown["rungs"]:
        difference = abs(np.float64(number(value)) - np.float64(number(shown["torch"])))
        assert difference <= float(shown["allowed"]), f"{shown['name']} by {rung}: {value}, torch's {shown['torch']}"
        if rung == "naive" and exactly:
            assert number(value) == number(shown["value"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_random_cells(page: Any, pages: Path, operation: str) -> None:
    page.goto((pages / f"{operation}.html").as_uri())
    rungs = page.locator("#rungs input").evaluate_all("inputs => inputs.map((input) => input.value)")
    chosen, told, linked = random.Random(operation), 0, set()
    for rung in rungs:
        if len(rungs) > 1:
            page.locator(f'#rungs label:has([value="{rung}"])').click()
        for cells in cells_of(page).values():
            for cell in chosen.sample(cells, min(CELLS, len(cells))):
                shown = hold(page, cell)
                assert_adds_up(shown, exactly=rung == "naive")
                told += len(shown["sums"]) + len(shown["rungs"])
                linked |= set(shown["links"])
    assert told
    assert linked
    for link in linked:
        file, line = link.removeprefix("#").split(":")
        source = page.locator(f'[id="{link[1:]}"] > span').text_content()
        assert source == Path(file).read_text().splitlines()[int(line) - 1]


def test_a_link_goes_to_its_line(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri() + "#out[0,1,2,3]")
    assert seen(page)["name"] == "out[0,1,2,3]"
    link = page.locator("#panel .lines a").first
    link.click()
    target = page.locator(".code :target")
    assert "#" + target.get_attribute("id") == link.get_attribute("href")
    assert target.evaluate("line => line.classList.contains('ran')")


def test_a_window_lights_up(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri() + "#out[0,1,2,3]")

    def lit(array: str, mark: str) -> int:
        return int(page.locator(f'[data-array="{array}"] .cell.{mark}').count())

    assert (lit("x", "from"), lit("weight", "from"), lit("bias", "from")) == (27, 27, 1)
    page.locator('#rungs label:has([value="im2col"])').click()
    assert (lit("columns", "from"), lit("x", "via")) == (27, 27)
    page.goto((pages / "max_pool2d.html").as_uri() + "#grad_out[0,0,1,1]")
    assert lit("grad_x", "to") == 1


def test_pointer(page: Any, pages: Path) -> None:
    page.goto((pages / "relu.html").as_uri())
    first, second = cells_of(page)["out"][:2]
    cell = page.locator(f'.cell[data-cell="{first}"]')
    cell.hover()
    assert seen(page)["name"] == "out[0,0,0,0]"
    cell.click()
    page.locator(f'.cell[data-cell="{second}"]').hover()
    assert seen(page)["name"] == "out[0,0,0,0]", "a held cell stays"
    page.keyboard.press("Escape")
    cell.hover()
    page.locator(f'.cell[data-cell="{second}"]').hover()
    assert seen(page)["name"] == "out[0,0,0,1]"


def test_keyboard(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri())
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.array')?.dataset.array") == "out":
            break
    walk = {
        "ArrowRight": "out[0,0,0,1]",
        "ArrowDown": "out[0,0,1,1]",
        "PageDown": "out[0,1,1,1]",
        "End": "out[0,1,1,4]",
        "ArrowUp": "out[0,1,0,4]",
        "ArrowLeft": "out[0,1,0,3]",
        "Home": "out[0,1,0,0]",
        "PageUp": "out[0,0,0,0]",
    }
    for key, name in walk.items():
        page.keyboard.press(key)
        assert seen(page)["name"] == name
        focused = page.evaluate(
            "(cell => [cell.ariaLabel, getComputedStyle(cell).outlineStyle, cell.role])(document.activeElement)"
        )
        assert focused[0].startswith(name + " is ")
        assert focused[1:] == ["solid", "gridcell"]
    assert page.locator('[data-array="out"] .cell[tabindex="0"]').count() == 1


@pytest.mark.parametrize("name", PAGES)
def test_phone(browser: Any, page: Any, pages: Path, name: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto((pages / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#panel").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes(page: Any, pages: Path, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto((pages / "relu.html").as_uri())
    shade = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128"
    assert page.evaluate(shade) == (scheme == "light")
    page.locator("#theme").click()
    assert page.evaluate(shade) == (scheme == "dark")


def test_network(page: Any, pages: Path) -> None:
    page.goto((pages / "network.html").as_uri())
    stops = page.locator(".stop")
    assert stops.count() > 15
    for i in range(stops.count()):
        stops.nth(i).click()
        name = stops.nth(i).locator("b").text_content()
        assert seen(page)["name"] == name
        for difference in page.locator("#panel td.torch").all_text_contents():
            assert number(difference) < 1e-3, name
    page.locator("#panel a").last.click()
    assert re.search(r"/linear\.html$", page.url)


def test_the_networks_answer_is_the_predictors(page: Any, pages: Path, tmp_path: Path) -> None:
    picture = SHIPPED.parent / "example.png"
    target = write_page("network", photo.load(picture, None), tmp_path / "network.html", variant="mini")
    page.goto(target.as_uri())
    probabilities, classes = predict.predict(picture, SHIPPED)
    shown = page.locator(".answer tr").all_text_contents()
    likeliest = np.argsort(-probabilities, kind="stable")[: len(shown)]
    assert shown == [f"{classes[i]}{probabilities[i]:.2%}".replace("%", " %") for i in likeliest]


def test_a_rung_that_adds_in_another_order(page: Any, pages: Path) -> None:
    """im2col's sums are BLAS's: the page shows its value, and says so where adding the terms in order gives other bits."""
    page.goto((pages / "conv2d.html").as_uri())
    page.locator('#rungs label:has([value="im2col"])').click()
    notes = 0
    for cell in cells_of(page)["grad_x"][::7]:
        shown = hold(page, cell)
        assert {"im2col": shown["value"]}.items() <= {rung: value for rung, value, _ in shown["rungs"]}.items()
        note = page.locator("#panel p.index", has_text="BLAS").count()
        assert note == (number(shown["value"]) != number(shown["sums"][0]["sum"]))
        notes += note
    assert notes


# --- the kernel at work ------------------------------------------------------------------------------------------------


def partial_sums(xray: Any, name: str) -> list[tuple[str, np.float32]]:
    """After each addition of the naive run, in its order: the cell that was added to, and what it then held."""
    recorded, found = xray.tape.arrays[name], []
    for flat, number in enumerate(recorded.how["naive"]):
        index = ",".join(map(str, np.unravel_index(flat, recorded.values.shape)))
        while isinstance(number, Number):  # a cell to which nothing is added holds a plain 0
            first, second = number.operands
            if not isinstance(second, Number) and second == 0:
                break
            found.append((number.step, f"{name}[{index}]", number.value))
            chain = isinstance(first, Number) and first.sign == "+"
            number = first if chain else None
    return [(cell, np.float32(value)) for _, cell, value in sorted(found)]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    options: dict[str, Any] = {"size": 4, "channels": 2, "stride": 1}
    photograph = photo.load(None, None)
    path = write_page("conv2d", photograph, tmp_path_factory.mktemp("small") / "conv2d.html", **options)
    return OPERATIONS["conv2d"](photograph, **options), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["out", "grad_x"])
def test_the_kernel_runs_to_its_end(page: Any, small: Any, name: str, width: int, scheme: Any) -> None:
    xray, path = small
    page.set_viewport_size({"width": width, "height": 850})
    page.emulate_media(color_scheme=scheme)
    page.goto(path.as_uri())
    expected = partial_sums(xray, name)
    player = page.locator(f'.player[data-array="{name}"]')
    for cell, value in expected[:30]:
        player.get_by_role("button", name="Step", exact=True).click()
        shown = seen(page)
        assert (shown["name"], number(shown["value"])) == (cell, value), "the sum on the page is the naive run's, to the bit"
    player.get_by_role("slider").fill("6")
    player.get_by_role("button", name="Play").click()
    player.get_by_text("to the bit ✓").wait_for()
    assert player.locator("output").text_content().startswith(f"All {len(expected):,} steps")
    cell, value = expected[-1]
    assert (seen(page)["name"], number(seen(page)["value"])) == (cell, value)
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", ["out", "grad_x"])
def test_the_steps_of_one_cell_can_be_taken_alone(page: Any, small: Any, name: str) -> None:
    xray, path = small
    page.goto(path.as_uri())
    cell = hold(page, cells_of(page)[name][5])["name"]
    sums = [value for named, value in partial_sums(xray, name) if named == cell]
    assert len(sums) > 2
    button = page.locator(f'.player[data-array="{name}"]').get_by_role("button", name="Next step of this cell")
    for i, value in enumerate([*sums, sums[-1]]):
        button.click() if i % 2 else page.keyboard.press("c")
        assert (seen(page)["name"], number(seen(page)["value"])) == (cell, value)


def test_no_step_is_taken_where_nothing_is_added(page: Any, tmp_path: Path) -> None:
    photograph = photo.load(None, None)
    path = write_page("max_pool2d", photograph, tmp_path / "max_pool2d.html", size=6)
    page.goto(path.as_uri())
    expected = partial_sums(OPERATIONS["max_pool2d"](photograph, size=6), "grad_x")
    assert len(expected) < len(cells_of(page)["grad_x"])
    player = page.locator('.player[data-array="grad_x"]')
    player.get_by_role("button", name="Step", exact=True).click()
    assert player.locator("output").text_content() == f"1 of {len(expected)}"
    assert (seen(page)["name"], number(seen(page)["value"])) == expected[0]
    player.get_by_role("slider").fill("6")
    player.get_by_role("button", name="Play").click()
    player.get_by_text("to the bit ✓").wait_for()


def test_the_kernel_is_driven_by_the_keyboard(page: Any, small: Any) -> None:
    _, path = small
    page.goto(path.as_uri())
    page.keyboard.press("n")
    page.keyboard.press("n")
    status = page.locator('.player[data-array="out"] output')
    assert status.text_content().startswith("2 of")
    page.keyboard.press("+")
    assert page.locator('.player[data-array="out"] input').input_value() == "2"
    page.keyboard.press("p")
    assert page.locator('.player[data-array="out"]').get_by_role("button", name="Pause").count() == 1
    page.wait_for_function("parseInt(document.querySelector('.player output').textContent) >= 8")
    page.keyboard.press("p")
    paused = status.text_content()
    page.wait_for_timeout(150)
    assert status.text_content() == paused
    page.keyboard.press("Escape")
    assert status.text_content() == ""


def test_nothing_moves_by_itself_where_motion_is_not_wanted(page: Any, small: Any) -> None:
    xray, path = small
    page.emulate_media(reduced_motion="reduce")
    page.goto(path.as_uri())
    page.locator('.player[data-array="out"]').get_by_role("button", name="Play").click()
    first = [cell for cell, _ in partial_sums(xray, "out")].count("out[0,0,0,0]")
    assert page.locator('.player[data-array="out"] output').text_content().startswith(f"{first} of")
    page.wait_for_timeout(200)
    assert page.locator('.player[data-array="out"] output').text_content().startswith(f"{first} of")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["out", "grad_x"])
def test_the_kernel_starts_at_the_cell_that_is_held(page: Any, small: Any, name: str, width: int) -> None:
    xray, path = small
    page.set_viewport_size({"width": width, "height": 850})
    page.goto(path.as_uri())
    expected = partial_sums(xray, name)
    player = page.locator(f'.player[data-array="{name}"]')
    drawn = f"""[...document.querySelectorAll('.array:not(.turned)[data-array="{name}"] .cell')].map((cell) =>
        [cell.textContent, cell.style.cssText, ...[...cell.classList].sort()])"""
    cell = cells_of(page)[name][5]
    first = next(i for i, (named, _) in enumerate(expected) if named == hold(page, cell)["name"])
    assert 0 < first < 200
    assert player.locator("output").text_content() == f"▶ from step {first + 1} of {len(expected):,}"
    player.get_by_role("button", name="Step", exact=True).click()
    assert (seen(page)["name"], number(seen(page)["value"])) == expected[first]
    assert player.locator("output").text_content() == f"{first + 1} of {len(expected):,}"
    there = page.evaluate(drawn)
    page.keyboard.press("Escape")
    assert player.locator("output").text_content() == ""
    page.evaluate("([name, last]) => { for (let i = 0; i <= last; i++) step(byName.get(name)); }", [name, first])
    assert page.evaluate(drawn) == there, "all cells hold what they hold after as many steps from the first"
    hold(page, cell)
    player.get_by_role("slider").fill("6")
    player.get_by_role("button", name="Play").click()
    player.get_by_text("to the bit ✓").wait_for()
    player.get_by_role("slider").fill("0")
    player.get_by_role("button", name="Play").click()
    player.get_by_role("button", name="Pause").click()
    page.keyboard.press("n")
    assert seen(page)["name"] != expected[-1][0], "the next run starts at the first step"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_can_be_played(page: Any, pages: Path, operation: str) -> None:
    page.goto((pages / f"{operation}.html").as_uri())
    for player in page.locator(".player").all():
        player.get_by_role("slider").fill("6")
        player.get_by_role("button", name="Play").click()
        player.get_by_text("to the bit ✓").wait_for()


def test_input_weight_and_output_are_on_the_screen_together(page: Any, pages: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto((pages / "conv2d.html").as_uri())
    for names in (["x", "weight", "out"], ["grad_out", "weight turned", "grad_x"]):
        boxes = [page.locator(f'[data-array="{name}"].array').bounding_box() for name in names]
        assert len({box["y"] for box in boxes}) == 1
        assert all(left["x"] + left["width"] <= right["x"] for left, right in itertools.pairwise(boxes))
    assert not page.locator('[data-array="columns"]').is_visible()
    page.locator('#rungs label:has([value="im2col"])').click()
    assert page.locator('[data-array="columns"]').is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["out", "grad_x", "grad_weight"])
def test_on_a_phone_the_panel_covers_nothing_that_it_talks_about(page: Any, pages: Path, name: str, scheme: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    page.goto((pages / "conv2d.html").as_uri())
    for cell in cells_of(page)[name][::17]:
        page.keyboard.press("Escape")
        selected = page.locator(f'.cell[data-cell="{cell}"]')
        selected.evaluate("(cell) => cell.scrollIntoView({ block: 'center', behavior: 'instant' })")
        selected.dispatch_event("click")
        seen = page.evaluate(COVERED)
        assert set(seen["lit"]) == set(seen["small"]), "what lights up is shown, wherever on the page it is"
        assert seen["cut"] == []
        assert seen["below"] <= selected.bounding_box()["y"], "under the small view"
        assert selected.bounding_box()["y"] + selected.bounding_box()["height"] <= seen["above"], "under the panel"
        assert seen["halves"] == [], "a row of buttons is cut by the panel"


COVERED = """() => {
    const edge = (element, side) => element.getBoundingClientRect()[side];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const [peek, panel] = all("#peek, #panel");
    return {
        lit: all(".cell[data-cell]:is(.sel, .from, .via, .to)").map((cell) => cell.closest(".array").dataset.array),
        small: all("#peek figcaption").map((caption) => caption.textContent),
        cut: all("#peek canvas")
            .filter((small) => edge(small, "bottom") > edge(peek, "bottom") || edge(small, "right") > edge(peek, "right"))
            .map((small) => small.parentElement.textContent),
        below: edge(peek, "bottom"),
        above: edge(panel, "top"),
        halves: all(".player").filter((row) => edge(row, "top") < edge(panel, "top") && edge(row, "bottom") > edge(panel, "top"))
            .map((row) => row.ariaLabel),
    };
}"""


@pytest.mark.parametrize("name", OPERATIONS)
def test_on_a_phone_the_panel_cuts_no_buttons_at_first(page: Any, pages: Path, name: str) -> None:
    for height in range(640, 930, 10):
        page.set_viewport_size({"width": 390, "height": height})
        page.goto((pages / f"{name}.html").as_uri())
        assert page.evaluate(COVERED)["halves"] == [], height


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_buttons_of_a_run_are_not_covered(page: Any, small: Any, scheme: Any) -> None:
    _, path = small
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    page.goto(path.as_uri() + "#grad_x[0,2,1,1]")
    for row in page.locator(".player").all():
        for place in ("start", "center", "end"):
            row.evaluate("(row, block) => row.scrollIntoView({ block, behavior: 'instant' })", place)
            row.get_by_role("button", name="Step", exact=True).dispatch_event("click")
            seen, box = page.evaluate(COVERED), row.bounding_box()
            assert seen["below"] <= box["y"]
            assert box["y"] + box["height"] <= seen["above"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_small_view_on_a_phone_shows_an_image(page: Any, pages: Path, name: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto((pages / f"{name}.html").as_uri())
    shown = "(peek) => new Set(peek.getContext('2d').getImageData(0, 0, peek.width, peek.height).data).size"
    assert max(canvas.evaluate(shown) for canvas in page.locator("#peek canvas").all()) > 8


def test_a_difference_from_torch_has_a_word(page: Any, pages: Path) -> None:
    page.goto((pages / "local_response_norm.html").as_uri())
    words = set()
    for cell in cells_of(page)["grad_x"][::5]:
        for _, _, told in hold(page, cell)["rungs"]:
            words.add(re.sub(r" [−\d].*", "", told))
    assert words <= {"the same", *(f"rounding only: {part} of what is allowed" for part in PARTS)}
    assert len(words) > 1


PARTS = ("a small part", "a tenth", "a quarter", "a third", "half", "two thirds", "nearly all")


@pytest.mark.parametrize("width", [1300, PHONE["width"]])
def test_a_rungs_name_stays_on_one_line(page: Any, pages: Path, width: int) -> None:
    """Also next to a value with many digits."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((pages / "conv2d.html").as_uri())
    found = set()
    for cell in cells_of(page)["out"][::5]:
        hold(page, cell)
        found |= {(name, lines) for name, lines in page.evaluate(NAMES)}
    assert {lines for name, lines in found if not name.startswith("torch")} == {1}


def test_a_terms_number_stays_on_one_line_while_the_kernel_runs(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri())
    for _ in range(2):
        page.keyboard.press("n")
    page.locator('.player[data-array="out"]').get_by_role("slider").fill("6")
    page.locator('.player[data-array="out"]').get_by_role("button", name="Play").click()
    page.locator('.player[data-array="out"]').get_by_text("to the bit ✓").wait_for()
    found = page.evaluate(NAMES.replace("table.values", "table.adds-up tbody"))
    assert [number for number, lines in found if lines > 1] == []
    assert found[-1][0] == "28"


@pytest.mark.parametrize(
    ("name", "cell", "words"),
    [
        ("adaptive_avg_pool2d", "grad_x[0,0,0,0]", "the only term is"),
        ("conv2d", "out[0,0,0,0]", "the 28 add up to"),
        ("relu", "out[0,1,5,5]", "= 0"),
        ("max_pool2d", "grad_x[0,0,0,4]", "Nothing came here: 0"),
    ],
)
def test_words_agree_with_their_number(page: Any, pages: Path, name: str, cell: str, words: str) -> None:
    page.goto((pages / f"{name}.html").as_uri() + f"#{cell}")
    assert words in page.locator("#panel").text_content()


@pytest.mark.parametrize(
    ("name", "cell", "asked"),
    [("dropout", "out[0,1,4,4]", "mask[0,1,4,4] 1: is it 1?yes"), ("dropout", "out[0,1,0,6]", "mask[0,1,0,6] 0: is it 1?no")],
)
def test_a_condition_is_asked_in_the_cells_own_number(page: Any, pages: Path, name: str, cell: str, asked: str) -> None:
    page.goto((pages / f"{name}.html").as_uri() + f"#{cell}")
    assert page.locator("#panel .terms tr").all_text_contents() == [asked]


def test_padding_is_named(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri() + "#out[0,0,0,0]")
    terms = page.locator("#panel .adds-up td:nth-child(2)").all_text_contents()
    assert sum(term.startswith("padding 0 × weight[") for term in terms) == 15
    assert sum(term.startswith("x[0,") for term in terms) == 12
    hold(page, cells_of(page)["grad_weight"][0])
    terms = page.locator("#panel .adds-up td:nth-child(2)").all_text_contents()
    assert sum(term.endswith(" × padding 0") for term in terms) == 9
    page.locator('#rungs label:has([value="im2col"])').click()
    hold(page, cells_of(page)["columns"][0])
    assert page.locator("#panel .expr").text_content() == "padding 0"


@pytest.mark.parametrize(("height", "rows"), [(900, 12), (1600, 28)])
def test_a_list_of_terms_has_all_the_room_that_there_is(page: Any, pages: Path, height: int, rows: int) -> None:
    page.set_viewport_size({"width": 1280, "height": height})
    page.goto((pages / "conv2d.html").as_uri())
    for _ in range(rows):
        page.keyboard.press("n")
    terms = page.locator("#panel .terms")
    assert terms.locator("tbody tr").count() == rows
    assert terms.evaluate("(terms) => terms.scrollHeight <= terms.clientHeight")
    page.wait_for_function("!document.querySelector('#panel .terms.more')")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_index_stays_in_one_piece(page: Any, pages: Path, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    page.goto((pages / f"{name}.html").as_uri())
    for cells in cells_of(page).values():
        hold(page, cells[-1])
        assert page.evaluate(PIECES) == []


# Each "axis number" and the dot after it, where their letters are on more than one line.
PIECES = """() => [...document.querySelectorAll(".array figcaption > span, #panel .index, .plane > small")].flatMap((element) => {
    const text = element.firstChild;
    return [...(text?.data ?? "").matchAll(/\\S+\\s\\d+(\\s·)?/g)].filter((piece) => {
        const range = document.createRange();
        range.setStart(text, piece.index);
        range.setEnd(text, piece.index + piece[0].length);
        return new Set([...range.getClientRects()].map((line) => line.top)).size > 1;
    }).map((piece) => text.data);
})"""


def test_rows_that_are_hidden_below_the_foot_cast_a_shadow(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri())
    terms = page.locator("#panel .terms")
    shadow = "(terms) => getComputedStyle(terms.querySelector('tfoot td'), '::before').visibility"
    assert terms.evaluate("(terms) => terms.scrollHeight > terms.clientHeight")
    page.wait_for_function("document.querySelector('#panel .terms.more')")
    assert terms.evaluate(shadow) == "visible"
    terms.evaluate("(terms) => terms.scrollTo(0, terms.scrollHeight)")
    page.wait_for_function("!document.querySelector('#panel .terms.more')")
    assert terms.evaluate(shadow) == "hidden"


@pytest.mark.parametrize("name", ["conv2d", "relu", "max_pool2d", "adaptive_avg_pool2d", "dropout"])
def test_the_same_channels_are_side_by_side(page: Any, pages: Path, name: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto((pages / f"{name}.html").as_uri())
    for row in page.locator(".abreast").all():
        firsts = [array.locator(".plane").first for array in row.locator(".array").all()]
        assert len(firsts) > 1
        assert all(first.locator("small").text_content().endswith("C\u00a00") for first in firsts)
        assert len({first.bounding_box()["y"] for first in firsts}) == 1
        beyond = "(row) => [...row.children].filter((array) => array.scrollWidth > array.clientWidth).length"
        assert row.evaluate(beyond) == 0, "an array reaches into its neighbour"


def test_a_scale_that_is_not_around_zero_names_its_middle(page: Any, pages: Path) -> None:
    page.goto((pages / "local_response_norm.html").as_uri())
    ends = page.locator('[data-array="scale"] .extent').text_content()
    found = re.fullmatch(r"([\d.]+?)(\d\.\d+), middle ([\d.]+)", ends)
    assert found, ends
    low, high, middle = map(float, found.groups())
    assert low < middle < high
    assert "middle" not in page.locator('[data-array="out"] .extent').text_content()


NAMES = """() => [...document.querySelectorAll("#panel table.values td:first-child")].map((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return [cell.textContent, new Set([...range.getClientRects()].map((line) => line.top)).size];
})"""


def test_the_page_writes_the_command_for_ones_own(page: Any, pages: Path) -> None:
    page.goto((pages / "conv2d.html").as_uri())
    page.locator("#yours summary").click()
    page.get_by_label("--input").fill("my photo.jpg")
    page.get_by_label("--padding").fill("2")
    command = "python -m alexnet_from_scratch.xray conv2d --input 'my photo.jpg' --padding 2"
    assert page.locator("#command").text_content() == command


def test_the_page_writes_the_command_that_it_was_made_with(page: Any, tmp_path: Path) -> None:
    picture = tmp_path / "an image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 70, 3), np.uint8)).save(picture)
    made, again = tmp_path / "made.html", tmp_path / "again.html"
    main(["max_pool2d", "--input", str(picture), "--crop", "60", "40", "100", "--kernel", "2", "--ceil-mode", "--out", str(made)])
    page.goto(made.as_uri())
    command = page.locator("#command").text_content()
    assert command.startswith("python -m alexnet_from_scratch.xray max_pool2d --input")
    main([*shlex.split(command)[3:], "--out", str(again)])
    assert again.read_bytes() == made.read_bytes()
