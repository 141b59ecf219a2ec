"""`tunewright chat RUN`: the base and the tuned model answer side by side."""

from __future__ import annotations

import argparse
import sys

from ..engine.results.chat import ChatProcess
from ..engine.runs.directory import find_run
from .parser import add_json, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's id, a part of it, or `last`")
    parser.add_argument("--prompt", metavar="TEXT", help="ask this one thing and end")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    found = find_run(arguments.name)
    if arguments.prompt is None and not arguments.json and sys.stdin.isatty() and sys.stdout.isatty():
        from ..tui.app import open_app

        return open_app(run=found, chat=True)
    chat = ChatProcess(found)
    try:
        if arguments.prompt is not None:
            _answer(chat, arguments.prompt, arguments.json)
        else:
            for line in sys.stdin:
                if line.strip():
                    _answer(chat, line.strip(), arguments.json)
    finally:
        chat.close()
    return 0


def _answer(chat: ChatProcess, prompt: str, as_json: bool) -> None:
    answers = {"base": "", "tuned": ""}
    for side, text in chat.ask(prompt):
        if side != "end":
            answers[side] += text
    if as_json:
        print_json({"prompt": prompt, **answers})
    else:
        print(f"base:  {answers['base'].strip()}\ntuned: {answers['tuned'].strip()}", flush=True)
