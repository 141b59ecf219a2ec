"""The audit of whole files."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from tunewright import starter
from tunewright.engine.batches import pack
from tunewright.engine.data.audit import audit, audit_rows
from tunewright.engine.data.auditing.byte_tokens import ByteTokens
from tunewright.engine.data.auditing.measurement import RowMeter, tokenise_as_trained
from tunewright.engine.data.detection import shape_of
from tunewright.engine.data.examples import Example, Record
from tunewright.engine.data.findings import CATALOGUE, MOST_EXAMPLES, Finding
from tunewright.engine.data.formats import convert
from tunewright.engine.data.reading import open_source, read_records
from tunewright.engine.data.rendering import Layout, Renderer
from tunewright.engine.data.statistics import AuditRequest, Progress, Report, pack_counted
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes.model import Data

MODEL = "tunewright/starter"
WORDS = [
    "river",
    "stone",
    "garden",
    "letter",
    "window",
    "market",
    "winter",
    "paper",
    "bridge",
    "candle",
    "forest",
    "harbour",
    "kitchen",
    "mirror",
    "pocket",
]


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def good_rows(count: int) -> list[dict[str, Any]]:
    """Return rows of which no two are alike."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        first, second, third = (WORDS[number // 15**place % 15] for place in range(3))
        rows.append(
            chat(
                f"Where did they put the {first} after {number} days of rain?",
                f"They carried the {second} number {number * 7} to the {third} and left it there until {number} came.",
            )
        )
    return rows


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def request(
    path: Path, model: str | None = MODEL, workers: int | None = 0, against: tuple[str, ...] = (), **data: Any
) -> AuditRequest:
    values = {"max_length": 512, **data}
    return AuditRequest(str(path), Data(source=str(path), **values), model, against, workers)


def find(report: Report, code: str) -> Finding:
    assert code in {each.code for each in report.findings}, [(each.code, each.detail) for each in report.findings]
    return next(each for each in report.findings if each.code == code)


def severities(report: Report) -> dict[str, str]:
    return {each.code: each.severity for each in report.findings}


def test_clean_rows_raise_nothing_above_a_hint(tmp_path: Path) -> None:
    report = audit(request(write(tmp_path / "rows.jsonl", good_rows(300))))
    assert report.complete
    assert report.rows == report.converted == 300
    assert report.format == "messages"
    assert set(severities(report).values()) <= {"hint"}, report.findings
    assert report.tokens is not None and report.tokens.exact
    assert sum(report.tokens.histogram) == 300
    assert sum(report.tokens.by_role.values()) == report.tokens.total
    assert 0.3 < report.supervised_share < 0.9
    assert report.length_for_99 == report.tokens.p99
    assert len(report.longest) == len(report.worst) == 20


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_report_does_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    rows: list[Any] = good_rows(700)
    rows[17] = "{not json"
    rows[600] = chat("What is it?", "")
    path = write(tmp_path / "rows.jsonl", rows)
    here = TypeAdapter(Report).dump_python(audit(request(path, workers=0)))
    other = TypeAdapter(Report).dump_python(audit(request(path, workers=workers)))
    assert {**here, "seconds": 0} == {**other, "seconds": 0}


def test_the_starter_set_is_audited_as_it_is_trained() -> None:
    report, figures = audit_rows(
        AuditRequest(
            "tunewright/starter-orders", Data(source="tunewright/starter-orders", max_length=512), MODEL, workers=0
        )
    )
    data = Data(source="tunewright/starter-orders")
    renderer = Renderer(starter.MODEL, data)
    opened = open_source(data.source)
    shape = shape_of(opened, data).shape
    assert shape is not None
    examples = [convert(each, shape) for each in read_records(opened) if isinstance(each, Record)]
    rows = [renderer.render(each) for each in examples if isinstance(each, Example)]
    assert figures.lengths.tolist() == [row.whole_length for row in rows]
    assert figures.supervised.tolist() == [row.supervised for row in rows]
    assert report.supervised_tokens == sum(row.supervised for row in rows)
    assert report.languages


@pytest.mark.parametrize(
    "text", ["plain words", "Grüße aus Köln — 東京 🙂", "  spaces   at the edges  ", "line\n\n\nends\t\n", "é́ combined"]
)
@pytest.mark.parametrize("max_length", [16, 512])
def test_the_quick_way_to_labels_is_the_trainers_way(text: str, max_length: int) -> None:
    data = Data(source="rows.jsonl", max_length=max_length)
    renderer = Renderer(starter.MODEL, data)
    quick = ByteTokens.of(renderer.tokenizer)
    assert quick is not None
    examples = [Example("text", text=text)]
    for answer in (text, text * 3, text[:1]):
        row = Record(place=None, value=chat(text, answer))  # type: ignore[arg-type]
        shape = shape_of_rows([chat("a", "b")])
        converted = convert(row, shape)
        assert isinstance(converted, Example)
        examples.append(converted)
    layouts = [renderer.lay_out(each) for each in examples]
    for layout, tokens in zip(layouts, quick.tokenise(layouts), strict=True):
        assert tokens == tokenise_as_trained(renderer, layout)


@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize("begins", [False, True])
def test_the_quick_way_is_right_for_every_kind_of_byte_tokenizer(
    tmp_path: Path, normal: bool, trims: bool, begins: bool
) -> None:
    import random

    from tokenizers import Tokenizer, normalizers, processors

    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    model = model_with(tmp_path / "model", template)
    (model / "tokenizer.json").unlink()
    tokenizer = Tokenizer.from_file(str(starter.MODEL / "tokenizer.json"))
    if normal:
        tokenizer.normalizer = normalizers.NFC()
    members: list[Any] = [processors.ByteLevel(trim_offsets=trims)]
    if begins:
        members.append(
            processors.TemplateProcessing(
                single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 1), ("<|end|>", 2)]
            )
        )
    tokenizer.post_processor = processors.Sequence(members)
    tokenizer.save(str(model / "tokenizer.json"))
    renderer = Renderer(model, Data(source="rows.jsonl"))
    quick = ByteTokens.of(renderer.tokenizer)
    assert quick is not None
    chance = random.Random(5)
    layouts: list[Layout] = []
    for _ in range(300):
        text = "".join(
            chance.choices(["stone", "  ", " ", "\n", "é", "e\u0301", "東", "🙂", "garden", ".", "<|end|>"], k=12)
        )
        cuts = sorted(chance.sample(range(len(text) + 1), min(4, len(text) + 1)))
        spans = [(start, end) for start, end in zip(cuts[::2], cuts[1::2], strict=False)]
        turns = tuple((start, end, "user") for start, end in spans)
        whole = chance.random() < 0.3  # as plain text is, around which the tokenizer puts its own tokens
        layouts.append(Layout(text, ((0, len(text)),) if whole else tuple(spans), turns, special_tokens=whole))
    done = quick.tokenise(layouts)
    assert sum(each is not None for each in done) > (50 if normal else 200)
    for layout, tokens in zip(layouts, done, strict=True):
        if tokens is not None:
            slow = tokenise_as_trained(renderer, layout)
            assert list(tokens.ids) == list(slow.ids)
            assert learned_places(tokens) == learned_places(slow), layout


def learned_places(tokens: Any) -> set[int]:
    return {place for start, end in tokens.learned for place in range(start, end)}


def shape_of_rows(rows: list[dict[str, Any]]) -> Any:
    from tunewright.engine.data.detection import detect
    from tunewright.engine.data.examples import Place

    return detect([Record(Place(number), row) for number, row in enumerate(rows, 1)]).shape


def test_places_and_indexes_stay_right_over_blank_lines_and_faults(tmp_path: Path) -> None:
    rows: list[Any] = ["", *good_rows(400)]
    rows[200] = "[1]"
    rows[300] = chat("Why is it so quiet in here?", "TODO")
    report = audit(request(write(tmp_path / "rows.jsonl", rows)))
    assert report.rows == 400 and report.converted == 399
    (shown,) = find(report, "not_object").examples
    assert (shown.place, shown.index) == ("line 201", None)
    (shown,) = find(report, "placeholder_answer").examples
    assert (shown.place, shown.index) == ("line 301", 298)
    assert report.worst[0] == 298


def test_examples_are_few_and_come_in_order(tmp_path: Path) -> None:
    rows = good_rows(60)
    for number in range(10, 40):
        rows[number] = chat(f"Question number {number}, is it?", "")
    finding = find(audit(request(write(tmp_path / "rows.jsonl", rows))), "empty_answer")
    assert finding.count == 30
    assert [each.place for each in finding.examples] == [f"line {number}" for number in range(11, 16)]
    assert len(finding.examples) == MOST_EXAMPLES


def test_repeated_rows_are_counted_with_where_they_stood_first(tmp_path: Path) -> None:
    rows = good_rows(100)
    rows += [rows[3], rows[7], rows[3]]
    finding = find(audit(request(write(tmp_path / "rows.jsonl", rows))), "duplicates")
    assert finding.count == 3
    assert [each.detail for each in finding.examples] == [
        "the same as line 4",
        "the same as line 8",
        "the same as line 4",
    ]
    assert [each.index for each in finding.examples] == [100, 101, 102]


def test_nearly_the_same_rows_are_a_hint(tmp_path: Path) -> None:
    rows = good_rows(50)
    long = " ".join(WORDS * 12)
    rows += [chat(f"Repeat this: {long}", f"{long} {tail}") for tail in ("now", "then")]
    finding = find(audit(request(write(tmp_path / "rows.jsonl", rows), max_length=2048)), "near_duplicates")
    assert (finding.severity, finding.count) == ("hint", 1)
    assert finding.examples[0].detail == "nearly the same as line 51"


def test_a_prompt_with_two_answers_is_a_hint(tmp_path: Path) -> None:
    rows = [*good_rows(20), chat("Is it far to the harbour?", "Yes, very."), chat("Is it far to the harbour?", "No.")]
    finding = find(audit(request(write(tmp_path / "rows.jsonl", rows))), "conflicting_answers")
    assert (finding.severity, finding.count) == ("hint", 2)


def test_one_answer_to_everything_is_named(tmp_path: Path) -> None:
    rows = [chat(f"Question {number} about the {WORDS[number % 15]}?", "I cannot help.") for number in range(40)]
    assert find(audit(request(write(tmp_path / "rows.jsonl", rows))), "constant_answer").count == 40


def test_one_label_only_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n}?", "completion": f"Answer {n * n}.", "label": True} for n in range(20)]
    report = audit(request(write(tmp_path / "rows.jsonl", rows)))
    assert report.format == "kto"
    assert find(report, "one_label").detail == "All 20 labels are true."


def test_rows_longer_than_the_maximum_are_counted_with_what_is_lost(tmp_path: Path) -> None:
    rows = good_rows(50)
    rows[5] = chat("Tell me more, please.", " ".join(WORDS * 40))
    rows[6] = chat(" ".join(WORDS * 40), "Yes, that is right.")
    report = audit(request(write(tmp_path / "rows.jsonl", rows), max_length=128))
    assert find(report, "truncated").count == 2
    assert find(report, "answer_cut_off").count == 2
    assert [each.index for each in find(report, "row_not_trained").examples] == [6]
    cost = next(each for each in report.lengths if each.max_length == 128)
    assert (cost.cut_rows, cost.lost_rows) == (2, 1)
    assert cost.kept_tokens_share < 1
    assert set(report.longest[:2]) == {5, 6}


def test_a_rare_cut_is_a_hint(tmp_path: Path) -> None:
    rows = good_rows(300)
    rows[5] = chat("Tell me more, please.", " ".join(WORDS * 40))
    found = severities(audit(request(write(tmp_path / "rows.jsonl", rows), max_length=128)))
    assert found["truncated"] == found["answer_cut_off"] == "hint"


def test_nothing_trained_is_an_error(tmp_path: Path) -> None:
    rows = [chat(" ".join(WORDS * 20), "Yes.") for _ in range(3)]
    report = audit(request(write(tmp_path / "rows.jsonl", rows), max_length=16))
    assert report.supervised_tokens == 0 and report.supervised_share == 0
    found = severities(report)
    assert found["nothing_trained"] == found["row_not_trained"] == "error"


def test_long_rows_that_are_left_out_do_not_count_as_trained(tmp_path: Path) -> None:
    rows = good_rows(50)
    rows[5] = chat("Tell me more, please.", " ".join(WORDS * 40))
    path = write(tmp_path / "rows.jsonl", rows)
    _, cut = audit_rows(request(path, max_length=128))
    _, dropped = audit_rows(request(path, max_length=128, overlong="drop"))
    assert cut.supervised[5] > 0 and dropped.supervised[5] == 0
    assert dropped.lengths[5] == cut.lengths[5] > 128


def test_a_maximum_length_beyond_the_models_context_is_an_error_only_when_rows_are_so_long(tmp_path: Path) -> None:
    rows = good_rows(20)
    path = write(tmp_path / "rows.jsonl", rows)
    assert severities(audit(request(path, max_length=2048)))["beyond_context"] == "hint"
    rows[0] = chat("Tell me more, please.", " ".join(WORDS * 60))
    write(path, rows)
    assert severities(audit(request(path, max_length=2048)))["beyond_context"] == "error"


def test_a_row_that_the_template_refuses_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    rows: list[Any] = good_rows(20)
    tool_turn = {"role": "tool", "content": "12 degrees"}
    rows[3] = {"messages": [*rows[3]["messages"], tool_turn, {"role": "assistant", "content": "It is mild."}]}
    report, figures = audit_rows(request(write(tmp_path / "rows.jsonl", rows)))
    finding = find(report, "template_refused")
    assert finding.count == 1 and finding.examples[0].index == 3
    assert figures.lengths[3] == 0 and (figures.lengths > 0).sum() == 19


def model_with(folder: Path, template: str | None, **settings: Any) -> Path:
    """Copy the built-in model with another chat template."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors"):
        (folder / name).symlink_to(starter.MODEL / name)
    config = json.loads((starter.MODEL / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **settings}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


TURNS = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"


def test_a_model_without_a_chat_template_is_an_error_and_the_rest_is_audited(tmp_path: Path) -> None:
    model = model_with(tmp_path / "base", None)
    path = write(tmp_path / "rows.jsonl", [*good_rows(20), chat("What is it?", "")])
    report = audit(request(path, str(model)))
    assert find(report, "no_chat_template").severity == "error"
    assert find(report, "empty_answer").count == 1
    assert report.tokens is not None and not report.tokens.exact
    text = write(tmp_path / "text.jsonl", [{"text": f"The {each} was there all day and all night."} for each in WORDS])
    report = audit(request(text, str(model)))
    assert "no_chat_template" not in severities(report)
    assert report.tokens is not None and report.tokens.exact
    assert report.supervised_share == 1


def test_a_template_that_does_not_close_the_turn_is_an_error(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    model = model_with(tmp_path / "open", template)
    report = audit(request(write(tmp_path / "rows.jsonl", good_rows(20)), str(model)))
    finding = find(report, "end_not_trained")
    assert (finding.severity, finding.count) == ("error", 20)


def test_a_template_that_leaves_the_system_prompt_out_is_named(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content + eos_token }}"
        "{% endgeneration %}{% elif m.role == 'user' %}<|user|>{{ m.content }}{% endif %}{% endfor %}"
    )
    model = model_with(tmp_path / "deaf", template)
    rows = good_rows(20)
    for row in rows[:7]:
        row["messages"].insert(0, {"role": "system", "content": "Answer as a pirate."})
    path = write(tmp_path / "rows.jsonl", rows)
    assert find(audit(request(path, str(model))), "system_ignored").count == 7
    assert "system_ignored" not in severities(audit(request(path, str(model), system="user")))


@pytest.mark.slow
def test_a_template_that_never_ends_stops_the_rendering_and_not_the_audit(tmp_path: Path) -> None:
    template = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    model = model_with(tmp_path / "endless", template)
    path = write(tmp_path / "rows.jsonl", [*good_rows(20), chat("What is it?", "")])
    report = audit(request(path, str(model)))
    assert {"no_chat_template", "template_too_slow"} & severities(report).keys()
    assert find(report, "empty_answer").count == 1


def test_a_doubled_begin_token_is_named(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content + eos_token }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    model = model_with(tmp_path / "model", template)
    rows = [chat(f"<|begin|>Is it {each}?", "Yes, it is.") for each in WORDS]
    found = severities(audit(request(write(tmp_path / "rows.jsonl", rows), str(model))))
    assert found["bos_doubled"] == "warning"
    assert found["template_in_text"] == "warning"


def test_padding_with_the_end_token_is_a_hint(tmp_path: Path) -> None:
    template = (starter.MODEL / "chat_template.jinja").read_text()
    model = model_with(tmp_path / "model", template, pad_token="<|end|>")
    found = severities(audit(request(write(tmp_path / "rows.jsonl", good_rows(20)), str(model))))
    assert found["pad_is_end"] == "hint"


def test_rows_of_the_validation_file_are_found_in_the_training_data(tmp_path: Path) -> None:
    rows = good_rows(60)
    other = write(tmp_path / "validation.jsonl", [*rows[:4], chat("Something else entirely, is it?", "It is.")])
    path = write(tmp_path / "rows.jsonl", rows)
    finding = find(
        audit(request(path, validation={"kind": "file", "value": 0, "source": str(other)})), "validation_overlap"
    )
    assert finding.count == 4
    assert [each.index for each in finding.examples] == [0, 1, 2, 3]


def test_rows_of_an_evaluation_file_are_found_whatever_its_format(tmp_path: Path) -> None:
    rows = good_rows(60)
    question, answer = (turn["content"] for turn in rows[11]["messages"])
    evaluation = write(tmp_path / "evaluation.jsonl", [{"question": question, "answer": answer, "id": 7}])
    path = write(tmp_path / "rows.jsonl", rows)
    finding = find(audit(request(path, against=(str(evaluation),))), "contamination")
    assert [each.index for each in finding.examples] == [11]


def test_unreadable_rows_are_warnings_when_they_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*good_rows(20), "{"])
    assert severities(audit(request(path)))["not_json"] == "error"
    assert severities(audit(request(path, faulty="drop")))["not_json"] == "warning"


def test_a_truncated_archive_is_audited_up_to_the_break(tmp_path: Path) -> None:
    whole = gzip.compress(write(tmp_path / "rows.jsonl", good_rows(3000)).read_bytes())
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    report = audit(request(path))
    assert find(report, "truncated_file").severity == "error"
    assert report.converted > 500


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [])
    report = audit(request(path))
    assert severities(report) == {"empty_file": "error"}
    assert report.rows == 0 and report.tokens is None and report.packing is None


def test_a_file_of_no_known_format_is_an_error_with_the_evidence(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"x": number, "y": number * 2} for number in range(30)])
    report = audit(request(path))
    finding = find(report, "unknown_format")
    assert (report.format, report.rows, report.converted, finding.count) == ("", 30, 0, 30)
    assert finding.detail


def test_rows_of_two_languages_are_a_hint(tmp_path: Path) -> None:
    english = "They carried the stone to the river and left it there until the winter was over"
    german = "Sie trugen den Stein zum Fluss und ließen ihn dort liegen, bis der Winter vorbei war"
    rows = [
        chat(f"{english}, {number}?", f"{german if number % 3 == 0 else english}, {number}.") for number in range(60)
    ]
    report = audit(request(write(tmp_path / "rows.jsonl", rows)))
    assert find(report, "language_mix").count == 20
    assert report.languages == {"en": pytest.approx(2 / 3), "de": pytest.approx(1 / 3)}


def test_pairs_and_texts_are_audited_without_a_model(tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"Is {n} odd?", "chosen": f"{n} is {'odd' if n % 2 else 'even'}.", "rejected": "No idea."}
        for n in range(30)
    ]
    pairs[4]["rejected"] = pairs[4]["chosen"]
    report = audit(request(write(tmp_path / "pairs.jsonl", pairs), None))
    assert report.format == "preference"
    assert find(report, "same_answers").count == 1
    assert report.tokens is not None and not report.tokens.exact


def test_the_report_is_json_with_remedies(tmp_path: Path) -> None:
    report = audit(request(write(tmp_path / "rows.jsonl", [*good_rows(30), chat("Is it?", "TODO")])))
    printed = json.loads(json.dumps(report.to_json()))
    assert {"rows", "findings", "tokens", "supervised_share"} <= printed.keys()
    for finding in printed["findings"]:
        assert {"code", "severity", "count", "examples", "remedy"} <= finding.keys()
        assert finding["remedy"] == CATALOGUE[finding["code"]].remedy
    assert TypeAdapter(Report).validate_json(TypeAdapter(Report).dump_json(report)) == report


def test_errors_come_first(tmp_path: Path) -> None:
    rows: list[Any] = [*good_rows(30), chat("Is it?", "TODO"), chat("Is it so?", "TODO"), "{"]
    report = audit(request(write(tmp_path / "rows.jsonl", rows)))
    ranks = [("error", "warning", "hint").index(each.severity) for each in report.findings]
    assert ranks == sorted(ranks) and report.findings[0].code == "not_json"


def test_a_small_set_is_told_its_learning_curve_in_rows(tmp_path: Path) -> None:
    report = audit(request(write(tmp_path / "rows.jsonl", good_rows(400))))
    assert any("(40, 100, 200 and 400 rows)" in each for each in report.advice)


def test_progress_comes_early_and_with_the_findings_so_far(tmp_path: Path) -> None:
    rows: list[Any] = good_rows(3000)
    rows[0] = "{"
    told: list[Progress] = []
    report = audit(request(write(tmp_path / "rows.jsonl", rows), workers=1), told.append)
    assert told and told[0].total_bytes == (tmp_path / "rows.jsonl").stat().st_size
    snapshot = next(each.report for each in told if each.report is not None)
    assert not snapshot.complete and report.complete
    assert find(snapshot, "not_json").count == 1
    assert [each.rows for each in told] == sorted(each.rows for each in told)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cancelled_audit_ends_at_once_with_what_it_has(tmp_path: Path, workers: int) -> None:
    path = write(tmp_path / "rows.jsonl", good_rows(20_000))
    cancelled_at = 0.0

    def note(progress: Progress) -> None:
        nonlocal cancelled_at
        cancelled_at = cancelled_at or time.monotonic()

    report = audit(request(path, workers=workers), note, lambda: cancelled_at > 0)
    assert not report.complete
    assert report.rows < 20_000
    assert time.monotonic() - cancelled_at < 2
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_folder_of_files_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = good_rows(40)
    write(folder / "a.jsonl", rows[:20])
    write(folder / "b.jsonl", [*rows[20:], chat("Is it?", "TODO")])
    (shown,) = find(audit(request(folder)), "placeholder_answer").examples
    assert (shown.place, shown.index) == ("b.jsonl line 21", 40)


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TunewrightError):
        audit(request(tmp_path / "missing.jsonl"))


@pytest.mark.parametrize("seed", range(20))
def test_packing_rows_by_length_is_packing_them_one_by_one(seed: int) -> None:
    import random
    from collections import Counter

    chance = random.Random(seed)
    capacity = chance.choice([10, 64, 512])
    lengths = [chance.randint(1, capacity if chance.random() < 0.5 else capacity // 4 + 1) for _ in range(300)]
    assert pack_counted(sorted(Counter(lengths).items()), capacity) == len(pack(lengths, capacity))


def test_a_row_meter_without_a_quick_way_counts_the_same(tmp_path: Path) -> None:
    data = Data(source="rows.jsonl", max_length=512)
    renderer = Renderer(None, data)
    assert ByteTokens.of(renderer.tokenizer) is None
    report = audit(request(write(tmp_path / "rows.jsonl", good_rows(10)), None))
    assert report.tokens is not None and report.tokens.total > 0
    assert RowMeter(renderer, data).check(Example("text", text="Some words.")) == []
