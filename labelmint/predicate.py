"""The language of the option `where`: text -> `Predicate`, on the client and on the server.

A predicate says of one sample whether it is delivered, by numbers that the graph computes of it:

    predicate   = either
    either      = both { "or" both }
    both        = negated { "and" negated }
    negated     = "not" negated | test
    test        = visible | chain | "(" either ")"
    chain       = value comparator value { comparator value }
    comparator  = "<" | "<=" | ">" | ">=" | "==" | "!="
    value       = number | share | confidence | uncertainty | depth
    share       = "share" "(" name ")"
    confidence  = "confidence" "(" name ")"
    uncertainty = "uncertainty" [ "(" name ")" ]
    depth       = "depth" "(" number ")"
    visible     = "visible" "(" name ")"

Names are in ' or ", without escapes. Of two neighbors in a chain one is a number. All of it is also
Python, with the same meaning, but is not read by Python: its parser warns, differs between
versions, and may crash on hostile text.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

MAX_CHARACTERS = 1000
MAX_TESTS = 50  # comparisons and visible()
MAX_DEPTH = 20  # of parentheses and "not"
VISIBLE_CONFIDENCE = 0.2  # visible(name) is confidence(name) >= this

Comparator = Literal["<", "<=", ">", ">=", "==", "!="]
Kind = Literal["uncertainty", "share", "confidence", "depth"]

_COMPARATORS: dict[str, Comparator] = {
    "<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "==", "!=": "!=",
}  # fmt: skip
_OPPOSITE: dict[Comparator, Comparator] = {
    "<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "==",
}  # fmt: skip
_MIRRORED: dict[Comparator, Comparator] = {
    "<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!=",
}  # fmt: skip
_FUNCTIONS = ("share", "visible", "confidence", "uncertainty", "depth")
_WORDS = ("and", "or", "not", *_FUNCTIONS)
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>-?(?:[0-9]+\.[0-9]*|\.[0-9]+|0|[1-9][0-9]*)(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[A-Za-z_]+)
    |(?P<name>'[^'"\\\r\n]*'|"[^"\\\r\n]*")
    |(?P<sign><=|>=|==|!=|[<>()])""",
    re.VERBOSE,
)


class Statistic(NamedTuple):
    """A number of a sample.

    uncertainty     the score that the filter compares; with a name, the mean uncertainty of the
                    pixels of that class, 0 where there are none
    share           share of the mask's pixels that are of the class `name`, in [0, 1]
    confidence      confidence of the keypoint `name`
    depth           quantile of the depths of all pixels, in the depth head's unit; `name` is the
                    share of the pixels whose depths are at most this, such as 0.1
    """

    kind: Kind
    name: str = ""  # of a class, keypoint or quantile; empty: of the whole sample

    def __str__(self) -> str:
        if self.kind == "depth":
            return f"depth({self.name})"
        return f"{self.kind}({quoted(self.name)})" if self.name else self.kind


@dataclass(frozen=True)
class Comparison:
    """A statistic compared with a finite number."""

    statistic: Statistic
    comparator: Comparator
    number: float

    def __str__(self) -> str:
        return f"{self.statistic} {self.comparator} {self.number:g}"

    def negated(self) -> Comparison:
        """True where this is false."""
        return Comparison(self.statistic, _OPPOSITE[self.comparator], self.number)


@dataclass(frozen=True)
class Junction:
    """True where all of its parts are, or where any of them is."""

    word: Literal["and", "or"]
    parts: tuple[Predicate, ...]

    def negated(self) -> Junction:
        """True where this is false, by De Morgan's laws."""
        return Junction(
            "or" if self.word == "and" else "and", tuple(p.negated() for p in self.parts)
        )


Predicate = Comparison | Junction  # "not" is gone: comparisons have opposites


class PredicateError(ValueError):
    """A text is no predicate, or no model can evaluate it; one line with the place and the fix."""


def predicate_from_text(text: str) -> Predicate:
    """The predicate that a text writes. Takes under a millisecond for a text of any content.

    Raises PredicateError.
    """
    if len(text) > MAX_CHARACTERS:
        raise PredicateError(
            f"where has {len(text)} characters; it may have {MAX_CHARACTERS}, use fewer conditions"
        )
    return _Parser(text).whole()


def comparisons(predicate: Predicate) -> Iterator[Comparison]:
    """All comparisons of a predicate, from left to right."""
    if isinstance(predicate, Comparison):
        yield predicate
    else:
        for part in predicate.parts:
            yield from comparisons(part)


def quoted(name: str) -> str:
    """A name as the language writes it."""
    return f'"{name}"' if "'" in name else f"'{name}'"


def quantile_name(share: float) -> str:
    """The `name` of the depth that this share of the pixels reaches at most."""
    return repr(abs(share))  # -0.0 is 0.0


def is_nameable(name: str) -> bool:
    """Whether `quoted` writes the name so that it is read again."""
    match = _TOKEN.fullmatch(quoted(name))
    return match is not None and match.lastgroup == "name" and name != ""


def near_hint(name: str, known: Collection[str]) -> str:
    """What to write in place of an unknown name: the nearest known ones, or the first few."""
    listed = difflib.get_close_matches(name[:100], list(known)[:1000], n=3, cutoff=0.5)
    listed = listed or list(known)[:8]
    more = ", ..." if len(known) > len(listed) else ""
    return f"write one of {', '.join(quoted(each[:100]) for each in listed)}{more}"


class _Token(NamedTuple):
    kind: str  # name of a group of _TOKEN, or "end"
    text: str
    at: int  # number of its first character, from 0


class _Parser:
    """Reads one text; every method reads what the grammar above calls by its name."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._next = text, list(_tokens(text)), 0
        self._depth = self._tests = 0

    def whole(self) -> Predicate:
        found = self._either()
        if self._token.kind != "end":
            self._fail("expected and, or, or the end")
        return found

    def _either(self) -> Predicate:
        return self._junction("or", self._both)

    def _both(self) -> Predicate:
        return self._junction("and", self._negated)

    def _junction(self, word: Literal["and", "or"], part: Callable[[], Predicate]) -> Predicate:
        parts = [part()]
        while self._took(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def _negated(self) -> Predicate:
        if not self._took("not"):
            return self._test()
        with self._deeper():
            return self._negated().negated()

    def _test(self) -> Predicate:
        if self._took("("):
            with self._deeper():
                found = self._either()
            self._expect(")")
            return found
        self._count_test()
        if self._took("visible"):
            return Comparison(
                Statistic("confidence", self._name("keypoint")), ">=", VISIBLE_CONFIDENCE
            )
        return self._chain()

    def _chain(self) -> Predicate:
        left, parts = self._value(), list[Predicate]()
        while (comparator := _COMPARATORS.get(self._token.text)) is not None:
            place = self._taken()
            right = self._value()
            parts.append(self._comparison(left, comparator, right, place))
            left = right
        if not parts:
            self._fail("expected a comparison, such as >= 0.02")
        for _ in parts[1:]:
            self._count_test()
        return parts[0] if len(parts) == 1 else Junction("and", tuple(parts))

    def _comparison(
        self, left: Statistic | float, comparator: Comparator, right: Statistic | float, at: _Token
    ) -> Comparison:
        if isinstance(left, Statistic) and not isinstance(right, Statistic):
            return Comparison(left, comparator, right)
        if isinstance(right, Statistic) and not isinstance(left, Statistic):
            return Comparison(right, _MIRRORED[comparator], left)
        two = "two statistics" if isinstance(left, Statistic) else "two numbers"
        self._fail(f"{comparator} compares {two}; compare a statistic with a number", at)

    def _value(self) -> Statistic | float:
        token = self._token
        if token.kind == "number":
            self._taken()
            number = float(token.text)
            if not math.isfinite(number):
                self._fail("the number is too large for a float", token)
            return number
        if self._took("share"):
            return Statistic("share", self._name("class"))
        if self._took("confidence"):
            return Statistic("confidence", self._name("keypoint"))
        if self._took("uncertainty"):
            named = self._token.text == "("
            return Statistic("uncertainty", self._name("class") if named else "")
        if self._took("depth"):
            return Statistic("depth", self._quantile())
        if token.kind == "word" and token.text not in _WORDS:
            near = difflib.get_close_matches(token.text, ("not", *_FUNCTIONS), n=1)
            if token.text == "score":  # what other pages call it
                near = ["uncertainty"]
            self._fail(f"{token.text[:40]!r} is unknown; write {', '.join(near or _FUNCTIONS)}")
        self._fail("expected a number or one of " + ", ".join(_FUNCTIONS))

    def _name(self, of: str) -> str:
        """The name within parentheses, not empty."""
        if not self._took("("):
            self._fail(f"expected ( and the name of a {of} in quotes")
        token = self._token
        if token.kind != "name" or len(token.text) == 2:
            self._fail(f"expected the name of a {of} in quotes")
        self._taken()
        self._expect(")")
        return token.text[1:-1]

    def _quantile(self) -> str:
        """The number within parentheses, from 0 to 1, as `quantile_name` writes it."""
        if not self._took("("):
            self._fail("expected ( and a share of the pixels, as in depth(0.5), the median")
        token = self._token
        if token.kind != "number" or not 0 <= float(token.text) <= 1:
            self._fail("expected a share of the pixels, from 0 to 1, such as 0.5 for the median")
        self._taken()
        self._expect(")")
        return quantile_name(float(token.text))

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _taken(self) -> _Token:
        """The next token, which is not the end; the one behind it is next now."""
        self._next += 1
        return self._tokens[self._next - 1]

    def _took(self, text: str) -> bool:
        """Takes the next token if it is this word or sign."""
        took = self._token.text == text
        self._next += took
        return took

    def _expect(self, sign: str) -> None:
        if not self._took(sign):
            self._fail(f"expected {sign}")

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"over {MAX_DEPTH} parentheses and nots within each other; use fewer")
        yield
        self._depth -= 1

    def _count_test(self) -> None:
        self._tests += 1
        if self._tests > MAX_TESTS:
            self._fail(f"over {MAX_TESTS} conditions; use fewer")

    def _fail(self, problem: str, token: _Token | None = None) -> NoReturn:
        raise _error(problem, self._text, (token or self._token).at)


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens without spaces, then the end. Raises PredicateError."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _error("no condition has such a character", text, at)
        kind = match.lastgroup or ""
        if kind != "space":
            yield _Token(kind, match.group(), at)
        at = match.end()
    yield _Token("end", "", at)


def _error(problem: str, text: str, at: int) -> PredicateError:
    """Shows where the text has the problem: at most 30 characters from there on."""
    there = f"at {text[at : at + 30]!r}" if at < len(text) else "at its end"
    return PredicateError(f"where is wrong {there} (character {at + 1}): {problem}")
