"""The words of the good rows, and the seeded grammar that makes questions and answers of them.

It is rich enough that no two rows are nearly the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

SUBJECTS = (
    "a sourdough starter", "the gutters of an old house", "a bicycle chain", "heavy watercolour paper", "a cello bow",
    "tomatoes on a balcony", "a cast-iron pan", "woollen jumpers", "an apple tree", "a leaking roof", "leather boots",
    "a wooden rowing boat", "the compost behind the shed", "a fountain pen", "a slow laptop", "an espresso machine",
    "a herb garden", "the hinges of a gate", "a sewing machine", "a flock of hens", "a paper archive", "a film camera",
    "a beehive", "the lawn of a school", "a telescope", "an aquarium", "a stone wall", "a canvas tent", "garden shears",
    "a piano in a damp room", "sash windows", "a raincoat", "a collection of maps", "an oak table", "a wood stove",
    "the village notice board", "a mountain path", "a pair of skis", "a kitchen drain", "a choir of beginners",
)  # fmt: skip
MOMENTS = (
    "after a long winter", "before guests arrive", "on a small budget", "during a heatwave", "without special tools",
    "while travelling", "in a rented flat", "when it rains for weeks", "at short notice", "with children around",
    "before the first frost", "once the warranty has ended", "in the middle of exams", "with one free afternoon",
    "close to the sea", "at high altitude",
)  # fmt: skip
TOOLS = (
    "a soft brush", "warm water", "two clamps", "linseed oil", "a sharp knife", "old newspapers", "a level",
    "clean cloths", "fine sandpaper", "a notebook", "a torch", "beeswax", "a bucket of sand", "cotton thread",
    "a wire basket", "chalk", "a thermometer", "a steady ladder", "rubber gloves", "a kitchen scale",
)  # fmt: skip
PEOPLE = (
    "my neighbour", "the caretaker", "a retired joiner", "my aunt", "the local museum", "a patient teacher",
    "the shop on the corner", "a gardener from Ghent", "an old manual", "the harbour master", "our librarian",
    "a friend in Porto", "the repair café", "a forester",
)  # fmt: skip
SPANS = (
    "ten minutes", "half an hour", "a whole weekend", "two quiet evenings", "about three weeks", "one season",
    "a few days", "the better part of a month", "an hour or so", "a quarter of an hour", "a single morning",
    "five summers",
)  # fmt: skip
QUESTIONS = (
    "How do I look after {s} {m}?", "What is the best way to deal with {s} {m}? I only have {t}.",
    "{P} says that {s} needs {t}. Is that so {m}?", "Could you explain what happens to {s} {m}?",
    "I have had {s} for {d} and it gets worse {m}. What should I try first?", "Is {t} enough for {s} {m}?",
    "Give me a short plan for {s}; I have {d} and {t}.", "Why do people use {t} for {s}, and does it help {m}?",
    "We argue about {s} at home. {P} swears by {t}. Who is right?",
    "What would you check about {s} {m}, and in which order?",
    "Write a reminder for my club about {s} {m}.", "I am new to {s}. Which mistakes are common {m}?",
    "How long does it take to get {s} in order {m}, with {t} at hand?", "Can {s} be left alone for {d} {m}?",
    "Tell me how {p} would approach {s} {m}.", "What does it cost to care for {s} {m} if I already own {t}?",
)  # fmt: skip
OPENINGS = (
    "Start with {t} and take {d} over it.", "Most of the work on {s} is waiting: plan for {d}.",
    "It depends on the weather, but {t} rarely does harm.", "Yes, as long as you keep {s} dry for {d}.",
    "No, and {p} would tell you the same.", "First find out what {s} looked like {d} ago.",
    "There are two schools of thought on {s}.", "Think of {s} as something that changes slowly.",
    "In short: less than you fear, more than {p} admits.",
    "Begin where you can see what you are doing, with {t} beside you.",
    "That question comes up {m} every year.", "Good news: nothing about {s} is urgent {m}.",
    "Put everything you need on a table: {t}, {t2} and patience.", "The honest answer is that it takes {d}.",
)  # fmt: skip
MIDDLES = (
    "Go over it with {t}, then let it rest for {d}.", "If that does not help, {t2} usually does.",
    "{P} keeps {t} ready for exactly this.", "Write down what you changed, because {m} you will not remember.",
    "Avoid {t} near the edges, where {s} is weakest.", "A second pair of hands saves {d}.",
    "Work from the top to the bottom and stop when it feels loose.", "Do it twice a year and you will never need {t2}.",
    "Some prefer {t}, though the result looks duller after {d}.",
    "Listen for a change in the sound before you press harder.",
    "What matters {m} is that air can move around {s}.", "Cheap versions of {t} leave marks, so borrow a better one.",
    "Ask {p} whether the same was done before.", "Keep the parts in the order in which they came off.",
    "Test it on a corner that nobody sees.", "Warmth helps, direct sun does not.",
    "The smell tells you more than the colour.", "Once a layer has formed, {t} only polishes it.",
    "It is worth taking a picture before you begin.", "You can skip this step if {s} was cared for within {d}.",
    "Too much care is the commoner mistake.", "Rinse, dry, and only then reach for {t2}.",
    "For a stubborn spot, leave {t} on it for {d}.", "Count the turns so that you can put it back.",
)  # fmt: skip
ENDINGS = (
    "After {d} you will see whether it worked.", "Then store {t} where {p} can find it.", "That is all it needs {m}.",
    "If in doubt, leave {s} as it is and ask {p}.", "Repeat the last step after {d}.", "The rest is practice.",
    "You will know it is right when {s} no longer surprises you.", "Treat yourself to a rest; {s} can wait for {d}.",
    "Whatever you do, do not hurry {m}.", "{P} once needed {d} for the same, so take heart.",
    "Finish with {t2} and open a window.", "Keep an eye on it {m}.",
)  # fmt: skip
FOLLOW_UPS = (
    "And what if {t} is not to be had?", "Does that change {m}?", "How would I notice that {s} is beyond saving?",
    "Thank you. Could {p} do it for me instead?", "Why {d}, and not longer?", "Which of these steps matters most {m}?",
    "My {w} friend says the opposite. What now?", "Can I use {t2} as well?",
)  # fmt: skip
WORDS = ("careful", "stubborn", "Danish", "practical", "anxious", "well-read", "cheerful", "sceptical")
SYSTEM_PROMPTS = (
    "You answer like {p}, calmly and in full sentences.", "You are a guide for people who care for {s}.",
    "Answer briefly. Assume that the reader owns {t}.", "You help visitors of a repair café {m}.",
)  # fmt: skip
CITIES = (
    "Oslo", "Lisbon", "Kyoto", "Bergen", "Turin", "Nairobi", "Lyon", "Quito", "Ghent", "Porto", "Delhi", "Boston",
    "Accra", "Vienna", "Hanoi", "Leeds", "Dublin", "Prague", "Tunis", "Seoul", "Cork", "Munich", "Riga", "Lima",
    "Basel",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SKIES = ("light rain", "clear skies", "fog until noon", "a strong breeze", "wet snow", "thunder in the evening", "haze")
TRIPS = (
    "We want to paint the fence in {c} on {y}. Will the weather allow it, given that we have {t}?",
    "I carry {s} through {c} on {y}; do I need {t}?", "Should {p} postpone the picnic in {c} from {y}?",
    "What is the forecast for {c} on {y}? {P} asks because of {s}.", "Is {y} a good day to air {s} in {c}?",
    "My train reaches {c} on {y}. Tell me whether {t} belongs in the bag.",
    "Please look up the sky over {c} for {y}, {m}.",
)  # fmt: skip
VERDICTS = (
    "{c} expects {k} on {y}, about {n} degrees, so keep {t} at hand.",
    "With {k} and {n} degrees in {c}, I would wait for another day than {y}.",
    "On {y} there will be {k} over {c}. {P} will manage with {t}.",
    "The forecast says {k}, {n} degrees. That is fine for {s}.",
    "Expect {k} in {c}; at {n} degrees nothing happens to {s} within {d}.",
)  # fmt: skip
SNIPPETS = (
    "def {f}(rows):\n    return [row for row in rows if row.{g} > {n}]",
    "class {F}:\n    def __init__(self, {g}: int = {n}) -> None:\n        self.{g} = {g}",
    "for (let i = 0; i < {n}; i++) {{\n  console.log(`{g} ${{i}}`);\n}}",
    "SELECT {g}, COUNT(*) FROM {f} WHERE {g} >= {n} GROUP BY {g};",
    "#include <vector>\n\nstd::vector<int> {f}(int {g}) {{ return std::vector<int>({n}, {g}); }}",
    'import os\n\n{f} = os.environ["{G}_TOKEN"]\npassword = getpass.getpass("Password: ")',
    "| {g} | {f} |\n|---|---|\n| {n} | 17 |\n| <b>3</b> | [INFO] done |",
    "$\\sum_{{i=1}}^{{{n}}} x_i \\leq \\frac{{{n}}}{{2}}$ holds for every ${g}$.",
    "fn {f}({g}: &[u8]) -> Option<&u8> {{\n    {g}.iter().max().filter(|&&b| b > {n})\n}}",
)  # fmt: skip
NAMES = ("count", "weights", "invoice", "shelf", "orbit", "parcel", "ledger", "pixels", "harbour", "queue", "lantern")
FACES = ("😀", "🌧️", "👩‍👩‍👧‍👦", "🇵🇹", "👍🏽", "❤️", "🧑‍🔧", "☕", "🪴", "🏔️")


class Grammar:
    """Writes questions and answers; the same seed gives the same ones."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self._asked: set[str] = set()

    def fill(self, form: str, slots: Mapping[str, str] | None = None) -> str:
        """Return the form with its slots filled in, at random where `slots` does not say with what."""
        chosen = slots or self.slots()
        return form.format_map(chosen)

    def slots(self) -> dict[str, str]:
        """Return words for all the slots of one row."""
        pick = self.random.choice
        person, tools = pick(PEOPLE), self.random.sample(TOOLS, 2)
        return {
            "s": pick(SUBJECTS), "m": pick(MOMENTS), "t": tools[0], "t2": tools[1], "d": pick(SPANS), "w": pick(WORDS),
            "p": person, "P": person[0].upper() + person[1:], "c": pick(CITIES), "y": pick(DAYS), "k": pick(SKIES),
            "n": str(self.random.randrange(2, 34)), "f": pick(NAMES), "g": pick(NAMES), "F": pick(NAMES).title(),
            "G": pick(NAMES).upper(),
        }  # fmt: skip

    def question(self, slots: Mapping[str, str], forms: Sequence[str] = QUESTIONS) -> str:
        """Return a question that was not asked before."""
        for _ in range(100):
            asked = self.fill(self.random.choice(forms), slots)
            if asked not in self._asked:
                break
            slots = self.slots()
        self._asked.add(asked)
        return asked

    def answer(self, slots: Mapping[str, str], sentences: int = 0) -> str:
        """Return an answer of three to five sentences, or as many as are asked for."""
        middles = self.random.sample(MIDDLES, (sentences or self.random.randrange(3, 6)) - 2)
        others = [{**self.slots(), "s": slots["s"]} for _ in middles]
        filled = [self.fill(form, other) for form, other in zip(middles, others, strict=True)]
        return " ".join([
            self.fill(self.random.choice(OPENINGS), slots), *filled, self.fill(self.random.choice(ENDINGS),
            self.slots())
        ])  # fmt: skip

    def exchange(self) -> tuple[str, str]:
        """Return a question and its answer."""
        slots = self.slots()
        return self.question(slots), self.answer(slots)

    def turns(self, number: int) -> list[tuple[str, str]]:
        """Return the turns of the row `number`; every third row asks twice."""
        slots = self.slots()
        turns = [("user", self.question(slots)), ("assistant", self.answer(slots))]
        if number % 3 == 0:
            turns += [("user", self.fill(self.random.choice(FOLLOW_UPS), slots)), ("assistant", self.answer(slots, 3))]
        return turns
