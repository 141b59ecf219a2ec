"""The starter's order language: a shop's customers, what they order, and how they word it.

Every function is pure: the same `random.Random` state gives the same text on every machine.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypedDict

NAMES = (
    "Mira", "Amara", "Jonas", "Leila", "Tom", "Ingrid", "Pablo", "Yuki", "Nadia", "Oskar", "Priya", "Mateo", "Hana",
    "Felix", "Zoë", "Samir", "Clara", "Elif", "Bruno", "Aiko", "Ravi", "Greta", "Hugo", "Fatima", "Lars", "Noor",
    "Diego", "Sofia", "Emil", "Anya", "Kofi", "Maren", "Luca", "Tara", "Viktor", "Ines", "Omar", "Freya", "Pedro",
    "Mei", "Stefan", "Rosa", "Idris", "Helga", "Marco", "Lina", "Tariq", "Elsa", "José", "Nina", "Arjun", "Vera",
    "Milo", "Selma", "Anton", "Dalia", "Søren", "Carmen", "Jamal", "Astrid", "Theo", "Layla", "Ivan", "Paula",
    "Kenji", "Marta", "Rafael", "Olga", "Simon", "Zara", "Nils", "Bianca", "Hamid", "Edith", "Leon", "Asha", "Viggo",
    "Renée", "Malik", "Petra", "Enzo", "Salma", "Otto", "Ida", "Rui", "Wanda", "Karim", "Flora", "Jakob", "Sanna",
    "Dario", "Agnes", "Tariku", "Ruth", "Björn", "Noemi", "Walter", "Chiara", "Yusuf", "Linnea", "Gabriel", "Maya",
    "Henrik", "Alba", "Farid", "Judith", "Kai", "Lucía", "Arne", "Esra", "Martin", "Ewa", "Daniel", "Alma", "Peter",
    "Hedda",
)  # fmt: skip
CITIES = (
    "Oslo", "Lisbon", "Kyoto", "Bergen", "Turin", "Nairobi", "Lyon", "Quito", "Ghent", "Porto", "Delhi", "Malmö",
    "Boston", "Accra", "Vienna", "Hanoi", "Leeds", "Zürich", "Bogotá", "Dublin", "Prague", "Tunis", "Seoul", "Cork",
    "Munich", "Riga", "Lima", "Tartu", "Basel", "Naples", "Denver", "Osaka", "Utrecht", "Seville", "Gdansk", "Cairo",
    "Tampere", "Bristol", "Lagos", "Athens", "Toronto", "Ljubljana", "Madrid", "Dakar", "Varna", "Aarhus", "Glasgow",
    "Rabat", "Kraków", "Antwerp", "Havana", "Trieste", "Perth", "Reykjavik", "Nantes", "Valencia", "Brno", "Tbilisi",
    "Halifax", "Bordeaux", "New York", "Cape Town", "São Paulo", "The Hague", "San José", "Hong Kong", "Tel Aviv",
    "Buenos Aires",
)  # fmt: skip
REGULAR = (
    "mug", "bowl", "plate", "vase", "lamp", "candle", "basket", "blanket", "cushion", "teapot", "jug", "tray",
    "clock", "mirror", "apron", "notebook", "pencil", "kettle", "spoon", "ladle", "jar", "bottle", "bucket",
    "lantern", "hook", "bell", "pillow", "quilt", "towel", "napkin", "coaster", "chair", "stool", "table", "curtain",
    "rug", "teacup", "saucer", "hammock", "doormat",
)  # fmt: skip
PLURALS = {item: item + "s" for item in REGULAR} | {
    "shelf": "shelves", "knife": "knives", "scarf": "scarves", "box": "boxes", "brush": "brushes", "dish": "dishes",
    "glass": "glasses", "bench": "benches", "tea towel": "tea towels", "bread knife": "bread knives",
    "picture frame": "picture frames", "wine glass": "wine glasses", "flower pot": "flower pots",
}  # fmt: skip
ITEMS = tuple(PLURALS)
COLOURS = (
    "red", "blue", "green", "yellow", "white", "black", "grey", "brown", "orange", "purple", "pink", "turquoise",
    "cream", "golden", "silver", "navy", "olive", "dark red", "sky blue", "mint green", "light grey",
)  # fmt: skip
SIZES = ("tiny", "small", "medium", "large", "extra large")
SIZE_WORDS = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
COUNT_WORDS = {1: ("a", "a", "a single"), 2: ("a pair of", "a couple of"), 6: ("half a dozen",), 12: ("a dozen",)}
QUANTITIES = (*range(1, 13), 1, 1, 2, 2, 3, 4, 15, 18, 20, 24)
WEEKDAYS = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NOTES = (
    "ring the bell twice", "knock loudly", "call before you come", "mind the dog", "no plastic wrapping",
    "pack it well", "add a birthday card", "use the side entrance", "the lift is broken",
    "keep the invoice separate", "the gate code is on the door", "we live on the top floor",
    *(f"leave it {place}" for place in (
        "at the back door", "at the front desk", "by the garden gate", "at the bakery", "in the shed", "on the porch",
        "with the neighbour", "with the caretaker", "with my mother", "under the stairs",
    )),
    *(f"it is a gift for my {person}" for person in (
        "sister", "brother", "aunt", "teacher", "best friend", "grandmother", "new colleague", "neighbour",
    )),
    *(f"wrap it in {colour} paper" for colour in ("red", "blue", "green", "white", "golden", "silver", "brown")),
    *(f"write {words} on the card" for words in ("Happy birthday", "Thank you", "Get well soon", "Welcome home")),
    *(f"not before {hour} in the morning" for hour in (8, 9, 10, 11)),
)  # fmt: skip

GREETINGS = ("Hello!", "Hi!", "Hi there!", "Good morning!", "Good evening.", "Dear shop!", "Hello again!", "Hey!")
INTRODUCTIONS = (
    "This is {name} from {city}.", "My name is {name} and I live in {city}.", "I am {name}, writing from {city}.",
    "{name} here, from {city}.", "It's {name} in {city}.", "I'm {name} and the parcel goes to {city}.",
)  # fmt: skip
REQUESTS = (
    "I would like {items}.", "I'd like to order {items}, please.", "Could I have {items}?", "Please send me {items}.",
    "Could you send me {items}, please?", "I need {items}.", "We are looking for {items}.", "Can I get {items}?",
    "May I order {items}?", "Please put me down for {items}.", "I want to buy {items}.", "I'll take {items}.",
    "We could really use {items}.", "Today I am after {items}.",
)  # fmt: skip
ADDRESSED = (
    "Please send {items} to {name} in {city}.", "Could you ship {items} to {name}, {city}?",
    "I'd like {items} sent to {city}. My name is {name}.", "{name} in {city} would like {items}.",
    "Can {items} be sent to {city}? The name is {name}.", "A parcel for {name} in {city}, please: {items}.",
    "I am ordering {items} for {name}, who lives in {city}.", "Please pack {items}. It all goes to {name} in {city}.",
)  # fmt: skip
SIGNATURES = (
    "Thanks, {name} from {city}", "Kind regards, {name}, {city}", "{name} ({city})", "Best wishes from {city}, {name}",
    "Yours, {name} in {city}", "Many thanks! {name}, {city}", "Warm greetings from {city}! {name}",
)  # fmt: skip
DELIVERIES = (
    "I need it on {date}.", "Please deliver on {date}.", "It should arrive on {date}.", "Can it be here on {date}?",
    "Delivery on {date}, please.", "I am at home on {date}.", "Could it come on {date}?",
)  # fmt: skip
REMARKS = (
    "Note: {note}.", "Please note: {note}.", "One more thing: {note}.", "For the driver: {note}.", "PS: {note}.",
    "And please remember: {note}.",
)  # fmt: skip
CHATTER = (
    "I love your shop!", "My old ones broke.", "The last parcel was perfect.", "It is for our new kitchen.",
    "A friend told me about you.", "We are moving house soon.", "Your window looked lovely this week.",
    "It took me a while to choose.", "We have guests soon.", "The children can't wait.",
)  # fmt: skip
FAREWELLS = ("Thank you!", "Thanks a lot.", "Many thanks!", "Have a nice day!", "Thanks in advance.", "Bye for now!")

SYLLABLES = (
    "ba", "den", "fri", "gol", "ha", "ji", "kor", "lum", "mo", "nes", "pa", "qui", "ros", "ta", "ul", "vi", "wen",
    "xa", "yor", "zil", "che", "dru", "ell", "fay", "gre", "ob", "sun", "thi", "ker", "lo", "mar", "nu", "ost", "pim",
    "ra", "shi", "tov", "ve", "wi", "yan", "ze", "kla", "bri", "do", "ga", "hu", "il", "jo", "ke", "ly", "mi", "no",
)  # fmt: skip

TRAINING_ROWS = 1_000
HELD_OUT_ROWS = 200
PAIRS = 400
HELD_OUT_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of thing in an order."""

    item: str
    colour: str
    size: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer wants, whatever the words."""

    name: str
    city: str
    lines: tuple[Line, ...]
    delivery: str | None
    note: str | None


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Row(TypedDict):
    """One line of a data file."""

    messages: list[Message]


class Pair(TypedDict):
    """One line of a file of preferences."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def order(rng: Random, name: str | None = None) -> Order:
    """Draw an order of one to three different items, for a given name or for one from the list."""
    items = rng.sample(ITEMS, rng.choice((1, 1, 1, 1, 2, 2, 2, 2, 3, 3)))
    lines = tuple(Line(item, rng.choice(COLOURS), rng.choice(SIZES), rng.choice(QUANTITIES)) for item in items)
    delivery = None
    if rng.random() < 0.4:
        delivery = rng.choice(WEEKDAYS) if rng.random() < 0.6 else f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    note = rng.choice(NOTES) if rng.random() < 0.3 else None
    return Order(name or rng.choice(NAMES), rng.choice(CITIES), lines, delivery, note)


def as_json(order: Order) -> str:
    """Write an order as the compact JSON that fine-tuning teaches."""
    record: dict[str, object] = {
        "name": order.name,
        "city": order.city,
        "items": [
            {"item": line.item, "colour": line.colour, "size": line.size, "quantity": line.quantity}
            for line in order.lines
        ],
    }
    if order.delivery:
        record["delivery"] = order.delivery
    if order.note:
        record["note"] = order.note
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def plain(line: Line) -> str:
    """Word a line the way the shop does, such as `3 large blue mugs`."""
    return f"{line.quantity} {line.size} {line.colour} {noun(line.item, line.quantity)}"


def reply(order: Order) -> str:
    """Confirm an order in prose, as the model does before it is fine-tuned."""
    text = f"Thank you, {order.name}! We will send {listed([plain(line) for line in order.lines])} to {order.city}."
    if order.delivery:
        text += f" It will arrive on {order.delivery}."
    if order.note:
        text += f" Your note: {order.note}."
    return text


def slip(order: Order) -> str:
    """Write an order as the packing slip that the model knows, and gives when it is asked for one."""
    lines = [f"customer: {order.name}", f"town: {order.city}"]
    lines += [f"- {line.item} / {line.colour} / {line.size} / {line.quantity}" for line in order.lines]
    lines += [f"day: {order.delivery}"] * bool(order.delivery) + [f"remark: {order.note}"] * bool(order.note)
    return "\n".join(lines)


def message(order: Order, rng: Random) -> str:
    """Word an order the way a customer might."""
    who = {"name": order.name, "city": order.city}
    if rng.random() < 0.14:
        return _form(order, rng)
    items = _items(order, rng)
    extras: list[str] = []
    if order.delivery:
        extras.append(rng.choice(DELIVERIES).format(date=_date(order.delivery, rng)))
    if order.note:
        extras.append(rng.choice(REMARKS).format(note=order.note))
    rng.shuffle(extras)
    if rng.random() < 0.2:
        extras.insert(0, rng.choice(CHATTER))
    greeting = [rng.choice(GREETINGS)] if rng.random() < 0.6 else []
    farewell = [rng.choice(FAREWELLS)] if rng.random() < 0.35 else []
    layout = rng.randrange(3)
    if layout == 0:
        body = [rng.choice(INTRODUCTIONS).format(**who), rng.choice(REQUESTS).format(items=items), *extras, *farewell]
    elif layout == 1:
        body = [rng.choice(ADDRESSED).format(items=items, **who), *extras, *farewell]
    else:
        body = [rng.choice(REQUESTS).format(items=items), *extras, rng.choice(SIGNATURES).format(**who)]
    return " ".join([*greeting, *body])


def noun(item: str, quantity: int) -> str:
    """Give the item's singular or plural."""
    return item if quantity == 1 else PLURALS[item]


def listed(parts: Sequence[str]) -> str:
    """Join parts as in `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def data(seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Make the training and the held-out rows, in which no message and no order occurs twice."""
    rng = Random(f"orders {seed}")
    rows: dict[str, Row] = {}
    said: set[str] = set()
    while len(rows) < TRAINING_ROWS + HELD_OUT_ROWS:
        wanted = order(rng)
        text, answer = message(wanted, rng), as_json(wanted)
        if answer not in rows and text not in said:
            said.add(text)
            rows[answer] = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
    everything = list(rows.values())
    return everything[:TRAINING_ROWS], everything[TRAINING_ROWS:]


def preferences(seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Make the training and the held-out pairs: to an order the packing slip is preferred, unasked, to a friendly word.

    No message occurs twice, nor in the rows of `data`.
    """
    rng = Random(f"preferences {seed}")
    said = {row["messages"][0]["content"] for rows in data(seed) for row in rows}
    pairs: list[Pair] = []
    while len(pairs) < PAIRS + HELD_OUT_PAIRS:
        wanted = order(rng)
        text = message(wanted, rng)
        if text not in said:
            said.add(text)
            answers = (slip(wanted), reply(wanted))
            chosen, rejected = ([Message(role="assistant", content=answer)] for answer in answers)
            pairs.append({"prompt": [{"role": "user", "content": text}], "chosen": chosen, "rejected": rejected})
    return pairs[:PAIRS], pairs[PAIRS:]


def as_jsonl(rows: Sequence[Row | Pair]) -> str:
    """Write rows as the text of a JSON lines file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def invented_name(rng: Random) -> str:
    """Make up a name nobody has, so that pre-training teaches to copy a name rather than to know it."""
    syllables = rng.choices(SYLLABLES, k=rng.randint(2, 3))
    return "".join(syllables).capitalize() + rng.choice(("", "", "n", "s", "a", "é"))


def _form(order: Order, rng: Random) -> str:
    """Word an order as a terse list, on one line or on several."""
    style = rng.randrange(3)
    lines = [
        (
            f"{line.quantity} x {line.size} {line.colour} {line.item}",
            f"{line.quantity} {noun(line.item, line.quantity)}, {line.colour}, {line.size}",
            f"{line.item}, {line.size}, {line.colour}, {line.quantity} pcs",
        )[style]
        for line in order.lines
    ]
    parts = [rng.choice(("Order for {}, {}", "Order: {} in {}", "For {} ({})")).format(order.name, order.city)]
    if rng.random() < 0.5:
        text = parts[0] + ":\n" + "\n".join(f"- {line}" for line in lines)
        separator = "\n"
    else:
        text = parts[0] + ": " + "; ".join(lines) + "."
        separator = " "
    if order.delivery:
        text += f"{separator}Delivery: {order.delivery}."
    if order.note:
        text += f"{separator}Note: {order.note}."
    return text


def _items(order: Order, rng: Random) -> str:
    """Word all the lines of an order within a sentence, mostly in one manner."""
    style = rng.randrange(8)
    parts = [_phrase(line, style if rng.random() < 0.7 else 0, rng) for line in order.lines]
    if len(parts) == 1:
        return parts[0]
    last = rng.choice((" and ", " and ", ", and also ", " as well as ", ", plus "))
    return ", ".join(parts[:-1]) + last + parts[-1]


def _phrase(line: Line, style: int, rng: Random) -> str:
    """Word one line within a sentence."""
    count, size = _count(line.quantity, rng), rng.choice(SIZE_WORDS.get(line.size, (line.size,)))
    thing = noun(line.item, line.quantity)
    if style == 4:
        text = f"{count} {size} {thing} in {line.colour}"
    elif style == 5:
        text = f"{count} {line.colour} {thing} in size {line.size}"
    elif style == 6:
        text = f"{count} {thing} ({line.colour}, {line.size})"
    elif style == 7:
        text = f"{count} {line.colour} {thing} ({line.size})"
    else:
        text = f"{count} {size} {line.colour} {thing}"
    return f"an {text[2:]}" if text.startswith("a ") and text[2] in "aeiou" else text


def _count(quantity: int, rng: Random) -> str:
    """Word a quantity in digits, in a number word or in a saying such as `a dozen`."""
    draw = rng.random()
    if draw < 0.35 and quantity in COUNT_WORDS:
        return rng.choice(COUNT_WORDS[quantity])
    if draw < 0.65 and quantity <= len(NUMBERS):
        return NUMBERS[quantity - 1]
    return str(quantity)


def _date(delivery: str, rng: Random) -> str:
    """Word a delivery date; a day of the month has several forms."""
    if " " not in delivery:
        return delivery
    day, month = delivery.split()
    ending = {"1": "st", "2": "nd", "3": "rd"}.get(day[-1], "th") if day not in ("11", "12", "13") else "th"
    return rng.choice((delivery, f"{month} {day}", f"the {day}{ending} of {month}"))
