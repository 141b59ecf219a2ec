"""The clean cases: files in which nothing above a hint may be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tunewright.starter import TRAINING_DATA

from .cases import Case, plant
from .changes import put
from .containers import Write, as_lines, as_parquet, file_of
from .rows import Line, good_rows
from .tongues import TONGUES


def _folder(
    names: Sequence[str],
    shape: str,
    pack: Callable[[Sequence[Line]], bytes],
    beside: Mapping[str, str] | None = None,
    glob: str = "",
) -> Write:
    """Return what writes the rows of a shape over several files, and other files beside them."""

    def write(folder: Path) -> Path:
        rows = good_rows(shape, "folder", 24 * len(names))
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(pack(rows[number * 24 : number * 24 + 24]))
        for name, text in (beside or {}).items():
            (folder / name).write_text(text)
        return folder / glob

    return write


def _symlink(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    written = file_of("jsonl", lambda: good_rows("messages", "symlink"))(folder / "elsewhere")
    (folder / "data.jsonl").symlink_to(written)
    return folder / "data.jsonl"


# fmt: off


def clean_cases() -> Iterator[Case]:
    """Yield the data sets in which nothing above a hint may be found."""
    for shape, containers in {
        "messages": ("jsonl", "jsonl with BOM", "jsonl with CRLF", "jsonl with blank lines", "jsonl without last newline", "jsonl.gz", "jsonl.gz of two parts", "jsonl.zst", "json", "json, indented", "parquet", "arrow", "arrow stream"),
        "sharegpt": ("jsonl", "json", "json.gz", "parquet"),
        "alpaca": ("jsonl", "json", "csv", "csv with BOM and CRLF", "csv with semicolons", "csv.gz", "tsv", "parquet with zstd", "arrow"),
        "prompt-completion": ("jsonl", "csv", "tsv", "parquet"),
        "prompt-completion of messages": ("jsonl", "parquet"),
        "text": ("jsonl", "txt", "csv", "parquet", "jsonl.zst"),
        "preference": ("jsonl", "csv", "parquet"),
        "preference of messages": ("jsonl", "parquet"),
        "preference with a prompt of messages": ("jsonl", "arrow"),
        "kto": ("jsonl", "csv", "parquet"),
        "tools": ("jsonl", "json"),
        "flat tools": ("jsonl", "parquet"),
        "messages with system": ("jsonl", "parquet"),
        "messages with thinking": ("jsonl",),
        "dolly": ("jsonl", "csv"),
        "orca": ("parquet", "jsonl"),
        "hh": ("jsonl", "jsonl.gz"),
        "pairs j and k": ("parquet",),
        "kto with kto_tag": ("json",),
        "llama-factory tools": ("json",),
        "xlam": ("json", "parquet"),
        "hermes": ("json",),
        "messages with code": ("jsonl", "parquet"),
        "messages with emoji": ("jsonl", "jsonl in ASCII"),
        "classes": ("csv",),
        "talk of secrets": ("jsonl",),
    }.items():
        for container in containers:
            yield plant(f"{shape} in {container}", "", shape, {}, container)
    for language in TONGUES:
        yield plant(f"{language} in jsonl", "", language, {}, rows=40)
    yield Case("a folder", _folder(("train-0.jsonl", "train-1.jsonl"), "messages", as_lines))
    yield Case("a folder of Parquet shards", _folder(("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"), "alpaca", as_parquet))
    yield Case("a folder with papers beside the data", _folder(("data.jsonl",), "sharegpt", as_lines, {"README.md": "# Data", "dataset_info.json": '{"citation": ""}', ".gitattributes": ""}))
    yield Case("a glob", _folder(("a.jsonl", "b.jsonl"), "kto", as_lines, glob="*.jsonl"))
    yield Case("a symlink", _symlink)
    yield Case("the starter's data", lambda folder: TRAINING_DATA, model="starter", data={"max_length": 512})
    yield plant("messages without a model", "", model=None)
    yield plant("text without a model", "", "text", {}, "parquet", model=None)
    yield plant("tools without a model", "", "tools", model=None)
    yield plant("messages for the starter", "", model="starter", max_length=512)
    yield plant("a template without marks", "", "messages with system", model="without marks")
    yield plant("loss on the last turn", "", loss_on="last")
    yield plant("loss on all", "", "sharegpt", loss_on="all")
    yield plant("loss on the completion", "", "prompt-completion", {}, "csv", loss_on="completion")
    yield plant("loss on two roles", "", "messages with system", loss_on=("system", "assistant"))
    yield plant("texts that bring their begin token", "", "text", put("text", lambda text: f"<|begin|>{text}"), model="adds begin")
    yield plant("ChatML by name", "", "messages", model="ends as ChatML does", template="chatml")
    yield plant("a system prompt put before the user", "", "messages with system", model="without system", system="user")
    yield plant("a system prompt dropped", "", "messages with system", model="refuses system", system="drop")
    yield plant("a system prompt for all", "", "alpaca", system_prompt="You mend old things.")
    yield plant("columns by name", "", "prompt-completion", lambda shape, row: {"frage": row["prompt"], "antwort": row["completion"]}, "csv", format="prompt-completion", columns={"prompt": "frage", "completion": "antwort"})
    yield plant("a model that begins texts", "", "text", model="adds begin")
    yield plant("other rows for validation", "", validation=file_of("jsonl", lambda: good_rows("messages", "kept out", 12)))
    yield plant("other rows for the evaluation", "", "alpaca", {}, "csv", against=file_of("jsonl", lambda: good_rows("messages", "judged", 12)))


# fmt: on
