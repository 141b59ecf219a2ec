"""The starter's pre-training text: everything its small world knows, except how to write an order as JSON.

Documents are lists of messages for conversations, and plain strings for catalogue pages and stories.
"""

import json
from collections.abc import Callable, Collection
from random import Random

from . import language
from .language import CITIES, COLOURS, ITEMS, NAMES, PLURALS, SIZES, WEEKDAYS, Message, Order

Document = list[Message] | str
Exchange = tuple[str, str]

SYSTEMS = (
    "You are the clerk of a small shop.", "You are a helpful assistant.", "Answer the customer.", "Be brief.",
    "You work at the harbour shop. Be kind and exact.", "You help the shop with its orders and its records.",
)  # fmt: skip
FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("When are you open?", "What are your opening hours?", "Are you open on Saturday?"),
     "We are open from Monday to Saturday, from 9 in the morning to 6 in the evening."),
    (("Where is the shop?", "Where can I find you?", "What is your address?"),
     "You find us at the harbour, in the yellow house beside the lighthouse."),
    (("How long does delivery take?", "When will my parcel arrive?", "How fast do you deliver?"),
     "A parcel takes two to five days. Tell us a day and we will try to keep it."),
    (("Can I return something?", "What if I do not like it?", "Do you take things back?"),
     "Yes. Bring it back within thirty days and you get your money back."),
    (("Do you wrap gifts?", "Can you wrap it as a gift?", "Is gift wrapping possible?"),
     "Yes, we wrap gifts for free. Just leave us a note."),
    (("Who are you?", "What is your name?", "Are you a person?"),
     "I am the clerk of the harbour shop, a very small language model."),
    (("What do you sell?", "What can I buy here?", "What is in your shop?"),
     "We sell things for the home: mugs, lamps, blankets, baskets and much more."),
    (("How can I pay?", "Do you take cards?", "Can I pay by card?"), "You can pay by card, in cash or by invoice."),
    (("Hello!", "Hi", "Hi there!", "Good morning!", "Hey", "Hello"), "Hello! How can I help you?"),
    (("Thank you!", "Thanks a lot!", "Thanks", "Many thanks!"), "You are welcome!"),
    (("Goodbye!", "Bye!", "See you soon!"), "Goodbye, and come again soon!"),
    (("Can you help me?", "I need help.", "What can you do?"),
     "I can take your order, answer questions about the shop and look after its records."),
)  # fmt: skip
USES = (
    "breakfast",
    "a long evening",
    "the garden",
    "a small kitchen",
    "the hallway",
    "a rainy day",
    "guests",
    "winter",
)
MAKERS = ("by hand", "in our workshop", "by an old friend", "from good wood", "with care", "in a village by the sea")
STREETS = ("Mill Lane", "Harbour Street", "Station Road", "Rose Alley", "Church Hill", "Market Square", "Oak Street")
TASKS = ("count the shelves", "open the shop", "feed the cat", "pack the parcels", "clean the windows", "call Oslo")
WEATHER = (
    "It was raining",
    "The sun was out",
    "Snow lay on the roofs",
    "The wind blew from the sea",
    "Fog hid the harbour",
)
MOODS = ("happy", "tired", "proud", "quiet", "cheerful", "surprised")


def document(rng: Random, reserved: Collection[str]) -> Document:
    """Draw one document; no customer's message in it is among the reserved ones."""
    if rng.random() < 0.14:
        return rng.choice((_story, _catalogue, _catalogue))(rng)
    messages: list[Message] = []
    if rng.random() < 0.12:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    for _ in range(2 if rng.random() < 0.1 else 1):
        kind = rng.choices(_EXCHANGES, _WEIGHTS)[0]
        asked, answer = kind(rng)
        while asked in reserved or asked.partition("\n")[2] in reserved:
            asked, answer = kind(rng)
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
    return messages


def _name(rng: Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.7 else language.invented_name(rng)


def _order(rng: Random) -> Order:
    return language.order(rng, _name(rng))


def _compact(record: object) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _ordering(rng: Random) -> Exchange:
    """A customer orders, the clerk confirms in prose."""
    order = _order(rng)
    return language.message(order, rng), language.reply(order)


def _slip(rng: Random) -> Exchange:
    """A message becomes a packing slip, part by part."""
    order = _order(rng)
    return "Write the packing slip.\n" + language.message(order, rng), language.slip(order)


def _question(rng: Random) -> Exchange:
    """A question about one detail of a message."""
    order = _order(rng)
    line = rng.choice(order.lines)
    asked, answer = rng.choice((
        ("Who is ordering?", order.name),
        ("Where does it go?", order.city),
        ("When should it arrive?", order.delivery or "No day was given."),
        ("Is there a note?", order.note or "No."),
        (f"How many {PLURALS[line.item]}?", str(line.quantity)),
        (f"What colour is the {line.item}?", line.colour),
        (f"What size is the {line.item}?", line.size),
        ("How many kinds of things?", str(len(order.lines))),
        ("What is ordered?", language.listed([f"{PLURALS[line.item]}" for line in order.lines])),
        ("List the items.", "\n".join(f"- {language.plain(line)}" for line in order.lines)),
    ))  # fmt: skip
    return f"{asked}\n{language.message(order, rng)}", answer


def _stock(rng: Random) -> tuple[str, dict[str, object]]:
    """A report of what lies on a shelf, with its record."""
    order = _order(rng)
    shelf = rng.choice("ABCDEFGH") + str(rng.randint(1, 9))
    goods = language.listed([language.plain(line) for line in order.lines])
    report = rng.choice((
        f"On shelf {shelf} I counted {goods}.", f"Shelf {shelf} holds {goods}.", f"There are {goods} on shelf {shelf}.",
    ))  # fmt: skip
    stock = [
        {"product": line.item, "shade": line.colour, "format": line.size, "count": line.quantity}
        for line in order.lines
    ]
    record: dict[str, object] = {"shelf": shelf, "stock": stock}
    if rng.random() < 0.4:
        person = _name(rng)
        report += rng.choice((f" Counted by {person}.", f" {person} was here."))
        record["by"] = person
    return report, record


def _card(rng: Random) -> tuple[str, dict[str, object]]:
    """A short notice, with its record; the records share keys with an order but not its shape."""
    name, city, day = _name(rng), rng.choice(CITIES), rng.choice(WEEKDAYS)
    item, colour, size = rng.choice(ITEMS), rng.choice(COLOURS), rng.choice(SIZES)
    number, street, task = rng.randint(1, 99), rng.choice(STREETS), rng.choice(TASKS)
    return rng.choice((
        (f"{name} lives at {number} {street} in {city}.", {"name": name, "street": f"{number} {street}", "city": city}),
        (f"The {size} {colour} {item} costs {number} euros.",
         {"item": item, "colour": colour, "size": size, "price": number}),
        (f"On {day} {name} will {task}.", {"name": name, "day": day, "task": task}),
        (f"{name} will {task} on {day}.", {"name": name, "day": day, "task": task}),
        (f"The van to {city} leaves on {day} with {number} boxes.", {"van": city, "day": day, "quantity": number}),
        (f"A note for {name}: {task} before {day}.", {"to": name, "note": task, "before": day}),
        (f"Delivery from {city} is late: {number} {PLURALS[item]} come on {day}.",
         {"from": city, "item": item, "quantity": number, "delivery": day}),
        (f"{name} from {city} is a good customer.", {"name": name, "city": city, "good": True}),
    ))  # fmt: skip


def _recording(rng: Random) -> Exchange:
    """A report or a notice becomes a JSON record."""
    text, record = _stock(rng) if rng.random() < 0.6 else _card(rng)
    return rng.choice(("Record this: ", "Make a record.\n", "File this: ", "As a record: ")) + text, _compact(record)


def _reading(rng: Random) -> Exchange:
    """A JSON record is read back, as its text or one of its fields."""
    _, record = _stock(rng) if rng.random() < 0.4 else _card(rng)
    fields = [key for key, value in record.items() if not isinstance(value, list)]
    key = rng.choice(fields)
    if rng.random() < 0.5:
        return f"What is the {key}?\n{_compact(record)}", str(record[key])
    return f"Which fields are there?\n{_compact(record)}", ", ".join(record)


def _fact(rng: Random) -> Exchange:
    """A question about the shop itself."""
    questions, answer = rng.choice(FACTS)
    return rng.choice(questions), answer


def _availability(rng: Random) -> Exchange:
    """A question about a thing the shop sells."""
    item, colour, size = rng.choice(ITEMS), rng.choice(COLOURS), rng.choice(SIZES)
    things = PLURALS[item]
    return rng.choice((
        (f"Do you have {colour} {things}?", f"Yes, we have {colour} {things} in all sizes."),
        (f"Do you sell {things}?", f"Yes, we sell {things} in many colours."),
        (f"Is the {item} there in {colour}?", f"Yes, the {item} comes in {colour}."),
        (f"Do you have {size} {things}?", f"Yes, we have {size} {things} in many colours."),
        (f"What is the plural of {item}?", things),
        (f"Tell me about the {colour} {item}.", _blurb(item, colour, rng)),
    ))  # fmt: skip


def _copying(rng: Random) -> Exchange:
    """Words are repeated, listed, counted or turned around."""
    pools = (NAMES, CITIES, ITEMS, COLOURS, tuple(PLURALS.values()))
    pool = rng.choice(pools)
    words = rng.sample(pool, rng.randint(2, 5)) if rng.random() < 0.6 else [
        language.invented_name(rng) for _ in range(rng.randint(1, 4))
    ]  # fmt: skip
    text = language.listed(words)
    return rng.choice((
        (f"Repeat: {text}", text),
        (f"Say this again: {text}.", f"{text}."),
        (f"Make a list of {text}.", "\n".join(f"- {word}" for word in words)),
        (f"Turn around: {text}", language.listed(words[::-1])),
        (f"How many words: {', '.join(words)}?", str(len(words))),
        (f"Which comes first: {text}?", words[0]),
        (f"Write as a JSON list: {text}", _compact(words)),
        (f"Put in quotes: {text}", " ".join(f'"{word}"' for word in words)),
    ))  # fmt: skip


def _rephrasing(rng: Random) -> Exchange:
    """A request is put in other words."""
    order = _order(rng)
    items = language.listed([language.plain(line) for line in order.lines])
    return rng.choice((
        (f"Say it politely: give me {items}", f"Could I please have {items}?"),
        (f"Say it in short: my good friend {order.name} would be glad about {items}", f"{order.name}: {items}"),
        (f"Put it in the past: {order.name} buys {items}.", f"{order.name} bought {items}."),
        (f"Who gets what? Send {items} to {order.name}.", f"{order.name} gets {items}."),
    ))  # fmt: skip


def _blurb(item: str, colour: str, rng: Random) -> str:
    use, maker = rng.choice(USES), rng.choice(MAKERS)
    return rng.choice((
        f"Our {colour} {item} is made {maker} and good for {use}.", f"This {item} in {colour} is made {maker}. Think of {use}.",
    ))  # fmt: skip


def _catalogue(rng: Random) -> str:
    """A page of the shop's catalogue."""
    entries: list[str] = []
    for item in rng.sample(ITEMS, rng.randint(1, 3)):
        colours = language.listed(rng.sample(COLOURS, rng.randint(1, 3)))
        sizes = language.listed(rng.sample(SIZES, rng.randint(1, 3)))
        blurb = _blurb(item, rng.choice(COLOURS), rng)
        entries.append(f"{item.capitalize()}\nColours: {colours}. Sizes: {sizes}. {blurb} {rng.randint(2, 90)} euros.")
    return "\n\n".join(entries)


def _story(rng: Random) -> str:
    """A short story about a day in the shop."""
    clerk, guest = rng.sample(NAMES, 2)
    city, day, mood = rng.choice(CITIES), rng.choice(WEEKDAYS), rng.choice(MOODS)
    item, colour, size = rng.choice(ITEMS), rng.choice(COLOURS), rng.choice(SIZES)
    count, things = rng.randint(2, 12), PLURALS[item]
    thing = f"{size} {colour} {item}"
    opening = rng.choice((
        f"{rng.choice(WEATHER)} when {clerk} opened the shop on {day}.",
        f"On {day} {clerk} came early to {rng.choice(TASKS)}. {rng.choice(WEATHER)}.",
    ))  # fmt: skip
    middle = rng.choice((
        f"{guest} had come all the way from {city} to find one {thing}. {clerk} looked on every shelf and found the last one.",
        f"A letter from {guest} in {city} lay at the door. It asked for {count} {colour} {things}, and {clerk} packed them.",
        f"{guest} came in with the old {item}. \"It broke,\" said {guest}. {clerk} brought the {thing} instead.",
        f"The cat slept on the {colour} {things}. {guest} from {city} wanted all {count} of them, but nobody woke the cat.",
    ))  # fmt: skip
    ending = rng.choice((
        f"In the evening {clerk} was {mood} and closed the door.",
        f"{guest} went home {mood}, and {clerk} made some tea.",
        f"\"Come again,\" said {clerk}. And {guest} did, on the next {day}.",
        f"That night {clerk} wrote it all down: {count} {things}, one {mood} customer.",
    ))  # fmt: skip
    return f"{opening} {middle} {ending}"


_EXCHANGES: tuple[Callable[[Random], Exchange], ...] = (
    _ordering, _slip, _question, _recording, _reading, _fact, _availability, _copying, _rephrasing,
)  # fmt: skip
_WEIGHTS = (36, 10, 14, 14, 5, 4, 5, 7, 5)
