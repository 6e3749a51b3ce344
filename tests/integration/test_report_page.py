"""The page of a report in a real browser: no error on its console, charts drawn at any width, in light and dark."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from headgate.reports import as_html
from tests.integration.browser import CHROMIUM, Page, chromium, page_of
from tests.unit.made_reports import hostile_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt install chromium")

PICTURES = os.environ.get("HEADGATE_PICTURES")
"""A directory to put pictures of the page into, for somebody to look at."""

DRAWN = """[...document.querySelectorAll("[data-chart]")].map((place) => {
    const box = place.getBoundingClientRect(), svg = place.querySelector(".main-svg");
    const out = [...place.querySelectorAll(".legendtext, .annotation-text, .xtick text")].filter((text) => {
        const it = text.getBoundingClientRect();
        return it.left < box.left - 1 || it.right > box.right + 1 || it.bottom > box.bottom + 1;
    });
    const seen = !place.closest("details:not([open])");
    return {seen, traces: seen ? place.querySelectorAll(".trace, .bars").length : 0, size: svg && svg.clientWidth,
            out: out.map((text) => text.textContent), background: svg && getComputedStyle(svg).backgroundColor};
})"""


CUT = """[...document.querySelectorAll(".tiles > div")].filter((one) => one.scrollWidth > one.clientWidth)
    .map((one) => one.textContent)"""


async def look_at(page: Page, width: int, *, dark: bool) -> list[str]:
    """Check the page as it is seen so; return the colours that its charts stand on."""
    await page.look(width, dark=dark)
    await page.value("new Promise((done) => setTimeout(done, 600))")  # plotly.js waits before it draws anew
    assert await page.value("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert await page.value(CUT) == [], "no number is cut off"
    charts = await page.value(DRAWN)
    seen = [chart for chart in charts if chart["seen"]]
    assert len(seen) == len(charts) - 3, "three resources are folded"
    assert all(chart["traces"] > 0 for chart in seen)
    assert all(0 < chart["size"] <= width for chart in seen)
    assert [chart["out"] for chart in seen] == [[]] * len(seen)
    if PICTURES:
        picture = Path(PICTURES) / f"report_{width}{'_dark' if dark else ''}.png"
        picture.write_bytes(await page.picture())
    return [chart["background"] for chart in seen]


async def look_around(browser: str, file: Path) -> None:
    async with page_of(browser) as page:
        await page.look(1280)
        await page.open(file.as_uri())
        light = await look_at(page, 1280, dark=False)
        await look_at(page, 390, dark=False)
        dark = await look_at(page, 390, dark=True)
        assert set(light).isdisjoint(dark)

        await page.value("document.querySelectorAll('details')[6].open = true")
        await page.value("new Promise((done) => setTimeout(done, 300))")
        assert (await page.value(DRAWN))[7]["traces"] > 0, "it is drawn once it is unfolded"

        left = "[...document.querySelectorAll('#ledger tbody tr')].filter((row) => row.offsetHeight).length"
        assert await page.value(left) == 14
        search = "document.getElementById('search')"
        await page.value(f"{search}.value = 'ONERROR title'; {search}.dispatchEvent(new Event('input'))")
        assert (await page.value(left), await page.value("found.textContent")) == (2, "2 of 14")
        await page.value("cause.selectedIndex = 1; cause.dispatchEvent(new Event('change'))")
        assert await page.value(left) == 0

        assert await page.value("document.title") != "broken in", "nothing from outside was run"
        assert page.said == []
        assert page.asked == [file.as_uri()], "it opens offline"


def test_a_page_is_drawn_at_any_width_in_light_and_dark(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(as_html(hostile_report()), encoding="utf-8")
    with chromium() as browser:
        anyio.run(look_around, browser, file)
