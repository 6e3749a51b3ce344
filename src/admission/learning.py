"""What the end of an attempt teaches the scopes that it passed.

Decides which limit a rejection was about and tells the laws, the cooldown and the rate limiters of its scopes, in the
order that they ask for. It neither admits nor wakes anybody.

A rejection is about the narrowest scope, unless the provider says that the whole account is meant; the wider scopes
learn nothing from it. Only capacity rejections (429, 529, overload as the provider marks it) move limits: timeouts
here or there, cancellations and 5xx never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from ..values import Feedback, LimitKind, Outcome, Usage
from .concurrency import AdaptiveConcurrency, Verdict
from .inference import Rejection, Stage, Suspect
from .rate_values import RateMode
from .values import REFUNDED, TOKENS_MAX, Lease

if TYPE_CHECKING:
    from ..values import RateWindow
    from .rate_values import RateStamp
    from .scope import Passage, Scope

__all__ = ["believable", "learn", "observe", "settle", "succeed"]

_UNWELL = frozenset({Outcome.PROVIDER_ERROR, Outcome.PROVIDER_TIMEOUT})

# Named once: looking up an enum's member is slow, and these are asked for every answer.
_REQUESTS = LimitKind.REQUESTS

EVIDENCE = 20
"""Requests that a scope must have seen accepted before an unlabelled rejection is taken for the measure of a rate: a
provider that rejects everything for its first seconds says nothing about its rate."""


def believable(usage: Usage | None) -> Usage | None:
    """``usage`` if it can be meant; what cannot was not reported."""
    if usage is None or (0 <= usage.input_tokens <= TOKENS_MAX and 0 <= usage.output_tokens <= TOKENS_MAX):
        return usage
    return None


def settle(lease: Lease, outcome: Outcome, usage: Usage | None, now: float, *, sent: bool) -> None:
    """Replace what ``lease`` reserved by what its attempt used (A7): a rejected attempt used nothing (T9)."""
    for passage in lease.passages:
        limiters = passage.scope.limiters
        for kind, stamp in passage.rates:
            actual = _used(kind, stamp, outcome, usage, sent=sent)
            if actual != stamp.cost:
                limiters[kind].settle(stamp, actual, now)
        if not sent:
            _forget(passage, lease, now)


def observe(lease: Lease, feedback: Feedback, now: float) -> None:
    """Correct the books of the narrowest scope by what a response stated (A8)."""
    passage = lease.passages[-1]
    for kind, window in _windows(feedback):
        stamp = _stamp(passage, kind)
        if window is None:
            if stamp is not None:
                passage.scope.limiters[kind].unstated(stamp, now)
            continue
        limiter = passage.scope.limiter(kind)
        if stamp is not None:  # else the limiter is new, and the next request will carry one
            limiter.observed(window, stamp, now)


def succeed(lease: Lease, now: float, usage: Usage | None, *, well: bool = True) -> None:
    """``learn`` for almost every attempt: it was answered, and the response stated nothing. ``well``: by a success."""
    for passage in lease.passages:
        scope, stamp = passage.scope, passage.stamp
        scope.accepted += 1
        if stamp is not None:
            law = scope.concurrency
            if law is not None:
                law.succeeded(stamp, now, (None if usage is None else usage.output_tokens) if well else 0)
                if scope.inference.armed:
                    scope.inference.accepted(stamp.others, stamp.sent_at)
        if passage.canary or scope.paused:
            _reopen(passage, lease, now, well=well)


def learn(
    lease: Lease, outcome: Outcome, feedback: Feedback | None, now: float, usage: Usage | None = None
) -> tuple[Scope, ...]:
    """Teach the scopes of ``lease`` how its attempt ended. Returns those whose cooldown may have changed."""
    if feedback is not None:
        observe(lease, feedback, now)
    match outcome:
        case Outcome.RATE_LIMITED | Outcome.OVERLOADED:
            hit = lease.passages[0 if feedback is not None and feedback.account_wide else -1]
            for passage in lease.passages:
                if passage is not hit:
                    _forget(passage, lease, now)
            _rejected(hit, lease, outcome, feedback or Feedback(), now)
            return (hit.scope,)
        case (
            Outcome.SUCCESS
            | Outcome.PROVIDER_ERROR
            | Outcome.PROVIDER_TIMEOUT
            | Outcome.REJECTED
            | Outcome.INVALID_OUTPUT
        ):
            succeed(lease, now, usage, well=outcome not in _UNWELL)
            return _hinted(lease, feedback, now)
        case Outcome.CONNECTION_ERROR | Outcome.CANCELLED | Outcome.LOCAL_TIMEOUT | Outcome.UNEXPECTED:
            for passage in lease.passages:
                _forget(passage, lease, now)
            return ()
        case _:
            assert_never(outcome)


def _reopen(passage: Passage, lease: Lease, now: float, *, well: bool) -> None:
    """The scope was closed, and the first have come through again."""
    scope, law = passage.scope, passage.scope.concurrency
    if passage.canary:
        # A canary that met a 500 or silence has shown nothing: the next one may go.
        if well:
            scope.cooldown.survived(now, lease.acquired_at)
        else:
            scope.cooldown.abandoned(now, lease.acquired_at)
    if scope.paused and well and lease.acquired_at >= scope.cooldown.blocked_until:
        scope.paused = False
        proven = [kind for kind, limiter in scope.limiters.items() if limiter.unblocked(now)]
        if proven and isinstance(law, AdaptiveConcurrency):
            law.advance(now, scope.in_flight, scope.parked > 0)
            law.retract(now, scope.inference.prove(proven[0]))


def _forget(passage: Passage, lease: Lease, now: float) -> None:
    """The attempt is evidence of nothing here."""
    scope = passage.scope
    if scope.concurrency is not None and passage.stamp is not None:
        scope.concurrency.abandoned(passage.stamp, now)
    if passage.canary:
        scope.cooldown.abandoned(now, lease.acquired_at)


def _rejected(passage: Passage, lease: Lease, outcome: Outcome, feedback: Feedback, now: float) -> None:
    scope, law, stamp = passage.scope, passage.scope.concurrency, passage.stamp
    cooldown, hint = scope.cooldown, feedback.retry_after_s
    kind, begins = _kind(passage, lease, outcome, feedback, now)
    rate = kind is not LimitKind.CONCURRENCY
    verdict: Verdict | None = None
    if rate:
        rate_stamp = _stamp(passage, kind)
        if rate_stamp is None:
            scope.limiter(kind).exhausted(now)  # the next request will carry a stamp of it
        elif feedback.kind is not None or scope.inference.stage is not Stage.NONE or scope.accepted >= EVIDENCE:
            scope.limiters[kind].rejected(rate_stamp, now, canary=passage.canary and not begins)
        if law is not None and stamp is not None:
            law.abandoned(stamp, now)
    elif law is not None and stamp is not None:
        verdict = law.rejected(stamp, now, hint)
        if feedback.kind is None:
            for limited, one in passage.rates:
                scope.limiters[limited].refused(one)
    if passage.canary:
        cooldown.rejected(now, lease.acquired_at, rate=rate, retry_after_s=hint)
    elif hint is not None and hint > 0:
        cooldown.hint(now, hint)
    elif rate or law is None:
        cooldown.rate_rejected(now, lease.acquired_at)
    elif verdict is Verdict.FALLING and law.wants_canary:
        cooldown.backoff(now, law.consecutive, rate=False)
    _pause(scope, now)


def _kind(passage: Passage, lease: Lease, outcome: Outcome, feedback: Feedback, now: float) -> tuple[LimitKind, bool]:
    """Which limit the rejection was about: what the provider says, else what its numbers say, else a guess.

    Also says whether the guess is a new one: then the rejection measures the rate, whatever it was sent for.
    """
    if feedback.kind is not None:
        return feedback.kind, False
    if outcome is Outcome.OVERLOADED:
        return LimitKind.CONCURRENCY, False
    for kind, window in _windows(feedback):
        if window is not None:
            stamp_of_it = _stamp(passage, kind)
            if window.remaining < (1.0 if stamp_of_it is None else stamp_of_it.cost):
                return kind, False
    scope, stamp = passage.scope, passage.stamp
    if stamp is None or not isinstance(scope.concurrency, AdaptiveConcurrency):
        return LimitKind.REQUESTS, False
    inference, transit, news = scope.inference, 0.0, True
    requests = _stamp(passage, LimitKind.REQUESTS)
    if requests is not None:
        limiter = scope.limiters[LimitKind.REQUESTS]
        transit = limiter.per_s(requests) * (now - stamp.sent_at)
        news = limiter.accepted_since(inference.rejected_at, requests)
    # Who asks for a pause hardly means slots: nobody knows when one gets free.
    shared = feedback.retry_after_s is None and scope.concurrency.snapshot(now).contended
    rejection = Rejection(stamp.others, stamp.sent_at, transit, news, shared)
    judgement = inference.judge(rejection, _suspects(passage, lease, feedback, now), now)
    if judgement.retract_since is not None:
        scope.concurrency.retract(now, judgement.retract_since)
    if judgement.dropped is not None:
        scope.limiters[judgement.dropped].retract(now)
    return judgement.kind, judgement.retract_since is not None


def _suspects(passage: Passage, lease: Lease, feedback: Feedback, now: float) -> list[Suspect]:
    """The rates that a rejection may be about: all but those of which the provider says that enough is left."""
    scope = passage.scope
    excluded = {kind for kind, window in _windows(feedback) if window is not None}
    suspects: list[Suspect] = []
    if lease.request.input_tokens or lease.request.output_tokens:
        scope.limiter(LimitKind.TOKENS)  # to be counted from now on
        if _stamp(passage, LimitKind.TOKENS) is None:
            suspects.append(Suspect(LimitKind.TOKENS, record=True, probing=False, spent=0.0, cost=0.0))
    for kind, stamp in passage.rates:
        if kind not in excluded:
            limiter = scope.limiters[kind]
            record = limiter.record(stamp, scope.inference.since)
            probing, known = limiter.mode is RateMode.PROBE, limiter.mode is not RateMode.OPEN
            suspects.append(Suspect(kind, record, probing, limiter.spent(stamp), limiter.grain(stamp), known))
    return suspects


def _windows(feedback: Feedback) -> tuple[tuple[LimitKind, RateWindow | None], ...]:
    return (
        (LimitKind.REQUESTS, feedback.requests),
        (LimitKind.INPUT_TOKENS, feedback.input_tokens),
        (LimitKind.OUTPUT_TOKENS, feedback.output_tokens),
        (LimitKind.TOKENS, feedback.tokens),
    )


def _hinted(lease: Lease, feedback: Feedback | None, now: float) -> tuple[Scope, ...]:
    """A response that is no rejection may still ask for a pause (503 with Retry-After is one by its outcome)."""
    if feedback is None or not feedback.retry_after_s:
        return ()
    scope = lease.passages[-1].scope
    scope.cooldown.hint(now, feedback.retry_after_s)
    _pause(scope, now)
    return (scope,)


def _pause(scope: Scope, now: float) -> None:
    """No burst credit accumulates while the scope is blocked. For how long somebody outside blocks it says nothing."""
    until = scope.cooldown.own_until
    if until > now:
        scope.paused = True
        for limiter in scope.limiters.values():
            limiter.blocked(now, until)


def _used(kind: LimitKind, stamp: RateStamp, outcome: Outcome, usage: Usage | None, *, sent: bool) -> float:
    if not sent:
        return 0.0
    if kind is _REQUESTS:
        return 0.0 if outcome in (Outcome.RATE_LIMITED, Outcome.OVERLOADED) else stamp.cost
    if usage is None:
        return 0.0 if outcome in REFUNDED else stamp.cost
    if kind is LimitKind.INPUT_TOKENS:
        return float(usage.input_tokens)
    if kind is LimitKind.OUTPUT_TOKENS:
        return float(usage.output_tokens)
    return float(usage.input_tokens + usage.output_tokens)


def _stamp(passage: Passage, kind: LimitKind) -> RateStamp | None:
    return next((stamp for found, stamp in passage.rates if found is kind), None)
