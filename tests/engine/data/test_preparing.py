"""What is prepared is what is trained: split the same way every time, counted, and refused when there is nothing in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tunewright import starter
from tunewright.engine.data.measuring import measure_here, measure_rows
from tunewright.engine.data.preparing import prepare, read_examples
from tunewright.engine.data.rendering import Renderer
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Data, Recipe, validate_recipe


def recipe(**changes: object) -> Recipe:
    return validate_recipe(
        {
            "base": {"model": "tunewright/starter"},
            "data": {"source": "tunewright/starter-orders", **changes},
            "method": {"kind": "full"},
            "training": {"learning_rate": 1e-3, "epochs": 1.0},
        },
        "test",
    )


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def talk(question: str, answer: str, **more: object) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def test_preparing_splits_the_same_way_every_time_and_loses_nothing() -> None:
    kept_out = recipe(validation={"kind": "rows", "value": 50.0})
    one, two = prepare(kept_out), prepare(kept_out)
    assert list(one.training) == list(two.training)
    assert one.chosen == two.chosen
    assert (len(one.training), len(one.validation), len(one.kept_out), one.cut, one.dropped) == (950, 50, 50, 0, 0)
    renderer = Renderer(starter.MODEL, kept_out.data)
    assert [renderer.render(each) for each in one.kept_out] == list(one.validation)


def test_cut_rows_are_counted_and_rows_without_anything_to_learn_dropped() -> None:
    prepared = prepare(recipe(max_length=40))
    assert prepared.cut + prepared.dropped > 900
    assert prepared.dropped > 0
    assert all(row.length <= 40 and row.supervised for row in prepared.training)
    assert prepared.training.lengths == [row.length for row in prepared.training]
    assert prepared.training.supervised == [row.supervised for row in prepared.training]
    whole = prepare(recipe(max_length=100, overlong="drop"))
    assert whole.cut == 0
    assert whole.dropped > 0
    assert max(whole.training.lengths) <= 100
    with pytest.raises(TunewrightError, match="Nothing to learn"):
        prepare(recipe(max_length=8))


def test_rows_at_fault_are_refused_with_their_lines_or_dropped_when_the_recipe_says_so(tmp_path: Path) -> None:
    rows: list[Any] = [talk(f"{number} mugs", str(number)) for number in range(20)]
    rows[4] = {"messages": [{"role": "user", "content": None}]}
    source = str(write(tmp_path / "a.jsonl", rows))
    with pytest.raises(TunewrightError, match="line 5") as caught:
        prepare(recipe(source=source))
    assert caught.value.title == "Data not readable"
    prepared = prepare(recipe(source=source, faulty="drop"))
    assert (prepared.faulty, len(prepared.training) + len(prepared.validation)) == (1, 19)


def test_validation_rows_come_from_another_file(tmp_path: Path) -> None:
    training = write(tmp_path / "a.jsonl", [talk(f"{number} mugs", "yes") for number in range(10)])
    other = write(tmp_path / "b.jsonl", [talk(f"{number} bowls", "no") for number in range(6)])
    found = prepare(recipe(source=str(training), validation={"kind": "file", "source": str(other), "value": 4.0}))
    assert (len(found.training), len(found.validation), len(found.kept_out), found.chosen) == (10, 4, 4, ())
    assert found.kept_out[0].messages[1].content == "no"


def test_no_customer_is_on_both_sides(tmp_path: Path) -> None:
    rows = [talk(f"{number} mugs", f"customer {number % 7}", customer=number % 7) for number in range(70)]
    source = str(write(tmp_path / "a.jsonl", rows))
    found = prepare(recipe(source=source, validation={"kind": "fraction", "value": 0.3, "key": "customer"}))
    inside = {each.messages[1].content for each in found.kept_out}
    assert len(found.validation) == 20
    assert len(inside) == 2
    with pytest.raises(TunewrightError, match="Column not found"):
        prepare(recipe(source=source, validation={"kind": "fraction", "value": 0.3, "key": "shop"}))


def test_a_share_of_the_rows_is_trained_on_while_the_validation_rows_stay() -> None:
    whole, part = prepare(recipe()), prepare(recipe(share=0.1))
    assert part.chosen == whole.chosen
    assert len(part.training) == round(0.1 * len(whole.training))


def test_many_processes_prepare_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = starter.TRAINING_DATA.read_bytes()
    source = tmp_path / "rows.jsonl"
    source.write_bytes(rows * 4)
    wanted = recipe(source=str(source))
    alone = prepare(wanted)
    monkeypatch.setattr("tunewright.engine.data.preparing.PARALLEL_BYTES", 0)
    together = prepare(wanted)
    assert list(alone.training) == list(together.training)
    assert alone.kept_out == together.kept_out


def test_measured_rows_are_the_prepared_ones_and_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    source = write(tmp_path / "a.jsonl", [talk(f"{number} mugs", "yes " * number) for number in range(1, 40)])
    wanted = recipe(source=str(source), max_length=32)
    measured = measure_rows(wanted)
    prepared = prepare(wanted)
    assert measured is not None
    assert list(measured.training) == prepared.training.lengths
    assert list(measured.validation) == prepared.validation.lengths
    assert list(measured.supervised) == prepared.training.supervised
    assert (measured.cut, measured.dropped) == (prepared.cut, prepared.dropped)
    with monkeypatch.context() as without_child:
        without_child.setattr("tunewright.engine.data.child.DataProcess.__init__", None)
        assert measure_rows(wanted) == measured
    write(source, [talk("one", "two")] * 30)
    assert measure_rows(wanted) == measure_here(wanted) != measured


def test_examples_are_read_up_to_a_limit() -> None:
    data = Data(source="tunewright/starter-orders")
    assert len(read_examples(data.source, data, limit=3)) == 3
