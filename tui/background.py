"""Work off the interface's loop: in threads, the newer call of a group before the older, errors into the dialog."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from textual._work_decorator import work
from textual.message import Message
from textual.message_pump import MessagePump
from textual.worker import Worker, get_current_worker  # pyright: ignore[reportUnknownVariableType]

from ..foundation.errors import TunewrightError
from ..foundation.home import home
from .messages import Failed

P = ParamSpec("P")
Node = TypeVar("Node", bound=MessagePump)


def background(
    group: str,
) -> Callable[[Callable[Concatenate[Node, P], None]], Callable[Concatenate[Node, P], Worker[None]]]:
    """Run a method in a thread; a newer call in the same `group` supersedes the older one, whose messages are dropped.

    A TunewrightError ends in the error dialog; so does any other exception, with its traceback in the log.
    """

    def decorate(method: Callable[Concatenate[Node, P], None]) -> Callable[Concatenate[Node, P], Worker[None]]:
        @functools.wraps(method)
        def guarded(node: Node, *args: P.args, **kwargs: P.kwargs) -> None:
            try:
                method(node, *args, **kwargs)
            except TunewrightError as error:
                deliver(node, Failed(error))
            except Exception as error:  # noqa: BLE001
                deliver(node, Failed(describe_unexpected(error)))

        return work(thread=True, exclusive=True, exit_on_error=False, group=group)(guarded)

    return decorate


def superseded() -> bool:
    """Tell, in a background method, whether a newer call has taken its place."""
    return bool(get_current_worker().is_cancelled)


def deliver(node: MessagePump, message: Message) -> None:
    """Post `message` from a background method, unless a newer call has superseded it."""
    if not superseded():
        node.post_message(message)


def describe_unexpected(error: Exception) -> TunewrightError:
    """Write the traceback of an unexpected exception into the log, and return what a user is told."""
    path = home() / "tunewright.log"
    told = f"{type(error).__name__}: {error}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:
        return TunewrightError("Something unexpected happened", told, "The traceback could not be written to the log.")
    return TunewrightError("Something unexpected happened", told, f"The traceback is in {path}.")
