"""Chatting with the base model and the tuned one, side by side; the models live in a process of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from ...engine.runs.directory import RunDirectory
from ...foundation.errors import TunewrightError
from ...foundation.text import clean
from ..background import deliver
from ..keys import bindings
from ..messages import Failed
from ..widgets.field import Field
from ..widgets.pane import FixedText, ScrollPane
from .frame import FramedScreen
from .run_words import run_name

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
REPAINT_SECONDS = 0.1
"""Pieces of an answer are gathered this long, so that a fast model does not flood a slow line."""


class Chat(Protocol):
    """What the screen asks of the process that holds both models."""

    def ready(self, timeout_seconds: float = 0.0) -> bool:
        """Tell whether the models are loaded."""
        ...

    def ask(self, prompt: str) -> Iterator[tuple[Literal["base", "tuned", "end"], str]]:
        """Send a turn, and yield pieces of both answers."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


@dataclass
class ChatReady(Message):
    """Both models are loaded."""


@dataclass
class PiecesCame(Message):
    """The answers grew; `done` when both are whole."""

    pieces: dict[Side, str]
    done: bool


@dataclass(slots=True)
class Turn:
    """One prompt and both answers."""

    prompt: str
    answers: dict[Side, str] = field(default_factory=lambda: {"base": "", "tuned": ""})


def start_chat(run: RunDirectory) -> Chat:
    """Start the process that holds both models of `run`; raises TunewrightError."""
    from ...engine.results.chat import ChatProcess

    return ChatProcess(run)


class ChatScreen(FramedScreen):
    """Two columns of answers above one prompt."""

    BINDINGS = bindings("Chat")  # pyright: ignore[reportAssignmentType]
    where = "Chat"
    mode = "runs"
    title_path = ("Runs", "chat")

    def __init__(self, run: RunDirectory, start: Callable[[RunDirectory], Chat] = start_chat) -> None:
        super().__init__()
        self.run_directory = run
        self.start = start
        self.turns: list[Turn] = []
        self.answering = False
        self.loaded = False
        self.side: Side = "tuned"
        self._chat: Chat | None = None
        self._left = threading.Event()

    def compose_body(self) -> ComposeResult:
        yield FixedText(id="tabs")
        with Horizontal(id="sides"):
            yield ScrollPane("Base model", id="base", said="Loading…", at_end=True)
            yield ScrollPane("Tuned model", id="tuned", said="Loading…", at_end=True)
        yield Field(placeholder="Ask both models, then press enter", id="prompt")

    def on_mount(self) -> None:
        self.show_title(
            "Runs", run_name(self.run_directory), "chat", aside=Content.styled("loading the models…", "$muted")
        )
        self._show_side("tuned")
        self.query_one("#prompt").focus()
        self._load()

    def on_unmount(self) -> None:
        self._left.set()
        if self._chat is not None:
            threading.Thread(target=self._chat.close, daemon=True).start()

    @work(thread=True, exit_on_error=False, group="load")
    def _load(self) -> None:
        try:
            chat = self.start(self.run_directory)
            if self._left.is_set():
                chat.close()
                return
            self._chat = chat
            while not self._left.is_set():
                if chat.ready(timeout_seconds=0.25):
                    deliver(self, ChatReady())
                    return
        except TunewrightError as error:
            if not self._left.is_set():
                deliver(self, Failed(error))

    @on(ChatReady)
    def _be_ready(self) -> None:
        self.loaded = True
        self.show_title(aside=Content.styled("✓ both models are loaded", "$muted"))
        self._show_answers()

    @on(Input.Submitted)
    def action_send(self) -> None:
        field_ = self.query_one(Field)
        prompt = clean(field_.value).strip()
        if not prompt or self.answering:
            return
        field_.value = ""
        self.answering = True
        self.turns.append(Turn(prompt))
        self._show_answers()
        self._ask(prompt)

    @work(thread=True, exit_on_error=False, group="ask")
    def _ask(self, prompt: str) -> None:
        try:
            while self._chat is None:
                if self._left.wait(0.05):
                    return
            pieces: dict[Side, str] = {}
            painted = time.monotonic()
            for side, text in self._chat.ask(prompt):
                if side == "end":
                    break
                pieces[side] = pieces.get(side, "") + text
                if time.monotonic() - painted >= REPAINT_SECONDS:
                    deliver(self, PiecesCame(pieces, done=False))
                    pieces, painted = {}, time.monotonic()
            deliver(self, PiecesCame(pieces, done=True))
        except (TunewrightError, OSError, ValueError) as error:
            if self._left.is_set():
                return  # the process was ended by leaving
            deliver(self, PiecesCame({}, done=True))
            told = error if isinstance(error, TunewrightError) else None
            deliver(self, Failed(told or TunewrightError("The chat ended", str(error), "Open it again from the run.")))

    @on(PiecesCame)
    def _grow(self, message: PiecesCame) -> None:
        for side, text in message.pieces.items():
            self.turns[-1].answers[side] += clean(text)
        self.answering = not message.done
        self._show_answers()

    def _show_answers(self) -> None:
        for side in SIDES:
            blocks: list[Content] = []
            for turn in self.turns:
                answer = turn.answers[side].strip("\n")
                waiting = "…" if turn is self.turns[-1] and self.answering else "(nothing)"
                blocks.append(
                    Content.assemble(
                        ("› ", "$accent"), (turn.prompt, "$muted"), "\n", answer or (waiting, "$muted"), "\n"
                    )
                )
            start = "Loaded. Ask below." if self.loaded else "Loading; you can ask already."
            empty = Content.styled(start, "$muted")
            self.query_one(f"#{side}", ScrollPane).show(Content("\n").join(blocks) if blocks else empty)

    def _show_side(self, side: Side) -> None:
        self.side = side
        names = {"base": "Base model", "tuned": "Tuned model"}
        tabs = [
            Content.styled(f" {names[each]} ", "bold $foreground on $soft" if each == side else "$muted")
            for each in SIDES
        ]
        self.query_one("#tabs", FixedText).show(Content(" ").join(tabs))
        for each in SIDES:
            self.set_class(each == side, f"show-{each}")

    def action_next_side(self) -> None:
        if self.query_one("#tabs").display:
            self._show_side("base" if self.side == "tuned" else "tuned")
        else:
            self.focus_next()

    def action_back(self) -> None:
        self.app.pop_screen()
