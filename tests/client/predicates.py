"""Random texts of predicates, and what they are as Python on numpy's numbers."""

import ast
from functools import reduce
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

NAMES = ("a", "b", "c")
_QUOTED = [f"'{name}'" for name in NAMES] + ['"a"', '"c"']
_COMPARATORS = ("<", "<=", ">", ">=", "==", "!=")
DEPTHS = ("0.1", "0.5", "0.9")
_SHARES = ("0.1", ".5", "5e-1", "0.9")
_NUMBERS = ("0", "0.25", ".5", "0.75", "1.", "1e0", "2.5e-1", "-1", "0.3")


def random_text(draws: Random, depth: int = 3) -> str:
    """A text of the whole language, with few alternatives."""
    shape = draws.randrange(6) if depth else draws.randrange(3)
    if shape < 3:
        return _random_test(draws)
    left, right = random_text(draws, depth - 1), random_text(draws, depth - 1)
    return (
        f"{left} and {right}",
        f"{left} or {right}",
        f"not ({left})" if draws.randrange(2) else f"({left}) and ({right})",
    )[shape - 3]


def _random_test(draws: Random) -> str:
    name, number, comparator = map(draws.choice, (_QUOTED, _NUMBERS, _COMPARATORS))
    kind = draws.choice(("share", "confidence", "uncertainty", "depth", ""))
    statistic = f"{kind}({name})" if kind else "uncertainty"
    if kind == "depth":
        statistic = f"depth({draws.choice(_SHARES)})"
    return draws.choice((
        f"visible({name})",
        f"{statistic} {comparator} {number}",
        f"{number}{comparator}{statistic}",
        f"{draws.choice(_NUMBERS)} <= {statistic} {comparator} {number}",
    ))  # fmt: skip


def predicate_texts() -> st.SearchStrategy[list[str]]:
    """Ten texts at a time, because hypothesis takes longer to draw each than to test it."""
    return st.builds(
        lambda seed: [random_text(draws) for draws in [Random(seed)] for _ in range(10)],
        st.integers(0, 2**32 - 1),
    )


def python_value(text: str, values: dict[tuple[str, str], Any]) -> Any:
    """What the text is as Python, whose tree numpy evaluates.

    values: numbers or arrays of them by kind and name of a statistic.
    """
    return _value(ast.parse(text.strip(), mode="eval").body, values)


def _value(node: ast.expr, values: dict[tuple[str, str], Any]) -> Any:
    match node:
        case ast.BoolOp(op=operator, values=parts):
            combine = np.logical_and if isinstance(operator, ast.And) else np.logical_or
            return reduce(combine, [_value(part, values) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(_value(operand, values))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.Compare(left=left, ops=operators, comparators=others):
            numbers = [_value(each, values) for each in (left, *others)]
            pairs = zip(operators, pairwise(numbers), strict=True)
            return reduce(np.logical_and, [_COMPARED[type(op)](*pair) for op, pair in pairs])
        case ast.Call(func=ast.Name(id="visible"), args=[ast.Constant(value=name)]):
            return values["confidence", str(name)] >= 0.2
        case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=name)]):
            return values[kind, str(name)]
        case ast.Name(id=kind):
            return values[kind, ""]
        case ast.Constant(value=float() | int() as number):
            return float(number)
    raise AssertionError(ast.dump(node))


_COMPARED: dict[type[ast.cmpop], Any] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater,
    ast.GtE: np.greater_equal, ast.Eq: np.equal, ast.NotEq: np.not_equal,
}  # fmt: skip
