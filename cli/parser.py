"""The command line: one table of nouns, each loaded only when it is called."""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from .. import __version__
from ..foundation.errors import EXIT_CODE, TunewrightError, nearest
from ..foundation.text import clean, inert


@dataclass(frozen=True, slots=True)
class Noun:
    """One command: the module that defines it, and the line that `--help` shows.

    The module has `configure(parser)`, which adds arguments, and `run(arguments) -> int`.
    """

    module: str
    summary: str

    @property
    def sentence(self) -> str:
        """The summary as a sentence, for the command's own `--help`."""
        return self.summary[0].upper() + self.summary[1:] + "."


NOUNS: dict[str, Noun] = {
    "demo": Noun("demo", "tune the built-in model on this machine and show before and after"),
    "doctor": Noun("doctor", "show the machine, what is installed, what is missing, and the command that fixes it"),
    "advise": Noun("advise", "recommend prompting, LoRA, QLoRA or full fine-tuning, with reasons"),
    "estimate": Noun("estimate", "predict the memory and speed of one configuration"),
    "parameters": Noun("parameters", "count a model's parameters, and adapters of several ranks side by side"),
    "targets": Noun("targets", "compare the choices of target modules: what they train, take and cost in speed"),
    "cards": Noun("cards", "show which card a model needs, for each method"),
    "cost": Noun("cost", "estimate the time, money and energy of a run for each method"),
    "plan": Noun("plan", "show the fastest plan that fits this machine for a recipe and its data"),
    "data": Noun("data", "inspect, audit, preview, convert and split data sets"),
    "probe": Noun("probe", "train a few steps on the longest rows, and compare them with the plan's predictions"),
    "fetch": Noun("fetch", "fetch a model or a data set from the Hub, or go on where that broke off"),
    "train": Noun("train", "start a run from a recipe; it goes on when you log out"),
    "runs": Noun("runs", "list the runs and their states"),
    "queue": Noun("queue", "show who holds the machine and what waits; move a run to the front, start or drop it"),
    "attach": Noun("attach", "follow a run that is going on, or read one that has ended"),
    "stop": Noun("stop", "ask a run to save at its next step and stop"),
    "pause": Noun("pause", "have a run save, and give its memory back until it is resumed"),
    "resume": Noun("resume", "go on from a run's last checkpoint"),
    "retry": Noun("retry", "try a failed run again, from its last good checkpoint or from the start"),
    "extend": Noun("extend", "add steps to a finished run, with its learning rate stated first"),
    "clone": Noun("clone", "make a run like another one, with changes that are shown first"),
    "alerts": Noun("alerts", "show, change and try how runs call you: terminal, own command, webhook"),
    "chat": Noun("chat", "talk to the base and the tuned model side by side"),
    "export": Noun("export", "write a run's merged model"),
    "recipes": Noun("recipes", "find, read, compare, fork and share recipes"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that imports a command when it is called, and whose errors have the same three parts as all others."""

    def __init__(self, *, load: Callable[[Parser], None] | None = None, **options: Any) -> None:
        """Make a parser as argparse does; `load` adds its arguments."""
        super().__init__(**options)
        self._load = load

    def load(self) -> None:
        """Add the command's arguments, unless they are there."""
        load, self._load = self._load, None
        if load is not None:
            load(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.load()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise TunewrightError("Command not understood", f"{message}.", f"`{self.prog} --help` shows the form.")


def build_parser() -> Parser:
    """Return the whole parser; each command's arguments are loaded when it is called."""
    parser = Parser(
        prog="tunewright",
        description="A terminal wizard for fine-tuning language models. Without a command it opens the interface.",
        epilog="Every command takes --json. TUNEWRIGHT_HOME moves the folder of the registry and the runs.",
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="version", version=f"tunewright {__version__}")
    parser.add_argument("--traceback", action="store_true", help="on an error, show where in the program it arose")
    commands = parser.add_subparsers(dest="noun", metavar="COMMAND", title="commands", parser_class=Parser)
    for name, entry in NOUNS.items():
        commands.add_parser(
            name,
            help=entry.summary,
            description=entry.sentence,
            formatter_class=_formatter,
            load=functools.partial(_load, entry.module),
        )
    return parser


def _load(name: str, command: Parser) -> None:
    module = importlib.import_module(f".{name}", __package__)
    module.configure(command)
    command.set_defaults(run=module.run)


def run(arguments: list[str]) -> int:
    """Run `arguments` and return the exit status: 0, 2 for an error or a run that failed, 130 for Ctrl-C."""
    asks_json = "--json" in arguments
    try:
        name = next((word for word in arguments if not word.startswith("-")), "")
        if name and name not in NOUNS:
            suggestion = nearest(name, NOUNS)
            hint = f"Did you mean `tunewright {suggestion}`?" if suggestion else "`tunewright --help` lists them."
            raise TunewrightError("Unknown command", f"There is no command {name!r}.", hint)
        parsed = build_parser().parse_args(arguments)
        action: Callable[[argparse.Namespace], int] = getattr(parsed, "run", _open_interface)
        return action(parsed)
    except TunewrightError as error:
        if "--traceback" in arguments:
            import traceback

            traceback.print_exc()
        report(error, asks_json)
        return EXIT_CODE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def report(error: TunewrightError, as_json: bool) -> None:
    """Print `error`: for people on stderr, or as one JSON object on stdout."""
    if as_json:
        print_json({"error": error.to_json()})
    else:
        print(clean(f"{error.title}\n  {error.message}\n  {error.remedy}"), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON."""
    print(inert(json.dumps(value, ensure_ascii=False, default=str)), flush=True)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the `--json` switch that every command has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def _open_interface(arguments: argparse.Namespace) -> int:
    from ..tui.app import open_app

    return open_app()


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=28, width=100)
