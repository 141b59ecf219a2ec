"""How fast the registry finds: 10,000 recipes with 100,000 rows of evidence, and the first screen of the library.

`python benchmarks/registry_speed.py [--json] [--out FILE]`
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.recipes.catalogue import built_in
from tunewright.recipes.finding import Query
from tunewright.recipes.migrations import facets
from tunewright.recipes.model import parse_recipe
from tunewright.recipes.registry import Registry, open_registry

RECIPES, EVIDENCE = 10_000, 100_000
SHOWN = 50
"""As many as a search shows at once."""
REPEATS = 20
WORDS = [
    "chat",
    "code",
    "maths",
    "sql",
    "legal",
    "medical",
    "support",
    "german",
    "french",
    "summary",
    "tools",
    "reasoning",
    "poetry",
    "finance",
]
QUERIES: dict[str, Query] = {
    "everything": Query(),
    "one word": Query(text="chat"),
    "the beginning of a word": Query(text="rea"),
    "two words": Query(text="legal german"),
    "a word in all of them": Query(text="recipe"),
    "a method and a size": Query(method="qlora", smallest_billions=6, largest_billions=9),
    "proven": Query(evidence="proven"),
    "proven on this card": Query(hardware="NVIDIA RTX 4090"),
    "a word, a tag, a licence and evidence": Query(text="chat", task="chat", licence="apache", evidence="ran"),
    "nothing": Query(text="zzzz"),
}


def fill(registry: Registry, recipes: int, evidence: int) -> None:
    """Put recipes and evidence in, all in one transaction: what is measured is finding them."""
    chosen = random.Random(7)
    base = parse_recipe(built_in()["starter-lora"], "starter-lora")
    toml = built_in()["starter-lora"]
    cards = ("NVIDIA RTX 4090", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "Tesla T4")
    with registry._connection.writing() as tables:
        for number in range(recipes):
            words = chosen.sample(WORDS, 3)
            hash_ = f"{number:064x}"
            values = facets(base) | {
                "title": f"{words[0].title()} and {words[1]}, number {number}",
                "summary": f"A recipe that learns {words[0]} from {words[1]} and {words[2]}.",
                "method": chosen.choice(("lora", "qlora", "full")),
                "objective": chosen.choice(("sft", "dpo", "orpo")),
                "size_billions": chosen.choice((0.5, 1.7, 3.0, 7.0, 8.0, 14.0, 32.0, 70.0)),
                "tier": chosen.choice(("", "", "", "A", "B", "C", "D")),
            }
            row = {"hash": hash_, "canonical_json": "{}", "schema_version": 1, "created": 1.0}
            tables.conn.execute("INSERT INTO revisions VALUES (:hash, :canonical_json, :schema_version, :created)", row)
            recipe = tables.conn.execute(
                "INSERT INTO recipes (namespace, slug, origin, created) VALUES ('local', ?, 'local', 1.0)",
                (f"{words[0]}-{number}",),
            ).lastrowid
            columns = {
                **values,
                "recipe": recipe,
                "revision": hash_,
                "toml": f"# {number}\n{toml}",
                "created": 1.0,
                "accepted": 1.0,
            }
            edition = tables.conn.execute(
                f"INSERT INTO editions ({', '.join(columns)}) VALUES ({', '.join(':' + name for name in columns)})",
                columns,
            ).lastrowid
            tables.conn.executemany("INSERT INTO tags VALUES (?, ?)", [(recipe, word) for word in words])
            tables.conn.execute("UPDATE recipes SET edition = ? WHERE id = ?", (edition, recipe))
        tables.conn.executemany(
            "INSERT INTO evidence (revision, kind, status, hardware, run, created) VALUES (?, ?, ?, ?, ?, 1.0)",
            [
                (
                    f"{chosen.randrange(recipes):064x}",
                    chosen.choices(("local", "smoke", "published", "replicated"), (90, 8, 1, 1))[0],
                    chosen.choices(("finished", "stopped", "failed", "out-of-memory"), (6, 1, 2, 1))[0],
                    chosen.choice(cards),
                    f"run-{number}",
                )
                for number in range(evidence)
            ],
        )


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Return the median and the longest of some calls, in milliseconds; the first one is not counted."""
    work()
    times: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return {"median_ms": round(statistics.median(times), 2), "longest_ms": round(max(times), 2)}


def measure(folder: Path, recipes: int, evidence: int) -> dict[str, Any]:
    """Return what every query takes, and the opening of the library with its first list."""
    path = folder / "registry.db"
    with open_registry(path) as registry:
        fill(registry, recipes, evidence)
        found = {
            name: {
                **timed(lambda query=query: registry.find(query, SHOWN)),
                "matches": registry.find(query, SHOWN).total,
            }
            for name, query in QUERIES.items()
        }

    def open_and_list() -> None:
        with open_registry(path) as again:
            again.find(Query(), SHOWN)

    return {
        "recipes": recipes,
        "evidence_rows": evidence,
        "queries": found,
        "slowest_median_ms": max(each["median_ms"] for each in found.values()),
        "open_and_list": timed(open_and_list),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=RECIPES)
    parser.add_argument("--evidence", type=int, default=EVIDENCE)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.recipes, arguments.evidence)
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
        return
    print(f"{result['recipes']:,} recipes, {result['evidence_rows']:,} rows of evidence, {SHOWN} shown")
    for name, each in result["queries"].items():
        print(
            f"  {name:40} {each['median_ms']:7.2f} ms  longest {each['longest_ms']:7.2f} ms  {each['matches']:6,} matches"
        )
    print(f"  opening the registry with its first list {result['open_and_list']['median_ms']:6.2f} ms")


if __name__ == "__main__":
    main()
