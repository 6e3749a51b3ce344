"""The outbox that programs use: sends, waits and keeps what :mod:`headgate.outbox.core` decides.

One task takes what the core says and starts an attempt for each; an attempt reports back and wakes it. An item is added
once it is durable, and has ended once that is durable too: a process that is killed in between sends it again.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from contextlib import AsyncExitStack
from math import inf
from typing import TYPE_CHECKING, Self, TypeVar, cast

import anyio

from ..errors import HeadgateError, ResultCorrupt, StoreError, only_error
from ..events import DeliveryDeadLettered, DeliveryPostponed, DeliverySent
from ..events.sinks import Ear
from ..log import logger
from ..values import writable
from ..wakeup import Wakeup, is_leaked
from .core import Ask, OutboxCore, Send
from .ports import DeliveryFailed, Reconciled
from .values import Answer, Item, OutboxOptions, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from ..events import EventSink
    from ..values import Rng
    from .ports import Deliveries, Sender

__all__ = ["Outbox"]

T = TypeVar("T")


_RECORDS_PER_SLOT = 4
"""So many answers for each slot may wait for the store; then nothing more is sent until it is back."""

_STORE_PAUSE_S = 0.5
"""How long after a store that did not answer it is asked again; its own errors say nothing about when."""


class Outbox:
    """Tells receivers what is finished, each at least once, in this life of the process or in a later one.

    ::

        async with Outbox(SqliteDeliveries("outbox.db"), HttpSender(client)) as outbox:
            async for row in run.rows():
                body = json.dumps({"id": row.id, **row.values}).encode()
                await outbox.add(key_of(run.name, row.id, body), "https://gateway/done", body)
            await outbox.drained()

    ``deliveries`` keeps the items, ``sender`` talks to the receivers, ``clock`` gives wall-clock seconds. What an
    earlier life left undelivered goes on when the block is entered. Leaving the block gives what is in flight
    ``grace_s``; the rest stays with ``deliveries``, which is closed. Raises StoreError if ``deliveries`` cannot go on.
    ``events`` is told what was sent, what was not, and what never will be: see :mod:`headgate.events`.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        sender: Sender,
        *,
        options: OutboxOptions | None = None,
        clock: Callable[[], float] = time.time,
        rng: Rng | None = None,
        events: EventSink | None = None,
    ) -> None:
        self._deliveries = deliveries
        self._sender = sender
        self._options = options or OutboxOptions()
        self._clock = clock
        self._core = OutboxCore(self._options, rng or random.Random())
        self._ear = Ear(events)
        self._wakeup = Wakeup()
        self._stack = AsyncExitStack()
        self._busy = 0
        self._adding = 0
        self._wanting: OrderedDict[anyio.Event, None] = OrderedDict()  # who waits for a place
        self._promised = 0  # places that those have been told of, and have not taken yet
        self._entered = self._leaving = False
        self._idle = anyio.Event()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            await self._restore()
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.push_async_exit(self._wind_up)
            self._tasks.start_soon(self._pump)
            self._stack = stack.pop_all()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            broken = only_error(group)
        raise broken  # here, with the cause that it has, and not because of the group

    async def _wind_up(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Begin nothing more; what is in flight gets its time, unless something broke. Then its tasks are ended."""
        self._leaving = True
        self._wakeup.set()
        try:
            if error is None:
                with anyio.move_on_after(self._options.grace_s):
                    while self._busy:
                        await self._idle.wait()
        finally:
            self._tasks.cancel_scope.cancel()
            self._let_in()
            self._idle.set()  # who waits for the end of what will not be sent any more is told

    async def add(
        self, key: str, destination: str, body: bytes, *, receiver: str | None = None, run: str | None = None
    ) -> bool:
        """Take ``body`` for ``destination``; durable on return. False if ``key`` was taken before, in any life.

        Waits while ``most_waiting`` items have not come to their end; who came first is let in first. ``receiver`` is
        the incarnation of the receiver that waits for it, where the request said so; ``run`` the run whose results the
        receiver will come for. Raises StoreError: then it was not taken; and HeadgateError outside of the block.
        """
        self._check_inside()
        await self._room()
        self._adding += 1
        try:
            self._check_inside()
            item = Item(key, destination, self._clock(), receiver, run)
            # Cancelled in between, it would be kept and never sent: adding it again says that it is there already.
            with anyio.CancelScope(shield=True):
                if not await self._deliveries.add(item, body):
                    return False
                self._core.add(item)
        finally:
            self._adding -= 1
            self._stir()
        self._wakeup.set()
        return True

    async def drained(self) -> None:
        """Return once everything that was added has come to its end, and that is durable.

        Raises HeadgateError if the block is left before that: the rest is for another life.
        """
        while len(self._core) or self._busy:
            self._check_inside()
            await self._idle.wait()

    async def _room(self) -> None:
        """Wait for a place, first come first served. Each end tells as many as there is room for, not all who wait."""
        if not self._wanting and self._places() > 0:
            return
        turn = anyio.Event()
        self._wanting[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # in this very tick: somebody else has the place
                self._promised -= 1
                self._let_in()
            else:
                del self._wanting[turn]
            raise
        self._promised -= 1

    def _places(self) -> int:
        return self._options.most_waiting - len(self._core) - self._adding - self._promised

    def _let_in(self) -> None:
        while self._wanting and (self._leaving or self._places() > 0):
            turn, _ = self._wanting.popitem(last=False)
            self._promised += 1
            turn.set()

    def __len__(self) -> int:
        """How many items have not come to their end."""
        return len(self._core)

    async def _restore(self) -> None:
        now, wall = anyio.current_time(), self._clock()
        for kept in await self._deliveries.load():
            # Wall clocks jump: no wait is longer than the longest pause.
            wait_s = min(max(0.0, kept.not_before - wall), self._options.longest_pause_s)
            self._core.restore(kept.item, now, attempts=kept.attempts, wait_s=wait_s)

    async def _pump(self) -> None:
        while not self._leaving:
            # What was answered holds no slot while it is being recorded: a store that is away must not pile it up.
            room = self._busy < _RECORDS_PER_SLOT * self._options.slots
            for one in self._core.take(anyio.current_time()) if room else ():
                self._busy += 1
                self._tasks.start_soon(self._attend, one)
            await self._wakeup.wait(self._core.next_tick(anyio.current_time()) if room else inf)

    async def _attend(self, one: Send | Ask) -> None:
        try:
            await (self._send(one) if isinstance(one, Send) else self._ask(one))
        finally:
            self._busy -= 1
            self._stir()
            self._wakeup.set()

    def _stir(self) -> None:
        """Tell those for whom there is room now, and those who wait for the end."""
        self._let_in()
        self._idle.set()
        self._idle = anyio.Event()

    async def _send(self, send: Send) -> None:
        key, destination = send.item.key, send.item.destination
        body = await self._body(send.item)
        if body is None:
            return
        reply = await self._attempt(destination, lambda: self._told(send, body))
        now = anyio.current_time()
        if reply is None:
            self._core.failed(key, now)
        elif (ended := self._core.answered(key, reply, now)) is not None:
            self._wakeup.set()
            await self._patiently(lambda: self._deliveries.end([(key, ended, reply.message)]))
            if ended is Answer.ACK:
                self._say_sent(send)
            else:
                self._say_dead(send.item.run, key, destination, ended, reply.message)
            return
        waits = self._core.waits(key, now)
        self._wakeup.set()
        if self._ear:
            why = "not reached" if reply is None else reply.message or "not now"
            run, attempts = send.item.run or "", waits.attempts
            self._ear.say(DeliveryPostponed(self._clock(), run, key, destination, attempts, why, waits.wait_s))
        not_before = self._clock() + waits.wait_s
        await self._patiently(lambda: self._deliveries.postpone(key, waits.attempts, not_before, waits.receiver))

    def _say_sent(self, send: Send) -> None:
        if self._ear:
            item = send.item
            self._ear.say(DeliverySent(self._clock(), item.run or "", item.key, item.destination, send.attempt))

    def _say_dead(self, run: str | None, key: str, destination: str, answer: Answer, message: str) -> None:
        if self._ear:
            self._ear.say(DeliveryDeadLettered(self._clock(), run or "", key, destination, answer.value, message))

    async def _body(self, item: Item) -> bytes | None:
        """What is to be sent; None if there is nothing to send, however often it is tried."""
        key = item.key
        try:
            body = await self._patiently(lambda: self._deliveries.body(key))
        except ResultCorrupt as error:
            logger().exception("outbox_body_damaged", key=key)
            self._core.withdrawn(key)
            ended = [(key, Answer.REJECTED, str(error))]
            await self._patiently(lambda: self._deliveries.end(ended))
            self._say_dead(item.run, key, item.destination, Answer.REJECTED, str(error))
            return None
        if body is None:
            self._core.withdrawn(key)
        return body

    async def _ask(self, ask: Ask) -> None:
        found = await self._attempt(ask.destination, lambda: self._known(ask))
        if found is None:
            self._core.not_reconciled(ask.destination, anyio.current_time())
            return
        runs = {key: self._core.run_of(key) for key in ask.keys} if self._ear else {}
        gone = self._core.reconciled(ask.destination, found.known, found.receiver)
        self._wakeup.set()
        if gone:
            why = "the receiver restarted and does not know it any more"
            ended = [(key, Answer.GONE, why) for key in gone]
            await self._patiently(lambda: self._deliveries.end(ended))
            for key in gone:
                self._say_dead(runs.get(key), key, ask.destination, Answer.GONE, why)

    # What a sender says is looked at inside of its attempt: nonsense is its fault, as what it raises is.

    async def _told(self, send: Send, body: bytes) -> Reply:
        reply = cast("object", await self._sender.deliver(send.item, body, send.attempt))
        if not isinstance(reply, Reply):
            raise TypeError(f"deliver() gave {reply!r}, which is no Reply")
        return reply

    async def _known(self, ask: Ask) -> Reconciled:
        known, receiver = await self._sender.reconcile(ask.destination, ask.keys)
        return Reconciled(frozenset(known), None if receiver is None else writable(receiver))

    async def _attempt(self, destination: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """What ``call`` returns; None, and a word about it, if it fails or takes too long."""
        try:
            with anyio.fail_after(self._options.timeout_s):
                return await call()
        except (DeliveryFailed, TimeoutError) as error:
            logger().debug("delivery_failed", destination=destination, error=str(error) or "it took too long")
        except BaseException as error:
            # A sender's fault is no reason to lose an item, or to stop those that it can send.
            if not isinstance(error, Exception) and not is_leaked(error):
                raise
            logger().exception("sender_broken", destination=destination)
        return None

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` returns, as soon as the store is there to do it. Raises what no waiting cures."""
        while True:
            try:
                return await call()
            except StoreError as error:
                if not error.retryable:
                    raise
                logger().warning("outbox_store_unavailable", error=str(error))
            except BaseException as error:
                if is_leaked(error):
                    raise StoreError("the store awaited something that was cancelled by somebody else") from error
                raise
            await anyio.sleep(_STORE_PAUSE_S)

    def _check_inside(self) -> None:
        if self._leaving or not self._entered:
            raise HeadgateError("the outbox is not open: use it inside of 'async with Outbox(...) as outbox'")

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._deliveries.aclose()
