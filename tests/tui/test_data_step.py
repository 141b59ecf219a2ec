"""The data step over real files and the real child: what a file is, its rows, what is wrong with it, and what is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tunewright.recipes.model import Data
from tunewright.tui.app import TunewrightApp
from tunewright.tui.screens.data_step import DataStep
from tunewright.tui.screens.data_words import bars, lengths_lines, ordinal
from tunewright.tui.widgets.choice_line import ChoiceLine
from tunewright.tui.widgets.data_dialogs import free_name
from tunewright.tui.widgets.path_field import DATA_FILES, complete

from .recorded import settle, shown, until

SMALL, USUAL, LARGE = (80, 24), (120, 40), (200, 60)


def chat(prompt: str, answer: str, **more: object) -> dict[str, object]:
    """Return a row of two turns."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def write_rows(path: Path, rows: list[dict[str, object]], bad: str = "") -> Path:
    """Write rows as JSON lines, with a line that is no row at the end where one is given."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + bad, encoding="utf-8")
    return path


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Thirty different rows, one of them much longer than the others."""
    rows = [
        chat(
            f"Please pack order {row} for {'Mira' if row % 2 else 'Tara'} in Oslo.",
            f"Order {row} is packed.",
            city="Oslo",
        )
        for row in range(30)
    ]
    rows[7] = chat("Tell me everything about seals. " + "Really everything. " * 12, "Seals swim well.", city="Bergen")
    return write_rows(tmp_path / "orders-30.jsonl", rows)


def step(pilot: Pilot[None]) -> DataStep:
    return pilot.app.screen.query_one(DataStep)


async def open_data(pilot: Pilot[None], source: Path | str | None = None) -> DataStep:
    """Walk to the data step, and name `source` there."""
    for _ in range(2):
        await settle(pilot)
        await pilot.press("enter")
    if source is not None:
        step(pilot).query_one("#source", Input).value = str(source)
    await settle(pilot)
    return step(pilot)


async def press(pilot: Pilot[None], *keys: str) -> str:
    """Press keys, wait until all is quiet, and return what is on the screen."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)
    return shown(pilot)


def styled(pilot: Pilot[None], style: str) -> str:
    """Return the text on the screen that is underlined or struck through."""
    return "".join(
        segment.text
        for strip in pilot.app.screen._compositor.render_strips()
        for segment in strip
        if segment.style and getattr(segment.style, style)
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "question,answer\nWhat is 2+2?,Four.\nWhat is 3+3?,Six.\n", "prompt-completion"),
        ("a.jsonl", json.dumps({"instruction": "Add 2 and 2.", "input": "", "output": "Four."}) + "\n", "alpaca"),
        ("a.json", json.dumps([chat("Hello!", "Good day.")]), "messages"),
        ("a.txt", "A plain text.\n\nAnother one.\n", "text"),
    ],
)
async def test_the_format_and_the_rows_of_a_file_are_told(
    runs: Path, tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        await open_data(pilot, tmp_path / name)
        screen = shown(pilot)
        assert said in screen
        assert "% sure" in screen
        assert "row" in screen


async def test_rows_are_gone_through_by_keys(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        await open_data(pilot, orders)
        assert "Row 1 of 30 · line 1" in shown(pilot)
        assert "Order 0 is" in styled(pilot, "underline")
        assert "Row 3 of 30 · line 3" in await press(pilot, "n", "right")
        assert "Row 2 of 30" in await press(pilot, "p")
        assert "this is the first row" in await press(pilot, "p", "p")
        assert "Row 8 of 30 · line 8" in await press(pilot, "l")
        assert "longest, 2nd" in await press(pilot, "l")
        assert "the worst" in await press(pilot, "w")
        assert "at random" in await press(pilot, "r")


async def test_the_last_row_is_the_last(runs: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "two.jsonl", [chat("Hello!", "Good day."), chat("Bye!", "Farewell.")])
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        await open_data(pilot, data)
        assert "that was the last row" in await press(pilot, "n", "n")
        assert "Farewell." in shown(pilot)


async def test_a_row_is_shown_as_tokens(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        await open_data(pilot, orders)
        text = await press(pilot, "v")
        assert "P│l│e│a│s│e│·│" in text
        assert "O│r│d│e│r│·│0│" in styled(pilot, "underline")
        assert "Please pack" in await press(pilot, "v")


async def test_a_search_goes_from_hit_to_hit_and_escape_ends_it(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, orders)
        await press(pilot, "slash", *"SEALS", "enter")
        assert "Row 8 of 30" in shown(pilot)
        assert "holds “SEALS”" in shown(pilot)
        assert "no “SEALS” behind it" in await press(pilot, "enter")
        assert "Row 8 of 30" in await press(pilot, "enter")
        await press(pilot, "escape")
        assert pilot.app.screen.focused is data_step.query_one("#row")
        assert "Row 9 of 30" in await press(pilot, "n")


async def test_what_lies_behind_the_cut_is_struck_through(runs: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "long.jsonl", [chat("Go on. " * 50, "Yes. " * 60 + "The very end.")])
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        await open_data(pilot, data)
        assert "cut here at 512 tokens" in shown(pilot)
        assert "The very end." in styled(pilot, "strike")
        assert "The very end." not in styled(pilot, "underline")
        step(pilot).change(overlong="drop")
        await settle(pilot)
        assert "left out, for its length" in shown(pilot)


async def test_findings_lead_to_their_rows(runs: Path, tmp_path: Path) -> None:
    rows = [chat(f"Question {row}?", f"Answer {row}.") for row in range(25)]
    data = write_rows(tmp_path / "twice.jsonl", [*rows, rows[4]])
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, data)
        screen = await press(pilot, "tab")
        assert "Rows that are there more than once" in screen
        listing = data_step.panes.findings
        codes = [finding.code for finding in listing.findings]
        listing.highlighted = codes.index("duplicates")
        await settle(pilot)
        assert "Drop the repeats" in shown(pilot)
        assert "line 26" in shown(pilot)
        assert "Row 26 of 26 · line 26" in await press(pilot, "down", "enter")
        assert "Answer 4." in shown(pilot)


async def test_a_finding_is_mended_in_a_new_file(runs: Path, tmp_path: Path) -> None:
    rows = [chat(f"Question {row}?", f"Answer {row}.") for row in range(25)]
    data = write_rows(tmp_path / "twice.jsonl", [*rows, rows[4], rows[5]])
    before = data.read_bytes()
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        data_step = await open_data(pilot, data)
        codes = [finding.code for finding in data_step.panes.findings.findings]
        data_step.panes.findings.highlighted = codes.index("duplicates")
        await settle(pilot)
        assert "stays as it is" in await press(pilot, "x")
        await press(pilot, "enter")
        assert data_step.draft.source == str(tmp_path / "twice.fixed.jsonl")
        assert data_step.draft.report is not None
        assert data_step.draft.report.rows == 25
        assert "duplicates" not in [finding.code for finding in data_step.panes.findings.findings]
    assert data.read_bytes() == before


async def test_faulty_rows_are_left_out_with_one_key(runs: Path, tmp_path: Path, fixed_plans: None) -> None:
    rows = [chat(f"Question {row}?", f"Answer {row}.") for row in range(25)]
    data = write_rows(tmp_path / "bad.jsonl", rows, bad='{"messages": [\n')
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        data_step = await open_data(pilot, data)
        assert "line 26" in shown(pilot)
        assert "Press d to leave these rows out" in await press(pilot, "enter")
        await press(pilot, "d")
        assert data_step.obstacle() is None
        await press(pilot, "enter", "enter")
        recipe = data_step.draft.recipe
        assert recipe is not None
        assert (recipe.data.faulty, recipe.data.source) == ("drop", str(data))


async def test_columns_are_mapped_and_the_rows_follow(runs: Path, tmp_path: Path) -> None:
    data = tmp_path / "odd.csv"
    data.write_text(
        "ask,reply,note\n" + "".join(f"Ask {n}?,Reply {n}.,Note {n}\n" for n in range(20)), encoding="utf-8"
    )
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        data_step = await open_data(pilot, data)
        await press(pilot, "c")
        dialog = pilot.app.screen
        kind = dialog.query_one("#format", ChoiceLine)
        kind.focus()
        while kind.value != "prompt-completion":
            await press(pilot, "right")
        for field, letter in (("prompt", "a"), ("completion", "n")):
            dialog.query_one(f"#field-{field}", ChoiceLine).focus()
            while dialog.query_one(f"#field-{field}", ChoiceLine).value not in ("ask", "note"):
                await press(pilot, letter)
        assert "Note 0" in shown(pilot)
        await press(pilot, "enter")
        changes = data_step.draft.data_changes
        assert changes["format"] == "prompt-completion"
        assert changes["columns"] == {"prompt": "ask", "completion": "note"}
        assert "Note 0" in styled(pilot, "underline")


async def test_columns_of_no_known_format_are_told_and_mapped(runs: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "odd.jsonl", [{"foo": f"Ask {n}?", "bar": f"Reply {n}."} for n in range(20)])
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, data)
        assert "columns: foo, bar" in shown(pilot)
        assert "press c to map its columns" in await press(pilot, "enter")
        await press(pilot, "c", "down", "f")
        assert "no `completion`" in shown(pilot)
        await press(pilot, "down", "b")
        assert "Reply 0." in shown(pilot)
        await press(pilot, "enter")
        assert data_step.draft.data_changes == {
            "format": "prompt-completion",
            "columns": {"prompt": "foo", "completion": "bar"},
        }
        assert data_step.obstacle() is None
        data_step.change(format="alpaca", columns={"output": "none"}, faulty="drop")
        await settle(pilot)
        assert "Not one row can be read as alpaca" in (data_step.obstacle() or "")


async def test_a_format_is_named_in_a_dialog(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, orders)
        assert "conversations with from and value" in await press(pilot, "f")
        await press(pilot, "home", "down", "enter")
        assert data_step.draft.data_changes["format"] == "messages"
        assert "named by you" in await press(pilot, "tab", "tab", "tab")


async def test_options_reach_the_recipe(runs: Path, orders: Path, fixed_plans: None) -> None:
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        data_step = await open_data(pilot, orders)
        await press(pilot, "o")
        dialog = pilot.app.screen
        await press(pilot, "right", "right")
        assert dialog.query_one("#loss_on", ChoiceLine).value == "last"
        dialog.query_one("#kind", ChoiceLine).focus()
        await press(pilot, "n", "right")
        dialog.query_one("#value", Input).value = "0.2"
        dialog.query_one("#key", ChoiceLine).focus()
        await press(pilot, "c", "enter")
        assert data_step.draft.data_changes["loss_on"] == "last"
        await press(pilot, "enter", "enter")
        recipe = data_step.draft.recipe
        assert recipe is not None
        assert recipe.data.loss_on == "last"
        assert (recipe.data.validation.value, recipe.data.validation.key) == (0.2, "city")


async def test_rows_of_an_evaluation_file_are_found_in_the_data(runs: Path, orders: Path, tmp_path: Path) -> None:
    words = (
        "the tall lighthouse keeper counted seventeen grey herons before breakfast on the windy northern harbour wall"
    )
    shared = chat(f"Repeat this sentence: {words}", f"Certainly: {words}, and so on.")
    with orders.open("a", encoding="utf-8") as file:
        file.write(json.dumps(shared) + "\n")
    judged = write_rows(tmp_path / "judged.jsonl", [shared])
    async with TunewrightApp().run_test(size=LARGE) as pilot:
        data_step = await open_data(pilot, orders)
        await press(pilot, "o")
        pilot.app.screen.query_one("#against", Input).value = str(judged)
        assert "Rows that stand in an evaluation file" in await press(pilot, "enter")
        assert data_step.draft.against == (str(judged),)
        assert "against" not in data_step.draft.data_changes


async def test_options_that_cannot_be_are_said_in_the_dialog(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, orders)
        await press(pilot, "o")
        dialog = pilot.app.screen
        dialog.query_one("#max_length", Input).value = "3"
        assert "max_length" in await press(pilot, "enter")
        assert pilot.app.screen is dialog
        await press(pilot, "escape")
        assert data_step.draft.data_changes == {}


async def test_the_maximum_length_is_chosen_beside_what_it_costs(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, orders)
        screen = await press(pilot, "plus")
        assert "▸1,024" in screen
        assert data_step.draft.data_changes["max_length"] == 1024
        assert "▸512" in await press(pilot, "minus")
        assert data_step.obstacle() is None


async def test_other_data_forgets_what_was_chosen_for_the_first(runs: Path, orders: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", [chat("Hello!", "Good day.")])
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, orders)
        data_step.change(format="messages", faulty="drop", overlong="drop")
        await settle(pilot)
        data_step.query_one("#source", Input).value = str(other)
        await settle(pilot)
        assert data_step.draft.data_changes == {"overlong": "drop"}


async def test_nothing_to_learn_stops_the_wizard(runs: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "long.jsonl", [chat(f"{row} " + "Go on. " * 90, "Yes.") for row in range(20)])
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        data_step = await open_data(pilot, data)
        assert "0.0 % of the tokens" in await press(pilot, "tab", "tab")
        await press(pilot, "enter")
        assert data_step.display
        assert "Not one token" in shown(pilot)


async def test_a_large_set_is_audited_on_request_and_stopped(runs: Path, tmp_path: Path) -> None:
    data = tmp_path / "large.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for row in range(6_000):
            file.write(json.dumps(chat(f"Question {row}? {'Why? ' * 700}", f"Answer {row}.")) + "\n")
    async with TunewrightApp().run_test(size=USUAL) as pilot:
        await open_data(pilot, data)
        assert "audits all" in shown(pilot)
        await pilot.press("a")
        await until(pilot, lambda: "rows/s" in shown(pilot))
        await press(pilot, "escape")
        assert "stopped after" in shown(pilot)
        assert step(pilot).display
        assert "a begins anew" in shown(pilot)


async def test_all_panes_are_there_on_a_large_terminal(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=LARGE) as pilot:
        await open_data(pilot, orders)
        screen = shown(pilot)
        for said in ("Row 1 of 30", "Findings", "rows cut", "How it is trained"):
            assert said in screen


async def test_tab_goes_through_all_parts_and_back(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        await open_data(pilot, orders)
        seen: list[str | None] = []
        for _ in range(6):
            await press(pilot, "tab")
            seen.append(pilot.app.screen.focused.id if pilot.app.screen.focused else None)
        assert seen == ["findings", "tokens", "file", "model", "source", "row"]
        await press(pilot, "shift+tab", "escape")
        assert pilot.app.screen.focused is step(pilot).query_one("#row")


async def test_no_escape_of_a_file_reaches_the_terminal(runs: Path, tmp_path: Path) -> None:
    evil = "\x1b]52;c;ZXZpbA==\x07\x1b[2J[/nope][@click=app.quit]press[/]"
    rows = [chat(f"{evil} {row}", evil, **{evil: evil}) for row in range(3)]
    data = write_rows(tmp_path / "evil.jsonl", rows, bad=evil)
    async with TunewrightApp().run_test(size=LARGE) as pilot:
        await open_data(pilot, data)
        for keys in (("v",), ("v", "c"), ("escape", "o"), ("escape", "x")):
            assert "\x1b" not in await press(pilot, *keys)
        assert "[/nope]" in shown(pilot) or "press" in shown(pilot)


async def test_what_is_not_there_can_be_named_anew(runs: Path, orders: Path) -> None:
    async with TunewrightApp().run_test(size=SMALL) as pilot:
        data_step = await open_data(pilot, "/nowhere/at/all.parquet")
        assert "Data not found" in shown(pilot)
        await press(pilot, "a", "n", "l", "c", "o", "f", "x", "d", "plus", "v")
        assert "Data not found" in (data_step.obstacle() or "")
        data_step.query_one("#source", Input).value = str(orders)
        await settle(pilot)
        assert data_step.obstacle() is None


async def test_the_palette_does_what_the_keys_do(runs: Path, orders: Path) -> None:
    app = TunewrightApp()
    async with app.run_test(size=SMALL) as pilot:
        await open_data(pilot, orders)
        commands = {command.title: command for command in app.get_system_commands(app.screen)}
        assert {"Audit (a)", "Columns (c)", "Leave out (d)", "Back (esc)"} <= set(commands)
        await commands["Tokens (v)"].callback()
        await settle(pilot)
        assert "P│l│e│a│s│e" in shown(pilot)


def test_paths_of_every_kind_of_data_are_completed(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.parquet", "c.csv.zst", "d.py", "e.tsv"):
        (tmp_path / name).write_text("")
    found: Callable[[str], str | None] = lambda start: complete(f"{tmp_path}/{start}", DATA_FILES)  # noqa: E731
    assert [found(start) is not None for start in "abcde"] == [True, True, True, False, True]


def test_a_new_file_is_named_beside_the_old_one(tmp_path: Path) -> None:
    data = tmp_path / "orders.csv.gz"
    data.write_text("")
    assert free_name(str(data)) == str(tmp_path / "orders.fixed.jsonl")
    (tmp_path / "orders.fixed.jsonl").write_text("")
    assert free_name(str(data)) == str(tmp_path / "orders.fixed-2.jsonl")
    assert free_name("owner/name") == "owner-name.fixed.jsonl"


def test_the_table_of_lengths_keeps_the_chosen_one_where_there_is_little_room() -> None:
    from tunewright.engine.data.statistics import LengthFigures

    figures = [LengthFigures(512 * 2**power, 100 >> power, 10 >> power, 1 - 0.1 / 2**power) for power in range(7)]
    whole = lengths_lines(figures, 16384, 100)
    assert all(line.cell_length == len(figures) * 9 + 13 for line in whole)
    narrow = lengths_lines(figures, 16384, 48)
    assert narrow[0].plain.split() == ["max", "length", "512", "1,024", "▸16,384"]


def test_bars_show_whatever_is_not_nothing() -> None:
    assert bars([0, 1, 1000]) == " ▁█"
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 22)] == ["1st", "2nd", "3rd", "4th", "11th", "22nd"]


def test_the_data_section_of_the_defaults_is_what_the_step_begins_with() -> None:
    from tunewright.tui.proposal import USUAL_LENGTH

    assert Data(source="any.jsonl").max_length == USUAL_LENGTH
