"""A recipe that is being edited: what was typed into its fields, what it is by that, and how each field stands to others."""

from __future__ import annotations

from dataclasses import dataclass

from ..foundation.text import one_line
from ..recipes.comparing import Difference, differences, possible_effects
from ..recipes.editing import Edited, as_typed, edit_text, value_at
from ..recipes.model import PREFERENCE_OBJECTIVES
from ..recipes.reading import comments, written
from ..recipes.registry import Entry
from ..recipes.schema import Slot, slots


@dataclass(frozen=True, slots=True)
class Standing:
    """A field of the recipe, as people read it."""

    slot: Slot
    now: str
    before: str
    """What it was when the editor was opened."""
    is_changed: bool
    default: str
    """What it is by default, where it is another value; else empty."""
    parent: str
    """What it is in the recipe that this one was made from, where it is another value; else empty."""
    problems: tuple[str, ...]
    is_faulty: bool
    """Whether it, or its table since it was typed, is not valid."""


@dataclass(frozen=True, slots=True)
class Help:
    """What there is to know of a field beside its standing."""

    standing: Standing
    elsewhere: tuple[str, ...]
    """Its default and its parent's value, each with where that is."""
    reason: str
    """The comment above it."""
    left_open: bool
    """Whether the recipe's source does not say this value."""
    effect: str
    """What the change does, as it was made."""
    possible: tuple[tuple[str, str], ...]
    """Other values with what they would do."""
    sources: tuple[str, ...]


class RecipeEdit:
    """The recipe of a registry's entry, with what was typed into its fields so far; raises TunewrightError for an unreadable one."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.before = entry.recipe
        self.recipe = self.before
        """As it was when it was last valid."""
        self.parent: Entry | None = None
        """The one that it was made from, where that is here."""
        self.typed: dict[str, str] = {}
        """By the fields' paths, the latest last."""
        self.edited: Edited = edit_text(entry.toml, {})

    def take(self, path: str, text: str | None) -> None:
        """Take what was typed for a field, as the last of all; None takes back what was typed before."""
        self.typed.pop(path, None)
        if text is not None:
            self.typed[path] = text
        self.edited = edit_text(self.entry.toml, self.typed)
        self.recipe = self.edited.recipe or self.recipe

    @property
    def is_valid(self) -> bool:
        """Whether it is a recipe as it was typed."""
        return self.edited.recipe is not None

    @property
    def is_changed(self) -> bool:
        """Whether there is something that leaving would lose."""
        return self.edited.recipe != self.before

    def changes(self) -> tuple[Difference, ...]:
        """Return what differs from the recipe as it was, with what each difference does."""
        return differences(self.before, self.recipe)

    def slots(self) -> list[Slot]:
        """Return the fields that the recipe has, with its method and objective."""
        prefers = self.recipe.training.objective in PREFERENCE_OBJECTIVES
        extended = self.recipe.training.extensions is not None
        return [
            each
            for each in slots(self.recipe.method.kind)
            if (prefers or not each.path.startswith("training.preference.")) and (extended or each.name != "extensions")
        ]

    def text_of(self, path: str) -> str:
        """Return a field as it is typed."""
        return self.typed.get(path, as_typed(value_at(self.recipe, path)))

    def find(self, words: str, after: str | None) -> str | None:
        """Return the next field after the one at `after` that has `words` in its name, or else in its meaning."""
        wanted = words.casefold().replace("_", " ").split()

        def says(text: str) -> bool:
            return all(word in text.casefold().replace("_", " ") for word in wanted)

        named = [each.path for each in self.slots() if says(each.path)]
        found = named + [each.path for each in self.slots() if each.path not in named and says(each.meaning)]
        place = found.index(after) + 1 if after in found else 0
        return found[place % len(found)] if found else None

    def standing(self, slot: Slot) -> Standing:
        """Return how a field stands."""
        path = slot.path
        now, before = value_at(self.recipe, path), value_at(self.before, path)
        theirs = None if self.parent is None else value_at(self.parent.recipe, path)
        typed = path in self.typed and not self.is_valid
        problems = tuple(self.edited.problems_at(path))
        around = typed and any(path.startswith(f"{each.path}.") for each in self.edited.problems)
        unlike_default = slot.default is not None and now is not None and now != slot.default
        return Standing(
            slot=slot,
            now=one_line(self.typed[path], 200) or "—" if typed else written(now),
            before=written(before),
            is_changed=now != before,
            default=written(slot.default) if unlike_default else "",
            parent=written(theirs) if self.parent is not None and theirs != now else "",
            problems=problems,
            is_faulty=around or bool(problems),
        )

    def help(self, slot: Slot) -> Help:
        """Return what there is to know of a field."""
        change = next((each for each in self.changes() if each.path == slot.path), None)
        return Help(
            standing=self.standing(slot),
            elsewhere=tuple(self._elsewhere(slot)),
            reason=comments(self.entry.toml).get(slot.path, ""),
            left_open=slot.path in self.recipe.card.unknown,
            effect=change.effect if change else "",
            possible=possible_effects(self.recipe, slot.path),
            sources=self.recipe.card.sources,
        )

    def _elsewhere(self, slot: Slot) -> list[str]:
        if slot.required:
            said = ["has to be given"]
        else:
            said = ["left out by default" if slot.default is None else f"default {written(slot.default) or 'empty'}"]
        if self.parent is not None:
            own = self.parent.recipe_id == self.entry.recipe_id
            where = "the edition before" if own else one_line(self.parent.name, 60)
            said.append(f"{written(value_at(self.parent.recipe, slot.path)) or 'empty'} in {where}")
        return said
