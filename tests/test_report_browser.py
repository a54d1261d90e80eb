"""The page of `lmscale report` in headless Chromium: no error, marks say what tables say, any width, print."""

import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmscale.cli import main

SCRIPT = Path(__file__).parent / "engines" / "chromium.sh"
QUICKSTART = Path(__file__).parents[1] / "experiments" / "results" / "quickstart"
DRAWN = "document.documentElement.dataset.drawn"
HOVERED = """([name, curve, point]) => {
    const plot = document.getElementById(name);
    Plotly.Fx.hover(plot, [{curveNumber: curve, pointNumber: point}]);
    return Array.from(plot.querySelectorAll(".hoverlayer .hovertext tspan.line")).map(each => each.textContent);
}"""
TABLE = """name => Array.from(document.querySelectorAll(`#${name} tbody tr`)).map(
    row => Array.from(row.cells).map(cell => cell.textContent))"""
MARKS = """() => Array.from(document.querySelectorAll(".js-plotly-plot")).flatMap(
    plot => plot.data.flatMap((trace, i) => (trace.text && trace.text.length) ?
        [[plot.id, i, 0], [plot.id, i, trace.text.length - 1]] : []))"""


@pytest.fixture(scope="module")
def chromium(without_engine, tmp_path_factory) -> Iterator[Any]:
    if find_spec("playwright") is None:
        without_engine("chromium", "the package playwright is not installed; pip install playwright")
    done = subprocess.run([SCRIPT, tmp_path_factory.mktemp("chromium")], capture_output=True, text=True)
    if done.returncode:
        without_engine("chromium", done.stderr.strip())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=done.stdout.strip(), args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(QUICKSTART), "-o", str(path), "--bootstrap", "60"]) == 0
    return path


@pytest.fixture(scope="module")
def opened(chromium, file):
    """The page with every figure drawn, and what its console said; every request beside the file itself is refused."""
    page, said = chromium.new_page(viewport={"width": 1400, "height": 900}), []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url == file.as_uri() else said.append(request.url[:100]))
    page.goto(file.as_uri(), timeout=120_000)
    page.wait_for_function(DRAWN, timeout=120_000)
    return page, said


def test_nothing_fails_and_nothing_is_fetched(opened):
    page, said = opened
    assert [line for line in said if not line.startswith(("data:", "blob:"))] == []
    assert page.locator(".plot .main-svg").count() >= page.locator(".plot").count() >= 6


def test_marks_say_what_the_tables_say(opened):
    page, _ = opened
    marks = page.evaluate(MARKS)
    assert len(marks) >= 10
    for name, curve, point in marks:
        lines = page.evaluate(HOVERED, [name, curve, point])
        cells = [line.partition(": ")[2] for line in lines]
        rows = page.evaluate(TABLE, name.removeprefix("plot-")) + page.evaluate(TABLE, "runs")
        assert lines
        assert any(cells == [cell for cell in row if cell] for row in rows), (name, cells)


def test_the_pointer_finds_a_mark(opened):
    page, _ = opened
    point = page.locator("#plot-residuals .points path.point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    found = page.locator("#plot-residuals .hoverlayer .hovertext").first
    found.wait_for(timeout=60_000)
    assert "residual" in (found.text_content() or "")


@pytest.mark.parametrize("width", [400, 1400])
def test_any_width_shows_all(opened, width):
    page, _ = opened
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(
        "width => Array.from(document.querySelectorAll('.plot .main-svg')).every("
        "svg => svg.getBoundingClientRect().right <= width)", arg=width, timeout=60_000)  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("Math.min(...Array.from(document.querySelectorAll('.plot')).map(p => p.clientWidth))") > 330
    smallest = "Math.min(...Array.from(document.querySelectorAll('td, p, .plot text')).map("
    assert page.evaluate(smallest + "each => parseFloat(getComputedStyle(each).fontSize)))") >= 10


def test_print_holds_every_figure(opened, tmp_path):
    page, _ = opened
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    widths = page.evaluate("Array.from(document.querySelectorAll('.plot .main-svg')).map(s => s.clientWidth)")
    assert max(widths) <= 680  # pixels between the margins of A4
    assert page.evaluate("document.querySelectorAll('section:not(#runs) > details:not([open])').length") == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
