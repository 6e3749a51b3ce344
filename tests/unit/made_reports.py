"""Reports made by hand: many resources, failures with hostile texts, lives, nothing at all."""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import replace

from headgate.reports import ResourceFigures, RunFigures, StoredReport
from headgate.reports.histogram import BOUNDS_S, BUCKETS
from headgate.reports.timeline import ABSENT
from headgate.storage.overview import ColumnOverview, FailedCell, RunOverview
from headgate.storage.ports import Durability, RunInfo
from headgate.values import Usage

HOSTILE = (
    "</script><script>document.title='broken in'</script>",
    "<img src=x onerror=\"document.title='broken in'\">",
    "\" onmouseover='document.title=1' x=\"",
    "<!--<b>&amp;{}${} ' \u2028 \U0001f4a5",
    "javascript:alert(1)",
    "@bad",
    "__proto__",
)
BEGAN = 1_700_000_000.0


def made_figures(
    resources: int = 2, *, points: int = 200, seconds: float = 5400.0, names: str = "acme/model"
) -> RunFigures:
    """A run of so many resources that was resumed once, and shot down for a while."""
    rng = random.Random(resources)
    times = [seconds * place / max(1, points - 1) for place in range(points)]
    found = {f"{names}-{place}": _resource(rng, times, place) for place in range(resources)}
    return RunFigures(
        version=1,
        run="made",
        created_at=BEGAN,
        saved_at=BEGAN + seconds + 86_400.0,
        seconds=seconds,
        interval_s=25.6,
        lives=[(0.0, BEGAN), (seconds * 0.6, BEGAN + 86_400.0)],
        models={f"column {place}": f"{names}-{place}" for place in range(resources)},
        times=times,
        rows=[float(int(4 * at)) for at in times],
        cells=[float(int(12 * at)) for at in times],
        resources=found,
    )


def made_overview(columns: int = 3, failures: int = 0, *, status: str = "completed", listed: int = 1000) -> RunOverview:
    """A run of 10,000 rows, of which the first ones failed for hostile reasons."""
    names = [f"column {place}" for place in range(columns)]
    info = RunInfo("made", 2, dict.fromkeys(names, "1"), status, 10_000, BEGAN, BEGAN + 90_000, Durability.HOST)
    cells = [
        FailedCell(row, f"id-{row}", names[row % columns], f"reason {row % 4}", HOSTILE[row % len(HOSTILE)], 3, 400)
        for row in range(failures)
    ]
    counts: dict[tuple[str, str], int] = {}
    for cell in cells:
        counts[cell.column, cell.reason] = counts.get((cell.column, cell.reason), 0) + 1
    return RunOverview(
        info=info if status != "running" else replace(info, finished_at=None),
        whole=10_000 - failures,
        failed=failures,
        held=0,
        pending=0,
        columns=tuple(
            ColumnOverview(name, 10_000 - failures, failures, 0, 0, 0, Usage(90_000 * place, 30_000 * place))
            for place, name in enumerate(names)
        ),
        failure_counts=counts,
        failures=tuple(cells[:listed]),
        next_at=None,
        last_at=BEGAN + 89_000,
    )


def made_report(resources: int = 2, failures: int = 0, status: str = "completed") -> StoredReport:
    """A report of both."""
    return StoredReport(made_overview(max(1, resources), failures, status=status), made_figures(resources))


def hostile_report() -> StoredReport:
    """One in which every text that comes from outside is hostile."""
    plain = made_overview(len(HOSTILE), 14, status="held")
    columns = tuple(replace(one, column=text) for one, text in zip(plain.columns, HOSTILE, strict=True))
    counts = {(text, text): 2 for text in HOSTILE}
    cells = tuple(
        replace(cell, row_id=text, column=text, reason=text)
        for cell, text in zip(plain.failures, HOSTILE * 2, strict=True)
    )
    info = replace(plain.info, run=HOSTILE[0], status=HOSTILE[1])
    overview = replace(plain, info=info, columns=columns, failure_counts=counts, failures=cells)
    figures = made_figures(len(HOSTILE))
    named = dict(zip(HOSTILE, figures.resources.values(), strict=True))
    told = figures.model_copy(update={"resources": named, "models": {text: text for text in HOSTILE}})
    return StoredReport(overview, told, costs=dict.fromkeys(HOSTILE, 1.5), currency=HOSTILE[1])


def _resource(rng: random.Random, times: list[float], place: int) -> ResourceFigures:
    limit = [ABSENT if place == 1 else 4.0 + min(28, at / 20) - (12 if 2000 < at < 2600 else 0) for at in times]
    in_flight = [max(0.0, float(round((one if one > 0 else 20) - rng.random() * 6))) for one in limit]
    ended = [float(int(at * (8 - place % 7))) for at in times]
    refused = [float(int(at / 30) if place % 3 == 0 else 0) for at in times]
    held = [float(max(0, int((at - 2000) / 4))) if 2000 < at < 2600 and place % 2 == 0 else 0.0 for at in times]
    latencies = [0] * BUCKETS
    for _ in range(2000):
        latencies[bisect_left(BOUNDS_S, rng.lognormvariate(0.3 + place / 5, 0.6))] += 1
    used = times[-1] if times else 0.0
    return ResourceFigures(
        outcomes={"success": int(ended[-1]) if ended else 0, "rate_limited": int(refused[-1]) if refused else 0},
        input_tokens=1_200_000 * (place + 1),
        output_tokens=350_000 * (place + 1),
        peak=33,
        busy_s=used * 20,
        queued_s=used * 3,
        limit_s=used * 26,
        limited_s=used if place != 1 else 0.0,
        seconds={
            "provider latency": used * 0.3,
            "concurrency limit": used * 0.45,
            "cooldown": used * 0.1,
            "held back": used * 0.05,
            "no ready work": used * 0.1,
        },
        latencies=latencies,
        limit=limit,
        in_flight=in_flight,
        held=held,
        rate_limited=refused,
        ended=ended,
    )
