"""Every shape of exception becomes the kind that it is, by structure and without one SDK imported."""

from __future__ import annotations

import importlib
import json
import ssl
import urllib.error
from contextlib import closing
from email.message import Message
from io import BytesIO
from typing import Any

import aiohttp
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import AdmissionDenied, AdmissionTimeout, ProviderTimeout
from headgate.salvage.classify import Classifier, Failure
from headgate.salvage.dialects import CODES, DECISIVE, STATUSES, of_status
from headgate.salvage.kinds import TABLE, Action, FailureKind
from headgate.values import Outcome

K = FailureKind


def kind_of(exc: BaseException) -> FailureKind:
    return Classifier().classify(exc, wall_now=0.0).kind


class Carrier(Exception):
    """Any client's error: whatever attributes it is given."""

    def __init__(self, text: str = "", **attributes: Any) -> None:
        super().__init__(text)
        for name, value in attributes.items():
            setattr(self, name, value)


class Response:
    def __init__(self, status_code: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        self.status_code = status_code
        self.headers = headers or {}
        self._content = b"" if body is None else json.dumps(body).encode()


def from_module(module: str, name: str, base: type[Exception] = Exception) -> Exception:
    """An exception of a client that is not installed here."""
    error: Exception = type(name, (base,), {"__module__": module})("it broke")
    return error


STATUS_KINDS = {
    400: K.REJECTED,
    401: K.UNAUTHORIZED,
    402: K.QUOTA_EXHAUSTED,
    403: K.UNAUTHORIZED,
    404: K.REJECTED,
    408: K.PROVIDER_TIMEOUT,
    409: K.PROVIDER_ERROR,
    413: K.REJECTED,
    418: K.REJECTED,
    422: K.REJECTED,
    425: K.PROVIDER_ERROR,
    429: K.RATE_LIMITED,
    500: K.PROVIDER_ERROR,
    502: K.PROVIDER_ERROR,
    503: K.OVERLOADED,
    504: K.PROVIDER_TIMEOUT,
    529: K.OVERLOADED,
    599: K.PROVIDER_ERROR,
}


@pytest.mark.parametrize(("status", "kind"), STATUS_KINDS.items())
def test_status_in_every_form(status: int, kind: FailureKind) -> None:
    forms = [
        Carrier(status_code=status),
        Carrier(status=status),
        Carrier(code=status),
        Carrier(code=str(status)),
        Carrier(response=Response(status)),
        Carrier(response={"status_code": status}),
        Carrier(response={"ResponseMetadata": {"HTTPStatusCode": status}}),
        Carrier(body={"error": {"code": status}}),
    ]
    failures = [Classifier().classify(form, wall_now=0.0) for form in forms]
    assert [failure.kind for failure in failures] == [kind] * len(forms)
    assert {failure.status for failure in failures} == {status}


def test_t18_text_matching() -> None:
    """Elsewhere a 429 was recognised by "rate" in the text, which is also in "generate"."""
    assert kind_of(RuntimeError("failed to generate: rate limit exceeded, 429, insufficient_quota")) is K.BUG
    assert kind_of(Carrier("rate limited", status_code=400)) is K.REJECTED
    assert kind_of(Carrier("quota exhausted, please wait a minute", status_code=500)) is K.PROVIDER_ERROR
    assert kind_of(Carrier(status_code=429, body={"message": "insufficient_quota"})) is K.RATE_LIMITED
    assert kind_of(Carrier("everything is fine", status_code=429)) is K.RATE_LIMITED


def test_t40_per_minute_quota_as_hard_quota() -> None:
    """Elsewhere "quota exceeded per minute" was terminal, and an empty account was retried for ever."""
    per_minute = {"error": {"code": 429, "message": "Quota exceeded: 60 per minute", "status": "RESOURCE_EXHAUSTED"}}
    assert kind_of(Carrier(status_code=429, body=per_minute)) is K.RATE_LIMITED
    assert kind_of(Carrier(response=Response(429, per_minute))) is K.RATE_LIMITED
    for code in ("insufficient_quota", "billing_hard_limit_reached", "exceeded_current_quota_error"):
        empty = {"error": {"message": "Slow down", "type": "rate_limit_error", "code": code}}
        assert kind_of(Carrier(status_code=429, body=empty)) is K.QUOTA_EXHAUSTED
        assert kind_of(Carrier(status_code=429, body=empty["error"])) is K.QUOTA_EXHAUSTED
        assert kind_of(Carrier(response=Response(429, empty))) is K.QUOTA_EXHAUSTED
        assert kind_of(Carrier(status_code=429, code=code)) is K.QUOTA_EXHAUSTED
    assert TABLE[K.QUOTA_EXHAUSTED].action is Action.PARK
    assert TABLE[K.RATE_LIMITED].action is Action.HOLD


def test_t38_disconnects_are_final() -> None:
    """Elsewhere "server disconnected" and a broken pipe were not retried and counted towards shutdown."""
    for exc in (
        aiohttp.ServerDisconnectedError(),
        BrokenPipeError("broken pipe"),
        ConnectionResetError(),
        ConnectionRefusedError(),
        EOFError(),
        OSError("no route to host"),
        ssl.SSLError("bad record"),
        aiohttp.ClientPayloadError("truncated"),
        urllib.error.URLError("refused"),
        from_module("httpx", "RemoteProtocolError"),
        from_module("httpcore._exceptions", "ReadError"),
        from_module("requests.exceptions", "ChunkedEncodingError", OSError),
        from_module("httpx", "SomeErrorOfTheFuture"),
        from_module("anyio", "BrokenResourceError"),
        from_module("my.wrapper", "MyError", type(aiohttp.ServerDisconnectedError())),
    ):
        assert kind_of(exc) is K.CONNECTION_ERROR, exc
    assert TABLE[K.CONNECTION_ERROR].action is Action.RETRY


def test_headgates_own_errors_come_first() -> None:
    """A local queue's deadline is a TimeoutError too, and must not be taken for the provider's."""
    assert kind_of(AdmissionTimeout("full", resource="a/b", reason="queue_timeout")) is K.ADMISSION_TIMEOUT
    assert kind_of(AdmissionDenied("no such model", resource="a/b", reason="unknown_resource")) is K.ADMISSION_DENIED
    assert kind_of(ProviderTimeout("slow", resource="a/b")) is K.PROVIDER_TIMEOUT
    assert kind_of(TimeoutError()) is K.PROVIDER_TIMEOUT


def test_t11_a_refusal_that_a_client_wrapped_is_still_one() -> None:
    """T11: an SDK that makes a connection error of all that its HTTP client raises makes no provider error of ours."""
    timeout = AdmissionTimeout("queue", resource="openai/m", reason="queue_timeout")
    denied = AdmissionDenied("never", resource="openai/m", reason="too_large")
    for refusal, kind in ((timeout, K.ADMISSION_TIMEOUT), (denied, K.ADMISSION_DENIED)):
        wrapped = from_module("anthropic", "APIConnectionError")
        wrapped.__cause__ = refusal
        outer = Carrier(status_code=500)
        outer.__cause__ = wrapped
        assert [kind_of(error) for error in (refusal, wrapped, outer)] == [kind] * 3
    later = Carrier(status_code=500)
    later.__context__ = timeout
    assert kind_of(later) is K.PROVIDER_ERROR, "another request, made while the refusal was handled"


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (from_module("httpx", "ReadTimeout"), K.PROVIDER_TIMEOUT),
        (from_module("httpx", "ConnectTimeout"), K.CONNECTION_ERROR),
        (from_module("httpx", "PoolTimeout"), K.ADMISSION_TIMEOUT),
        (from_module("httpx", "UnsupportedProtocol"), K.BUG),
        (from_module("botocore.exceptions", "ReadTimeoutError"), K.PROVIDER_TIMEOUT),
        (from_module("openai", "APITimeoutError"), K.PROVIDER_TIMEOUT),
        (from_module("anthropic", "APIConnectionError"), K.CONNECTION_ERROR),
        (from_module("openai", "LengthFinishReasonError"), K.INVALID_OUTPUT),
        (from_module("openai", "OpenAIError"), K.BUG),
        (aiohttp.ConnectionTimeoutError(), K.CONNECTION_ERROR),
        (aiohttp.SocketTimeoutError(), K.PROVIDER_TIMEOUT),
    ],
)
def test_classes_of_clients(exc: Exception, kind: FailureKind) -> None:
    assert kind_of(exc) is kind


def test_a_real_sdk_error() -> None:
    """The installed SDK, with its own response type."""
    # Some versions bring httpx, some httpx2: the one that this SDK was built on.
    client = next(cls for cls in openai.DefaultHttpxClient.__mro__ if cls.__name__ == "Client")
    transport = importlib.import_module(client.__module__.partition(".")[0])
    request = transport.Request("POST", "https://api.example/v1/chat")
    headers = {"retry-after": "7", "x-request-id": "r"}
    response = transport.Response(429, request=request, headers=headers, json={"error": {"code": "x"}})
    error = openai.RateLimitError("slow down", response=response, body={"code": "insufficient_quota"})
    failure = Classifier().classify(error, wall_now=0.0)
    assert (failure.kind, failure.status) == (K.QUOTA_EXHAUSTED, 429)
    assert failure.feedback is not None
    assert failure.feedback.retry_after_s == 7
    assert kind_of(openai.APITimeoutError(request)) is K.PROVIDER_TIMEOUT
    assert kind_of(openai.APIConnectionError(request=request)) is K.CONNECTION_ERROR
    with pytest.raises(transport.HTTPStatusError) as raised:
        response.raise_for_status()
    assert kind_of(raised.value) is K.RATE_LIMITED


def test_503_with_retry_after_is_a_rate_limit() -> None:
    assert kind_of(Carrier(response=Response(503, headers={"Retry-After": "3"}))) is K.RATE_LIMITED
    assert kind_of(Carrier(response=Response(503, headers={"Retry-After": "soon"}))) is K.OVERLOADED
    assert kind_of(Carrier(response=Response(503, {"error": {"type": "rate_limit_error"}}))) is K.RATE_LIMITED
    assert kind_of(Carrier(response=Response(529, headers={"Retry-After": "3"}))) is K.OVERLOADED


def test_headers_are_read_wherever_they_are() -> None:
    message = Message()
    message["Retry-After"] = "9"
    with closing(urllib.error.HTTPError("https://x", 429, "slow", message, BytesIO())) as error:
        for carrier in (
            Carrier(status=429, headers={"retry-after": "9"}),
            Carrier(response=Response(429, headers={"Retry-After": "9"})),
            Carrier(response={"ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "9"}}}),
            error,
        ):
            feedback = Classifier().classify(carrier, wall_now=0.0).feedback
            assert feedback is not None
            assert feedback.retry_after_s == 9


def test_errors_inside_a_stream_that_began_well() -> None:
    """The status says 200, or nothing; only the body's type tells."""
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert kind_of(Carrier(status_code=200, body=overloaded)) is K.OVERLOADED
    assert kind_of(Carrier(body={"error": {"type": "server_error"}})) is K.PROVIDER_ERROR
    assert kind_of(Carrier(status="UNAVAILABLE")) is K.OVERLOADED
    assert kind_of(Carrier(response={"Error": {"Code": "ThrottlingException"}})) is K.RATE_LIMITED


def test_useless_answers() -> None:
    class Verdict(pydantic.BaseModel):
        ok: bool

    with pytest.raises(pydantic.ValidationError) as invalid:
        Verdict.model_validate({"ok": "perhaps"})
    with pytest.raises(json.JSONDecodeError) as no_json:
        json.loads("{")
    assert kind_of(invalid.value) is K.INVALID_OUTPUT
    assert kind_of(no_json.value) is K.INVALID_OUTPUT


def test_what_nobody_knows_is_a_bug_with_its_traceback() -> None:
    def column() -> None:
        raise TypeError("cannot add a list to a number")

    with pytest.raises(TypeError) as raised:
        column()
    failure = Classifier().classify(raised.value, wall_now=0.0)
    assert (failure.kind, failure.status, failure.feedback) == (K.BUG, None, None)
    assert failure.traceback is not None
    assert "in column" in failure.traceback
    assert failure.error_type == "builtins.TypeError"
    for exc in (KeyError("x"), ValueError("x"), FileNotFoundError("prompt.txt"), PermissionError("x")):
        assert kind_of(exc) is K.BUG


def raised_from(cause: Exception, wrapper: Exception, *, explicit: bool) -> Exception:
    try:
        try:
            raise cause
        except Exception as error:
            if explicit:
                raise wrapper from error
            raise wrapper  # noqa: B904
    except Exception as error:
        return error


def test_causes_are_unwrapped() -> None:
    limited = Carrier(status_code=429)
    assert kind_of(raised_from(limited, RuntimeError("call failed"), explicit=True)) is K.RATE_LIMITED
    assert kind_of(raised_from(limited, RuntimeError("call failed"), explicit=False)) is K.RATE_LIMITED
    assert kind_of(raised_from(limited, TypeError("wrapped"), explicit=True)) is K.RATE_LIMITED
    assert kind_of(raised_from(limited, TypeError("in the handler"), explicit=False)) is K.BUG
    hidden = RuntimeError("on purpose")
    hidden.__context__, hidden.__suppress_context__ = limited, True
    assert kind_of(hidden) is K.BUG


def test_a_group_is_its_worst_member() -> None:
    limited, refused, bug = Carrier(status_code=429), Carrier(status_code=400), KeyError("x")
    assert kind_of(ExceptionGroup("both", [limited, limited])) is K.RATE_LIMITED
    assert kind_of(ExceptionGroup("both", [limited, refused])) is K.REJECTED
    assert kind_of(ExceptionGroup("all", [limited, ExceptionGroup("in", [refused, bug])])) is K.BUG
    assert kind_of(raised_from(ExceptionGroup("g", [limited]), RuntimeError("x"), explicit=True)) is K.RATE_LIMITED


def test_members_may_share_a_cause() -> None:
    limited = Carrier(status_code=429)
    members = [RuntimeError("one"), RuntimeError("two")]
    for member in members:
        member.__cause__ = limited
    assert kind_of(ExceptionGroup("g", members)) is K.RATE_LIMITED


def test_loops_and_hostile_objects_end() -> None:
    class Hostile(Exception):
        @property
        def response(self) -> object:
            raise RuntimeError("no response for you")

        def __str__(self) -> str:
            raise RuntimeError("no text either")

    assert kind_of(Hostile()) is K.BUG
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert kind_of(first) is K.BUG
    member = RuntimeError("member")
    group = ExceptionGroup("g", [member])
    member.__cause__ = group
    assert kind_of(group) is K.BUG


def test_the_users_classifier_comes_first() -> None:
    answers: dict[type, FailureKind | Failure | None] = {
        Carrier: K.REJECTED,
        KeyError: Failure(K.RATE_LIMITED, "mine"),
        ValueError: None,
    }
    classifier = Classifier(lambda exc: answers.get(type(exc)))
    refused = classifier.classify(Carrier(status_code=500, headers={"retry-after": "2"}), wall_now=0.0)
    assert (refused.kind, refused.status) == (K.REJECTED, 500)
    assert refused.feedback is not None
    assert classifier.classify(KeyError(), wall_now=0.0) == Failure(K.RATE_LIMITED, "mine")
    assert classifier.classify(ValueError(), wall_now=0.0).kind is K.BUG


def test_a_broken_classifier_is_a_bug_and_not_a_crash() -> None:
    def broken(exc: BaseException) -> FailureKind | None:
        raise ZeroDivisionError("mine")

    failure = Classifier(broken).classify(Carrier(status_code=429), wall_now=0.0)
    assert (failure.kind, failure.message) == (K.BUG, "the classifier raised: mine")
    for decided in (K.POISONED, K.COLUMN_STOPPED):
        verdict = Classifier(lambda exc, kind=decided: kind).classify(ValueError(), wall_now=0.0)  # type: ignore[misc]
        assert verdict.kind is K.BUG


def test_cancellation_is_nobodys_failure() -> None:
    for exc in (KeyboardInterrupt(), SystemExit(), GeneratorExit()):
        with pytest.raises(AssertionError, match="is not a failure"):
            kind_of(exc)


def test_the_table_is_whole_and_consistent() -> None:
    assert set(TABLE) == set(FailureKind)
    for kind, rule in TABLE.items():
        assert not (rule.pressure and (rule.consumes_attempt or rule.breaker)), kind
        assert (rule.action is Action.HOLD) == rule.pressure, kind
        assert (rule.action is Action.RETRY) == rule.breaker, kind
        assert rule.outcome is not Outcome.SUCCESS
    assert TABLE[K.ADMISSION_TIMEOUT].outcome is Outcome.LOCAL_TIMEOUT
    assert all(code == code.lower() for code in (*CODES, *DECISIVE))
    assert all(of_status(status) is kind for status, kind in STATUSES.items())


@given(
    status=st.integers(-10, 10_000) | st.text(max_size=4) | st.none() | st.floats() | st.booleans(),
    body=st.recursive(
        st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "code", "type", "status", "detail"]), inner)
        ),
        max_leaves=12,
    ),
)
def test_any_attributes_give_one_answer(status: object, body: object) -> None:
    """Whatever a client hangs on its error, classification returns."""
    for exc in (Carrier(status_code=status, body=body), Carrier(code=status, response=body), Carrier(response=status)):
        assert kind_of(exc) in FailureKind
