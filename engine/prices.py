"""Prices: what an hour of a card costs in the cloud, by a dated table that the user can edit."""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ..foundation.errors import TunewrightError, nearest
from ..foundation.files import read_text
from ..foundation.home import home
from ..foundation.text import one_line
from .cards import CARDS

Provider = Literal["marketplace", "specialist", "hyperscaler", "own"]
PROVIDERS: tuple[Provider, ...] = ("marketplace", "specialist", "hyperscaler", "own")
BUILT_IN = Path(__file__).with_name("prices.toml")
_KEYS = ("low", "typical", "date", "provider")


@dataclass(frozen=True, slots=True)
class Price:
    """What an hour of one card costs on demand, in the table's currency."""

    card: str
    low: float
    typical: float
    date: datetime.date
    """When the figures were read off a price list."""
    provider: Provider
    """Who asks the typical figure."""
    currency: str
    users_own: bool
    """Whether the figures come from the user's file."""


def prices_path() -> Path:
    """Return the user's own file, which need not exist."""
    return home() / "prices.toml"


def read_prices() -> dict[str, Price]:
    """Return the price of each card by its name in the table of cards; the user's figures come before the built-in.

    Raises TunewrightError when the user's file is not valid.
    """
    prices = parse_prices(BUILT_IN.read_text(encoding="utf-8"), str(BUILT_IN), users_own=False)
    own = prices_path()
    return prices | parse_prices(read_text(own), str(own), users_own=True) if own.exists() else prices


def parse_prices(text: str, origin: str, users_own: bool) -> dict[str, Price]:
    """Return the prices in the TOML `text`; `origin` names it in errors.

    A row of a user's needs `typical` alone: `low` is then the same, the provider "own" and the date today.
    Raises TunewrightError that names the card and the key that is wrong.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(origin, f"it is not TOML ({one_line(str(error), 200)})") from error
    stray = next((key for key in tables if key not in ("currency", "cards")), None)
    if stray is not None:
        raise _fault(origin, f"{one_line(stray, 60)!r} is not a key; the keys are currency and cards")
    currency = tables.get("currency", "USD")
    if not isinstance(currency, str) or not 1 <= len(one_line(currency)) <= 8:
        raise _fault(origin, "currency is not a short name such as USD")
    rows: object = tables.get("cards", {})
    if not isinstance(rows, dict):
        raise _fault(origin, "cards is not a table")
    return {
        name: _price(name, row, origin, one_line(currency), users_own)
        for name, row in cast("dict[str, object]", rows).items()
    }


def _price(name: str, row: object, origin: str, currency: str, users_own: bool) -> Price:
    known = [card.name for card in CARDS]
    said = f"cards.{one_line(name, 60)}"
    if name not in known:
        suggestion = nearest(name, known)
        raise _fault(origin, f"{said} is no known card" + (f"; did you mean {suggestion}?" if suggestion else ""))
    if not isinstance(row, dict):
        raise _fault(origin, f"{said} is not a table")
    values = cast("dict[str, object]", row)
    stray = next((key for key in values if key not in _KEYS), None)
    if stray is not None:
        raise _fault(origin, f"{said}.{one_line(stray, 60)} is not a key; the keys are {', '.join(_KEYS)}")
    missing = next((key for key in _KEYS if key not in values and (key == "typical" or not users_own)), None)
    if missing is not None:
        raise _fault(origin, f"{said}.{missing} is missing")
    typical = _amount(values, "typical", said, origin)
    low = _amount(values, "low", said, origin) if "low" in values else typical
    if low > typical:
        raise _fault(origin, f"{said}.low is more than typical")
    date = values.get("date", datetime.date.today())
    if not isinstance(date, datetime.date) or isinstance(date, datetime.datetime):
        raise _fault(origin, f"{said}.date is not a date such as 2026-11-20, without quotation marks")
    provider = values.get("provider", "own")
    if provider not in PROVIDERS:
        raise _fault(origin, f"{said}.provider is none of {', '.join(PROVIDERS)}")
    return Price(name, low, typical, date, provider, currency, users_own)


def _amount(values: Mapping[str, object], key: str, said: str, origin: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise _fault(origin, f"{said}.{key} is not an amount of money above 0")
    return float(value)


def _fault(origin: str, what: str) -> TunewrightError:
    return TunewrightError(
        "Prices not valid",
        f"{one_line(origin, 300)}: {what}.",
        f"Mend or remove that file; {BUILT_IN} shows the form.",
    )
