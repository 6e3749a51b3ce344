"""The events of a run as a page: every kind and every field, read from the types.

``python -m tests.events_page`` writes ``architecture/events.md`` anew; a test holds the page against the source.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

from headgate.events import EVENTS, FIELDS

PAGE = Path(__file__).resolve().parents[1] / "architecture" / "events.md"

HEAD = """# events

What a run says while it goes on: values of `headgate.events`, each kind typed and frozen. This page is written from the
types by `python -m tests.events_page`.

```python
import headgate.observe

headgate.run(pipeline, rows, events="events.jsonl")  # one line of JSON per event, appended
headgate.run(pipeline, rows, events=print)  # or any function that takes an event
headgate.run(pipeline, rows, events=headgate.observe.event_log("warning"))  # or structlog
```

`events=` also takes a list of these, and `headgate.Engine(events=)` tells what happens in all its runs. A function is
called on the loop of the run, as things happen, and must not block. One that raises is let go, with an entry in the
log, and the run goes on. The file is written by a thread of its own: when 16,384 events wait for the disk, further ones
of level debug are dropped, counted, and said as `events_dropped`; whatever waits at the end is written before the
engine is left. The cells that a run leaves for a later one are told in turns of the loop, as fast as the disk takes
them; a disk that takes nothing for seconds loses them too, but no `run_ended`.

Restarts and deliveries are told by whoever makes them: `headgate.supervise(events=)` and `restart.Supervisor(events=)`
(what is asked, decided and done in a supervisor's process), `restart.RestartCoordinator(events=)` where there is no
supervisor, `outbox.Outbox(events=)`, each a function there.

On the command line `run`, `resume` and `supervise` take `--events FILE`. A supervisor appends to the file of its
lives what is asked, decided and done between them. What a process that was killed has left of a line is ended by
whoever writes next.

While nobody listens, no event is built: the parts of a run ask whether there is a `RunTeller`
(`src/engine/telling.py`), and there is none.

What ends is said once (V6): each cell, and each group task that was started, when its outcome is committed or the run
leaves it for a later one; each request; and the run, last. Where the store breaks, cells whose outcome it never
acknowledged have no end but that of the run.

A run that several engines share begins, stops and ends once in each of them. Its row groups are numbered through the
whole run, the same in each engine, and each ends in the one that did it; one that was lost to another engine, or is
left for it, ends here as `held`. What is said of resources is said for each part of the rows that an engine works on
at once.
"""


def page() -> str:
    """The whole page."""
    kinds = "".join(
        f"| `{one.kind}` | {one.level} | {' '.join((inspect.getdoc(one) or '').split())} | "
        f"{', '.join(f'`{field.name}`' for field in fields(one) if field.name not in ('at', 'run'))} |\n"
        for one in EVENTS
    ).replace("``", "`")
    meanings = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in sorted(FIELDS.items()))
    return (
        f"{HEAD}\n## Kinds\n\nEach has `at` and `run` too. The level is that of a log entry.\n\n"
        f"| kind | level | said when | fields |\n|---|---|---|---|\n{kinds}"
        f"\n## Fields\n\n| field | meaning |\n|---|---|\n{meanings}"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
