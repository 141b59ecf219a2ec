"""The one table of keys: bindings, the key bar, the help screen, the command palette and the docs come from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

Where = Literal["Everywhere", "Tune", "Data", "Runs", "Monitor", "Chat", "Recipes", "Editor", "Workbench", "Dialogs"]
ModeName = Literal["tune", "runs", "recipes", "workbench"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One of the four rooms of the interface."""

    key: str
    name: ModeName
    title: str
    description: str


MODES = (
    Mode("1", "tune", "Tune", "The wizard: machine, goal, data, method, recipe, launch"),
    Mode("2", "runs", "Runs", "All runs: follow, stop, resume, chat"),
    Mode("3", "recipes", "Recipes", "Read the recipes and start from one"),
    Mode("4", "workbench", "Workbench", "Calculate parameters, memory and cost"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what it does, and where."""

    key: str
    """The key as Textual names it; several are separated by commas."""
    action: str
    label: str
    """The word in the key bar."""
    description: str
    """The sentence in the help screen and in the docs."""
    where: Where
    shown: bool = True
    """Whether the key bar shows it."""
    priority: bool = False
    """Whether it works while a field is being typed in."""
    display: str = ""
    """How the key is written for people; the key itself when empty."""

    @property
    def name(self) -> str:
        """The key as people read it."""
        return self.display or self.key.replace("ctrl+", "^").replace("question_mark", "?").replace("slash", "/")


KEYS: tuple[Key, ...] = (
    *(Key(mode.key, f"app.mode('{mode.name}')", mode.title, mode.description, "Everywhere", False) for mode in MODES),
    Key("question_mark", "app.help", "Help", "Show every key", "Everywhere"),
    Key("q", "app.quit", "Quit", "Leave; runs that are going on go on", "Everywhere"),
    Key("ctrl+p", "app.command_palette", "Commands", "Find any action by its name", "Everywhere"),
    Key("ctrl+t", "app.toggle_theme", "Light/dark", "Change between the dark and the light theme", "Everywhere", False),
    Key("ctrl+q", "app.quit", "Quit", "Leave, even while a field is being typed in", "Everywhere", False, True),
    Key("enter", "forward", "Next", "Accept this step and go on", "Tune"),
    Key("escape", "back", "Back", "Return to the step before; it is as it was left", "Tune", display="esc"),
    Key("tab", "app.focus_next", "Field", "Go to the next field, list or button", "Tune", display="tab"),
    Key("left,right", "change", "Change", "Change the answer to the question", "Tune", False, display="←→"),
    Key("e", "edit_recipe", "Edit", "At the recipe, open every value of it to change", "Tune", False),
    Key("p", "probe", "Probe", "Before the launch, measure a few real steps", "Tune", False),
    Key("w", "choose_terms", "When", "Before the launch, say when the run begins, and how it gives way", "Tune", False),
    Key("g", "fetch", "Fetch", "Fetch from the Hub what is named and not here: the model, the data", "Tune", False),
    Key("ctrl+n", "restart", "Anew", "Begin the wizard anew", "Tune", False),
    Key("a", "audit", "Audit", "Audit every row, or stop the audit", "Data"),
    Key("f", "choose_format", "Format", "Name the format of the rows", "Data"),
    Key("c", "map_columns", "Columns", "Say which column is what, with the first rows as they are then read", "Data"),
    Key("o", "choose_options", "Options", "Change what is learned, the template, the validation rows and more", "Data"),
    Key("n,right", "show_row(1)", "Next row", "Show the next row", "Data", display="n"),
    Key("p,left", "show_row(-1)", "Row before", "Show the row before", "Data", False, display="p"),
    Key("v", "show_tokens", "Tokens", "Show the row as tokens, or as text", "Data"),
    Key("slash", "search_rows", "Search", "Search in the rows; enter again finds the next", "Data"),
    Key("l", "show_longest", "Longest", "Show the longest row, then the next longest", "Data", False),
    Key("w", "show_worst", "Worst", "Show the row with the gravest finding, then the next", "Data", False),
    Key("r", "show_random", "Random", "Show a row at random", "Data", False),
    Key(
        "plus,equals_sign",
        "change_length(1)",
        "Longer",
        "Take the next longer maximum length",
        "Data",
        False,
        display="+",
    ),
    Key("minus", "change_length(-1)", "Shorter", "Take the next shorter maximum length", "Data", False, display="-"),
    Key(
        "x", "mend", "Mend", "Write a new file in which the chosen finding is mended, and go on with it", "Data", False
    ),
    Key("d", "leave_out", "Leave out", "Leave out the rows that cannot be read, or refuse them", "Data", False),
    Key("m", "name_model", "Model", "Name another model", "Data", False),
    Key("s", "name_source", "Source", "Name other data", "Data", False),
    Key("tab", "next_part", "Pane", "Go to the next field or pane", "Data", display="tab"),
    Key("shift+tab", "previous_part", "Pane before", "Go to the field or pane before", "Data", False),
    Key("enter", "open", "Open", "Open the run's monitor", "Runs"),
    Key("s", "stop", "Stop", "Have the run save at its next step and stop", "Runs"),
    Key("p", "pause", "Pause", "Have the run save and give its memory back until it is resumed", "Runs"),
    Key("r", "resume", "Resume", "Go on from the run's last good checkpoint", "Runs"),
    Key("w", "resume_when", "When", "Say when the run goes on and how it gives way, and resume it", "Runs", False),
    Key("c", "chat", "Chat", "Talk to the base and the tuned model", "Runs"),
    Key("t", "retry", "Retry", "Try a failed run again: from its last good checkpoint, or the start", "Runs"),
    Key("e", "extend", "Extend", "Add steps to a finished run, with its learning rate stated first", "Runs"),
    Key("k", "clone", "Clone", "Make a run like this one in the wizard, with changes", "Runs"),
    Key("a", "app.toggle_alerts", "Bell", "Have runs call you through this terminal, or not", "Runs", False),
    Key("A", "app.alerts", "Alerts", "Choose what runs call you for, and how", "Runs", False),
    Key("f", "front", "Front", "Give a waiting run the first of your places in the queue", "Runs", False),
    Key("b", "begin", "Begin", "Let a waiting run begin at once, whatever it waits for", "Runs", False),
    Key("u", "unit", "At boot", "Show, install or remove the unit that brings runs back at boot", "Runs", False),
    Key("s", "stop", "Stop", "Have the run save at its next step and stop", "Monitor"),
    Key("p", "pause", "Pause", "Have the run save and give its memory back until it is resumed", "Monitor"),
    Key("r", "resume", "Resume", "Go on from the run's last good checkpoint", "Monitor"),
    Key("w", "resume_when", "When", "Say when the run goes on and how it gives way, and resume it", "Monitor", False),
    Key("c", "chat", "Chat", "Talk to the base and the tuned model", "Monitor"),
    Key("a", "app.toggle_alerts", "Bell", "Have runs call you through this terminal, or not", "Monitor", False),
    Key("A", "app.alerts", "Alerts", "Choose what runs call you for, and how", "Monitor", False),
    Key("f", "front", "Front", "Give a waiting run the first of your places in the queue", "Monitor", False),
    Key("b", "begin", "Begin", "Let a waiting run begin at once, whatever it waits for", "Monitor", False),
    Key("l", "log_scale", "Log", "Draw the loss on a logarithmic or a linear scale", "Monitor"),
    Key("z", "zoom", "Zoom", "Give one pane the whole window, or show all of them again", "Monitor"),
    Key("tab", "next_pane", "Pane", "Go to the next pane", "Monitor"),
    Key("shift+tab", "previous_pane", "Pane before", "Go to the pane before", "Monitor", False),
    Key("escape", "back", "Back", "Return to the list of runs", "Monitor", display="esc"),
    Key("t", "retry", "Retry", "Try a failed run again: from its last good checkpoint, or the start", "Monitor"),
    Key("e", "extend", "Extend", "Add steps to a finished run, with its learning rate stated first", "Monitor"),
    Key("k", "clone", "Clone", "Make a run like this one in the wizard, with changes", "Monitor"),
    Key("enter", "send", "Send", "Ask both models", "Chat"),
    Key("tab", "next_side", "Side", "Go between the base model, the tuned model and the prompt", "Chat"),
    Key("escape", "back", "Back", "End the chat and free its memory", "Chat", display="esc"),
    Key("slash", "search", "Search", "Search in names, titles, tags and summaries", "Recipes"),
    Key("enter", "use", "Use", "Start the wizard with this recipe", "Recipes"),
    Key(
        "f",
        "filter",
        "Filter",
        "Show only a task, model, size, licence, method, evidence, or what fits here",
        "Recipes",
    ),
    Key(
        "e",
        "edit",
        "Edit",
        "Change any of its values, with what that does and takes; another's becomes a fork",
        "Recipes",
    ),
    Key("k", "fork", "Fork", "Make a recipe of one's own from this one", "Recipes"),
    Key("d", "compare", "Differences", "Tell what differs from another recipe, and what that does", "Recipes", False),
    Key("h", "history", "History", "Show its editions, ancestors and evidence", "Recipes", False),
    Key("a", "accept_recipe", "Accept", "Take a stranger's recipe for one's own to run", "Recipes", False),
    Key("r", "remove", "Remove", "Take it out of the lists; history and evidence stay", "Recipes", False),
    Key(
        "p",
        "publish",
        "Publish",
        "Send it to the Hub, a folder or a git repository, every byte shown first",
        "Recipes",
        False,
    ),
    Key(
        "i",
        "import_recipe",
        "Import",
        "Make a recipe of another tool's file; what becomes of every key is shown first",
        "Recipes",
        False,
    ),
    Key(
        "x",
        "export_recipe",
        "Export",
        "Write it as another tool reads it, or as a script that needs nothing of ours",
        "Recipes",
        False,
    ),
    Key("g", "pull", "Pull", "Take a recipe from the Hub, a folder or a git repository", "Recipes", False),
    Key("tab", "app.focus_next", "Pane", "Go between the search, the list and the text", "Recipes"),
    Key("escape", "leave_search", "List", "Return from the search to the list", "Recipes", False, display="esc"),
    Key("enter", "edit", "Change", "Type another value for the field; enter again goes back to the list", "Editor"),
    Key("left", "choose(-1)", "Choose", "Take the choice before, where there are some", "Editor", False, display="←"),
    Key("right", "choose(1)", "Choose", "Take the next choice, where there are some", "Editor", display="→"),
    Key("s", "save", "Save", "Keep the changes: a new edition of one's own recipe, a fork of another's", "Editor"),
    Key("ctrl+s", "save", "Save", "Keep the changes, even while a field is being typed in", "Editor", False, True),
    Key("u", "undo", "Undo", "Give the field back the value that it had", "Editor"),
    Key("d", "take_default", "Default", "Leave the field to its default", "Editor"),
    Key("p", "take_parent", "Parent", "Take the value of the recipe that this one was made from", "Editor", False),
    Key("slash", "find", "Find", "Go to the next field with these words in its name or meaning", "Editor"),
    Key("c", "show_changes", "Changes", "Tell what was changed, and what each change does", "Editor"),
    Key("t", "show_text", "Text", "Show the text as it would be kept", "Editor", False),
    Key("tab", "next_pane", "Pane", "Go to the next pane", "Editor", display="tab"),
    Key(
        "escape",
        "leave",
        "Back",
        "Leave the field, or the editor; it asks where changes would be lost",
        "Editor",
        display="esc",
    ),
    Key("m", "choose_model", "Model", "Choose another model: a config.json, a name, or a size such as 8b", "Workbench"),
    Key("c", "choose_card", "Card", "Ask about another card; up and down go through the known ones", "Workbench"),
    Key("tab", "next_pane", "Pane", "Go to the next pane", "Workbench"),
    Key("shift+tab", "previous_pane", "Pane before", "Go to the pane before", "Workbench", False),
    Key("f", "next_method", "Method", "Change between LoRA, full tuning and QLoRA", "Workbench"),
    Key("t", "next_targets", "Targets", "Change the modules that get an adapter", "Workbench"),
    Key("r", "next_rank", "Rank", "Change the rank of the adapters", "Workbench"),
    Key("n", "next_sequence", "Length", "Change the tokens in a row", "Workbench"),
    Key("b", "next_batch", "Batch", "Change the rows in a micro-batch", "Workbench"),
    Key("k", "recompute", "Recompute", "Recompute activations to save memory, or do not", "Workbench"),
    Key("o", "next_optimizer", "Optimizer", "Change how the optimizer keeps its states", "Workbench"),
    Key(
        "u",
        "next_software",
        "Backend",
        "Change between Unsloth, transformers, and transformers with Liger",
        "Workbench",
    ),
    Key("d", "data_rows", "Data", "Give the rows of the data", "Workbench"),
    Key("e", "next_epochs", "Epochs", "Change how often the data is seen", "Workbench"),
    Key("p", "price", "Price", "Give the price of an hour", "Workbench"),
    *(
        Key(key.upper(), f"{action}(-1)", f"{label} back", f"Change the {what} the other way", "Workbench", False)
        for key, action, label, what in (
            ("f", "next_method", "Method", "method"),
            ("t", "next_targets", "Targets", "target modules"),
            ("r", "next_rank", "Rank", "rank"),
            ("n", "next_sequence", "Length", "tokens in a row"),
            ("b", "next_batch", "Batch", "rows in a micro-batch"),
            ("o", "next_optimizer", "Optimizer", "optimizer"),
            ("e", "next_epochs", "Epochs", "epochs"),
        )
    ),
    Key("escape", "leave_field", "Leave", "Leave the field", "Workbench", False, display="esc"),
    Key("enter", "accept", "Accept", "Take what was filled in", "Dialogs", False),
    Key("escape", "close", "Close", "Close the dialog", "Dialogs", display="esc"),
    Key("up", "scroll_text(-1)", "Scroll up", "Scroll the text up", "Dialogs", False, display="↑"),
    Key("down", "scroll_text(1)", "Scroll down", "Scroll the text down", "Dialogs", False, display="↓"),
    Key("pageup", "scroll_text(-10)", "Page up", "Scroll the text up by ten lines", "Dialogs", False),
    Key("pagedown", "scroll_text(10)", "Page down", "Scroll the text down by ten lines", "Dialogs", False),
    Key("c", "copy", "Copy", "Copy the text of an error", "Dialogs", False),
    Key("y", "accept", "Yes", "Agree", "Dialogs", False),
    Key("n", "close", "No", "Decline", "Dialogs", False),
)


def keys_of(where: Where) -> Iterator[Key]:
    """Yield the keys that belong to `where`, in the order of the table."""
    return (key for key in KEYS if key.where == where)


def bindings(where: Where) -> list[Binding]:
    """Return the bindings of `where`, for the BINDINGS of an app or a screen."""
    return [
        Binding(key.key, key.action, key.label, show=key.shown, key_display=key.name, priority=key.priority)
        for key in keys_of(where)
    ]


def key_table() -> list[tuple[str, str, str, str]]:
    """Return every key as (key, action, description, where), for the docs."""
    return [(key.name, key.label, key.description, key.where) for key in KEYS]
