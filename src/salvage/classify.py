"""Which kind of failure an exception is: a chain of questions, each answered by structure and never by free
text.

In order: the user's own classifier; headgate's own errors, also where a client wrapped them; what the
exception carries (status, codes, headers); what class it is; then the same for what it was raised from. A group
is what its worst member is. Whatever nobody knows is a bug in the column, with its traceback. Cancellation and
other bare ``BaseException``s are nobody's failure and must not be given.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ..admission.headers import parse_feedback
from ..errors import AdmissionDenied, AdmissionTimeout, ProviderTimeout
from ..values import Feedback, said_by, writable
from .dialects import CLASSES, CODES, DECISIVE, LIMITS, TRANSPORT_ROOTS, of_status
from .evidence import Evidence, examine
from .history import MESSAGE_CHARS
from .kinds import FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import UnionType

__all__ = ["Classifier", "CustomClassifier", "Failure", "message_of"]

_MAX_LINKS: Final = 16
_MAX_NESTING: Final = 4
_MAX_MEMBERS: Final = 64
_TRACEBACK_CHARS: Final = 8_000

_WORST_FIRST: Final = (
    FailureKind.BUG,
    FailureKind.UNAUTHORIZED,
    FailureKind.QUOTA_EXHAUSTED,
    FailureKind.ADMISSION_DENIED,
    FailureKind.REJECTED,
    FailureKind.INVALID_OUTPUT,
    FailureKind.PROVIDER_ERROR,
    FailureKind.CONNECTION_ERROR,
    FailureKind.PROVIDER_TIMEOUT,
    FailureKind.OVERLOADED,
    FailureKind.RATE_LIMITED,
    FailureKind.ADMISSION_TIMEOUT,
)
"""What is cured least by waiting comes first: of several failures at once, that one decides."""

_BY_NAME: Final = {str(kind): kind for kind in _WORST_FIRST}
_NO_FAILURE: Final = "the classifier gave a Failure with a field of another type than it says"

# Raised while another error was handled, these are mistakes of the code that handled it.
_MISTAKES: Final = (
    TypeError,
    AttributeError,
    NameError,
    LookupError,
    ImportError,
    AssertionError,
    ArithmeticError,
)
_LOCAL_FILES: Final = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, classified. ``error_type`` is the full name of the exception's class.

    ``feedback`` is what the response's headers said, None if there were none. ``traceback`` is kept for bugs
    only.
    """

    kind: FailureKind
    message: str = ""
    status: int | None = None
    feedback: Feedback | None = None
    error_type: str = ""
    traceback: str | None = None


CustomClassifier = Callable[[BaseException], FailureKind | Failure | None]


class Classifier:
    """Classifies exceptions. ``custom`` is asked first, about the exception as it was raised; None passes it
    on."""

    __slots__ = ("_custom",)

    def __init__(self, custom: CustomClassifier | None = None) -> None:
        self._custom = custom

    def classify(self, exc: BaseException, *, wall_now: float) -> Failure:
        """Return the failure. ``wall_now`` is wall-clock seconds, for headers that state dates.

        Raises nothing for an :class:`Exception`; anything else breaks the contract.
        """
        assert isinstance(exc, Exception), f"{type(exc).__name__} is not a failure"
        if self._custom is None:
            return _known(exc, wall_now) or _bug(exc)
        try:
            verdict = self._custom(exc)
        except Exception as broken:
            return _bug(broken, "the classifier raised: ")
        if verdict is None:
            return _known(exc, wall_now) or _bug(exc)
        kind = _shown(verdict.kind if isinstance(verdict, Failure) else verdict)
        if kind is None:
            said = verdict.kind if isinstance(verdict, Failure) else verdict
            return _bug(exc, f"the classifier said {message_of(said)!r}, which no single error can show: ")
        if isinstance(verdict, Failure):
            if not _is_whole(verdict):
                return _bug(exc, f"{_NO_FAILURE}: ")
            told = None if verdict.traceback is None else writable(verdict.traceback)
            return replace(verdict, kind=kind, message=writable(verdict.message), traceback=told)
        source = next((link for link in _links(exc) if examine(link).status is not None), exc)
        return _failure(source, kind, examine(source), wall_now)


def _shown(said: object) -> FailureKind | None:
    """The kind that a classifier named, also as plain text; None if no single error can show that."""
    return _BY_NAME.get(said) if isinstance(said, str) else None


def _is_whole(verdict: Failure) -> bool:
    """Whether every field of a classifier's own failure is what it must be: others would fail far from here."""
    typed: tuple[tuple[object, type | UnionType], ...] = (
        (verdict.message, str),
        (verdict.status, int | None),
        (verdict.feedback, Feedback | None),
        (verdict.error_type, str),
        (verdict.traceback, str | None),
    )
    return all(isinstance(value, kind) for value, kind in typed)


def _known(exc: BaseException, wall_now: float, path: frozenset[int] = frozenset()) -> Failure | None:
    """Return what the exception or one of its causes is known to be. ``path``: the groups that led here."""
    refused = _refused(exc)
    if refused is not None:
        return _failure(refused, _own_error(refused) or FailureKind.BUG, examine(refused), wall_now)
    for link in _links(exc):
        if isinstance(link, BaseExceptionGroup):
            if id(link) in path or len(path) >= _MAX_NESTING:
                return None
            return _worst(link, wall_now, path | {id(link)})
        evidence = examine(link)
        kind = _own_error(link) or _by_evidence(evidence, wall_now) or _by_class(link)
        if kind is not None:
            return _failure(link, kind, evidence, wall_now)
    return None


def _worst(group: BaseExceptionGroup[Exception], wall_now: float, path: frozenset[int]) -> Failure | None:
    # Fewer members the deeper the group: the whole stays small, however groups are nested.
    members = group.exceptions[: _MAX_MEMBERS >> (2 * (len(path) - 1))]
    verdicts = [_known(member, wall_now, path) or _bug(member) for member in members]
    return min(verdicts, key=lambda failure: _WORST_FIRST.index(failure.kind), default=None)


def _refused(exc: BaseException) -> Exception | None:
    """headgate's own refusal that ``exc`` was expressly raised from: an SDK may make a connection error of whatever
    its HTTP client raises, but nothing went out (T11)."""
    link: BaseException | None = exc
    for _ in range(_MAX_LINKS):
        if isinstance(link, (AdmissionTimeout, AdmissionDenied)):
            return link
        link = None if link is None else link.__cause__
    return None


def _own_error(exc: BaseException) -> FailureKind | None:
    if isinstance(exc, AdmissionTimeout):
        return FailureKind.ADMISSION_TIMEOUT
    if isinstance(exc, AdmissionDenied):
        return FailureKind.ADMISSION_DENIED
    return FailureKind.PROVIDER_TIMEOUT if isinstance(exc, ProviderTimeout) else None


def _by_evidence(evidence: Evidence, wall_now: float) -> FailureKind | None:
    status = evidence.status
    decisive = {DECISIVE[code] for code in evidence.codes if code in DECISIVE}
    if decisive:
        # An empty account is often also called rate-limited ("type": "rate_limit_error", "code": ...).
        return min(decisive, key=_WORST_FIRST.index)
    kind = None if status is None else of_status(status)
    if kind is not None:
        if status == 503 and _retry_after(evidence, wall_now):
            return FailureKind.RATE_LIMITED
        return kind
    spoken = {CODES[code] for code in evidence.codes if code in CODES}
    return min(spoken, key=_WORST_FIRST.index) if spoken else None


def _retry_after(evidence: Evidence, wall_now: float) -> bool:
    return parse_feedback(evidence.headers, wall_now=wall_now).retry_after_s is not None


def _by_class(exc: BaseException) -> FailureKind | None:
    transport = False
    for cls in type(exc).__mro__:
        root = cls.__module__.partition(".")[0]
        known = CLASSES.get((root, cls.__name__))
        if known is not None:
            return known
        transport = transport or root in TRANSPORT_ROOTS
    if isinstance(exc, TimeoutError):
        return FailureKind.PROVIDER_TIMEOUT
    if transport or (isinstance(exc, (OSError, EOFError)) and not isinstance(exc, _LOCAL_FILES)):
        return FailureKind.CONNECTION_ERROR
    return None


def _links(exc: BaseException) -> Iterator[Exception]:
    """Yield the exception and what it was raised from, nearest first, each once, and never very many."""
    link: BaseException | None = exc
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(seen) < _MAX_LINKS:
        seen.add(id(link))
        if isinstance(link, Exception):
            yield link
        if link.__cause__ is not None:
            link = link.__cause__
        elif link.__suppress_context__ or isinstance(link, _MISTAKES):
            return
        else:
            link = link.__context__


def _failure(exc: BaseException, kind: FailureKind, evidence: Evidence, wall_now: float) -> Failure:
    if kind is FailureKind.BUG:
        return _bug(exc)
    feedback = None
    if evidence.headers:
        feedback = parse_feedback(evidence.headers, wall_now=wall_now, status=evidence.status)
    if kind is FailureKind.RATE_LIMITED:
        feedback = _labelled(feedback, evidence)
    return Failure(kind, message_of(exc), evidence.status, feedback, _name(exc))


def _labelled(feedback: Feedback | None, evidence: Evidence) -> Feedback | None:
    """``feedback`` with the limit that the body names, unless the headers say which."""
    named = {LIMITS[code] for code in evidence.codes if code in LIMITS}
    if len(named) != 1 or (feedback is not None and feedback.kind is not None):
        return feedback
    return replace(feedback or Feedback(), kind=named.pop())


def _bug(exc: BaseException, prefix: str = "") -> Failure:
    lines = traceback.format_exception(exc, limit=30)
    message = (prefix + message_of(exc))[:MESSAGE_CHARS]
    return Failure(FailureKind.BUG, message, None, None, _name(exc), writable("".join(lines)[-_TRACEBACK_CHARS:]))


def message_of(said: object) -> str:
    """What ``said``, an exception of somebody else's class, says of itself; its type if that is nothing, or raises."""
    return said_by(said)[:MESSAGE_CHARS]


def _name(exc: BaseException) -> str:
    return f"{type(exc).__module__}.{type(exc).__qualname__}"
