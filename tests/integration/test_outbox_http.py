"""Completions over real HTTP: a real client, and a receiver in another process that fails, hangs and is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest

from headgate.outbox import Answer, HttpSender, Item, MemoryDeliveries, Outbox, OutboxOptions, SqliteDeliveries
from headgate.storage import Durability
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

QUICK = OutboxOptions(first_pause_s=0.02, longest_pause_s=0.1, timeout_s=0.5, grace_s=0.2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ReceiverProcess:
    """The receiver, which can be killed and started again on the same port."""

    def __init__(self, exits: ExitStack) -> None:
        self._exits = exits
        self.boots = 0
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/done"

    def start(self) -> None:
        self.boots += 1
        script = Path(__file__).with_name("receiver_child.py")
        command = [sys.executable, str(script), f"boot {self.boots}", str(self.port)]
        child = WarmChild(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.child = self._exits.enter_context(child)
        self._exits.callback(child.kill)
        assert child.stdout is not None
        self.port = json.loads(child.stdout.readline())

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def control(self, **how: Any) -> None:
        httpx2.post(f"http://127.0.0.1:{self.port}/control", json=how).raise_for_status()

    def got(self) -> list[tuple[str, str, str]]:
        said = httpx2.get(f"http://127.0.0.1:{self.port}/control").raise_for_status().json()
        return [(key, attempt, body) for key, attempt, body in said]


@pytest.fixture
def receiver() -> Iterator[ReceiverProcess]:
    with ExitStack() as exits:
        yield ReceiverProcess(exits)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=30) as made:
        yield made


async def deliver(client: httpx2.AsyncClient, url: str, *, within_s: float = 20.0) -> tuple[Answer, str]:
    """Deliver one item to its end."""
    deliveries = MemoryDeliveries()
    async with Outbox(deliveries, HttpSender(client), options=QUICK) as outbox:
        assert await outbox.add("doc 1", url, b'{"done": 1}')
        with anyio.fail_after(within_s):
            await outbox.drained()
    return deliveries.ended["doc 1"]


async def test_a_completion_is_posted_under_its_key(client: httpx2.AsyncClient, receiver: ReceiverProcess) -> None:
    assert await deliver(client, receiver.url) == (Answer.ACK, "")
    assert receiver.got() == [("doc 1", "1", '{"done": 1}')]


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("läufe/müller 1/ab12", "l%C3%A4ufe/m%C3%BCller%201/ab12"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil:%201"),
        ("100%", "100%25"),
        (" a", "%20a"),
        ("", ""),
    ],
)
async def test_rows_may_be_called_as_their_user_likes(
    client: httpx2.AsyncClient, receiver: ReceiverProcess, key: str, sent: str
) -> None:
    """What a header cannot hold is delivered too, and known again when the receiver is asked about it."""
    sender = HttpSender(client)
    assert (await sender.deliver(Item(key, receiver.url, 0.0), b"", 1)).answer is Answer.ACK
    receiver.control(known=[sent])
    known, _ = await sender.reconcile(receiver.url, [key, "another ü"])
    assert list(known) == [key]
    assert receiver.got()[0][0] == sent


@pytest.mark.parametrize(
    "said",
    [
        *("²", "9" * 400, "-1", "soon", "Mon, 01 Jan 99999 00:00:00 GMT"),
        *("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 -99999999999999"),
    ],
)
async def test_a_retry_after_that_makes_no_sense_changes_no_answer(said: str) -> None:
    """Whatever the header says, what was taken is taken, and what is to come later does not wait for ever."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={b"Retry-After": said.encode("latin-1")}))
    async with httpx2.AsyncClient(transport=transport) as client:
        reply = await HttpSender(client).deliver(Item("doc 1", "http://receiver.example/done", 0.0), b"", 1)
    assert (reply.answer, reply.after_s) == (Answer.ACK, None)


@pytest.mark.parametrize(
    ("status", "answer"),
    [(201, Answer.ACK), (404, Answer.GONE), (410, Answer.GONE), (400, Answer.REJECTED), (301, Answer.REJECTED)],
)
async def test_what_an_answer_means(
    client: httpx2.AsyncClient, receiver: ReceiverProcess, status: int, answer: Answer
) -> None:
    receiver.control(status=status)
    ended, said = await deliver(client, receiver.url)
    assert ended is answer
    assert said == ("" if answer is Answer.ACK else f"{status} as you like")


async def one_attempt_noted(deliveries: MemoryDeliveries) -> None:
    while not any(kept.attempts for kept in await deliveries.load()):  # noqa: ASYNC110 - nobody announces it
        await anyio.sleep(0.01)


@pytest.mark.parametrize("how", [{"status": 500}, {"status": 503}, {"status": 429}, {"hang": True}])
async def test_what_cannot_be_taken_now_is_sent_again(
    client: httpx2.AsyncClient, receiver: ReceiverProcess, how: dict[str, Any]
) -> None:
    receiver.control(**how)
    deliveries = MemoryDeliveries()
    async with Outbox(deliveries, HttpSender(client), options=QUICK) as outbox:
        await outbox.add("doc 1", receiver.url, b"{}")
        await one_attempt_noted(deliveries)
        assert deliveries.ended == {}
        receiver.control(status=200, hang=False)
        with anyio.fail_after(20):
            await outbox.drained()
    assert deliveries.ended == {"doc 1": (Answer.ACK, "")}
    assert int(receiver.got()[-1][1]) >= 2


@pytest.mark.parametrize("in_words", [False, True])
async def test_retry_after_is_kept(client: httpx2.AsyncClient, receiver: ReceiverProcess, in_words: bool) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True) if in_words else "120"
    receiver.control(status=429, headers={"Retry-After": later})
    deliveries = MemoryDeliveries()
    async with Outbox(deliveries, HttpSender(client), options=QUICK) as outbox:
        await outbox.add("doc 1", receiver.url, b"{}")
        await one_attempt_noted(deliveries)
        await anyio.sleep(4 * QUICK.longest_pause_s)
    assert len(receiver.got()) == 1
    (kept,) = await deliveries.load()
    assert 90 < kept.not_before - kept.item.created_at < 125


@pytest.mark.parametrize("durable", [False, True])
async def test_t47_a_receiver_that_was_killed_and_forgot_is_asked_once_about_all(
    client: httpx2.AsyncClient, receiver: ReceiverProcess, durable: bool, tmp_path: Path
) -> None:
    """T47: a thousand stale completions neither block a fresh one nor are they sent one by one."""
    file = SqliteDeliveries(tmp_path / "outbox.db", durability=Durability.PROCESS)
    memory = MemoryDeliveries()
    async with Outbox(file if durable else memory, HttpSender(client), options=QUICK) as outbox:
        receiver.kill()
        for number in range(1_000):
            await outbox.add(f"old {number}", receiver.url, b"{}", receiver="boot 1")
        await anyio.sleep(0.3)
        receiver.start()
        receiver.control(known=["old 7", "fresh"])
        assert await outbox.add("fresh", receiver.url, b"{}", receiver="boot 2")
        with anyio.fail_after(20):
            await outbox.drained()
        keys = ["fresh", *(f"old {number}" for number in range(1_000))]
        told = {key: await file.outcome(key) for key in keys} if durable else dict(memory.ended)
    ended = {key: found[0] for key, found in told.items() if found is not None}
    assert {key for key, answer in ended.items() if answer is Answer.ACK} == {"old 7", "fresh"}
    assert sum(answer is Answer.GONE for answer in ended.values()) == 999
    got = receiver.got()
    assert sum(body == "reconcile" for _, _, body in got) == 2, "500 at once"
    assert len(got) < 2 + 2 + QUICK.slots


@pytest.mark.parametrize("body", [b"[]", b"no json", b'{"known": 1}'])
async def test_a_reconcile_answer_that_makes_no_sense_ends_nothing(body: bytes) -> None:
    class Client:
        async def post(self, url: str, *, content: bytes, headers: dict[str, str]) -> httpx2.Response:
            return httpx2.Response(200, content=body)

    sender = HttpSender(Client())
    with pytest.raises(Exception, match=r"http://gone/reconcile did not answer with"):
        await sender.reconcile("http://gone/", ["a"])
    assert (await HttpSender(Client(), reconcile_url=None).reconcile("http://gone/", ["a"])).known == ["a"]
