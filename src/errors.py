"""Every error that headgate raises, named by its condition.

Code that must tell a local queue from a slow provider checks :class:`AdmissionTimeout` before
:class:`ProviderTimeout`, and either before the builtin ``TimeoutError`` that both are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .values import Pressure

__all__ = [
    "AdmissionDenied",
    "AdmissionError",
    "AdmissionTimeout",
    "ClaimLost",
    "ConfigError",
    "ConflictingResult",
    "FencedOut",
    "FingerprintMismatch",
    "HeadgateError",
    "InputError",
    "LedgerMismatch",
    "ModelTimeout",
    "PayloadTooLarge",
    "PipelineError",
    "ProviderTimeout",
    "ResultCorrupt",
    "ResultExpired",
    "RowFailed",
    "RunStopped",
    "SchemaMismatch",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnsupported",
    "UnknownRun",
    "only_error",
]


def only_error(error: BaseException) -> BaseException:
    """Return the one error inside the groups that task groups wrap around it; a group of several as it is."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if len(group.exceptions) != 1:
            return group
        error = group.exceptions[0]
    return error


class HeadgateError(Exception):
    """Whatever headgate itself has to say."""


class ConfigError(HeadgateError, ValueError):
    """Limits or options that cannot be meant."""


class PipelineError(HeadgateError, ValueError):
    """A pipeline that cannot run: the message names the column and the cure."""


class InputError(HeadgateError, ValueError):
    """Rows that cannot be taken: the message names the row and the cure."""


class RowFailed(HeadgateError):
    """A row failed and the run was asked to raise then (``on_failure="raise"``)."""


class RunStopped(HeadgateError):
    """The run was stopped before this could be answered."""


class LedgerMismatch(HeadgateError):
    """The counts of a run do not add up. This is a fault in headgate, and never passed over."""


class AdmissionError(HeadgateError):
    """A request was not let out. ``pressure`` shows the resource at that moment.

    ``waited_s`` is the time in the local queue, ``retry_after_s`` the time after which another try makes sense,
    where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str,
        reason: str,
        waited_s: float = 0.0,
        retry_after_s: float | None = None,
        pressure: Pressure | None = None,
    ) -> None:
        super().__init__(message)
        self.resource = resource
        self.reason = reason
        self.waited_s = waited_s
        self.retry_after_s = retry_after_s
        self.pressure = pressure


class ModelTimeout(HeadgateError, TimeoutError):
    """A model call took too long, here or there. Its two kinds mean opposite things: see the subclasses."""


class AdmissionTimeout(AdmissionError, ModelTimeout):
    """The local wait for a lease passed its deadline. The provider never saw the request: no provider error."""


class ProviderTimeout(ModelTimeout):
    """The request went out and no answer came in time."""

    def __init__(self, message: str, *, resource: str, waited_s: float = 0.0) -> None:
        super().__init__(message)
        self.resource = resource
        self.waited_s = waited_s


class AdmissionDenied(AdmissionError):
    """A local refusal that waiting cannot cure. Neither a timeout nor retryable."""


class StoreError(HeadgateError):
    """A store could not do what it was asked. ``retryable`` says whether the same call may work later."""

    retryable = False


class StoreUnavailable(StoreError):
    """The store does not answer now."""

    retryable = True


class StoreFull(StoreError):
    """There is no room for the commit. Free some and resume: what was acknowledged is safe."""

    retryable = True


class FencedOut(StoreError):
    """A newer epoch opened this run; this process may not write to it any more."""


class ClaimLost(StoreError):
    """A row group of a shared run is not held by this engine, or not any more. The rest of its work may go on."""


class UnknownRun(StoreError):
    """The store has no run of that name."""


class ConflictingResult(StoreError):
    """A cell that already has a terminal outcome was given a different one."""


class ResultCorrupt(StoreError):
    """A stored payload does not match its checksum."""


class ResultExpired(StoreError):
    """The result is not kept any more: its time to live is over, or it was handed out and nobody wanted it kept."""


class FingerprintMismatch(StoreError):
    """The stored run was made from other rows or another pipeline."""


class SchemaMismatch(StoreError):
    """The file is not a headgate store, or one of another version."""


class StoreUnsupported(StoreError):
    """The place where the store should live lacks an operation that it needs."""


class PayloadTooLarge(StoreError):
    """A result is larger than the store takes."""
