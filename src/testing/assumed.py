"""What a simulation takes for true: the providers' real limits, latencies and faults, and what columns do.

A TOML file, a mapping or an object; unknown keys are errors::

    seed = 1
    [models."openai/gpt-x"]          # "*": every model that has no table of its own
    concurrency = 32                 # limits as in headgate.testing.ModelSpec; left out: there is none
    requests_per_minute = 500
    latency = { mean_s = 4.0, sigma = 0.8 }
    output_tokens = { mean = 150, sigma = 0.5 }
    input_tokens = 700
    faults = { error_500 = 0.01 }
    [columns.verdict]
    requests = 2                     # model requests of one call
    share = 0.4                      # of the rows for which its condition holds
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError
from .provider.spec import Latency, ModelSpec, OutputTokens

__all__ = ["Assumptions", "AssumptionsSource", "ColumnAssumption", "ModelAssumption", "load_assumptions"]

EVERY_MODEL = "*"


class ModelAssumption(ModelSpec):
    """One model as it really is: a :class:`ModelSpec` whose ``latency`` has to be said, since a forecast stands on it.

    ``input_tokens`` are those of one request where its column has no estimate of its own (``tokens=``).
    """

    latency: Latency = Field(...)
    output_tokens: OutputTokens = OutputTokens(mean=200, sigma=0.5)
    input_tokens: Annotated[int, Field(ge=0)] = 500


class ColumnAssumption(BaseModel):
    """What one call of a column's function is taken to do.

    ``requests`` to its model, one after the other, and ``seconds`` of anything else. ``share`` is the part of the rows
    for which its condition holds; None asks the condition itself where everything that it looks at is known, and takes
    it to hold always where it is not. ``answer`` is its value for every row, instead of one made up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Annotated[int, Field(ge=0, le=1000)] = 1
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    answer: Any = None

    @property
    def answered(self) -> bool:
        """Whether ``answer`` was given: None is an answer too."""
        return "answer" in self.model_fields_set


class Assumptions(BaseModel):
    """Everything that a simulation takes for true. ``network_s`` is the way to the provider, and again back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Mapping[str, ModelAssumption]
    columns: Mapping[str, ColumnAssumption] = {}
    network_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.04
    seed: int = 0

    def model(self, name: str) -> ModelAssumption:
        """What is assumed of a model. Raises ConfigError that names the cure."""
        found = self.models.get(name) or self.models.get(EVERY_MODEL)
        if found is None:
            raise ConfigError(
                f'nothing is known of {name!r}: add [models."{name}"] with its latency and limits, or [models."*"]'
            )
        return found


AssumptionsSource = str | os.PathLike[str] | Mapping[str, Any] | Assumptions


def load_assumptions(source: AssumptionsSource) -> Assumptions:
    """Read them from wherever they are. Raises ConfigError that names what is wrong."""
    if isinstance(source, Assumptions):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _checked(_read(path), str(path))
    return _checked(source, "provider")


def _checked(stated: Mapping[str, Any], where: str) -> Assumptions:
    try:
        return Assumptions.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        if first["type"] == "missing" and first["loc"][-1:] == ("latency",):
            raise ConfigError(
                f"{where}: {place}: say how long an answer takes, e.g. latency = {{ mean_s = 4.0, sigma = 0.8 }}"
            ) from error
        raise ConfigError(f"{where}: {place}: {first['msg']}") from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
