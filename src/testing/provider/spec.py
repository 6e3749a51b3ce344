"""How a provider behaves, as configuration: limits, latency, headers, faults, and a script of changes.

Only values: the decisions are in :mod:`.model`. Everything is validated, unknown keys are errors, and
everything can be written as plain JSON.

>>> spec = ProviderSpec(
...     models={
...         "gpt-x": ModelSpec(
...             concurrency=32,
...             latency=Latency(mean_s=5.0, sigma=1.0),
...             retry_after=RetryAfter.SECONDS,
...             faults=Faults(error_500=0.01, hang=0.001),
...             script=(Change(at_s=60, concurrency=16), Change(at_s=120, concurrency=32)),
...         )
...     },
...     seed=7,
... )
>>> ProviderSpec.model_validate_json(spec.model_dump_json(exclude_unset=True)) == spec
True
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic resolves annotations at run time
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .dialects import Dialect, RetryAfter
from .values import Fault, TokenCharge, Window

__all__ = [
    "Capacity",
    "Change",
    "Control",
    "Faults",
    "Latency",
    "ModelSpec",
    "OutputTokens",
    "ProviderSpec",
]

Probability = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PerMinute = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Frozen):
    """Seconds from acceptance to the complete answer: lognormal of ``mean_s`` and ``sigma`` (0: constant).

    ``per_output_token_s`` is added for each output token. ``first_token`` is the share of the time after
    which a streamed answer starts.
    """

    mean_s: Seconds = 0.05
    sigma: Annotated[float, Field(ge=0, le=5)] = 0.0
    per_output_token_s: Seconds = 0.0
    first_token: Probability = 0.3


class OutputTokens(_Frozen):
    """Output tokens of an answer: lognormal of ``mean`` and ``sigma`` (0: constant), at least 1."""

    mean: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0
    sigma: Annotated[float, Field(ge=0, le=5)] = 0.0


class Faults(_Frozen):
    """Probability of each :class:`Fault` for an accepted request; at most one happens.

    Whether one happens depends only on the seed, the model, the content and how often that content was
    accepted before, never on the order of arrival: a run can be repeated, and a retry may succeed. With
    ``sticky`` the same content always meets the same fault. ``poison`` maps a piece of text to the fault that
    every request whose content holds it meets, each time.
    """

    error_500: Probability = 0.0
    overloaded: Probability = 0.0
    unauthorized: Probability = 0.0
    bad_request: Probability = 0.0
    reset: Probability = 0.0
    hang: Probability = 0.0
    malformed: Probability = 0.0
    slow_body: Probability = 0.0
    slow: Probability = 0.0
    slow_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    sticky: bool = False
    poison: Mapping[str, Fault] = {}

    def shares(self) -> tuple[tuple[Fault, float], ...]:
        """Return the faults that can happen, each with its probability."""
        every = ((fault, getattr(self, fault.value)) for fault in Fault)
        return tuple((fault, share) for fault, share in every if share > 0)

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        total = sum(share for _, share in self.shares())
        if total > 1 + 1e-9:
            raise ValueError(f"the probabilities of all faults add up to {total:g}: at most 1 is possible")
        return self


class Capacity(_Frozen):
    """What a model serves and how it says no. Everything here can change while it runs.

    ``None`` for a limit means no limit. ``request_burst`` and ``token_burst`` are the sizes of the buckets
    (default: one minute's quota). ``window_phase_s`` shifts the edges of fixed windows. ``retry_after_s``
    replaces the true waiting time in Retry-After. ``count_rejected`` makes rejected requests use up the
    request quota too. ``vague`` keeps the limit's name out of 429 bodies. ``reject`` is a status given to
    every request, e.g. 429 or 500.
    """

    concurrency: Annotated[int, Field(ge=0)] | None = None
    requests_per_minute: PerMinute | None = None
    request_burst: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    input_tokens_per_minute: PerMinute | None = None
    output_tokens_per_minute: PerMinute | None = None
    token_burst: PerMinute | None = None
    token_charge: TokenCharge = TokenCharge.ACTUAL
    window: Window = Window.BUCKET
    window_phase_s: Annotated[float, Field(ge=0, lt=60)] = 0.0
    count_rejected: bool = False
    latency: Latency = Latency()
    output_tokens: OutputTokens = OutputTokens()
    headers: Dialect = Dialect.NONE
    retry_after: RetryAfter = RetryAfter.NONE
    retry_after_s: Seconds | None = None
    vague: bool = False
    faults: Faults = Faults()
    reject: Annotated[int, Field(ge=400, le=599)] | None = None

    def changed_by(self, change: Capacity) -> Self:
        """Return this with every field that ``change`` was given explicitly."""
        given = change.model_fields_set & Capacity.model_fields.keys()
        return self.model_copy(update={name: getattr(change, name) for name in given})


class Change(Capacity):
    """A scripted change, ``at_s`` seconds after the provider's first request; fields not given stay."""

    at_s: Seconds


class ModelSpec(Capacity):
    """One served model: its capacity at the start, and the script of later changes in order of time."""

    script: tuple[Change, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [change.at_s for change in self.script]
        if times != sorted(times):
            raise ValueError("the changes of a script must be in order of at_s")
        return self


class ProviderSpec(_Frozen):
    """A provider: its models by name, and the seed of everything random.

    ``remember`` bounds how many different contents per model are counted (see ``ModelStats.forgotten``).
    """

    models: Mapping[str, ModelSpec]
    seed: int = 0
    remember: Annotated[int, Field(ge=1)] = 1_000_000


class Control(_Frozen):
    """A live change: ``change`` applies to ``model`` (None: to all); ``reset`` clears the counts first."""

    model: str | None = None
    change: Capacity | None = None
    reset: bool = False
