"""No command pays for the training stack before it needs it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "unsloth", "datasets", "bitsandbytes", "accelerate", "pandas")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["recipes", "list"], ["runs"], ["doctor"], ["estimate", "--config", "tunewright/starter"],
     ["advise", "--json"], ["plan", "starter-lora", "--json"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_the_command_imports_no_training_stack(arguments: list[str], tmp_path: object) -> None:
    program = f"""
import sys
sys.argv = ["tunewright"]
from tunewright.__main__ import main
try:
    main({arguments!r})
except SystemExit:
    pass
print("heavy:", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**__import__("os").environ, "TUNEWRIGHT_HOME": str(tmp_path)},
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "heavy: []", ended.stdout
