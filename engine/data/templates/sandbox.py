"""The sandbox in which a stranger's chat template runs: what it may call, and how far it may go."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ....foundation.errors import TunewrightError
from ....foundation.text import one_line

MOST_CHARACTERS = 64 * 2**20
"""The longest text that a template may render from one row."""
MOST_SECONDS = 2.0
"""The processor time that one row's template may take."""
LONGEST_SOURCE = 2**20
"""The longest template, in characters."""
_MOST_PIECES = 5_000_000
_PIECES_AT_ONCE = 4096
_LARGEST_ARGUMENT = 1_000_000
"""Numbers beyond this make single operations take as long as the template's author likes."""
_MOST_BITS = 4096
_WIDE_FORMAT = re.compile(r"%[^%a-zA-Z]*\d{5}")
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    AssertionError,
)
_OF_DICTIONARIES = frozenset(dir(dict))
_OF_LOOPS = frozenset({"index", "index0", "first", "last", "length", "revindex", "revindex0"})
Stretch = tuple[int, int]
"""Characters of a text: the first, and the one behind the last."""


class _OutOfTimeError(Exception):
    """The template used up its time."""


class Template:
    """A chat template in Jinja's sandbox, with the functions and filters that transformers gives templates.

    The environment is that of transformers' `chat_template_utils.py`; the limits are ours. One thread at a time.
    """

    def __init__(self, source: str) -> None:
        """Compile `source`; raises TunewrightError when it is not a template."""
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
        self._marks = _Marks()
        now = datetime.datetime.now()  # one moment for all rows, or the date in the text would change on the way

        def strftime_now(form: str) -> str:
            _refuse_wide(form)
            return now.strftime(form)

        environment.filters["tojson"] = _tojson
        cast("dict[str, Any]", environment.globals).update(
            raise_exception=_raise_exception, strftime_now=strftime_now, **{_MARKS: self._marks}
        )
        self.source = source
        self._is_endless = False
        """Whether it ran out of time once: it is not asked again, or a data set would take that long for every row."""
        try:
            if len(source) > LONGEST_SOURCE:
                raise ValueError(f"it is longer than {LONGEST_SOURCE} characters")
            with _TimeLimit():
                self._template = environment.from_string(source)
        except _OutOfTimeError:
            raise _endless(f"Compiling it took more than {MOST_SECONDS:g} s.") from None
        except (*_FAILURES, MemoryError) as error:
            raise TunewrightError(
                "Chat template not valid", one_line(str(error), 300), "Take the template from the model's own page."
            ) from error
        self.has_marks = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None
        """Whether it marks what the assistant generates."""

    def render(self, variables: Mapping[str, Any]) -> tuple[str, list[Stretch]]:
        """Return the rendered text, and the character spans that `{% generation %}` encloses.

        Raises TunewrightError when the template refuses the row or does not come to an end.
        """
        if self._is_endless:
            raise _endless(f"It took more than {MOST_SECONDS:g} s on an earlier row.")
        try:
            with _TimeLimit():
                return self._run(variables)
        except _OutOfTimeError:
            self._is_endless = True
            raise _endless(f"It took more than {MOST_SECONDS:g} s on one row.") from None
        except MemoryError:
            raise _endless("It used up the memory on one row.") from None
        except _FAILURES as error:
            raise TunewrightError(
                "Chat template refused a row",
                one_line(str(error), 300) or type(error).__name__,
                "Check the roles and their order in the data.",
            ) from error

    def _run(self, variables: Mapping[str, Any]) -> tuple[str, list[Stretch]]:
        stream = self._template.root_render_func(self._template.new_context(dict(variables)))
        if not self.has_marks:
            return self._join(stream), []
        marks = self._marks
        marks.begin()
        pieces, count = marks.pieces, 0
        for piece in stream:
            pieces.append(piece)
            count += 1
            if not count % _PIECES_AT_ONCE:
                self._check(marks.length(), count)
        length = marks.length()
        self._check(length, count)
        text = "".join(pieces)
        for start, piece in marks.noted:
            # Inside a macro or a block assignment the place is not yet known, and the span would be wrong.
            if not text.startswith(piece, start):
                raise TunewrightError(
                    "Loss mask not provable",
                    "The template's {% generation %} marks stand where their place in the text is not known.",
                    'Set data.loss_on to "all", or choose another template.',
                )
        return text, [(start, start + len(piece)) for start, piece in marks.noted]

    def _join(self, stream: Iterator[str]) -> str:
        text = "".join(itertools.islice(stream, 256))
        following = list(itertools.islice(stream, _PIECES_AT_ONCE))
        if not following:
            self._check(len(text), 0)
            return text
        pieces, length = [text], len(text)
        while following:
            pieces += following
            length += sum(map(len, following))
            self._check(length, len(pieces))
            following = list(itertools.islice(stream, _PIECES_AT_ONCE))
        return "".join(pieces)

    def _check(self, characters: int, pieces: int) -> None:
        if characters > MOST_CHARACTERS or pieces > _MOST_PIECES:
            raise _endless(f"It wrote more than {MOST_CHARACTERS // 2**20} MiB for one row.")


def _endless(message: str) -> TunewrightError:
    return TunewrightError(
        "Chat template does not end",
        message,
        'Do not trust this model\'s template; name another: data.template = "chatml".',
    )


class _TimeLimit:
    """Raises _OutOfTimeError after MOST_SECONDS of this process's time; other threads than the main one run on.

    The virtual timer is used because nothing else uses it; it repeats, should the first signal fall where it is lost.
    """

    __slots__ = ("_before", "_runs")

    def __enter__(self) -> None:
        self._runs = threading.current_thread() is threading.main_thread()
        if self._runs:
            self._before = signal.signal(signal.SIGVTALRM, self._stop)
            signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS, 0.05)

    def __exit__(self, *exception: object) -> None:
        if self._runs:
            self._runs = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, self._before)

    def _stop(self, number: int, frame: object) -> None:
        if self._runs:
            raise _OutOfTimeError


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses single operations that would not come back."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("center", "indent", "format", "wordwrap", "round", "batch", "slice", "truncate"):
            self.filters[name] = _limited(self.filters[name])

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what Jinja's sandbox returns, sooner for what templates ask most: a message's key, a loop's place."""
        if type(obj) is dict and attribute not in _OF_DICTIONARIES:
            items = cast("dict[str, Any]", obj)
            return items[attribute] if attribute in items else self.undefined(obj=items, name=attribute)
        if attribute in _OF_LOOPS and isinstance(obj, jinja2.runtime.LoopContext):
            return getattr(cast("Any", obj), attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            _refuse_when(not (_is_small(left) and _is_small(right) and abs(right) <= 64), "a power that is too large")
        elif operator == "%":
            if isinstance(left, str):
                _refuse_wide(left)
        elif isinstance(left, int) and isinstance(right, int):
            _refuse_when(left.bit_length() + right.bit_length() > _MOST_BITS, "a product that is too large")
        elif isinstance(left, int) or isinstance(right, int):
            times, things = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(things, Sized):
                _refuse_when(times > 0 and len(things) * times > MOST_CHARACTERS, "a repetition that is too long")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: jinja2.runtime.Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        for each in args:
            if isinstance(each, int):
                _refuse_when(abs(each) > _LARGEST_ARGUMENT, "a number that is too large")
        for each in kwargs.values():
            if isinstance(each, int):
                _refuse_when(abs(each) > _LARGEST_ARGUMENT, "a number that is too large")
        return super().call(__context, __obj, *args, **kwargs)


def _is_small(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64)


def _refuse_when(absurd: bool, what: str) -> None:
    if absurd:
        raise SecurityError(f"the template asks for {what}")


def _refuse_wide(form: str) -> None:
    _refuse_when(_WIDE_FORMAT.search(form) is not None, "a format that is too wide")


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses absurd numbers and widths."""

    @functools.wraps(function)
    def limited(*values: Any, **named: Any) -> Any:
        for each in (*values, *named.values()):
            if isinstance(each, str):
                _refuse_wide(each)
            elif isinstance(each, int):
                _refuse_when(abs(each) > _LARGEST_ARGUMENT, "a number that is too large")
        return function(*values, **named)

    return limited


_MARKS = " marks"
"""The global that holds where generation stands; the space keeps it out of the template's reach."""


class _Marks:
    """Where the text that `{% generation %}` encloses stands in the output."""

    __slots__ = ("_counted", "_length", "noted", "pieces")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the last rendering."""
        self.pieces: list[str] = []
        self.noted: list[tuple[int, str]] = []
        self._counted = 0
        self._length = 0

    def length(self) -> int:
        """Return the characters of the output so far."""
        self._length += sum(map(len, self.pieces[self._counted :]))
        self._counted = len(self.pieces)
        return self._length

    def note(self, text: str) -> None:
        """Note text that is about to be written."""
        self.noted.append((self.length(), text))


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: notes where the enclosed text stands in the output."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        text = str(caller())
        cast("_Marks", self.environment.globals[_MARKS]).note(text)
        return text


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which chat templates do not want."""
    _refuse_when(isinstance(indent, int) and indent > 64, "an indent that is too wide")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
