"""Deliveries in a SQLite file: killed lives, files that are damaged, full or somebody else's, two owners."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

import anyio
import pytest

from headgate.errors import ConfigError, PayloadTooLarge, ResultCorrupt, SchemaMismatch, StoreFull
from headgate.outbox import Answer, DeliveryFailed, Item, Outbox, OutboxOptions, Reconciled, Reply, SqliteDeliveries
from headgate.storage import Durability, SqliteStore
from tests.integration.outbox_crash import play

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
QUICK = OutboxOptions(first_pause_s=0.02, longest_pause_s=0.1, trips_after=1000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Receiver:
    """Takes all, or is away."""

    away: bool = False
    got: list[str] = field(default_factory=list[str])

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        if self.away:
            raise DeliveryFailed("away")
        self.got.append(f"{item.key}={body.decode()}")
        return Reply(Answer.ACK)

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        return Reconciled(keys)


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


async def filled(path: Path, count: int = 3) -> None:
    deliveries = SqliteDeliveries(path, durability=Durability.PROCESS)
    for number in range(count):
        assert await deliveries.add(Item(f"{number}", "north", 1.5, None, "run"), b"body %d" % number)
    await deliveries.aclose()


async def test_half_a_surrogate_pair_is_written_out_and_told_once(tmp_path: Path) -> None:
    """No encoding takes it: adding it raised what no caller expects, where a store in memory took it."""
    key, receiver = "run/row\ud800/1", Receiver()
    for added in (True, False):
        deliveries = SqliteDeliveries(tmp_path / "outbox.db")
        async with Outbox(deliveries, receiver, options=QUICK) as outbox:
            assert await outbox.add(key, "north\udfff", b"done", receiver="boot\ud800", run="r\ud800") is added
            await outbox.drained()
            assert await deliveries.outcome(key) == (Answer.ACK, "")
            assert await deliveries.outcome(r"run/row\ud800/1") == (Answer.ACK, "")
    assert receiver.got == [r"run/row\ud800/1=done"]


def test_d1_outboxes_and_receivers_are_killed_and_everybody_is_told() -> None:
    """D1, T51: kill -9 of either at random instants, or a stop, a take-over and going on."""
    report = play(60 if THOROUGH else 3, Random(1))
    assert (report["lost"], report["stops"] >= 1, report["receiver_kills"] >= 1) == (0, True, True)
    assert report["acknowledged"] > 50


async def test_t51_a_refused_item_is_not_there(tmp_path: Path) -> None:
    """T51: no room is an error of ``add``, which may be tried again; what was acknowledged is delivered (D9)."""
    path = tmp_path / "o.db"
    deliveries = SqliteDeliveries(path, max_bytes=200_000)
    taken: list[str] = []

    async def add_for_ever() -> None:
        while await deliveries.add(Item(f"{len(taken)}", "north", 0.0), b"x" * 10_000):
            taken.append(f"{len(taken)}")

    with pytest.raises(StoreFull) as caught:
        await add_for_ever()
    assert caught.value.retryable
    assert [kept.item.key for kept in await deliveries.load()] == taken
    await deliveries.end([(key, Answer.GONE, "") for key in taken[:9]])
    assert await deliveries.add(Item("later", "north", 0.0), b"x" * 10_000), "an end frees the local copy"
    await deliveries.aclose()


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    deliveries = SqliteDeliveries(tmp_path / "o.db", max_body=10)
    with pytest.raises(PayloadTooLarge, match="11 bytes"):
        await deliveries.add(Item("a", "north", 0.0), b"x" * 11)
    assert await deliveries.add(Item("a", "north", 0.0), b"x" * 10)
    await deliveries.aclose()


async def test_attempts_and_times_survive_and_so_does_the_order(tmp_path: Path) -> None:
    """V4: an item that was to wait waits on in the next life, and counts its attempts on."""
    path, receiver = tmp_path / "o.db", Receiver(away=True)
    slow = OutboxOptions(first_pause_s=60.0)
    first = SqliteDeliveries(path)
    async with Outbox(first, receiver, options=slow) as outbox:
        for key in "cab":
            await outbox.add(key, "north", key.encode())
        while not all(one.attempts for one in await first.load()):  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.01)
    deliveries = SqliteDeliveries(path)
    kept = await deliveries.load()
    assert [one.item.key for one in kept] == ["c", "a", "b"]
    assert all(one.attempts == 1 and one.not_before > one.item.created_at + 30 for one in kept)
    receiver.away = False
    async with Outbox(deliveries, receiver, options=slow):
        await anyio.sleep(0.2)
    assert receiver.got == []


async def test_two_outboxes_share_a_file(tmp_path: Path) -> None:
    """What one has brought to its end is not sent by the other, which ends all the same."""
    path, away, well = tmp_path / "o.db", Receiver(away=True), Receiver()
    with anyio.fail_after(20):
        async with Outbox(SqliteDeliveries(path), away, options=QUICK) as first:
            for number in range(30):
                await first.add(f"{number}", "north", b"")
            async with Outbox(SqliteDeliveries(path), well, options=QUICK) as second:
                await second.drained()
                assert not await first.add("3", "north", b"")
            away.away = False
            await first.drained()
    assert sorted(well.got) == sorted(f"{number}=" for number in range(30))
    assert away.got == []


async def test_t54_an_item_is_intact_whatever_characters_this_python_knows(tmp_path: Path) -> None:
    """What repr() gives for the first of these differs between Python 3.11 and 3.12: each called the items of the other
    damaged, and never sent them.
    """
    path = tmp_path / "o.db"
    deliveries = SqliteDeliveries(path)
    assert await deliveries.add(Item("\U0001fae8 \u00e9", "north", 1.5, None, "run"), b"")
    await deliveries.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT checksum FROM item").fetchone() == (3_855_559_708,)


async def test_an_outbox_of_before_is_delivered(tmp_path: Path) -> None:
    """Its checksums were of what repr() gives."""
    path, receiver = tmp_path / "o.db", Receiver()
    deliveries = SqliteDeliveries(path)
    assert await deliveries.add(Item("\u00e9", "north", 1.5, None, "run"), b"")
    await deliveries.aclose()
    checksum = crc32(repr(("\u00e9", "north", None, "run", 0, (1.5, 0.0))).encode())
    change(path, f"UPDATE item SET checksum = {checksum}")
    async with Outbox(SqliteDeliveries(path), receiver, options=QUICK) as outbox:
        with anyio.fail_after(20):
            await outbox.drained()
    assert receiver.got == ["\u00e9="]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE body SET data = CAST('body 2' AS BLOB) WHERE item = 2",
        "UPDATE body SET item = 9 WHERE item = 2",
        "UPDATE item SET destination = 'south' WHERE key = '1'",
        "UPDATE item SET attempts = 7 WHERE key = '1'",
    ],
)
async def test_t45_a_damaged_item_is_never_sent_and_holds_nobody_up(tmp_path: Path, damage: str) -> None:
    """T45: it ends as rejected, with what is wrong; the others are delivered."""
    path, receiver = tmp_path / "o.db", Receiver()
    await filled(path)
    change(path, "PRAGMA foreign_keys = OFF", damage)
    deliveries = SqliteDeliveries(path)
    async with Outbox(deliveries, receiver, options=QUICK) as outbox:
        with anyio.fail_after(20):
            await outbox.drained()
        answer, said = await deliveries.outcome("1") or (None, "")
    assert answer is Answer.REJECTED
    assert "checksum" in said or "damaged" in said or "missing" in said
    assert sorted(receiver.got) == ["0=body 0", "2=body 2"]


async def test_t45_a_damaged_file_is_named_and_final(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    await filled(path, 200)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    deliveries = SqliteDeliveries(path)
    with pytest.raises(ResultCorrupt, match=r"\.recover") as caught:
        async with Outbox(deliveries, Receiver()):
            pass
    assert not caught.value.retryable


async def test_a_file_that_is_another_is_refused_and_left_alone(tmp_path: Path) -> None:
    store, outbox = SqliteStore(tmp_path / "s.db"), SqliteDeliveries(tmp_path / "o.db")
    await store.probe()
    await outbox.load()
    await store.aclose()
    await outbox.aclose()
    before = files(tmp_path)
    wrong_outbox, wrong_store = SqliteDeliveries(tmp_path / "s.db"), SqliteStore(tmp_path / "o.db")
    with pytest.raises(SchemaMismatch, match="not a headgate outbox: use another path"):
        await wrong_outbox.load()
    with pytest.raises(SchemaMismatch, match="not a headgate store: use another path"):
        await wrong_store.probe()
    await wrong_outbox.aclose()
    await wrong_store.aclose()
    assert files(tmp_path) == before
    change(tmp_path / "o.db", "PRAGMA user_version = 2")
    newer = SqliteDeliveries(tmp_path / "o.db")
    with pytest.raises(SchemaMismatch, match="upgrade headgate"):
        await newer.load()
    await newer.aclose()


async def test_keys_are_forgotten_when_they_are_old(tmp_path: Path) -> None:
    """What bounds the file: never the key of what is still to be sent."""
    now = 1000.0
    deliveries = SqliteDeliveries(tmp_path / "o.db", durability=Durability.PROCESS, clock=lambda: now)
    ended = [(f"{number}", Answer.ACK, "") for number in range(1_200)]
    await deliveries.end(ended)
    now += 60
    assert await deliveries.add(Item("waits", "north", 0.0), b"")
    await deliveries.end([("young", Answer.ACK, "")])
    assert await deliveries.sweep(keep_s=61) == 0
    assert await deliveries.sweep(keep_s=60) == 1_200
    assert await deliveries.outcome("0") is None
    assert await deliveries.outcome("young") == (Answer.ACK, "")
    assert not await deliveries.add(Item("waits", "north", 0.0), b"")
    with pytest.raises(ConfigError, match="keep_s"):
        await deliveries.sweep(keep_s=-1)
    await deliveries.aclose()


async def test_adding_waits_while_too_much_waits(tmp_path: Path) -> None:
    """Whoever adds is slowed down to the pace of the receivers, instead of filling memory and disk."""
    receiver = Receiver(away=True)
    options = OutboxOptions(first_pause_s=0.02, longest_pause_s=0.1, trips_after=1000, most_waiting=5)
    async with Outbox(SqliteDeliveries(tmp_path / "o.db"), receiver, options=options) as outbox:

        async def add(number: int) -> None:
            await outbox.add(f"{number}", "north", b"")

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(add, number)
            while len(outbox) < 5:  # noqa: ASYNC110 - the outbox has no event for it
                await anyio.sleep(0.01)
            await anyio.sleep(0.2)
            assert len(outbox) == 5
            receiver.away = False
        await outbox.drained()
    assert len(receiver.got) == 40


def test_a_durability_that_a_file_cannot_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replicated"):
        SqliteDeliveries(tmp_path / "o.db", durability=Durability.REPLICATED)
