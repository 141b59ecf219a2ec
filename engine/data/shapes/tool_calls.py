"""Tools and their calls: every published way of writing them, read into one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from ..examples import Message, ToolCall
from .fields import Unfit, describe, quote


def read_tools(value: object, column: str = "tools") -> tuple[dict[str, Any], ...]:
    """Return the tools that a row declares, each as OpenAI writes it: a `function` with a name; raises Unfit.

    They come as a list of objects or of JSON texts, or all as one JSON text.
    """
    if value is None or value == "" or value == []:
        return ()
    if isinstance(value, str):
        value = _parse(value, f"{quote(column)} is text that is not JSON")
        if value is None:
            return ()
    if isinstance(value, dict):
        value = [cast("dict[str, Any]", value)]
    if not isinstance(value, list):
        raise Unfit("bad_tools", f"{quote(column)} is {describe(value)}, not a list of tools")
    return tuple(_read_tool(each, number, column) for number, each in enumerate(cast("list[Any]", value), start=1))


def _read_tool(tool: Any, number: int, column: str) -> dict[str, Any]:
    if isinstance(tool, str):
        tool = _parse(tool, f"tool {number} of {quote(column)} is text that is not JSON")
    if not isinstance(tool, dict):
        raise Unfit("bad_tools", f"tool {number} of {quote(column)} is {describe(tool)}, not an object")
    fields = cast("dict[str, Any]", tool)
    function = fields.get("function")
    if function is None and isinstance(fields.get("name"), str):
        fields = {"type": "function", "function": {key: each for key, each in fields.items() if key != "type"}}
    elif function is None and isinstance(fields.get("type"), str) and fields["type"] != "function":
        return fields  # a tool that the provider runs, such as a search; it has no name of its own
    elif not isinstance(function, dict) or not isinstance(cast("dict[str, Any]", function).get("name"), str):
        raise Unfit("bad_tools", f"tool {number} of {quote(column)} has no name")
    return cast("dict[str, Any]", _without_padding(fields)) if _holds_null(fields) else fields


def _holds_null(value: dict[str, Any] | list[Any]) -> bool:
    for each in value.values() if isinstance(value, dict) else value:
        if each is None or (isinstance(each, dict | list) and _holds_null(cast("dict[str, Any] | list[Any]", each))):
            return True
    return False


def _without_padding(value: Any) -> Any:
    """Drop the properties that are null: tables give every tool the properties of all, and null is no schema."""
    if isinstance(value, list):
        return [_without_padding(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for key, each in cast("dict[str, Any]", value).items():
        if key == "properties" and isinstance(each, dict):
            each = {name: schema for name, schema in cast("dict[str, Any]", each).items() if schema is not None}
        if each is not None or key in ("default", "const"):
            kept[key] = _without_padding(each)
    return kept


def read_calls(value: object, where: str) -> tuple[ToolCall, ...]:
    """Return the calls of one turn, a list, one object, or the JSON text of either; raises Unfit."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = _parse(value, f"{where} has tool calls that are not JSON") if value.strip() else []
    if isinstance(value, dict):
        value = [cast("dict[str, Any]", value)]
    if not isinstance(value, list):
        raise Unfit("bad_tools", f"{where} has tool calls that are {describe(value)}, not a list")
    return tuple(_read_call(each, where) for each in cast("list[Any]", value))


def _read_call(call: Any, where: str) -> ToolCall:
    if isinstance(call, str):
        call = _parse(call, f"{where} has a tool call that is not JSON")
    if not isinstance(call, dict):
        raise Unfit("bad_tools", f"{where} has a tool call that is {describe(call)}, not an object")
    fields = cast("dict[str, Any]", call)
    inner = fields.get("function")
    function = cast("dict[str, Any]", inner) if isinstance(inner, dict) else fields
    name = function.get("name")
    if not isinstance(name, str):
        raise Unfit("bad_tools", f"{where} has a tool call without a name")
    arguments: Any = function.get("arguments")
    if arguments is None:
        arguments = function.get("parameters")
    if isinstance(arguments, str):
        problem = f"{where} calls {quote(name)} with arguments that are not JSON"
        arguments = _parse(arguments, problem) if arguments.strip() else {}
    if arguments is None:
        arguments = cast("dict[str, Any]", {})
    if not isinstance(arguments, dict):
        raise Unfit(
            "bad_tools", f"{where} calls {quote(name)} with arguments that are {describe(arguments)}, no object"
        )
    identity = fields.get("id")
    return ToolCall(name, cast("dict[str, Any]", arguments), identity if isinstance(identity, str) else None)


def drop_padding(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    """Return the messages without the null arguments that the called tool does not declare.

    Tables give every call the arguments of all calls, most of them null.
    """
    if not any(None in call.arguments.values() for message in messages for call in message.tool_calls):
        return tuple(messages)
    declared: dict[str, Any] = {}
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, dict):
            fields = cast("dict[str, Any]", function)
            declared[str(fields.get("name"))] = fields.get("parameters")
    return tuple(
        replace(message, tool_calls=tuple(_trim(call, declared.get(call.name)) for call in message.tool_calls))
        if message.tool_calls
        else message
        for message in messages
    )


def _trim(call: ToolCall, parameters: Any) -> ToolCall:
    if not isinstance(parameters, dict):
        return call
    properties = cast("dict[str, Any]", parameters).get("properties", cast("Any", parameters))
    if not isinstance(properties, dict):
        return call
    kept = {key: each for key, each in call.arguments.items() if each is not None or key in properties}
    return ToolCall(call.name, kept, call.id)


def _parse(text: str, problem: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unfit("bad_tools", problem) from None
