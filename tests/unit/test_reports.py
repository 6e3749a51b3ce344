"""Reports: the same content as a page, as Markdown and as data; nothing from outside is taken for HTML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from headgate.engine.meter import Pace
from headgate.errors import ConfigError
from headgate.reports import StoredReport, as_html, as_json, as_markdown, charts, read_report
from headgate.reports import page as page_module
from headgate.reports.glance import glance
from headgate.reports.reading import LEDGER_MAX
from headgate.reports.sections import body
from headgate.reports.tables import columns
from headgate.reports.wording import duration, money, one_line, plain, shortened
from headgate.storage import Batch, CellRecord, CellStatus, MemoryStore, RowRecord, SharedState
from tests.unit.made_reports import HOSTILE, hostile_report, made_figures, made_overview, made_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headgate.reports.charts import Chart

OF_THE_PAGE = {
    *("header", "h1", "h2", "h3", "p", "span", "br", "dl", "div", "dt", "dd", "small", "section", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "input", "select", "option", "output", "code", "a"),
}


class Seen(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, value in attrs if (name, (value or "")[:1]) != ("href", "#")}

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def test_nothing_from_outside_becomes_html() -> None:
    drawn: list[Chart] = []
    seen = Seen(body(hostile_report(), drawn))
    assert set(seen.elements) <= OF_THE_PAGE
    assert not {name for name in seen.attributes if name.startswith("on") or name in ("src", "href")}
    text = "".join(seen.text)
    for one in HOSTILE:
        assert one in text, "shown as it is"
    for chart in drawn:
        for said in texts(chart):
            assert "<" not in said, "plotly.js reads HTML in texts"


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        parts = [one for name, one in cast("dict[str, Any]", value).items() if name != "hovertemplate"]
    else:
        parts = cast("list[Any]", value if isinstance(value, list) else [])  # type: ignore[redundant-cast]
    return [text for one in parts for text in texts(one)]


def test_a_page_is_one_file_whose_policy_names_its_two_scripts() -> None:
    page = as_html(hostile_report())
    head, scripts = page[: page.index("<main>")], page[page.index("</main>") :]
    assert scripts.split("<script>", 1)[0].count("<script") == 1, "the data ends where it should"
    assert len(re.findall(r"'sha256-[^']{44}'", head)) == 2
    assert "default-src 'none'" in head
    assert "unsafe-inline" not in head.split("script-src")[1].split(";")[0]
    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=\"(?!data:)", page[: page.index("<script>")])


def test_the_data_of_the_charts_survives_the_page() -> None:
    report = hostile_report()
    page = as_html(report)
    told = page.split('id="charts">', 1)[1].split("</script>", 1)[0]
    drawn: list[Chart] = []
    body(report, drawn)
    assert "<" not in told, "no element of the page ends or begins in it"
    assert "<extra>" in json.dumps(json.loads(told))
    assert len(json.loads(told)) == len(drawn)
    assert set(re.findall(r'data-chart="(\d+)"', page)) == {str(place) for place in range(len(drawn))}


@pytest.mark.parametrize(("resources", "points"), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 200), (20, 256)])
def test_every_size_of_a_run_has_a_page(resources: int, points: int) -> None:
    figures = made_figures(resources, points=points, seconds=0.0 if points < 2 else 5.0)
    drawn: list[Chart] = []
    page = body(StoredReport(made_overview(1), figures), drawn)
    assert page.count("data-chart=") == len(drawn)
    assert page.count("<details") == resources
    assert page.count("<details open") == min(resources, 4)
    assert ("Too short to be drawn." in page) == (points < 2)


def test_what_set_the_pace_adds_up_whatever_it_is_called() -> None:
    """Each reason that there is has a colour of its own; one of a later version is drawn too."""
    figures = made_figures(1)
    (name, one), *_ = figures.resources.items()
    seconds = {**{pace.value: 1.0 for pace in Pace}, "something new": 1.0}
    chart = charts.pace(figures.model_copy(update={"resources": {name: one.model_copy(update={"seconds": seconds})}}))
    assert chart is not None
    assert sum(trace["x"][0] for trace in chart["data"]) == pytest.approx(100)
    colours = {trace["name"]: trace["marker"]["color"] for trace in chart["data"]}
    assert len({colours[pace.value] for pace in Pace}) == len(Pace)


def test_a_run_without_figures_says_so() -> None:
    page = body(StoredReport(made_overview(2, 0, status="running"), None), [])
    assert "kept no figures" in page
    assert "running, or killed and not resumed" in page
    assert "No cell failed." in page


def test_a_ledger_is_bounded_and_says_so() -> None:
    report = made_report(2, LEDGER_MAX + 5)
    page, markdown, data = body(report, []), as_markdown(report), json.loads(as_json(report))
    assert page.count("<tr data-cause=") == LEDGER_MAX
    assert "1\u202f005 cells failed." in page
    assert "The first 1\u202f000 of them" in page
    assert "The first 100 of 1\u202f005" in markdown
    assert (data["failed_cells"], len(data["failures"])) == (LEDGER_MAX + 5, LEDGER_MAX)
    assert "The first" not in body(made_report(2, 7), [])


def test_a_ledger_is_read_up_to_its_bound() -> None:
    """However many cells failed: memory holds the first, and all are counted."""
    store, most = MemoryStore(), LEDGER_MAX + 5

    async def fail() -> None:
        handle = await store.open_run("r", {"a": "1"})
        rows = tuple(RowRecord(row, f"id{row}", b"d", b"{}") for row in range(most))
        cells = tuple(CellRecord(row, "a", CellStatus.FAILED, None, "bug", "no") for row in range(most))
        await handle.commit(Batch(rows=rows, cells=cells))

    anyio.run(fail)
    report = read_report(store, "r")
    assert (report.failed_cells, len(report.overview.failures)) == (most, LEDGER_MAX)


def test_a_report_says_first_what_set_the_pace_what_failed_what_is_left_and_what_it_cost() -> None:
    figures = made_figures(2)
    busy, idle = figures.resources.values()
    paced = {"request limit": 70.0, "cooldown": 20.0, "store": 0.1, "no ready work": 9.9}
    resources = {
        "acme/slow": busy.model_copy(update={"seconds": paced}),
        "acme/dead": idle.model_copy(update={"seconds": {"held back": 80.0, "concurrency limit": 20.0}}),
    }
    report = replace(
        made_report(2, failures=3, status="held"),
        figures=figures.model_copy(update={"resources": resources}),
        costs={"a": 3.0, "b": 1.0},
    )
    overview = replace(report.overview, failed=2, held=1, pending=4, failure_counts={("a", "rejected"): 3})
    told = [f"{one.what}: {one.told}" for one in glance(replace(report, overview=overview))]
    assert told == [
        "Pace: acme/slow set it: request limit 70\u202f%, cooldown 20\u202f% of its time.",
        "Held back: acme/dead had nothing but held-back tasks for 80\u202f% of its time.",
        "Failed: 3 cells of 2 rows: a rejected (3).",
        "Left: 5 rows are not finished; resume the run to go on.",
        "Cost: 4.00 USD: a 75\u202f%, b 25\u202f%.",
    ]
    held_too = replace(report, overview=replace(overview, failed=0))
    assert [one.told for one in glance(held_too) if one.what == "Failed"] == ["3 cells: a rejected (3)."]
    assert "- cost: 4.00 USD: a 75 %, b 25 %." in as_markdown(replace(report, overview=overview))
    waits = figures.model_copy(
        update={"resources": {"m": busy.model_copy(update={"seconds": {"provider latency": 9}})}}
    )
    calm = replace(report, figures=waits, costs={}, overview=replace(overview, held=0, pending=0, failure_counts={}))
    assert [one.told for one in glance(calm)] == [
        "No limit did for most of the time: answers took as long as they took, or rows came no faster.",
        "No cell.",
    ]
    idle = busy.model_copy(update={"seconds": {"no ready work": 9}, "outcomes": {}})
    nothing = replace(calm, figures=figures.model_copy(update={"resources": {"m": idle}}))
    assert next(glance(nothing)).told == "No request was made."


def test_a_small_cost_is_told_in_every_place() -> None:
    report = replace(made_report(2), costs={"column 0": 0.00009})
    assert [one.told for one in glance(report) if one.what == "Cost"] == ["0.00009 USD."]
    assert "0.00009 <small>USD</small>" in body(report, [])
    assert columns(report).rows[0][-1] == "0.00009"


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        *((0, "0.00"), (0.5, "0.50"), (0.006, "0.006"), (0.0061349, "0.00613"), (9e-05, "0.00009"), (1e-300, "0.00")),
        *((0.09996, "0.10"), (0.9994, "0.999"), (0.9996, "1.00"), (1.239, "1.24"), (12_345.678, "12,345.68")),
    ],
)
def test_money_has_digits_that_say_something(amount: float, told: str) -> None:
    assert money(amount) == told


@pytest.mark.parametrize("make", [hostile_report, partial(made_report, 0), partial(made_report, 20, 5)])
def test_what_is_said_first_leads_to_a_place_of_the_page(make: Callable[[], StoredReport]) -> None:
    html = body(make(), [])
    assert set(re.findall(r'href="#(\w+)"', html)) <= set(re.findall(r'<section id="(\w+)"', html))


def test_costs_have_a_column_where_they_are_known() -> None:
    report = replace(made_report(2), costs={"column 0": 1.25})
    page, markdown = body(report, []), as_markdown(report)
    assert "cost, USD" in page
    assert "1.25 <small>USD</small>" in page
    assert "| unknown |" in markdown
    told = [row[-1] for row in columns(replace(made_report(3), costs={"column 1": 1.25})).rows]
    assert told == ["\u2013", "1.25", "unknown"]
    assert [one["cost"] for one in json.loads(as_json(report))["columns"]] == [1.25, None]
    assert "cost" not in as_markdown(made_report(2)).lower()


def test_markdown_and_data_hold_what_the_page_draws() -> None:
    report = made_report(2, 3)
    markdown, data = as_markdown(report), json.loads(as_json(report))
    for heading in ("Columns", "Requests", "Limits and load", "Where the time went", "Failures"):
        assert f"\n## {heading}\n" in markdown
    assert "\n| id-0 | column 0 | reason 0 | &lt;/script>&lt;script>" in markdown
    figures: Mapping[str, object] = data["figures"]
    assert len(data["figures"]["times_s"]) == 200
    (first, second) = data["figures"]["resources"]
    assert (first["resource"], first["requests"]) == ("acme/model-0", 43380)
    assert set(second["samples"]["limit"]) == {None}, "there was no limit"
    assert first["latency_s"]["p50"] < first["latency_s"]["p99"]
    assert figures["lives"][1]["began_s"] == 3240.0  # type: ignore[index]


def test_nothing_from_outside_is_taken_for_markdown() -> None:
    report = made_report(1)
    said = r"*a* _b_ `c` [d](e) ~~f~~ <g> | \ &amp; #1"
    info = replace(report.overview.info, run=said)
    heading = as_markdown(replace(report, overview=replace(report.overview, info=info))).splitlines()[0]
    assert heading.startswith(r"# Run \*a\* \_b\_ \`c\` \[d\](e) \~\~f\~\~ &lt;g> \| \\ &amp;amp; #1: ")


def test_without_plotly_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(page_module, "import_module", missing)
    with pytest.raises(ConfigError, match=r"headgate\[report\]"):
        as_html(made_report())


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "\u2013"), (0.0, "0 s"), (0.0123, "12.3 ms"), (0.5, "0.5 s"), (59.9, "59.9 s"), (59.97, "1 min"),
     (3599.9, "1 h"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min"), (90_000.0, "1 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_long_names_lose_their_middle() -> None:
    name = "openrouter/meta-llama/" + "x" * 40 + "-405b"
    assert len(shortened(name, 30)) == 30
    assert shortened(name, 30).startswith("openrouter/")
    assert shortened(name, 30).endswith("-405b")
    assert shortened("acme/small") == "acme/small"


def test_a_terminal_shows_what_it_would_obey() -> None:
    assert plain("a\x1b[2Jb\x7f\x9b\u202ec \u00e9 \U0001f469\u200d\U0001f4bb") == (
        "a\\x1b[2Jb\\x7f\\x9b\\u202ec \u00e9 \U0001f469\u200d\U0001f4bb"
    )
    assert one_line("a\n\tb\x00") == "a b\\x00"


def test_a_shared_run_is_left_only_once_nobody_works_on_it() -> None:
    """While somebody does, what is not finished is no reason to resume it."""
    seen = replace(made_overview(2, 0, status="running"), pending=3)
    told = {
        claimed: body(StoredReport(replace(seen, shared=SharedState(4, 1, claimed, None)), None), [])
        for claimed in (0, 2)
    }
    assert "shared: 1 of 4 row groups complete, 2 in hand" in told[2]
    assert "not ended, and nobody works on it" in told[0]
    assert "shared: 1 of 4 row groups complete, nobody works on it" in told[0]
    assert ["resume the run" in told[claimed] for claimed in (0, 2)] == [True, False]
    data = json.loads(as_json(StoredReport(replace(seen, shared=SharedState(4, 1, 2, None)), None)))
    assert data["shared"] == {"groups": 4, "complete": 1, "claimed": 2, "left_at": None}
