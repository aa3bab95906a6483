"""Options that choose among samples: uncertainty, predicates, balance and strata.

Enter: options of a stream. Leaves: the message Filter of its query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from labelmint.arguments import of_type, real_number
from labelmint.predicate import MAX_CHARACTERS, is_nameable, predicate_from_text, quoted
from labelmint.v1 import label_service_pb2 as pb

MAX_TARGETS = 16  # conditions of `balance`; unreachable ones take time with their number
MAX_STRATA_CONDITIONS = 3  # conditions of `keep_by`


def filter_from_options(options: Mapping[str, Any]) -> pb.Filter:
    """The message of the options of a filter; raises as query_from_options does."""
    fraction, limit = options.get("keep_fraction"), options.get("max_uncertainty")
    if fraction is not None and limit is not None:
        raise ValueError(
            f"keep_fraction {fraction} and max_uncertainty {limit} exclude each other; give one"
        )
    message = pb.Filter(
        mode=pb.FILTER_MODE_NONE,
        filter_sets=options.get("filter_sets", False),
        where=where_from_options(options.get("where"), options.get("max_class_uncertainty")) or "",
        proposal=options.get("proposal") or "",
    )
    if fraction is not None:
        check_fraction(fraction)
        message.mode, message.keep_fraction = pb.FILTER_MODE_KEEP_FRACTION, fraction
    elif limit is not None:
        if not real_number("max_uncertainty", limit) >= 0:
            raise ValueError(f"max_uncertainty {limit} is under 0; give a limit from 0 up")
        message.mode, message.max_uncertainty = pb.FILTER_MODE_MAX_UNCERTAINTY, limit
    balance = balance_from_option(options.get("balance"))
    if balance == "classes":
        message.balance_classes = True
    elif balance is not None:
        for condition, share in balance.items():
            message.balance.add(condition=condition, share=share)
    message.keep_by.extend(keep_by_from_option(options.get("keep_by")) or ())
    _check_selection(message)
    return message


def balance_from_option(
    balance: Mapping[str, float] | str | None,
) -> dict[str, float] | Literal["classes"] | None:
    """The option `balance`, checked as far as that is possible without the model.

    Raises:
        TypeError: it is neither a dict of shares nor text.
        ValueError: it is another word than "classes", has no condition or too many of them, or a
            share is not in (0, 1).
    """
    if balance is None:
        return None
    if isinstance(balance, str):
        if balance != "classes":
            raise ValueError(
                f"balance is {balance!r:.100}; give 'classes', or shares such as {{'glasses': 0.5}}"
            )
        return "classes"
    of_type("balance", balance, Mapping, "'classes', or a dict of conditions and shares")
    if not 1 <= len(balance) <= MAX_TARGETS:
        raise ValueError(
            f"balance has {len(balance)} conditions; give 1 to {MAX_TARGETS}, or leave it out"
        )
    shares = {}
    for condition, share in balance.items():
        _check_condition("balance", condition)
        if not 0 < real_number(f"balance of {condition!r:.100}", share) < 1:
            raise ValueError(
                f"balance of {condition!r:.100} is {share}; a share is over 0 and under 1: use "
                "where for samples that all meet a condition, or none"
            )
        shares[condition] = float(share)
    return shares


def keep_by_from_option(keep_by: str | Sequence[str] | None) -> list[str] | None:
    """The option `keep_by` as a list of conditions; None without any. Raises TypeError,
    ValueError."""
    if keep_by is None:
        return None
    conditions = [keep_by] if isinstance(keep_by, str) else keep_by
    of_type("keep_by", conditions, Sequence, "a class, a predicate, or a list of them")
    if not 1 <= len(conditions) <= MAX_STRATA_CONDITIONS:
        raise ValueError(
            f"keep_by has {len(conditions)} conditions; give 1 to {MAX_STRATA_CONDITIONS}, or "
            "leave it out"
        )
    for condition in conditions:
        _check_condition("keep_by", condition)
    return list(conditions)


def _check_condition(option: str, condition: object) -> None:
    of_type(f"a condition of {option}", condition, str, "a class name or a predicate")
    if not 1 <= len(cast(str, condition)) <= MAX_CHARACTERS:
        raise ValueError(
            f"{option} has a condition of {len(cast(str, condition))} characters; give a class "
            f"name or a predicate, at most {MAX_CHARACTERS}"
        )


def _check_selection(message: pb.Filter) -> None:
    """Raises ValueError for options that contradict each other."""
    if (message.balance or message.balance_classes) and message.filter_sets:
        raise ValueError(
            "balance and filter_sets exclude each other: a coin is tossed for a sample, not for "
            "all views of an object; leave one out"
        )
    if message.keep_by and message.mode != pb.FILTER_MODE_KEEP_FRACTION:
        raise ValueError("keep_by needs keep_fraction, which it divides; give both or neither")


def where_from_options(
    where: str | None, max_class_uncertainty: Mapping[str, float] | None
) -> str | None:
    """Both options as one predicate; None without either.

    Raises PredicateError, which is a ValueError, for a text that is no predicate; ValueError and
    TypeError for a limit that is none.
    """
    of_type("where", where, str, "text")
    of_type("max_class_uncertainty", max_class_uncertainty, Mapping, "a dict of names and limits")
    conditions = [] if where is None else [where]
    for name, limit in (max_class_uncertainty or {}).items():
        of_type("a name in max_class_uncertainty", name, str, "text")
        if not is_nameable(name):
            raise ValueError(
                f"max_class_uncertainty has the class {name!r:.100}, which no predicate can name; "
                "leave it out"
            )
        if not 0 <= real_number(f"max_class_uncertainty of {name!r}", limit) < math.inf:
            raise ValueError(
                f"max_class_uncertainty of {name!r} is {limit}; give a limit from 0 up"
            )
        conditions.append(f"uncertainty({quoted(name)}) <= {float(limit)!r}")
    if not conditions:
        return None
    predicate_from_text(conditions[0])
    if len(conditions) == 1:
        return conditions[0]
    text = " and ".join([f"({conditions[0]})", *conditions[1:]])
    predicate_from_text(text)
    return text


def check_fraction(fraction: float) -> None:
    """Raises TypeError for no number, ValueError for a keep_fraction outside (0, 1]."""
    if not 0 < real_number("keep_fraction", fraction) <= 1:
        raise ValueError(f"keep_fraction {fraction} is outside (0, 1]; give for example 0.9")
