"""The failing cases: files with one known failure each among good rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .cases import Case, codes_in, plant
from .changes import Change, append, copy_of, instead, put, raw, turns, without
from .containers import Write, as_lines, file_of
from .models import CONTEXT
from .rows import GOOD_ROWS, Line, Row, good_rows
from .tongues import TONGUES
from .words import Grammar

# Built from parts, so that what scans a repository for keys finds none here.
SECRETS = {
    "an AWS key": "AKIA" + "IOSFODNN7Q2X4LRT",
    "a GitHub token": "ghp_" + "9fK2mQ7xVb4TzR1nYc8LwE5sHd3JpA6uGo0i",
    "a private key": "-----BEGIN RSA "
    + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq1Vt3xJ0p5c2mJr9WqLz8vKdYx2RfG6uTnB4sHwEoCjP7a\n"
    + "Zk3Q1yVhXgM9tUbLr0DfSe8iNwJ5oKcA2vWpHq6T4mYxRzGuEsB1dCl7nF3jOaPI\n-----END RSA "
    + "PRIVATE KEY-----",
    "a Hugging Face token": "hf_" + "kVbXoTqLzRwYhNfMsJdPgUcAeKiBvHtQmX",
}


def failing_cases() -> Iterator[Case]:
    """Yield the data sets with one planted failure each."""
    yield from _unreadable_files()
    yield from _unreadable_rows()
    yield from _rows_of_no_format()
    yield from _poor_conversations()
    yield from _poor_renderings()
    yield from _poor_sets()


def _bytes(name: str, content: Callable[[], bytes]) -> Write:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return write


def _some(shape: str, seed: str, numbers: Sequence[int], container: str = "jsonl") -> Write:
    """Return what writes a file of ten other rows and of those of another file with the numbers."""

    def rows() -> list[Line]:
        theirs = good_rows(shape, seed, max(numbers))
        return [*good_rows(shape, "others", 10), *(theirs[number - 1] for number in numbers)]

    return file_of(container, rows)


def _image(content: str) -> list[Row]:
    return [{"type": "text", "text": content}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]


def _call(change: Callable[[Row], object]) -> Change:
    """Return the change to the function of a row's tool call."""

    def apply(shape: str, row: Row) -> Row:
        change(row["messages"][1]["tool_calls"][0]["function"])
        return row

    return apply


def _think_empty(row: Row) -> Row:
    for turn in row["messages"]:
        if turn["role"] == "assistant":
            turn["content"] = "<think>\n\n</think>\n\n" + turn["content"]
    return row


def _learn(flag: str, value: object) -> Callable[[list[Row]], list[Row]]:
    """Return what marks every turn of the assistant."""
    return lambda turns: [turn | {flag: value} if turn.get("role") == "assistant" else turn for turn in turns]


def _mojibake(text: str) -> str:
    """Return UTF-8 read as Windows-1252."""
    return (text + " Die Größe des Cafés wäre “übertrieben” – für Öfen!").encode().decode("cp1252", "ignore")


def _long(text: str) -> str:
    grammar = Grammar("long")
    return " ".join([text, *(grammar.answer(grammar.slots()) for _ in range(20))])


def _half(content: bytes) -> bytes:
    return content[: len(content) * 3 // 5]


def _no_rows(content: bytes) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(pyarrow.BufferReader(content)).slice(0, 0), sink)
    return sink.getvalue().to_pybytes()


def _measure(shape: str, row: Row) -> Row:
    return {"height": len(row["text"]), "weight": len(row["text"]) * 0.37, "station": row["text"][:3]}


def _grow(path: Path) -> None:
    if path.stat().st_size > 500_000:  # whoever reads it is to come to an end
        return
    with path.open("ab") as file:
        file.write(as_lines(good_rows("messages", str(path.stat().st_size), 3)))


# fmt: off


def _unreadable_files() -> Iterator[Case]:
    yield Case("an empty file", _bytes("data.jsonl", lambda: b""), codes_in("empty_file"))
    yield Case("blank lines only", _bytes("data.jsonl", lambda: b"\n  \n\r\n\t\n" * 20), codes_in("empty_file"))
    yield Case("an empty JSON array", _bytes("data.json", lambda: b"[]\n"), codes_in("empty_file"))
    yield Case("a CSV of a header only", _bytes("data.csv", lambda: b"instruction,output\n"), codes_in("empty_file"))
    yield Case("an empty gzip", _bytes("data.jsonl.gz", lambda: gzip.compress(b"", mtime=0)), codes_in("empty_file"))
    yield plant("a Parquet file without rows", "empty_file", "alpaca", container="parquet", spoil=_no_rows)
    yield plant("measurements in CSV", "unknown_format", "text", _measure, "csv")
    yield plant("measurements in JSON lines", "unknown_format", "text", _measure)
    yield plant("a truncated gzip", "truncated_file", container="jsonl.gz", rows=400, spoil=_half, allows="not_json")
    yield plant("a truncated zstd", "truncated_file", container="jsonl.zst", rows=2000, spoil=_half, allows="not_json")
    yield plant("a truncated Parquet file", "truncated_file", "alpaca", container="parquet", spoil=_half)
    yield plant("a truncated Arrow stream", "truncated_file", "kto", container="arrow stream", spoil=_half)
    yield plant("a truncated JSON array", "truncated_file", "alpaca", container="json", spoil=_half, allows="not_json")
    yield plant("a file that grows while it is read", "file_changed", rows=600, meanwhile=_grow)
    yield plant("messages in UTF-16", "utf16", container="jsonl in UTF-16")
    yield plant("alpaca in UTF-16 CSV", "utf16", "alpaca", container="csv in UTF-16")


def _unreadable_rows() -> Iterator[Case]:
    cut = as_lines(good_rows("messages", "cut", 1))[:90]
    yield plant("half a line", "not_json", changes={17: raw(cut), 33: raw(cut)})
    yield plant("single quotes", "not_json", "alpaca", {9: raw(b"{'instruction': 'Say hello', 'output': 'Hello!'}")})
    yield plant("two objects on a line", "not_json", "prompt-completion", {21: raw(b'{"prompt": "One?", "completion": "Two."}{"prompt": "Three?", "completion": "Four."}')})
    yield plant("a comma too many", "not_json", "kto", {4: raw(b'{"prompt": "One?", "completion": "Two.", "label": true,}')}, "jsonl with CRLF")
    yield plant("half a line in gzip", "not_json", "sharegpt", {30: raw(cut)}, "jsonl.gz")
    yield plant("a last line cut off", "not_json", "alpaca", {GOOD_ROWS: raw(cut)}, "jsonl without last newline", allows="truncated_file")
    yield plant("a list in place of a row", "not_object", changes={6: raw(b'[{"role": "user", "content": "Hello"}]')})
    yield plant("text in place of a row", "not_object", "text", {13: raw(b'"A sentence in quotation marks."'), 14: raw(b"17")})
    yield plant("a number in a JSON array", "not_object", "alpaca", lambda shape, row: row, "json", at=(2,), spoil=lambda content: content.replace(b"}, {", b"}, 17, {", 1))
    yield plant("a Latin-1 line", "not_utf8", "alpaca", {25: raw('{"instruction": "Größe?", "output": "Übergroß."}'.encode("latin-1"))})
    yield plant("a Latin-1 line in CSV", "not_utf8", "prompt-completion", {11: raw("Größe?,Übergroß.".encode("latin-1"))}, "csv")
    yield plant("a line of 20 MB", "row_too_long", changes={20: raw(b'{"messages": [{"role": "user", "content": "' + b"word " * (4 * 2**20) + b'"}]}')})
    yield plant("a cell of 20 MB", "row_too_long", "prompt-completion", {20: raw(b'Why?,"' + b"word " * (4 * 2**20) + b'"')}, "csv")
    yield plant("brackets a hundred thousand deep", "nested_too_deeply", changes={38: raw(b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")}, allows="not_json")
    yield plant("a cell too many", "ragged_row", "alpaca", {15: raw(b"Why?,,Because.,and more,still more")}, "csv")
    yield plant("a cell too few", "ragged_row", "preference", {19: raw(b"Why?\tBecause.")}, "tsv")
    yield plant("a comma without quotes", "ragged_row", "prompt-completion", {22: raw(b"Well, why?,Because, as I said, it is.")}, "csv")
    yield plant("a quotation mark never closed", "ragged_row", "prompt-completion", {40: raw(b'"Why?,Because.')}, "csv", allows="not_json row_too_long truncated_file", at=())


def _rows_of_no_format() -> Iterator[Case]:
    yield plant("alpaca among messages", "mixed_schema", changes={12: instead("alpaca"), 35: instead("alpaca")})
    yield plant("messages among sharegpt", "mixed_schema", "sharegpt", {28: instead("messages")}, "json")
    yield plant("preference among alpaca", "mixed_schema", "alpaca", {3: instead("preference")}, "jsonl.zst")
    yield plant("text among prompts and completions", "mixed_schema", "prompt-completion", {45: instead("text")})
    yield plant("null content in messages", "missing_field", changes={16: put("prompt", None), 18: put("answer", None)})
    yield plant("null content in Parquet", "missing_field", changes={29: put("answer", None)}, container="parquet")
    yield plant("a null value in sharegpt in Arrow", "missing_field", "sharegpt", {8: put("answer", None)}, "arrow")
    yield plant("no output in alpaca", "missing_field", "alpaca", {10: without("output"), 41: put("output", None)})
    yield plant("no label in KTO", "missing_field", "kto", {27: without("label")})
    yield plant("a null completion in Parquet", "missing_field", "prompt-completion", {31: put("answer", None)}, "parquet")
    yield plant("a null text", "missing_field", "text", {2: put("text", None)})
    yield plant("no rejected answer", "missing_field", "preference", {5: put("rejected", None)})
    yield plant("integers in messages", "not_text", changes={23: put("answer", 42), 24: put("prompt", 17)})
    yield plant("integers in alpaca", "not_text", "alpaca", {7: put("answer", 365), 44: put("prompt", 12.5)}, "json")
    yield plant("a list in sharegpt", "not_text", "sharegpt", {36: put("answer", {"answer": ["yes"]})})
    yield plant("a number as text", "not_text", "text", {39: put("text", 1789)})
    yield plant("no turns", "no_turns", changes={26: put("messages", [])})
    yield plant("no turns in sharegpt in Parquet", "no_turns", "sharegpt", {32: put("conversations", [])}, "parquet")
    yield plant("a turn that is text", "bad_turn", changes={14: turns(lambda turns: [turns[0]["content"], *turns[1:]])})
    yield plant("a turn without a role", "bad_turn", changes={37: turns(lambda turns: [{"content": turns[0]["content"]}, *turns[1:]])}, allows="unknown_role missing_field")
    yield plant("a narrator in messages", "unknown_role", changes={20: put(("messages", 0, "role"), "narrator")})
    yield plant("an alien in sharegpt", "unknown_role", "sharegpt", {1: put(("conversations", 0, "from"), "alien"), 43: put(("conversations", 1, "from"), "oracle")})
    yield plant("a critic in Parquet", "unknown_role", changes={34: put(("messages", 1, "role"), "critic")}, container="parquet with zstd")
    yield plant("a question only", "no_answer", changes={11: turns(lambda turns: turns[:1])}, allows="no_last_answer")
    yield plant("questions only in sharegpt", "no_answer", "sharegpt", {17: turns(lambda turns: turns[:1]), 46: turns(lambda turns: turns[:1])}, allows="no_last_answer")
    yield plant("an image in a turn", "not_supported_content", changes={42: put("prompt", _image)})
    yield plant("labels in words", "bad_label", "kto", {6: put("label", "thumbs up"), 7: put("label", "so-so")})
    yield plant("labels in words in CSV", "bad_label", "kto", {33: put("label", "perhaps")}, "csv")
    yield plant("a label of seven", "bad_label", "kto", {22: put("label", 7)})
    yield plant("arguments that are no JSON", "bad_tools", "tools", {19: _call(lambda call: call.update(arguments='{"city": Oslo'))})
    yield plant("arguments that are a list", "bad_tools", "tools", {9: _call(lambda call: call.update(arguments=["Oslo"]))})
    yield plant("a call without a name", "bad_tools", "tools", {28: _call(lambda call: call.pop("name"))})
    yield plant("tools that are no JSON", "bad_tools", "flat tools", {15: put("tools", "[{'name': 'get_forecast'}")}, "parquet")
    yield plant("answers of xLAM cut off", "bad_tools", "xlam", {21: put("answers", lambda old: old[:-9])}, "json")
    yield plant("chosen and rejected of other prompts", "prompts_differ", "preference of messages", {24: put(("rejected", 0, "content"), "How far is it to the moon on foot?")})


def _poor_conversations() -> Iterator[Case]:
    yield plant("empty answers in messages", "empty_answer", changes={13: put("answer", ""), 38: put("answer", " \n")}, allows="row_not_trained", at=())
    yield plant("empty answers in alpaca", "empty_answer", "alpaca", {5: put("answer", "")}, "csv", allows="row_not_trained missing_field")
    yield plant("an empty completion", "empty_answer", "prompt-completion", {47: put("answer", "")}, "parquet", allows="row_not_trained")
    yield plant("an empty rejected answer", "empty_answer", "preference", {47: put("rejected", "")})
    yield plant("empty prompts", "empty_prompt", "prompt-completion", {16: put("prompt", "")})
    yield plant("an empty question", "empty_prompt", changes={8: put("prompt", "  ")}, container="json")
    yield plant("two users in a row", "roles_out_of_order", changes={25: turns(lambda turns: [{"role": "user", "content": "Hello there!"}, *turns])})
    yield plant("an assistant that begins", "roles_out_of_order", "sharegpt", {10: turns(lambda turns: [{"from": "gpt", "value": "Welcome to the workshop."}, *turns])})
    yield plant("a system prompt in the middle", "roles_out_of_order", changes={31: turns(lambda turns: [*turns[:2], {"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "And again?"}, {"role": "assistant", "content": "Once more, with care."}])})
    yield plant("a user who has the last word", "no_last_answer", changes={4: turns(lambda turns: [*turns, {"role": "user", "content": "Thank you, that is all."}])})
    yield plant("a human who has the last word", "no_last_answer", "sharegpt", {40: turns(lambda turns: [*turns, {"from": "human", "value": "Thanks a lot."}])}, "arrow")
    yield plant("a tool that nobody declared", "unknown_tool", "tools", {12: _call(lambda call: call.update(name="launch_rocket"))})
    yield plant("a tool's answer unasked", "tool_result_unasked", "tools", {23: turns(lambda turns: [turns[0], *turns[2:]])}, allows="roles_out_of_order")
    yield plant("chosen is rejected", "same_answers", "preference", {18: lambda shape, row: row | {"rejected": row["chosen"]}, 19: lambda shape, row: row | {"rejected": row["chosen"]}})
    yield plant("chosen is rejected in Parquet", "same_answers", "preference of messages", {6: lambda shape, row: row | {"rejected": row["chosen"]}}, "parquet")
    yield plant("good answers only", "one_label", "kto", put("label", True))
    yield plant("bad answers only", "one_label", "kto", put("label", False), "parquet")
    yield plant("answers that repeat the question", "answer_repeats_prompt", "prompt-completion", lambda shape, row: row | {"completion": f"{row['prompt']} {row['completion']}"})
    yield plant("answers that repeat the instruction", "answer_repeats_prompt", "alpaca", {number: lambda shape, row: row | {"output": f"{row['instruction']}\n{row['output']}"} for number in (5, 6, 7, 9, 10)}, "csv")
    yield plant("placeholders in alpaca", "placeholder_answer", "alpaca", {14: put("answer", "TODO"), 27: put("answer", "N/A"), 39: put("answer", "...")})
    yield plant("placeholders in CSV", "placeholder_answer", "prompt-completion", {2: put("answer", "TBD"), 3: put("answer", "n/a")}, "csv")
    yield plant("an answer left to write", "placeholder_answer", "sharegpt", {10: put("answer", "<your answer here>")}, allows="template_in_text")
    yield plant("one answer for all", "constant_answer", "prompt-completion", put("answer", "Please contact our support team."))
    yield plant("one answer for nearly all", "constant_answer", "alpaca", {number: put("answer", "I cannot help with that.") for number in range(1, GOOD_ROWS)}, "tsv", at=())
    yield plant("turns in JSON text", "nested_json", changes=put("messages", json.dumps))
    yield plant("turns in JSON text in CSV", "nested_json", "sharegpt", put("conversations", json.dumps), "csv")
    yield plant("one prompt, two answers", "conflicting_answers", "prompt-completion", {30: copy_of(3, "one prompt, two answers", put("completion", "Rather ask somebody who has done it before, and bring cake."))}, at=())
    yield plant("ChatML in plain text", "template_in_text", "text", put("text", lambda text: f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\nWell said.<|im_end|>\n"))
    yield plant("Llama 2 in a prompt", "template_in_text", "prompt-completion", {20: put("prompt", lambda text: f"<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n{text} [/INST]")})
    yield plant("Llama 3 in an answer", "template_in_text", changes={35: put("answer", append("<|eot_id|><|start_header_id|>user<|end_header_id|>"))})
    yield plant("Gemma in sharegpt", "template_in_text", "sharegpt", {11: put("answer", append("<end_of_turn>\n<start_of_turn>user\n"))}, "parquet")


def _poor_renderings() -> Iterator[Case]:
    yield plant("a model without a template", "no_chat_template", model="without template")
    yield plant("a system prompt that is refused", "template_refused", "messages with system", model="refuses system")
    yield plant("roles that have to alternate", "template_refused", changes={21: turns(lambda turns: [turns[0], *turns])}, model="alternates", allows="roles_out_of_order")
    yield plant("tools for a model that refuses them", "template_refused", "tools", model="starter", max_length=512, allows="tools_ignored")
    yield plant("a template that does not end", "template_too_slow", model="endless", rows=4)
    yield plant("a mask that cannot be proved", "mask_not_provable", model="not provable")
    yield plant("a mask that cannot be proved for alpaca", "mask_not_provable", "alpaca", container="csv", model="not provable")
    yield plant("a template that leaves answers out", "nothing_trained", model="without answers", allows="end_not_trained row_not_trained mask_not_provable")
    yield plant("loss on tools where there are none", "nothing_trained", loss_on=("tool",), allows="end_not_trained row_not_trained")
    yield plant("loss on system prompts where there are none", "nothing_trained", "sharegpt", loss_on=("system",), allows="end_not_trained row_not_trained")
    yield plant("a maximum length below every prompt", "nothing_trained", max_length=8, allows="truncated answer_cut_off row_not_trained end_not_trained")
    yield plant("a maximum length below every prompt in Parquet", "nothing_trained", "alpaca", container="parquet", max_length=8, allows="truncated answer_cut_off row_not_trained end_not_trained")
    yield plant("every turn with the weight 0", "nothing_trained", changes=turns(_learn("weight", 0)), allows="row_not_trained end_not_trained")
    yield plant("every turn marked train: false", "nothing_trained", changes=turns(_learn("train", False)), container="parquet", allows="row_not_trained end_not_trained")
    yield plant("some rows with the weight 0", "row_not_trained", changes={number: turns(_learn("weight", 0)) for number in (15, 16, 30)})
    yield plant("prompts longer than the maximum", "row_not_trained", "prompt-completion", {number: put("prompt", _long) for number in (9, 26)}, max_length=512, allows="truncated answer_cut_off")
    yield plant("a template that does not close the turn", "end_not_trained", model="without end")
    yield plant("an end outside the marks", "end_not_trained", "sharegpt", model="end outside the marks")
    yield plant("an end outside the marks for alpaca", "end_not_trained", "alpaca", container="csv", model="end outside the marks")
    yield plant("ChatML for a model that ends otherwise", "end_not_trained", model="without template", template="chatml")
    yield plant("a tokenizer without an end token", "end_unknown", model="without end token", allows="end_not_trained")
    yield plant("two begin tokens in every text", "bos_doubled", "text", put("text", lambda text: f"<|begin|><|begin|>{text}"), container="parquet", model="adds begin")
    yield plant("a template that begins twice", "bos_doubled", model="two begins")
    yield plant("two begin tokens in a text", "bos_doubled", "text", {5: put("text", lambda text: f"<|begin|><|begin|>{text}")})
    yield plant("padding that is the end", "pad_is_end", model="pad is end")
    yield plant("a system prompt left out", "system_ignored", "messages with system", model="without system")
    yield plant("a system prompt of OpenOrca left out", "system_ignored", "orca", container="parquet", model="without system", at=())
    yield plant("tools left out", "tools_ignored", "tools", model="without tools", allows="empty_answer row_not_trained")
    yield plant("thinking of earlier turns dropped", "thinking_dropped", "messages with thinking", model="drops thinking")
    yield plant("empty thinking in the answers", "empty_thinking_trained", changes=lambda shape, row: _think_empty(row))
    yield plant("empty thinking from the template", "empty_thinking_trained", "alpaca", model="empty thinking")
    yield plant("a language that the tokenizer does not know", "unknown_tokens", "messages", {number: instead("chinese") for number in (7, 29)}, model="knows ASCII only")
    yield plant("a maximum length beyond the context", "beyond_context", model="starter", max_length=2048)
    yield plant("a maximum length beyond the context for text", "beyond_context", "text", max_length=CONTEXT * 2, container="parquet")
    yield plant("long answers cut", "truncated answer_cut_off", changes={10: put("answer", _long), 37: put("answer", _long)}, max_length=1024, allows="end_not_trained")
    yield plant("long texts cut", "truncated", "text", {44: put("text", _long)}, max_length=1024, container="csv", allows="answer_cut_off end_not_trained")
    yield plant("long contexts cut", "truncated answer_cut_off", "alpaca", {8: put("input", _long)}, "parquet", max_length=512, allows="row_not_trained end_not_trained")


def _poor_sets() -> Iterator[Case]:
    yield plant("repeats in messages", "duplicates", changes={41: copy_of(5, "repeats in messages"), 42: copy_of(5, "repeats in messages"), 46: copy_of(20, "repeats in messages")})
    yield plant("repeats in CSV", "duplicates", "alpaca", {33: copy_of(2, "repeats in CSV")}, "csv")
    yield plant("repeats in Parquet", "duplicates", "preference", {48: copy_of(1, "repeats in Parquet")}, "parquet")
    yield plant("repeats in text", "duplicates", "text", {30: copy_of(29, "repeats in text")}, "txt")
    yield plant("nearly the same rows", "near_duplicates", changes={40: copy_of(9, "nearly the same rows", put("answer", append(" Indeed.")))}, at=())
    yield plant("nearly the same texts", "near_duplicates", "text", {16: copy_of(4, "nearly the same texts", put("text", lambda text: f"Note: {text}"))}, "parquet", at=())
    name = "rows that are validation rows"
    yield plant(name, "validation_overlap", changes={}, at=(6, 23), validation=_some("messages", name, (6, 23)))
    name = "alpaca rows that are validation rows"
    yield plant(name, "validation_overlap", "alpaca", {}, "csv", at=(11,), validation=_some("alpaca", name, (11,), "parquet"))
    name = "rows of the evaluation"
    yield plant(name, "contamination", changes={}, at=(12, 30), against=_some("messages", name, (12, 30)))
    name = "questions of the evaluation in Parquet"
    yield plant(name, "contamination", "prompt-completion", {}, "parquet", at=(44,), against=_some("prompt-completion", name, (44,), "csv"))
    yield plant("ten rows", "few_rows", rows=10)
    yield plant("mojibake in messages", "broken_encoding", changes={number: put("answer", _mojibake) for number in (5, 17)})
    yield plant("mojibake in CSV", "broken_encoding", "alpaca", {24: put("answer", _mojibake)}, "csv with BOM and CRLF")
    yield plant("replacement characters", "broken_encoding", "text", {12: put("text", append(" Gr\ufffd\ufffde, Stra\ufffde und Caf\ufffd."))})
    yield plant("terminal escapes", "control_characters", changes={19: put("answer", append(" \x1b[31mred\x1b[0m \x1b]0;title\x07"))})
    yield plant("control characters in Parquet", "control_characters", "prompt-completion", {28: put("answer", append(" one\x00two\x08three\x0b"))}, "parquet")
    yield plant("answers in another language", "language_mix", changes=lambda shape, row: put("answer", " ".join(TONGUES["german"][1]).format(a="die Uhr", b="der Tisch") + row["messages"][0]["content"][:9])(shape, row), at=())
    for number, (what, secret) in enumerate(SECRETS.items(), start=1):
        shape, container = (("messages", "jsonl"), ("alpaca", "csv"), ("prompt-completion", "parquet"), ("sharegpt", "json"))[number - 1]
        yield plant(f"{what} in {container}", "secrets", shape, {number * 9: put("answer", append(f" Use this: {secret}"))}, container)
    yield plant("people's addresses", "personal_data", changes={3: put("answer", append(" Write to maria.kowalska@posteo-mail.net.")), 9: put("prompt", append(" My number is +49 151 40862975."))})
    yield plant("a card number", "personal_data", "kto", {31: put("answer", append(" The card is 4539 1488 0343 6467."))}, "parquet")


# fmt: on
