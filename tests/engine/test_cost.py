"""Cards by the names that people type, prices with their date, money, and energy with where its watts come from."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from tunewright.engine import cost
from tunewright.engine.cards import CARDS, UNKNOWN, card_by_name, find_card
from tunewright.engine.machine import GpuDevice, Machine
from tunewright.engine.prices import BUILT_IN, parse_prices, prices_path, read_prices
from tunewright.foundation.errors import TunewrightError


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path))


def machine(*names: str, limit: float | None = None) -> Machine:
    gpus = tuple(GpuDevice(i, name, 80, 80, (9, 0), None, None, None, limit) for i, name in enumerate(names))
    return Machine("Linux", "EPYC", 4, 24.0, 20.0, 50.0, gpus, None, "")


@pytest.mark.parametrize(
    ("typed", "card"),
    [
        ("A100-40", "A100"), ("A100-80", "A100 80GB"), ("a100 80", "A100 80GB"), ("A100 80 GB", "A100 80GB"),
        ("a100", "A100"), ("4090", "RTX 4090"), ("RTX4090", "RTX 4090"), ("rtx 4090", "RTX 4090"), ("H100", "H100"),
        ("h100 pcie", "H100 PCIe"), ("H100 NVL", "H100 NVL"), ("MI300X", "MI300X"), ("4060ti", "RTX 4060 Ti"),
        ("4060", "RTX 4060"), ("T4", "T4"), ("L4", "L4"), ("l40s", "L40S"), ("A10", "A10"), ("a10g", "A10G"),
        ("V100-32", "V100 32GB"), ("NVIDIA H200", "H200"), ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA GeForce RTX 3070", "RTX 3070"), ("AMD Instinct MI300X", "MI300X"), ("5090", "RTX 5090"),
        ("H100 80GB", "H100"), ("H200 141GB", "H200"), ("B200", "B200"),
    ],
)  # fmt: skip
def test_cards_are_found_by_what_people_type(typed: str, card: str) -> None:
    assert card_by_name(typed).name == card


def test_every_card_is_found_by_its_own_name_and_none_by_half_of_it() -> None:
    assert all(card_by_name(card.name) is card for card in CARDS)
    wanted = "T4 3060 3070 3080 3090 4060 4070 4080 4090 5090 L4 A10 L40S A100-40 A100-80 H100 H200 B200 MI300X"
    assert len({card_by_name(name).name for name in wanted.split()}) == len(wanted.split())


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("RTX 4095", "RTX 4090"),
        ("A100-64", "A100"),
        ("H10O", "H100"),
        ("MI250X", "MI300X"),
        ("RTX 4070 Ti", "RTX 4070"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(TunewrightError, match="not in the table") as caught:
        card_by_name(typed)
    assert near in caught.value.remedy
    assert len(caught.value.remedy) < 100


@pytest.mark.parametrize("typed", ["", "nvidia", "RTX", "GeForce"])
def test_a_name_without_a_card_lists_them(typed: str) -> None:
    with pytest.raises(TunewrightError, match=r"Known are .*MI300X"):
        card_by_name(typed)


def test_a_drivers_name_falls_back_to_a_guess() -> None:
    assert find_card("NVIDIA GeForce GTX 1080") is UNKNOWN


def test_cards_are_plausible_against_each_other() -> None:
    for card in CARDS:
        assert card.memory_gib <= card.sold_gb <= 1.1 * card.memory_gib + 1.5, card
        assert 0 < card.matrix_tflops < card.datasheet_tflops
        assert 15 < card.link_gb_per_second < card.bandwidth_gb_per_second
        assert card.supports_bf16 == (card.name not in ("V100 32GB", "V100", "T4"))
    links = {name: card_by_name(name).link_gb_per_second for name in ("B200", "H100", "A100-80", "4090", "T4", "4060")}
    assert list(links.values()) == [900, 450, 300, 31.5, 15.75, 15.75]


def test_the_amd_card_says_what_runs_there() -> None:
    [amd] = [card for card in CARDS if card.vendor == "amd"]
    assert amd.name == "MI300X"
    assert all(word in amd.note for word in ("ROCm", "bitsandbytes", "Unsloth"))


def test_the_built_in_prices_are_whole_dated_and_of_known_cards() -> None:
    prices = read_prices()
    assert len(prices) >= 20
    for name, price in prices.items():
        assert price.card == name == card_by_name(name).name
        assert 0.05 < price.low <= price.typical < 15
        assert datetime.date(2025, 1, 1) <= price.date <= datetime.date(2026, 12, 31)
        assert price.currency == "USD"
        assert not price.users_own
    assert prices["B200"].typical > prices["H100"].typical > prices["RTX 4090"].typical
    assert "indicative" in BUILT_IN.read_text(encoding="utf-8")


def test_the_users_own_prices_come_first() -> None:
    prices_path().write_text('currency = "EUR"\n[cards."RTX 4090"]\ntypical = 0.11\n', encoding="utf-8")
    prices = read_prices()
    own = prices["RTX 4090"]
    assert (own.low, own.typical, own.currency, own.provider, own.users_own) == (0.11, 0.11, "EUR", "own", True)
    assert prices["H100"].currency == "USD"
    assert cost.hourly_rate("cloud", machine("NVIDIA GeForce RTX 4090")) == 0.11


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cards = 3", "cards is not a table"),
        ("[cards", "not TOML"),
        ("[card.H100]\ntypical = 2.0", "'card' is not a key"),
        ('currency = ""', "currency is not"),
        ("[cards.H1000]\ntypical = 2.0", "did you mean H100"),
        ("[cards.H100]\nlow = 2.0", "cards.H100.typical is missing"),
        ("[cards.H100]\ntypical = -2.0", "not an amount"),
        ("[cards.H100]\ntypical = true", "not an amount"),
        ("[cards.H100]\ntypical = nan", "not an amount"),
        ('[cards.H100]\ntypical = "2"', "not an amount"),
        ("[cards.H100]\ntypical = 2.0\nlow = 3.0", "low is more than typical"),
        ('[cards.H100]\ntypical = 2.0\ndate = "2026-11-01"', "not a date"),
        ('[cards.H100]\ntypical = 2.0\nprovider = "best"', "provider is none of"),
        ("[cards.H100]\ntypical = 2.0\nprice = 3.0", "H100.price is not a key"),
        ("[cards]\nH100 = 2.0", "H100 is not a table"),
    ],
)
def test_a_users_file_that_is_wrong_is_told_where(text: str, said: str) -> None:
    prices_path().write_text(text, encoding="utf-8")
    with pytest.raises(TunewrightError, match="Prices not valid") as caught:
        read_prices()
    assert said in caught.value.message
    assert str(prices_path()) in caught.value.message


def test_the_built_in_table_must_say_everything() -> None:
    with pytest.raises(TunewrightError, match="date is missing"):
        parse_prices('[cards.H100]\nlow = 1.0\ntypical = 2.0\nprovider = "specialist"', "here", users_own=False)


@pytest.mark.parametrize(("said", "rate"), [(None, None), ("2.5", 2.5), (0, 0.0), (3.25, 3.25), ("1e2", 100.0)])
def test_a_rate_is_what_was_said(said: str | float | None, rate: float | None) -> None:
    assert cost.hourly_rate(said, machine()) == rate


@pytest.mark.parametrize("said", ["free", "-1", "nan", "inf", "1e7", "", "2,5"])
def test_what_is_no_rate_is_refused(said: str) -> None:
    with pytest.raises(TunewrightError, match="Rate out of range"):
        cost.hourly_rate(said, machine("NVIDIA H200"))


def test_the_clouds_price_is_the_cards_and_multiplies_with_them() -> None:
    h100s = machine("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")
    price = cost.cloud_price(h100s)
    assert price is not None
    assert cost.hourly_rate("cloud", h100s) == price.typical
    assert cost.hourly_rate("cloud", h100s, gpus=2) == 2 * price.typical
    assert cost.cloud_price(machine()) is None
    for here in (machine(), machine("Imaginary 9000")):
        with pytest.raises(TunewrightError, match="No price known"):
            cost.hourly_rate("cloud", here)


def test_money_is_time_at_the_rate() -> None:
    assert cost.money(1800, 4.0) == 2.0
    assert cost.money(1800, 0.0) == 0.0
    assert cost.money(1800, None) is None


@pytest.mark.parametrize(
    ("here", "measured", "watts", "source"),
    [
        (machine("NVIDIA H200"), None, 700 + 150, "card"),
        (machine("NVIDIA H200", limit=500.0), None, 500 + 150, "limit"),
        (machine("NVIDIA H200", limit=500.0), 430.0, 430 + 150, "measured"),
        (machine("Imaginary 9000"), None, UNKNOWN.watts + 150, "assumed"),
        (machine(), None, 4 * 8, "assumed"),
        (machine(), 430.0, 4 * 8, "assumed"),
    ],
)
def test_energy_is_power_times_time_and_says_where_the_power_comes_from(
    here: Machine, measured: float | None, watts: float, source: str
) -> None:
    assert cost.watts(here, measured_watts=measured) == watts
    assert cost.energy_kwh(7200, here, measured_watts=measured) == pytest.approx(2 * watts / 1000)
    assert cost.power_source(here, measured) == source
    assert cost.POWER_WORDS[cost.power_source(here, measured)]


def test_two_gpus_take_twice_the_energy() -> None:
    two = machine("NVIDIA L4", "NVIDIA L4")
    assert cost.energy_kwh(3600, two, gpus=2) == 2 * cost.energy_kwh(3600, two)
