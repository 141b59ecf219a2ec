"""What becomes of recipes between tools: the other tools' examples read here, and our recipes written for them.

`python benchmarks/interchange.py axolotl=REPOSITORY llamafactory=REPOSITORY …` reads the examples out of git
repositories (bare ones too) at their HEAD, and prints one line a tool: how many load, which keys are dropped, why others are
refused. TRL's examples are configurations, and command lines in its documentation and scripts; `trl=` may be given
several times, for repositories that configure TRL. Without repositories each recipe of the catalogue is written for each
tool and read back, and what comes back otherwise is counted. `--write` keeps the facts: repository, commit, paths and counts,
and no text of theirs.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tunewright.foundation.errors import TunewrightError
from tunewright.recipes import catalogue
from tunewright.recipes.interchange.conversion import export_recipe, guess_format, import_recipe
from tunewright.recipes.interchange.reading import read_values
from tunewright.recipes.model import parse_recipe

FIGURES = Path(__file__).with_suffix(".json")
EXAMPLES = {
    "axolotl": r"examples/.*\.ya?ml",
    "llamafactory": r"examples/(?!accelerate|deepspeed|ktransformers/accelerate|inference|merge_lora)[^.]*\.yaml",
    "torchtune": r"recipes/configs/.*\.yaml",
    "trl": r"examples/cli_configs/.*\.yaml|recipes/(?!accelerate_configs).*\.yaml|(docs/source|trl/scripts|examples/scripts)/.*\.(md|py)",
    "unsloth": r"studio/backend/assets/configs/.*\.yaml",
    "oumi": r"configs/(?!.*(job|infer|eval|accelerate|gcp|lambda)).*train.*\.yaml|src/experimental/configs/.*train.*\.yaml",
}
"""Where each tool keeps its examples of training."""
_COMMAND = re.compile(r"(?:^|\n)\s*(?:accelerate launch|python|trl)\s(?:[^\n]|\\\n)*")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="*", metavar="TOOL=REPOSITORY")
    parser.add_argument("--write", action="store_true", help=f"keep the facts in {FIGURES.name}")
    options = parser.parse_args()
    if options.repositories:
        part, facts = "examples", read_examples(options.repositories)
    else:
        part, facts = (
            "round_trips",
            {target: round_trips(target) for target in ("axolotl", "llamafactory", "oumi", "trl")},
        )
    if options.write:
        kept = json.loads(FIGURES.read_text(encoding="utf-8")) | {part: facts}
        FIGURES.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"wrote {FIGURES}")
    return 0


def round_trips(target: str) -> dict[str, Any]:
    """Write every recipe of the catalogue for `target`, read it back, and return how many are the same by their hash."""
    recipes = [parse_recipe(text, name) for name, text in catalogue.built_in().items()]
    same, told, refused, fields = 0, 0, 0, Counter[str]()
    for recipe in recipes:
        try:
            exported = export_recipe(recipe, target)
        except TunewrightError:
            refused += 1
            continue
        back = import_recipe(exported.text, f"{recipe.training.objective}.yaml", target).recipe
        same += back.hash() == recipe.hash()
        told += bool(exported.lost)
        assert (back.hash() == recipe.hash()) != bool(exported.lost), f"{recipe.card.title}: lost in silence"
        fields.update(each.field for each in exported.lost)
    print(
        f"{target}: of {len(recipes)} recipes {same} come back with their hash, {told} with a loss that is told; {refused} are refused"
    )
    print(f"    come back otherwise: {', '.join(f'{field} ×{count}' for field, count in fields.most_common())}")
    return {"recipes": len(recipes), "same": same, "told": told, "refused": refused, "fields": dict(fields)}


def read_examples(repositories: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Import the examples in each TOOL=REPOSITORY, print what came of them, and return it by tool."""
    found: dict[str, Any] = {}
    for each in repositories:
        tool, _, folder = each.partition("=")
        found.setdefault(tool, []).append(measure(tool, Path(folder)))
    for tool, parts in found.items():
        print(line(tool, parts))
        for reason, count in total(parts, "refused").most_common():
            print(f"    {count:4} {reason}")
        unknown = ", ".join(f"{key} ×{count}" for key, count in total(parts, "unknown").most_common(12))
        print(f"    unknown keys, each told with a warning: {unknown or 'none'}")
        dropped = ", ".join(f"{key} ×{count}" for key, count in total(parts, "dropped").most_common(12))
        print(f"    dropped most often: {dropped}")
    return found


def line(tool: str, parts: list[dict[str, Any]]) -> str:
    """Return the tool's figures: of the text fine-tuning examples, how many load."""
    loaded, failed, refused = (sum(len(part[key]) for part in parts) for key in ("loaded", "failed", "refused_paths"))
    share = 100 * loaded / max(1, loaded + failed)
    return f"{tool}: {loaded} of {loaded + failed} text fine-tuning examples load ({share:.1f} %); {refused} are of other kinds"


def total(parts: list[dict[str, Any]], key: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for part in parts:
        counted.update(part[key])
    return counted


def measure(tool: str, repository: Path) -> dict[str, Any]:
    """Import every example in `repository` and return what came of it."""
    commit = git(repository, "rev-parse", "HEAD").strip()
    facts: dict[str, Any] = {
        "repository": repository_name(repository),
        "commit": commit,
        "loaded": [],
        "failed": {},
        "refused_paths": [],
    }
    dropped, unknown, refused, warned, guessed = Counter[str](), Counter[str](), Counter[str](), 0, 0
    for path, text in examples(tool, repository):
        try:
            if not holds_training(text, tool):
                continue
            imported = import_recipe(text, path, tool)
        except TunewrightError as error:
            if error.title == "Not a run that Tunewright can do":
                refused[error.message] += 1
                facts["refused_paths"].append(path)
            else:
                facts["failed"][path] = f"{error.title}: {error.message}"[:300]
            continue
        account_is_whole(text, imported, path)
        facts["loaded"].append(path)
        guessed += guess_format(read_values(text, path)[0], path) == tool
        warned += bool(imported.warnings)
        dropped.update(re.sub(r"\[\d+\]", "[]", each.key) for each in imported.dropped)
        unknown.update(
            re.sub(r"\[\d+\]", "[]", each.key) for each in imported.dropped if each.reason.startswith("unknown")
        )
    return facts | {
        "dropped": dict(dropped), "unknown": dict(unknown), "refused": dict(refused), "with_warnings": warned, "format_guessed": guessed,
    }  # fmt: skip


def account_is_whole(text: str, imported: Any, path: str) -> None:
    """Hold that every key of the file is mapped or dropped: nothing is lost in silence."""
    said = {each.key for each in (*imported.mapped, *imported.dropped)}
    keys = set(leaves(read_values(text, path)[0]))
    assert keys == said, f"{path}: {sorted(keys ^ said)}"


def leaves(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{at}.{key}" if at else key)
    elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{at}[{index}]")
    elif at:
        yield at


def examples(tool: str, repository: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each example; a command line is yielded as the configuration that it stands for."""
    paths = [
        each
        for each in git(repository, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
        if re.fullmatch(EXAMPLES[tool], each)
    ]
    for path in paths:
        text = git(repository, "show", f"HEAD:{path}")
        if path.endswith((".md", ".py")):
            for index, found in enumerate(commands(text)):
                yield f"{path}#{index}-{found[0]}", found[1]
        else:
            yield path, text


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield the script's name and the settings of each command line in `text` that trains with TRL."""
    for match in _COMMAND.finditer(text.replace("\\\n", " ")):
        try:
            words = shlex.split(match[0].replace("`", ""), comments=True)
        except ValueError:
            continue
        name = next((Path(each).stem for each in words if each.endswith(".py")), words[1] if words[0] == "trl" else "")
        values: dict[str, Any] = {}
        key = ""
        for word in words:
            if word.startswith("--"):
                key, equals, value = word[2:].partition("=")
                values[key] = plain(value) if equals else True
            elif key:
                values[key] = plain(word) if values[key] is True else [*aslist(values[key]), plain(word)]
        kind = re.match(r"(sft|dpo|kto|orpo)", name)
        if kind and "model_name_or_path" in values and "config_file" not in {key for key in values if key == "config"}:
            values.pop("config_file", None)
            values.pop("num_processes", None)
            yield name, yaml.safe_dump(values, sort_keys=False)


def plain(word: str) -> Any:
    """Return a word of a command line as the value that it stands for."""
    if word.casefold() in ("true", "false"):
        return word.casefold() == "true"
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return word


def aslist(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def holds_training(text: str, tool: str) -> bool:
    """Tell whether a file is a configuration of training at all, rather than of a launcher or a job."""
    try:
        values = read_values(text, "the file")[0]
    except TunewrightError:
        return True
    return not values.keys() & {"compute_environment", "distributed_type", "zero_optimization", "secrets", "gpu_count"}


def repository_name(folder: Path) -> str:
    for part in reversed(folder.parts):
        if "+" in part:
            return part.replace("+", "/", 1)
    found = subprocess.run(
        ["git", "-C", str(folder), "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    )
    return "/".join(found.stdout.strip().removesuffix(".git").split("/")[-2:]) or folder.name


def git(repository: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repository), *words], capture_output=True, text=True, check=True, errors="replace"
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
