"""What the stored results of a column depend on: what is part of it, what is not, and that it says what differs."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import linecache
import os
import subprocess
import sys
import warnings
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

import pytest

from headgate import Pipeline
from headgate.engine.changes import differences
from headgate.engine.fingerprints import fingerprints
from headgate.engine.function_text import function_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def ask(topic: str) -> str:
    return topic


def other_parameters(topic: str, style: str) -> str:
    return topic + style


def whole(topic: list[str]) -> list[str]:
    return topic


def answer(question: str) -> str:
    return question


def judge(answer: str, style: str = "") -> str:
    return answer + style


def is_long(question: str) -> bool:
    return len(question) > 20


def is_urgent(urgent: bool) -> bool:
    return urgent


def of(fn: Callable[..., object], **options: Any) -> str:
    """The fingerprint of one column, called c."""
    pipeline = Pipeline("p")
    given: dict[str, Any] = {"name": "c", "model": "openai/gpt-x", **options}
    pipeline.column(**given)(fn)
    return fingerprints(pipeline.columns)["c"]


CASES: list[tuple[Callable[..., object], dict[str, Any], set[str]]] = [
    (ask, {"model": "openai/gpt-y"}, {"model"}),
    (ask, {"model": None}, {"model"}),
    (ask, {"version": "2"}, {"version"}),
    (ask, {"output": int}, {"return type"}),
    (ask, {"output": str | None}, {"return type"}),
    (ask, {"when": is_urgent}, {"parameters", "function"}),
    (other_parameters, {}, {"parameters", "function"}),
    (whole, {"scope": "group", "output": list[str]}, {"scope", "return type", "function"}),
    (ask, {"weight": 3.0, "timeout": 5.0, "tokens": 9, "max_output_tokens": 9}, set()),
]


@pytest.mark.parametrize(("fn", "options", "parts"), CASES)
def test_a_fingerprint_says_what_differs(fn: Callable[..., object], options: dict[str, Any], parts: set[str]) -> None:
    found = differences(of(ask, output=str), of(fn, **{"output": str, **options}))
    assert found is not None
    assert set(found) == parts


def test_another_format_cannot_be_compared() -> None:
    assert differences("0123456789abcdef", of(ask)) is None


def test_a_column_changes_with_those_that_it_reads_and_with_no_others() -> None:
    def build(version: str, *, style_is_a_column: bool = False) -> dict[str, str]:
        pipeline = Pipeline("p")
        pipeline.column(name="verdict", when=is_long)(judge)
        pipeline.column(name="answer")(answer)
        pipeline.column(name="question", version=version)(ask)
        pipeline.column(name="title")(ask)
        if style_is_a_column:
            pipeline.column(name="style")(ask)
        return fingerprints(pipeline.columns)

    before, now = build("1"), build("2")
    assert {name: differences(before[name], now[name]) for name in before} == {
        "verdict": ("upstream",),
        "answer": ("upstream",),
        "question": ("version",),
        "title": (),
    }
    # What was a field of the row, or a default, is a column now.
    then = build("1", style_is_a_column=True)
    assert {name for name in before if differences(before[name], then[name])} == {"verdict"}


def test_t54_random_identity() -> None:
    """Cache keys from hash() changed each process elsewhere: a fingerprint is the same in all of them."""
    program = (
        "from typing import Literal\n"
        "from pydantic import BaseModel\n"
        "from headgate.engine.pipeline import Pipeline\n"
        "from headgate.engine.fingerprints import fingerprints\n"
        "class Answer(BaseModel):\n    kind: Literal['a', 'b']\n    more: dict[str, set[int]] | None\n"
        "p = Pipeline('p')\n"
        "@p.column(model='openai/gpt-x', when=lambda z, y=1, x=2: z in {'a', 'b', 'c'})\n"
        "def c(b, a, q=1, r=2) -> Answer: ...\n"
        "print(fingerprints(p.columns))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


# The function's text.

BODY = '''
async def ask(topic: str, n: int = 2) -> str:
    """What it does."""
    # why
    text = f"{PROMPT} {topic!r:>{n}}" "!"
    return await call(text, [1, *TAIL])
'''
AROUND = '''
PROMPT = dedent("""Answer this:""")
TAIL = (2, 3)
client = Client(timeout=30)
async def call(text, more):
    return LEVEL * more
LEVEL = 1
'''


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., Any]:
    """``ask`` of a module made of the given source."""
    count = iter(range(1000))

    def load(source: str, name: str = "ask") -> Any:
        path = tmp_path / f"m{next(count)}.py"
        path.write_text(f"from textwrap import dedent\nimport functools\nClient = dict\n{source}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return load


@pytest.fixture
def text_of(loaded: Callable[..., Any]) -> Callable[..., str]:
    """The text of ``ask`` in a module made of the given source."""

    def text(source: str, name: str = "ask") -> str:
        return function_text(loaded(source, name))

    return text


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("# why", "# because"),
        ('"""What it does."""', '"""Asks."""'),
        ("topic: str, n: int = 2) -> str", "topic, n=2)"),
        ("async def ask", "@functools.lru_cache\nasync def ask"),
        ("call(text, [1, *TAIL])", "call(\n        text,\n        [1, *TAIL],\n    )"),
        ("timeout=30", "timeout=60"),
        ('"!"', "'!'"),
    ],
)
def test_what_is_no_change_of_a_function(text_of: Callable[..., str], before: str, now: str) -> None:
    source = BODY + AROUND
    assert before in source
    assert text_of(source) == text_of(source.replace(before, now))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ('"!"', '"?"'),
        ("n: int = 2", "n: int = 3"),
        ("!r", "!s"),
        ("Answer this:", "Answer that:"),
        ("(2, 3)", "(3, 2)"),
        ("LEVEL * more", "LEVEL + more"),
        ("LEVEL = 1", "LEVEL = 2"),
        ("await call(text", "await call(topic"),
    ],
)
def test_what_is_a_change_of_a_function(text_of: Callable[..., str], before: str, now: str) -> None:
    source = BODY + AROUND
    assert before in source
    assert text_of(source) != text_of(source.replace(before, now))


# What versions of Python parse or write differently, among other things: the format of a format, texts side by side,
# characters that only some have in their tables, escapes that are none.
DIFFERENT = r"""
async def ask(topic, *more, n=2, **rest):
    'What it does.'
    text = f"{topic!r:>{n}}" "!" f"{n=}" f"" f"{topic:%Y}" u"\U0001fae8é" "\d{}" f'{topic:{n}.{n}}'
    try:
        with (open(text) as one, two):
            more[*rest], = 1_0, 0x10, 1e400, -0.0, 2j, b"\x00", ..., None
    except* OSError:
        match text:
            case {"a": 1 | -1, **rest}:
                pass
            case [Some(n=2), *_]:
                pass
    return (lambda a, /, *, b: (yield)), [y async for y in text if (z := y)]
"""
DIFFERENT_TEXT = (
    r"AsyncFunctionDef(name='ask',args=arguments(args=[arg(arg='topic')],vararg=arg(arg='more'),"
    r"kwonlyargs=[arg(arg='n')],kw_defaults=[2],kwarg=arg(arg='rest')),body=[Assign(targets=[Name(id='text')],"
    r"value=JoinedStr(values=[FormattedValue(value=Name(id='topic'),conversion=114,"
    r"format_spec=JoinedStr(values=['>',FormattedValue(value=Name(id='n'),conversion=-1)])),'!n=',"
    r"FormattedValue(value=Name(id='n'),conversion=114),FormattedValue(value=Name(id='topic'),conversion=-1,"
    r"format_spec=JoinedStr(values=['%Y'])),'\U0001fae8\xe9\\d{}',FormattedValue(value=Name(id='topic'),"
    r"conversion=-1,format_spec=JoinedStr(values=[FormattedValue(value=Name(id='n'),conversion=-1),'.',"
    r"FormattedValue(value=Name(id='n'),conversion=-1)]))])),"
    r"TryStar(body=[With(items=[withitem(context_expr=Call(func=Name(id='open'),args=[Name(id='text')]),"
    r"optional_vars=Name(id='one')),withitem(context_expr=Name(id='two'))],"
    r"body=[Assign(targets=[Tuple(elts=[Subscript(value=Name(id='more'),"
    r"slice=Tuple(elts=[Starred(value=Name(id='rest'))]))])],value=Tuple(elts=[10,16,inf,UnaryOp(op=USub(),"
    r"operand=0.0),2j,b'\x00',Ellipsis,None]))])],handlers=[ExceptHandler(type=Name(id='OSError'),"
    r"body=[Match(subject=Name(id='text'),cases=[match_case(pattern=MatchMapping(keys=['a'],"
    r"patterns=[MatchOr(patterns=[MatchValue(value=1),MatchValue(value=UnaryOp(op=USub(),operand=1))])],"
    r"rest='rest'),body=[Pass()]),match_case(pattern=MatchSequence(patterns=[MatchClass(cls=Name(id='Some'),"
    r"kwd_attrs=['n'],kwd_patterns=[MatchValue(value=2)]),MatchStar()]),body=[Pass()])])])]),"
    r"Return(value=Tuple(elts=[Lambda(args=arguments(posonlyargs=[arg(arg='a')],kwonlyargs=[arg(arg='b')],"
    r"kw_defaults=[None]),body=Yield()),ListComp(elt=Name(id='y'),"
    r"generators=[comprehension(target=Name(id='y'),iter=Name(id='text'),ifs=[NamedExpr(target=Name(id='z'),"
    r"value=Name(id='y'))],is_async=1)])]))])"
)


# The module by itself, as a Python reads it that has nothing installed.
READ = """
import importlib.util, sys
def load(path):
    spec = importlib.util.spec_from_file_location("module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
sys.stdout.write(load(sys.argv[1]).function_text(load(sys.argv[2]).ask))
"""


@pytest.mark.parametrize("version", ["", "3.11", "3.12", "3.13", "3.14"])
def test_every_version_of_python_writes_the_same_text(version: str, tmp_path: Path) -> None:
    """The one that runs this, and those that are on this machine."""
    python = f"python{version}" if version else sys.executable
    path = tmp_path / "different.py"
    path.write_text(DIFFERENT, encoding="utf-8")
    module = inspect.getsourcefile(function_text)
    assert module is not None
    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", READ, module, path],
            env={**os.environ, **({"PYENV_VERSION": version} if version else {})},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip(f"no {python} on this machine")
    if version and done.returncode == 127:  # pyenv stands in for all that any of its versions has
        pytest.skip(f"no {python} on this machine")
    assert (done.stdout, done.stderr) == (DIFFERENT_TEXT, "")


def test_what_is_doubtful_about_a_file_does_not_change_the_text(loaded: Callable[..., Any]) -> None:
    """A file may have been compiled long ago, and read when each warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = loaded('def ask(topic):\n    return "\\d"\n')
    assert function_text(function).startswith("FunctionDef")


def test_what_exec_made_is_not_looked_up_in_the_program_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 keeps that program under the name that exec() gives to all it runs."""
    monkeypatch.setitem(linecache.cache, "<string>", (0, None, ["def ask(topic): return 1\n"], "<string>"))
    names: dict[str, Any] = {}
    exec("def ask(topic): return 2", names)
    assert function_text(names["ask"]) == "ask"


def test_a_local_definition_hides_the_one_outside(text_of: Callable[..., str]) -> None:
    def source(outer: str, inner: str) -> str:
        return (
            f"PROMPT = {outer!r}\ndef make():\n    PROMPT = {inner!r}\n"
            + indent(BODY, "    ")
            + "    return ask\nask = make()\n"
        )

    assert text_of(source("a", "b")) == text_of(source("x", "b"))
    assert text_of(source("a", "b")) != text_of(source("a", "y"))


def test_what_is_assigned_twice_or_by_a_call_is_not_read(text_of: Callable[..., str]) -> None:
    for one, other in (("PROMPT = now(1)", "PROMPT = now(2)"), ("PROMPT = 1\nPROMPT = 2", "PROMPT = 1\nPROMPT = 3")):
        defined = "def now(n): return n\n"
        assert text_of(defined + one + BODY) == text_of(defined + other + BODY)


def test_functions_that_call_each_other_come_to_an_end(text_of: Callable[..., str]) -> None:
    source = "def ask(n): return call(n)\ndef call(n): return ask(n - 1)\n"
    assert text_of(source) != text_of(source.replace("n - 1", "n - 2"))


def test_lambdas_on_one_line_are_told_apart(text_of: Callable[..., str]) -> None:
    pair = "one, other = (lambda x: x + 1), (lambda x: x + 2)\n"
    assert text_of(pair, "one") != text_of(pair, "other")
    swapped = "other, one = (lambda x: x + 2), (lambda x: x + 1)\n"
    assert (text_of(pair, "one"), text_of(pair, "other")) == (text_of(swapped, "one"), text_of(swapped, "other"))


def test_partials_methods_and_objects() -> None:
    class Judge:
        def __init__(self, level: int) -> None:
            self.level = level

        def judge(self, answer: str) -> int:
            return len(answer) + self.level

        def __call__(self, answer: str) -> int:
            return len(answer) - self.level

    assert function_text(functools.partial(other_parameters, style="a")) != function_text(other_parameters)
    assert function_text(functools.partial(other_parameters, style="a")) != function_text(
        functools.partial(other_parameters, style="b")
    )
    assert function_text(Judge(1).judge) == function_text(Judge(2).judge)
    assert function_text(Judge(1).judge) != function_text(Judge(1))
    assert function_text(functools.partial(of, ask, when=object())) == function_text(
        functools.partial(of, ask, when=object())
    )

    @functools.wraps(ask)
    def wrapped(*arguments: Any) -> Any:
        return ask(*arguments)

    assert function_text(wrapped) == function_text(ask)


def test_without_source_the_name_counts() -> None:
    names: dict[str, Any] = {}
    exec(compile(dedent("def ask(topic): return topic"), "<nowhere>", "exec"), names)
    assert function_text(names["ask"]) == "ask"
    assert function_text(len) == "len"
