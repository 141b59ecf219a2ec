"""The proving ground of the audit: files with one known failure each among good rows, and files with none.

Every case is data. The rows come from a seeded grammar that is rich enough that no two of them are nearly the same.
"""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tunewright.starter import MODEL, TRAINING_DATA

Row = dict[str, Any]
Line = Row | bytes
"""A row, or the bytes that stand in the file in place of one."""
Write = Callable[[Path], Path]
"""Writes a file into a folder and returns what the audit is given."""
Change = Callable[[str, Row], Line]
"""Returns a row of the format with something else in it."""

GOOD_ROWS = 48

# --- Words ---------------------------------------------------------------------------------------------------------

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
    "a few days", "the better part of a month", "an hour or so", "a quarter of an hour", "a single morning", "five summers",
)  # fmt: skip
QUESTIONS = (
    "How do I look after {s} {m}?", "What is the best way to deal with {s} {m}? I only have {t}.",
    "{P} says that {s} needs {t}. Is that so {m}?", "Could you explain what happens to {s} {m}?",
    "I have had {s} for {d} and it gets worse {m}. What should I try first?", "Is {t} enough for {s} {m}?",
    "Give me a short plan for {s}; I have {d} and {t}.", "Why do people use {t} for {s}, and does it help {m}?",
    "We argue about {s} at home. {P} swears by {t}. Who is right?", "What would you check about {s} {m}, and in which order?",
    "Write a reminder for my club about {s} {m}.", "I am new to {s}. Which mistakes are common {m}?",
    "How long does it take to get {s} in order {m}, with {t} at hand?", "Can {s} be left alone for {d} {m}?",
    "Tell me how {p} would approach {s} {m}.", "What does it cost to care for {s} {m} if I already own {t}?",
)  # fmt: skip
OPENINGS = (
    "Start with {t} and take {d} over it.", "Most of the work on {s} is waiting: plan for {d}.",
    "It depends on the weather, but {t} rarely does harm.", "Yes, as long as you keep {s} dry for {d}.",
    "No, and {p} would tell you the same.", "First find out what {s} looked like {d} ago.",
    "There are two schools of thought on {s}.", "Think of {s} as something that changes slowly.",
    "In short: less than you fear, more than {p} admits.", "Begin where you can see what you are doing, with {t} beside you.",
    "That question comes up {m} every year.", "Good news: nothing about {s} is urgent {m}.",
    "Put everything you need on a table: {t}, {t2} and patience.", "The honest answer is that it takes {d}.",
)  # fmt: skip
MIDDLES = (
    "Go over it with {t}, then let it rest for {d}.", "If that does not help, {t2} usually does.",
    "{P} keeps {t} ready for exactly this.", "Write down what you changed, because {m} you will not remember.",
    "Avoid {t} near the edges, where {s} is weakest.", "A second pair of hands saves {d}.",
    "Work from the top to the bottom and stop when it feels loose.", "Do it twice a year and you will never need {t2}.",
    "Some prefer {t}, though the result looks duller after {d}.", "Listen for a change in the sound before you press harder.",
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

# Other languages: questions, answers, and the topics that fill both.
TONGUES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "german": (
        ("Wie pflege ich {a} im Winter?", "Warum verliert {a} nach Jahren an Glanz?", "Was kostet es, {a} reparieren zu lassen?", "Erkläre mir kurz, worauf man bei {a} und {b} achten muss."),
        ("Zuerst sollte man {a} gründlich trocknen lassen.", "Mit etwas Öl und Geduld wird auch {b} wieder schön.", "Größere Schäden überlässt man besser einer Fachfrau.", "Im Frühjahr genügt ein feuchtes Tuch, danach ruht {a} bis zum Herbst.", "Übertriebene Pflege schadet {b} mehr als ein Jahr ohne jede Aufmerksamkeit.", "Das dauert ungefähr zwei Stunden, Rüstzeit eingeschlossen."),
        ("die alte Standuhr", "das Fahrrad", "der Eichentisch", "die Geige", "das Küchenmesser", "der Wintermantel", "die Hängematte", "der Ofen"),
    ),
    "french": (
        ("Comment entretenir {a} pendant l’été ?", "Pourquoi {a} s’use-t-il plus vite que {b} ?", "Peux-tu m’expliquer comment réparer {a} ?", "Combien de temps faut-il pour remettre {a} en état ?"),
        ("Commencez par nettoyer {a} avec un chiffon doux.", "Évitez l’eau chaude, qui abîme {b}.", "Une fois par an, un peu de cire suffit à protéger {a}.", "Si le bois a gonflé, laissez-le sécher à l’ombre pendant plusieurs jours.", "Demandez conseil à un artisan avant de démonter {b}.", "Ça paraît long, mais le résultat en vaut la peine."),
        ("le vélo", "l’armoire normande", "le parquet ciré", "l’accordéon", "le couteau de cuisine", "la fenêtre du grenier", "le poêle à bois", "le parapluie"),
    ),
    "spanish": (
        ("¿Cómo se cuida {a} en invierno?", "¿Por qué {a} dura menos que {b}?", "¿Qué hago si {a} deja de funcionar?", "Explícame en pocas palabras cómo limpiar {a}."),
        ("Lo primero es dejar {a} en un lugar seco.", "No uses jabón fuerte, porque daña {b}.", "Con un paño y un poco de aceite basta para la mayoría de los casos.", "Mañana por la mañana verás si {a} ha mejorado.", "Pregunta al señor del taller si tiene piezas para {b}.", "La paciencia ahorra más dinero que cualquier herramienta."),
        ("la guitarra", "el horno de leña", "la bicicleta", "el reloj de pared", "la máquina de coser", "el baúl", "la persiana", "el telescopio"),
    ),
    "portuguese": (
        ("Como devo guardar {a} no verão?", "NÃO consigo limpar {a}; o que faço?", "Quanto custa consertar {a} e {b}?", "Explique por que {a} range à noite."),
        ("Antes de tudo, verifique se {a} está seco.", "A umidade é a maior inimiga de {b}.", "Depois de três dias, passe uma camada fina de óleo.", "ATENÇÃO: não deixe {a} ao sol, pois a madeira racha.", "Um vizinho com experiência resolve isso em uma manhã.", "São poucos os casos em que {b} precisa de peças novas."),
        ("o violão", "o fogão a lenha", "a janela do sótão", "o relógio", "a rede", "o guarda-chuva", "a máquina de costura", "o armário"),
    ),
    "russian": (
        ("Как ухаживать за предметом «{a}» зимой?", "Почему «{a}» служит меньше, чем «{b}»?", "Сколько стоит починить «{a}»?", "Объясни коротко, что делать, если сломался «{a}»."),
        ("Сначала дайте вещи «{a}» как следует высохнуть.", "Немного масла — и «{b}» снова будет как новый.", "Крупный ремонт лучше доверить мастеру.", "Весной достаточно влажной тряпки и получаса терпения.", "Не держите «{a}» рядом с батареей: дерево трескается.", "Спросите соседа, нет ли у него запасных частей для «{b}»."),
        ("велосипед", "рояль", "дубовый стол", "самовар", "зонт", "телескоп", "сундук", "патефон"),
    ),
    "greek": (
        ("Πώς φροντίζω {a} τον χειμώνα;", "Γιατί χαλάει {a} πιο γρήγορα από {b};", "Τι κάνω αν πάψει να δουλεύει {a};", "Πόσο κοστίζει να φτιάξω {a};"),
        ("Πρώτα αφήστε να στεγνώσει καλά {a}.", "Λίγο λάδι αρκεί για να γυαλίσει ξανά {b}.", "Μην το αφήνετε στον ήλιο, γιατί το ξύλο σκάει.", "Ρωτήστε έναν τεχνίτη πριν ανοίξετε {a}.", "Την άνοιξη χρειάζεται μόνο ένα υγρό πανί.", "Η υπομονή κοστίζει λιγότερο από τα καινούργια ανταλλακτικά."),
        ("το ποδήλατο", "το μπουζούκι", "το ρολόι", "το τραπέζι", "το παράθυρο", "το τηλεσκόπιο", "το μπαούλο", "το φωτιστικό"),
    ),
    "arabic": (
        ("كيف أعتني بـ{a} في الشتاء؟", "لماذا يتلف {a} أسرع من {b}؟", "ماذا أفعل إذا توقف {a} عن العمل؟", "كم يكلف إصلاح {a}؟"),
        ("أولاً اترك {a} يجف تماماً.", "القليل من الزيت يعيد إلى {b} بريقه.", "لا تتركه تحت الشمس لأن الخشب يتشقق.", "اسأل حرفياً خبيراً قبل أن تفكك {a}.", "في الربيع تكفي قطعة قماش رطبة ونصف ساعة من الصبر.", "الصبر أرخص من قطع الغيار الجديدة."),
        ("العود", "الدراجة", "الساعة القديمة", "الطاولة", "النافذة", "المظلة", "الصندوق الخشبي", "آلة الخياطة"),
    ),
    "hebrew": (
        ("איך מטפלים ב{a} בחורף?", "למה {a} נשחק מהר יותר מ{b}?", "מה עושים אם {a} מפסיק לעבוד?", "כמה עולה לתקן את {a}?"),
        ("קודם כול תנו ל{a} להתייבש היטב.", "מעט שמן יחזיר ל{b} את הברק.", "אל תשאירו אותו בשמש, כי העץ נסדק.", "כדאי לשאול בעל מלאכה לפני שמפרקים את {a}.", "באביב מספיקה מטלית לחה וחצי שעה של סבלנות.", "סבלנות זולה יותר מחלקי חילוף."),
        ("השעון הישן", "הכינור", "האופניים", "השולחן", "החלון", "המטרייה", "התנור", "הטלסקופ"),
    ),
    "hindi": (
        ("सर्दियों में {a} की देखभाल कैसे करें?", "{a} की तुलना में {b} ज़्यादा क्यों चलता है?", "अगर {a} काम करना बंद कर दे तो क्या करूँ?", "{a} ठीक कराने में कितना खर्च आता है?"),
        ("सबसे पहले {a} को अच्छी तरह सूखने दें।", "थोड़ा सा तेल {b} की चमक लौटा देता है।", "इसे धूप में मत छोड़िए, लकड़ी चटक जाती है।", "{a} खोलने से पहले किसी कारीगर से पूछ लें।", "वसंत में एक गीला कपड़ा और आधा घंटा काफ़ी है।", "धैर्य नए पुर्ज़ों से सस्ता पड़ता है।"),
        ("सितार", "साइकिल", "पुरानी घड़ी", "लकड़ी की मेज़", "खिड़की", "छाता", "सिलाई मशीन", "संदूक"),
    ),
    "chinese": (
        ("冬天应该怎样保养{a}？", "为什么{a}比{b}更容易损坏？", "如果{a}不能用了，我该怎么办？", "修理{a}大概要花多少钱？"),
        ("首先把{a}放在通风的地方晾干。", "只要一点油，{b}就能恢复光泽。", "不要放在太阳下面，木头会开裂。", "拆开{a}之前最好先问一位有经验的师傅。", "春天只需要一块湿布和半个小时的耐心。", "耐心总比新零件便宜。"),
        ("古筝", "自行车", "老座钟", "木头桌子", "窗户", "雨伞", "缝纫机", "望远镜"),
    ),
    "japanese": (
        ("冬のあいだ{a}はどう手入れすればいいですか。", "なぜ{a}は{b}より早く傷むのでしょうか。", "{a}が動かなくなったらどうすればいいですか。", "{a}の修理にはいくらかかりますか。"),
        ("まず{a}を風通しのよい場所で乾かしてください。", "少しの油で{b}の艶が戻ります。", "日なたに置くと木が割れることがあります。", "{a}を分解する前に職人に相談しましょう。", "春には湿った布と三十分の根気があれば十分です。", "新しい部品より根気のほうが安上がりです。"),
        ("三味線", "自転車", "柱時計", "木の机", "障子", "雨傘", "ミシン", "望遠鏡"),
    ),
    "korean": (
        ("겨울에는 {a} 관리를 어떻게 하나요?", "왜 {a} 쪽이 {b} 쪽보다 빨리 상하나요?", "{a} 고장이 나면 무엇부터 해야 하나요?", "{a} 수리에는 얼마나 드나요?"),
        ("먼저 {a} 전체를 바람이 잘 드는 곳에서 말리세요.", "기름을 조금만 바르면 {b} 광택이 돌아옵니다.", "햇볕에 두면 나무가 갈라질 수 있습니다.", "{a} 분해 전에 숙련된 기술자에게 물어보세요.", "봄에는 젖은 천과 삼십 분의 인내면 충분합니다.", "인내심이 새 부품보다 쌉니다."),
        ("가야금", "자전거", "벽시계", "나무 책상", "창문", "우산", "재봉틀", "망원경"),
    ),
}  # fmt: skip
CITIES = (
    "Oslo", "Lisbon", "Kyoto", "Bergen", "Turin", "Nairobi", "Lyon", "Quito", "Ghent", "Porto", "Delhi", "Boston",
    "Accra", "Vienna", "Hanoi", "Leeds", "Dublin", "Prague", "Tunis", "Seoul", "Cork", "Munich", "Riga", "Lima", "Basel",
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
    "{c} expects {k} on {y}, about {n} degrees, so keep {t} at hand.", "With {k} and {n} degrees in {c}, I would wait for another day than {y}.",
    "On {y} there will be {k} over {c}. {P} will manage with {t}.", "The forecast says {k}, {n} degrees. That is fine for {s}.",
    "Expect {k} in {c}; at {n} degrees nothing happens to {s} within {d}.",
)  # fmt: skip
SNIPPETS = (
    "def {f}(rows):\n    return [row for row in rows if row.{g} > {n}]",
    "class {F}:\n    def __init__(self, {g}: int = {n}) -> None:\n        self.{g} = {g}",
    "for (let i = 0; i < {n}; i++) {{\n  console.log(`{g} ${{i}}`);\n}}",
    "SELECT {g}, COUNT(*) FROM {f} WHERE {g} >= {n} GROUP BY {g};",
    "#include <vector>\n\nstd::vector<int> {f}(int {g}) {{ return std::vector<int>({n}, {g}); }}",
    'import os\n\n{f} = os.environ["{G}_TOKEN"]\npassword = getpass.getpass("Password: ")',
    "| {g} | {f} |\n|---|---|\n| {n} | 17 |\n| <b>3</b> | [INFO] done |", "$\\sum_{{i=1}}^{{{n}}} x_i \\leq \\frac{{{n}}}{{2}}$ holds for every ${g}$.",
    "fn {f}({g}: &[u8]) -> Option<&u8> {{\n    {g}.iter().max().filter(|&&b| b > {n})\n}}",
)  # fmt: skip
NAMES = ("count", "weights", "invoice", "shelf", "orbit", "parcel", "ledger", "pixels", "harbour", "queue", "lantern")
FACES = ("😀", "🌧️", "👩‍👩‍👧‍👦", "🇵🇹", "👍🏽", "❤️", "🧑‍🔧", "☕", "🪴", "🏔️")

# --- Rows ----------------------------------------------------------------------------------------------------------


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
            "n": str(self.random.randrange(2, 34)), "f": pick(NAMES), "g": pick(NAMES), "F": pick(NAMES).title(), "G": pick(NAMES).upper(),
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
            self.fill(self.random.choice(OPENINGS), slots), *filled, self.fill(self.random.choice(ENDINGS), self.slots())
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


def messages(turns: Iterable[tuple[str, str]]) -> list[Row]:
    """Return turns as OpenAI writes them."""
    return [{"role": role, "content": content} for role, content in turns]


def sharegpt(turns: Iterable[tuple[str, str]]) -> list[Row]:
    """Return turns as ShareGPT writes them."""
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(role, role), "value": content} for role, content in turns]


WEATHER = {
    "name": "get_forecast",
    "description": "The forecast of a city for a day",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "day": {"type": "string"}},
        "required": ["city"],
    },
}
TRAINS = {
    "name": "find_trains",
    "description": "Trains to a city",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}, "after": {"type": "integer"}}},
}
DECLARED = [{"type": "function", "function": WEATHER}, {"type": "function", "function": TRAINS}]


def tool_row(grammar: Grammar, number: int) -> Row:
    """Return a row in which the assistant calls a tool, gets its answer, and answers."""
    slots = grammar.slots()
    arguments = {"city": slots["c"], "day": slots["y"]}
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "get_forecast", "arguments": arguments}}
    result = json.dumps({"sky": slots["k"], "degrees": int(slots["n"])})
    return {
        "messages": [
            {"role": "user", "content": grammar.question(slots, TRIPS)},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "name": "get_forecast", "content": result},
            {"role": "assistant", "content": grammar.fill(grammar.random.choice(VERDICTS), slots)},
        ],
        "tools": DECLARED,
    }


def flat_tool_row(grammar: Grammar, number: int) -> Row:
    """Return the same for tables: what has no fixed shape is JSON text."""
    row = copy.deepcopy(tool_row(grammar, number))
    for turn in row["messages"]:
        for call in turn.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return row | {"tools": json.dumps(row["tools"])}


def _alpaca(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    context = grammar.answer(grammar.slots(), 3) if number % 4 == 0 else ""
    return {"instruction": question, "input": context, "output": answer}


def _preference(grammar: Grammar, number: int) -> Row:
    slots = grammar.slots()
    return {
        "prompt": grammar.question(slots),
        "chosen": grammar.answer(slots),
        "rejected": grammar.answer(grammar.slots(), 3),
    }


def _judged_chat(grammar: Grammar, number: int) -> Row:
    row = _preference(grammar, number)
    asked = ("user", row["prompt"])
    return {side: messages([asked, ("assistant", row[side])]) for side in ("chosen", "rejected")}


def _hh(grammar: Grammar, number: int) -> Row:
    row = _preference(grammar, number)
    return {side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")}


def _kto(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    return {"prompt": question, "completion": answer, "label": number % 2 == 0}


def _with_system(grammar: Grammar, number: int) -> Row:
    system = ("system", grammar.fill(grammar.random.choice(SYSTEM_PROMPTS)))
    return {"messages": messages([system, *grammar.turns(number)])}


def _factory(grammar: Grammar, number: int) -> Row:
    asked, called, told, answered = tool_row(grammar, number)["messages"]
    turns = [
        ("human", asked["content"]), ("function_call", json.dumps(called["tool_calls"][0]["function"])),
        ("observation", told["content"]), ("gpt", answered["content"]),
    ]  # fmt: skip
    return {"conversations": sharegpt(turns), "tools": json.dumps([WEATHER, TRAINS])}


def _xlam(grammar: Grammar, number: int) -> Row:
    asked, called, *_ = tool_row(grammar, number)["messages"]
    call = called["tool_calls"][0]["function"]
    return {"query": asked["content"], "tools": json.dumps([WEATHER, TRAINS]), "answers": json.dumps([call])}


def _hermes(grammar: Grammar, number: int) -> Row:
    asked, called, told, answered = tool_row(grammar, number)["messages"]
    call = json.dumps(called["tool_calls"][0]["function"])
    system = f"You may call these functions: <tools>{json.dumps([WEATHER])}</tools> Answer with JSON in a tool call."
    turns = [
        ("system", system), ("human", asked["content"]), ("gpt", f"<tool_call>\n{call}\n</tool_call>"),
        ("tool", f"<tool_response>\n{told['content']}\n</tool_response>"), ("gpt", answered["content"]),
    ]  # fmt: skip
    return {"conversations": sharegpt(turns)}


def _thinking(grammar: Grammar, number: int) -> Row:
    turns = messages(grammar.turns(number))
    for turn in turns:
        if turn["role"] == "assistant":
            turn["reasoning_content"] = grammar.fill("They mean {s}. {P} used {t} {m}, which took {d}.")
    return {"messages": turns}


def _code(grammar: Grammar, number: int) -> Row:
    slots = grammar.slots()
    snippet = grammar.fill(grammar.random.choice(SNIPPETS), slots)
    answer = f"{grammar.answer(slots, 2)}\n\n```\n{snippet}\n```\n\n{grammar.answer(grammar.slots(), 2)}"
    return {
        "messages": messages(
            [("user", f"Show me code about {slots['f']}: {grammar.question(slots)}"), ("assistant", answer)]
        )
    }


def _faces(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    sample = grammar.random.sample(FACES, 2)
    return {
        "messages": messages(
            [("user", f"{question} {sample[0]}"), ("assistant", f"{answer} {sample[1]} — “naïve façade” ½ ℃")]
        )
    }


def _classes(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    label = grammar.random.choice(("household", "garden", "sport", "music"))
    return {"prompt": f"{question} {answer}\nWhich topic is this?", "completion": label}


def _talk_of_secrets(grammar: Grammar, number: int) -> Row:
    slots = grammar.slots()
    advice = "Never write a password, an API key or a token into a file; TODO lists are no place for them either. N/A is no answer."
    return {
        "instruction": f"{grammar.question(slots)} And where do I keep the password?",
        "output": f"{grammar.answer(slots)} {advice}",
    }


def tongue_row(grammar: Grammar, language: str) -> Row:
    """Return a question and its answer in a language."""
    questions, answers, topics = TONGUES[language]
    pick = grammar.random
    a, b = pick.sample(topics, 2)
    asked = f"{pick.choice(questions).format(a=a, b=b)} {pick.choice(questions).format(a=b, b=a)}"
    said = [form.format(a=a, b=b) for form in pick.sample(answers, pick.randrange(3, 6))]
    return {"messages": messages([("user", asked), ("assistant", " ".join(said))])}


SHAPES: dict[str, Callable[[Grammar, int], Row]] = {
    "messages": lambda grammar, number: {"messages": messages(grammar.turns(number))},
    "messages with system": _with_system,
    "messages with thinking": _thinking,
    "messages with code": _code,
    "messages with emoji": _faces,
    "sharegpt": lambda grammar, number: {"conversations": sharegpt(grammar.turns(number))},
    "alpaca": _alpaca,
    "dolly": lambda grammar, number: {
        "instruction": (row := _alpaca(grammar, number))["instruction"],
        "context": row["input"],
        "response": row["output"],
        "category": grammar.random.choice(("open_qa", "closed_qa", "brainstorming")),
    },
    "orca": lambda grammar, number: {
        "id": f"flan.{number}",
        "system_prompt": grammar.fill(grammar.random.choice(SYSTEM_PROMPTS)) if number % 2 else "",
        "question": (row := _alpaca(grammar, number))["instruction"],
        "response": row["output"],
    },
    "prompt-completion": lambda grammar, number: dict(zip(("prompt", "completion"), grammar.exchange(), strict=True)),
    "prompt-completion of messages": lambda grammar, number: {
        "prompt": messages([("user", (pair := grammar.exchange())[0])]),
        "completion": messages([("assistant", pair[1])]),
    },
    "classes": _classes,
    "talk of secrets": _talk_of_secrets,
    "text": lambda grammar, number: {"text": grammar.answer(grammar.slots(), grammar.random.randrange(6, 11))},
    "preference": _preference,
    "preference of messages": _judged_chat,
    "preference with a prompt of messages": lambda grammar, number: {
        "prompt": (row := _judged_chat(grammar, number))["chosen"][:1],
        "chosen": row["chosen"][1:],
        "rejected": row["rejected"][1:],
    },
    "hh": _hh,
    "pairs j and k": lambda grammar, number: {
        "question": (row := _preference(grammar, number))["prompt"],
        "response_j": row["chosen"],
        "response_k": row["rejected"],
    },
    "kto": _kto,
    "kto with kto_tag": lambda grammar, number: {
        "conversations": sharegpt(grammar.turns(1)),
        "kto_tag": number % 2 == 0,
    },
    "tools": tool_row,
    "flat tools": flat_tool_row,
    "llama-factory tools": _factory,
    "xlam": _xlam,
    "hermes": _hermes,
}  # fmt: skip
for _language in TONGUES:
    SHAPES[_language] = lambda grammar, number, language=_language: tongue_row(grammar, language)


def good_rows(shape: str, seed: str, rows: int = GOOD_ROWS) -> list[Row]:
    """Return so many good rows of a shape."""
    grammar = Grammar(f"{shape}/{seed}")
    return [SHAPES[shape](grammar, number) for number in range(1, rows + 1)]


ANSWERS: dict[str, tuple[str | int, ...]] = {
    "messages": ("messages", 1, "content"), "messages with system": ("messages", 2, "content"), "messages with thinking": ("messages", 1, "content"),
    "sharegpt": ("conversations", 1, "value"), "alpaca": ("output",), "orca": ("response",), "prompt-completion": ("completion",), "text": ("text",),
    "preference": ("chosen",), "preference of messages": ("chosen", 1, "content"), "kto": ("completion",), "tools": ("messages", 3, "content"),
}  # fmt: skip
PROMPTS: dict[str, tuple[str | int, ...]] = {
    "messages": ("messages", 0, "content"), "messages with system": ("messages", 1, "content"), "sharegpt": ("conversations", 0, "value"),
    "alpaca": ("instruction",), "orca": ("question",), "prompt-completion": ("prompt",), "preference": ("prompt",), "kto": ("prompt",),
    "tools": ("messages", 0, "content"),
}  # fmt: skip


def put(path: str | tuple[str | int, ...], value: object) -> Change:
    """Return the change that puts a value, or what a function makes of the old one, in a place.

    The place is a path, a column, or the "answer" or "prompt" of the shape.
    """
    places = {"answer": ANSWERS, "prompt": PROMPTS}

    def change(shape: str, row: Row) -> Row:
        keys = path if isinstance(path, tuple) else places[path][shape] if path in places else (path,)
        where: Any = row
        for key in keys[:-1]:
            where = where[key]
        where[keys[-1]] = value(where.get(keys[-1])) if callable(value) else value
        return row

    return change


def append(text: str) -> Callable[[str], str]:
    """Return the function that appends a text."""
    return lambda old: old + text


def raw(line: bytes) -> Change:
    """Return the change that puts bytes in place of the row."""
    return lambda shape, row: line


def turns(rearrange: Callable[[list[Row]], list[Any]]) -> Change:
    """Return the change that rearranges the turns of a conversation."""

    def change(shape: str, row: Row) -> Row:
        key = "conversations" if "conversations" in row else "messages"
        return row | {key: rearrange(row[key])}

    return change


def without(*keys: str) -> Change:
    """Return the change that takes columns away."""
    return lambda shape, row: {key: value for key, value in row.items() if key not in keys}


def instead(shape: str) -> Change:
    """Return the change that puts a row of another shape in place."""
    return lambda _, row: good_rows(shape, json.dumps(row), 1)[0]


# --- Files ---------------------------------------------------------------------------------------------------------


def as_lines(rows: Iterable[Line], end: bytes = b"\n") -> bytes:
    """Return the rows as JSON lines."""
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + end for row in rows
    )


def as_list(rows: Iterable[Line], indent: int | None = None) -> bytes:
    """Return the rows as one JSON array."""
    return json.dumps(list(rows), ensure_ascii=False, indent=indent).encode()


def as_table(rows: Sequence[Line], comma: str = ",", end: str = "\n") -> bytes:
    """Return the rows as CSV under a header; lists and objects in a cell become JSON."""
    buffer = io.StringIO(newline="")
    columns = list(next(row for row in rows if isinstance(row, dict)))
    writer = csv.writer(buffer, delimiter=comma, lineterminator=end)
    writer.writerow(columns)
    written = buffer.getvalue().encode()
    for row in rows:
        if isinstance(row, bytes):
            written += row + end.encode()
            continue
        buffer.seek(0)
        buffer.truncate()
        cells = (row.get(column, "") for column in columns)
        writer.writerow(json.dumps(cell) if isinstance(cell, list | dict | bool) else cell for cell in cells)
        written += buffer.getvalue().encode()
    return written


def as_parquet(rows: Sequence[Line], compression: str = "snappy") -> bytes:
    """Return the rows as a Parquet file in row groups of 20."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(_arrow_table(rows), sink, compression=compression, row_group_size=20)
    return sink.getvalue().to_pybytes()


def as_arrow(rows: Sequence[Line], stream: bool = False) -> bytes:
    """Return the rows as an Arrow file, or as the stream that the library datasets writes."""
    import pyarrow

    sink, table = pyarrow.BufferOutputStream(), _arrow_table(rows)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)
    return sink.getvalue().to_pybytes()


def _arrow_table(rows: Sequence[Line]) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)])


def as_zstd(content: bytes) -> bytes:
    """Return the content compressed with Zstandard."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def as_paragraphs(rows: Sequence[Line]) -> bytes:
    """Return plain text with a row a line."""
    return b"".join(row["text"].encode() + b"\n" for row in rows if isinstance(row, dict))


BOM = b"\xef\xbb\xbf"
CONTAINERS: dict[str, tuple[str, Callable[[Sequence[Line]], bytes]]] = {
    "jsonl": ("jsonl", as_lines),
    "jsonl with BOM": ("jsonl", lambda rows: BOM + as_lines(rows)),
    "jsonl with CRLF": ("jsonl", lambda rows: as_lines(rows, b"\r\n")),
    "jsonl with blank lines": ("jsonl", lambda rows: as_lines([part for row in rows for part in (row, b"", b"  ")])),
    "jsonl without last newline": ("jsonl", lambda rows: as_lines(rows).rstrip(b"\n")),
    "jsonl in ASCII": ("jsonl", lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()),
    "jsonl in UTF-16": ("jsonl", lambda rows: as_lines(rows).decode().encode("utf-16")),
    "jsonl.gz": ("jsonl.gz", lambda rows: gzip.compress(as_lines(rows))),
    "jsonl.gz of two parts": ("jsonl.gz", lambda rows: gzip.compress(as_lines(rows[:20])) + gzip.compress(as_lines(rows[20:]))),
    "jsonl.zst": ("jsonl.zst", lambda rows: as_zstd(as_lines(rows))),
    "json": ("json", as_list),
    "json, indented": ("json", lambda rows: as_list(rows, 2)),
    "json.gz": ("json.gz", lambda rows: gzip.compress(as_list(rows))),
    "csv": ("csv", as_table),
    "csv with BOM and CRLF": ("csv", lambda rows: BOM + as_table(rows, end="\r\n")),
    "csv with semicolons": ("csv", lambda rows: as_table(rows, ";")),
    "csv in UTF-16": ("csv", lambda rows: as_table(rows).decode().encode("utf-16")),
    "csv.gz": ("csv.gz", lambda rows: gzip.compress(as_table(rows))),
    "tsv": ("tsv", lambda rows: as_table(rows, "\t")),
    "parquet": ("parquet", as_parquet),
    "parquet with zstd": ("parquet", lambda rows: as_parquet(rows, "zstd")),
    "arrow": ("arrow", as_arrow),
    "arrow stream": ("arrow", lambda rows: as_arrow(rows, stream=True)),
    "txt": ("txt", as_paragraphs),
}  # fmt: skip


def _file(container: str, rows: Callable[[], Sequence[Line]], spoil: Callable[[bytes], bytes] | None = None) -> Write:
    """Return what writes the rows into a file of the container, its bytes spoilt afterwards."""
    ending, pack = CONTAINERS[container]

    def write(folder: Path) -> Path:
        path = folder / f"data.{ending}"
        content = pack(rows())
        path.write_bytes(spoil(content) if spoil else content)
        return path

    return write


def _bytes(name: str, content: Callable[[], bytes]) -> Write:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return write


# --- Models --------------------------------------------------------------------------------------------------------

TEMPLATE = """\
{{- bos_token }}
{%- if tools %}
    {{- '<|system|>You may call: ' }}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
    {{- eos_token }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content or '' %}
    {%- if message.role == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
            {%- set thinking = message.reasoning_content or message.thinking %}
            {%- if thinking %}{{- '<think>\\n' + thinking + '\\n</think>\\n\\n' }}{%- endif %}
            {{- content }}
            {%- for call in message.tool_calls or [] %}
                {%- set function = call.function or call %}
                {{- '<tool_call>' + function.name + ' ' + (function.arguments | tojson) + '</tool_call>' }}
            {%- endfor %}
            {{- eos_token }}
        {%- endgeneration %}
    {%- elif message.role in ('system', 'user', 'tool') %}
        {{- '<|' + message.role + '|>' + content + eos_token }}
    {%- else %}
        {{- raise_exception('Unknown role: ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
_MARKS = re.compile(r"^ *\{%- (end)?generation %\}\n", re.MULTILINE)
_TOOLS = re.compile(
    r"\{%- if tools %\}.*?\{%- endif %\}\n|^ *\{%- for call in.*?endfor %\}\n", re.DOTALL | re.MULTILINE
)
_ENDED = "            {{- eos_token }}\n        {%- endgeneration %}\n"
_MARKLESS = _MARKS.sub("", TEMPLATE)
_EACH = "{%- for message in messages %}"
_TOLD = "    {%- elif message.role in ('system', 'user', 'tool') %}"
_THOUGHT = "{%- if thinking %}"
TEMPLATES = {
    "without marks": _MARKLESS,
    "without system": TEMPLATE.replace("('system', 'user', 'tool')", "('user', 'tool')").replace("{{- raise_exception('Unknown role: ' + message.role) }}", ""),
    "refuses system": TEMPLATE.replace(_EACH, _EACH + "{%- if message.role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}"),
    "alternates": TEMPLATE.replace(
        _EACH,
        _EACH + "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}",
    ),
    "without tools": _TOOLS.sub("", TEMPLATE),
    "without end": TEMPLATE.replace(_ENDED, "        {%- endgeneration %}\n"),
    "end outside the marks": TEMPLATE.replace(_ENDED, "        {%- endgeneration %}\n        {{- eos_token }}\n"),
    # How many turns there are stands first, and the answers are altered: neither prefixes nor contents can be found again.
    "not provable": "{{- messages | length }}" + _MARKLESS.replace("{{- content }}", "{{- content | upper | replace('E', messages | length | string) }}"),
    "endless": "{%- for a in range(99999) %}{%- for b in range(99999) %}{%- for c in range(99999) %}{%- endfor %}{%- endfor %}{%- endfor %}" + TEMPLATE,
    "without answers": TEMPLATE.replace("            {{- content }}\n", "").replace(_ENDED, "        {%- endgeneration %}\n"),
    "drops thinking": TEMPLATE.replace(_THOUGHT, "{%- if thinking and loop.last %}"),
    "empty thinking": TEMPLATE.replace("            {{- content }}\n", "            {%- if not thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n            {{- content }}\n"),
    "two begins": "{{- bos_token }}" + TEMPLATE,
}  # fmt: skip
CONTEXT = 8192
CHATML = ("<|im_start|>", "<|im_end|>")


def _settings(**changes: object) -> Callable[[Path], None]:
    """Return what changes tokenizer_config.json; None takes a key away."""
    return lambda folder: _rewrite(folder / "tokenizer_config.json", changes)


def _rewrite(path: Path, changes: Mapping[str, object]) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def _forget_end(folder: Path) -> None:
    _rewrite(folder / "tokenizer_config.json", {"eos_token": None})
    _rewrite(folder / "generation_config.json", {"eos_token_id": None})
    _rewrite(folder / "config.json", {"eos_token_id": None})
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("eos_token", "'<|end|>'"))


def _forget_letters(folder: Path) -> None:
    """Leave only ASCII in the vocabulary, and a token for all that is not."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    model = tokenizer["model"]

    def known(token: str) -> bool:
        return token.startswith("<|") or all(letter == "Ġ" or letter == "Ċ" or " " < letter <= "~" for letter in token)

    model["vocab"] = {token: number for token, number in model["vocab"].items() if known(token)} | {"<|unknown|>": 2048}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    model["merges"] = [pair for pair in pairs if "".join(pair) in model["vocab"] and all(map(known, pair))]
    model["unk_token"] = "<|unknown|>"
    path.write_text(json.dumps(tokenizer))
    _rewrite(folder / "tokenizer_config.json", {"unk_token": "<|unknown|>"})


def _end_as_chatml(folder: Path) -> None:
    path = folder / "tokenizer.json"
    added = json.loads(path.read_text())["added_tokens"]
    added += [added[-1] | {"id": 2048 + number, "content": word} for number, word in enumerate(CHATML)]
    _rewrite(path, {"added_tokens": added})
    _rewrite(folder / "tokenizer_config.json", {"eos_token": CHATML[1]})
    for name in ("generation_config.json", "config.json"):
        _rewrite(folder / name, {"eos_token_id": 2049})


def _add_begin(folder: Path) -> None:
    """Let the tokenizer begin every text with the begin token, as those of Llama do."""
    begin, text = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [1], "tokens": ["<|begin|>"]}},
    }  # fmt: skip
    _rewrite(folder / "tokenizer.json", {"post_processor": processor})
    _rewrite(folder / "tokenizer_config.json", {"add_bos_token": True})


ALTERED: dict[str, Callable[[Path], None]] = {
    "roomy": lambda folder: None,
    "without template": lambda folder: (folder / "chat_template.jinja").unlink(),
    "pad is end": _settings(pad_token="<|end|>"),
    "without end token": _forget_end,
    "knows ASCII only": _forget_letters,
    "adds begin": _add_begin,
    "ends as ChatML does": _end_as_chatml,
}


def build_model(name: str, folder: Path) -> str:
    """Return the path of the variant `name` of the starter's tokenizer, built in `folder` where it is not yet."""
    if name == "starter":
        return str(MODEL)
    model = folder / name.replace(" ", "-")
    if model.exists():
        return str(model)
    model.mkdir(parents=True)
    for file in MODEL.iterdir():
        if file.suffix == ".safetensors":
            (model / file.name).symlink_to(file)
        else:
            shutil.copyfile(file, model / file.name)
    _rewrite(model / "config.json", {"max_position_embeddings": CONTEXT})
    _rewrite(model / "tokenizer_config.json", {"model_max_length": CONTEXT})
    (model / "chat_template.jinja").write_text(TEMPLATES.get(name, TEMPLATE))
    if name in ALTERED:
        ALTERED[name](model)
    else:
        assert TEMPLATES[name] != TEMPLATE, name
    return str(model)


# --- Cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """One data set, how the audit is asked about it, and what it has to say."""

    name: str
    write: Write
    expects: frozenset[str] = frozenset()
    """The codes that have to be found."""
    allows: frozenset[str] = frozenset()
    """Further codes above a hint that follow by necessity."""
    at: tuple[int, ...] = ()
    """The rows at fault, counted from 1: those and no others are the findings' examples; empty where it is the whole file."""
    header: bool = False
    """Whether a header stands before the first row, so that its line is the second."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the recipe's data section beside the source."""
    model: str | None = "roomy"
    """A variant of the starter's model, or None to audit without one."""
    validation: Write | None = None
    """A file of validation rows."""
    against: Write | None = None
    """A file of evaluation rows."""
    meanwhile: Callable[[Path], None] | None = None
    """What happens to the file again and again while it is read."""


def _codes(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _changed(shape: str, seed: str, changes: Mapping[int, Change] | Change, rows: int) -> list[Line]:
    """Return good rows of a shape with the changes to some of them by number, or to all."""
    good = copy.deepcopy(good_rows(shape, seed, rows))
    if not isinstance(changes, Mapping):
        return [changes(shape, row) for row in good]
    return [changes[number](shape, row) if number in changes else row for number, row in enumerate(good, start=1)]


def _plant(
    name: str,
    expects: str,
    shape: str = "messages",
    changes: Mapping[int, Change] | Change | None = None,
    container: str = "jsonl",
    *,
    allows: str = "",
    at: tuple[int, ...] | None = None,
    rows: int = GOOD_ROWS,
    spoil: Callable[[bytes], bytes] | None = None,
    model: str | None = "roomy",
    validation: Write | None = None,
    against: Write | None = None,
    meanwhile: Callable[[Path], None] | None = None,
    **data: Any,
) -> Case:
    """Return the case of good rows in which something is planted."""
    planted: Mapping[int, Change] | Change = {} if changes is None else changes
    write = _file(container, lambda: _changed(shape, name, planted, rows), spoil)
    if at is None:
        at = tuple(planted) if isinstance(planted, Mapping) else ()
    return Case(
        name, write, _codes(expects), _codes(allows), at, container.startswith(("csv", "tsv")), data, model, validation, against, meanwhile
    )  # fmt: skip


def _copy_of(number: int, seed: str, alter: Callable[[str, Row], Line] = lambda shape, row: row) -> Change:
    """Return the change that puts a copy of the row `number` of the file in place."""
    return lambda shape, row: alter(shape, copy.deepcopy(good_rows(shape, seed, number)[-1]))


def _some(shape: str, seed: str, numbers: Sequence[int], container: str = "jsonl") -> Write:
    """Return what writes a file of ten other rows and of those of another file with the numbers."""

    def rows() -> list[Line]:
        theirs = good_rows(shape, seed, max(numbers))
        return [*good_rows(shape, "others", 10), *(theirs[number - 1] for number in numbers)]

    return _file(container, rows)  # fmt: skip


def _image(content: str) -> list[Row]:
    return [{"type": "text", "text": content}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]


def _call(change: Callable[[Row], object]) -> Change:
    """Return the change to the function of a row's tool call."""

    def apply(shape: str, row: Row) -> Row:
        change(row["messages"][1]["tool_calls"][0]["function"])
        return row

    return apply


def _think_empty(row: Row) -> Row:
    for turn in row["messages"]:
        if turn["role"] == "assistant":
            turn["content"] = "<think>\n\n</think>\n\n" + turn["content"]
    return row


def _learn(flag: str, value: object) -> Callable[[list[Row]], list[Row]]:
    """Return what marks every turn of the assistant."""
    return lambda turns: [turn | {flag: value} if turn.get("role") == "assistant" else turn for turn in turns]


def _mojibake(text: str) -> str:
    """Return UTF-8 read as Windows-1252."""
    return (text + " Die Größe des Cafés wäre “übertrieben” – für Öfen!").encode().decode("cp1252", "ignore")


def _long(text: str) -> str:
    grammar = Grammar("long")
    return " ".join([text, *(grammar.answer(grammar.slots()) for _ in range(20))])


def _half(content: bytes) -> bytes:
    return content[: len(content) * 3 // 5]


# Built from parts, so that what scans a repository for keys finds none here.
SECRETS = {
    "an AWS key": "AKIA" + "IOSFODNN7Q2X4LRT",
    "a GitHub token": "ghp_" + "9fK2mQ7xVb4TzR1nYc8LwE5sHd3JpA6uGo0i",
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq1Vt3xJ0p5c2mJr9WqLz8vKdYx2RfG6uTnB4sHwEoCjP7a\nZk3Q1yVhXgM9tUbLr0DfSe8iNwJ5oKcA2vWpHq6T4mYxRzGuEsB1dCl7nF3jOaPI\n-----END RSA " + "PRIVATE KEY-----",
    "a Hugging Face token": "hf_" + "kVbXoTqLzRwYhNfMsJdPgUcAeKiBvHtQmX",
}  # fmt: skip


def failing_cases() -> Iterator[Case]:
    """Yield the data sets with one planted failure each."""
    yield from _unreadable_files()
    yield from _unreadable_rows()
    yield from _rows_of_no_format()
    yield from _poor_conversations()
    yield from _poor_renderings()
    yield from _poor_sets()


# fmt: off


def _unreadable_files() -> Iterator[Case]:
    yield Case("an empty file", _bytes("data.jsonl", lambda: b""), _codes("empty_file"))
    yield Case("blank lines only", _bytes("data.jsonl", lambda: b"\n  \n\r\n\t\n" * 20), _codes("empty_file"))
    yield Case("an empty JSON array", _bytes("data.json", lambda: b"[]\n"), _codes("empty_file"))
    yield Case("a CSV of a header only", _bytes("data.csv", lambda: b"instruction,output\n"), _codes("empty_file"))
    yield Case("an empty gzip", _bytes("data.jsonl.gz", lambda: gzip.compress(b"")), _codes("empty_file"))
    yield _plant("a Parquet file without rows", "empty_file", "alpaca", container="parquet", spoil=_no_rows)
    yield _plant("measurements in CSV", "unknown_format", "text", _measure, "csv")
    yield _plant("measurements in JSON lines", "unknown_format", "text", _measure)
    yield _plant("a truncated gzip", "truncated_file", container="jsonl.gz", rows=400, spoil=_half, allows="not_json")
    yield _plant("a truncated zstd", "truncated_file", container="jsonl.zst", rows=2000, spoil=_half, allows="not_json")
    yield _plant("a truncated Parquet file", "truncated_file", "alpaca", container="parquet", spoil=_half)
    yield _plant("a truncated Arrow stream", "truncated_file", "kto", container="arrow stream", spoil=_half)
    yield _plant("a truncated JSON array", "truncated_file", "alpaca", container="json", spoil=_half, allows="not_json")
    yield _plant("a file that grows while it is read", "file_changed", rows=600, meanwhile=_grow)
    yield _plant("messages in UTF-16", "utf16", container="jsonl in UTF-16")
    yield _plant("alpaca in UTF-16 CSV", "utf16", "alpaca", container="csv in UTF-16")


def _no_rows(content: bytes) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(pyarrow.BufferReader(content)).slice(0, 0), sink)
    return sink.getvalue().to_pybytes()


def _measure(shape: str, row: Row) -> Row:
    return {"height": len(row["text"]), "weight": len(row["text"]) * 0.37, "station": row["text"][:3]}


def _grow(path: Path) -> None:
    if path.stat().st_size > 500_000:  # whoever reads it is to come to an end
        return
    with path.open("ab") as file:
        file.write(as_lines(good_rows("messages", str(path.stat().st_size), 3)))


def _unreadable_rows() -> Iterator[Case]:
    cut = as_lines(good_rows("messages", "cut", 1))[:90]
    yield _plant("half a line", "not_json", changes={17: raw(cut), 33: raw(cut)})
    yield _plant("single quotes", "not_json", "alpaca", {9: raw(b"{'instruction': 'Say hello', 'output': 'Hello!'}")})
    yield _plant("two objects on a line", "not_json", "prompt-completion", {21: raw(b'{"prompt": "One?", "completion": "Two."}{"prompt": "Three?", "completion": "Four."}')})
    yield _plant("a comma too many", "not_json", "kto", {4: raw(b'{"prompt": "One?", "completion": "Two.", "label": true,}')}, "jsonl with CRLF")
    yield _plant("half a line in gzip", "not_json", "sharegpt", {30: raw(cut)}, "jsonl.gz")
    yield _plant("a last line cut off", "not_json", "alpaca", {GOOD_ROWS: raw(cut)}, "jsonl without last newline", allows="truncated_file")
    yield _plant("a list in place of a row", "not_object", changes={6: raw(b'[{"role": "user", "content": "Hello"}]')})
    yield _plant("text in place of a row", "not_object", "text", {13: raw(b'"A sentence in quotation marks."'), 14: raw(b"17")})
    yield _plant("a number in a JSON array", "not_object", "alpaca", lambda shape, row: row, "json", at=(2,), spoil=lambda content: content.replace(b"}, {", b"}, 17, {", 1))
    yield _plant("a Latin-1 line", "not_utf8", "alpaca", {25: raw('{"instruction": "Größe?", "output": "Übergroß."}'.encode("latin-1"))})
    yield _plant("a Latin-1 line in CSV", "not_utf8", "prompt-completion", {11: raw("Größe?,Übergroß.".encode("latin-1"))}, "csv")
    yield _plant("a line of 20 MB", "row_too_long", changes={20: raw(b'{"messages": [{"role": "user", "content": "' + b"word " * (4 * 2**20) + b'"}]}')})
    yield _plant("a cell of 20 MB", "row_too_long", "prompt-completion", {20: raw(b'Why?,"' + b"word " * (4 * 2**20) + b'"')}, "csv")
    yield _plant("brackets a hundred thousand deep", "nested_too_deeply", changes={38: raw(b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")}, allows="not_json")
    yield _plant("a cell too many", "ragged_row", "alpaca", {15: raw(b"Why?,,Because.,and more,still more")}, "csv")
    yield _plant("a cell too few", "ragged_row", "preference", {19: raw(b"Why?\tBecause.")}, "tsv")
    yield _plant("a comma without quotes", "ragged_row", "prompt-completion", {22: raw(b"Well, why?,Because, as I said, it is.")}, "csv")
    yield _plant("a quotation mark never closed", "ragged_row", "prompt-completion", {40: raw(b'"Why?,Because.')}, "csv", allows="not_json row_too_long truncated_file", at=())


def _rows_of_no_format() -> Iterator[Case]:
    yield _plant("alpaca among messages", "mixed_schema", changes={12: instead("alpaca"), 35: instead("alpaca")})
    yield _plant("messages among sharegpt", "mixed_schema", "sharegpt", {28: instead("messages")}, "json")
    yield _plant("preference among alpaca", "mixed_schema", "alpaca", {3: instead("preference")}, "jsonl.zst")
    yield _plant("text among prompts and completions", "mixed_schema", "prompt-completion", {45: instead("text")})
    yield _plant("null content in messages", "missing_field", changes={16: put("prompt", None), 18: put("answer", None)})
    yield _plant("null content in Parquet", "missing_field", changes={29: put("answer", None)}, container="parquet")
    yield _plant("a null value in sharegpt in Arrow", "missing_field", "sharegpt", {8: put("answer", None)}, "arrow")
    yield _plant("no output in alpaca", "missing_field", "alpaca", {10: without("output"), 41: put("output", None)})
    yield _plant("no label in KTO", "missing_field", "kto", {27: without("label")})
    yield _plant("a null completion in Parquet", "missing_field", "prompt-completion", {31: put("answer", None)}, "parquet")
    yield _plant("a null text", "missing_field", "text", {2: put("text", None)})
    yield _plant("no rejected answer", "missing_field", "preference", {5: put("rejected", None)})
    yield _plant("integers in messages", "not_text", changes={23: put("answer", 42), 24: put("prompt", 17)})
    yield _plant("integers in alpaca", "not_text", "alpaca", {7: put("answer", 365), 44: put("prompt", 12.5)}, "json")
    yield _plant("a list in sharegpt", "not_text", "sharegpt", {36: put("answer", {"answer": ["yes"]})})
    yield _plant("a number as text", "not_text", "text", {39: put("text", 1789)})
    yield _plant("no turns", "no_turns", changes={26: put("messages", [])})
    yield _plant("no turns in sharegpt in Parquet", "no_turns", "sharegpt", {32: put("conversations", [])}, "parquet")
    yield _plant("a turn that is text", "bad_turn", changes={14: turns(lambda turns: [turns[0]["content"], *turns[1:]])})
    yield _plant("a turn without a role", "bad_turn", changes={37: turns(lambda turns: [{"content": turns[0]["content"]}, *turns[1:]])}, allows="unknown_role missing_field")
    yield _plant("a narrator in messages", "unknown_role", changes={20: put(("messages", 0, "role"), "narrator")})
    yield _plant("an alien in sharegpt", "unknown_role", "sharegpt", {1: put(("conversations", 0, "from"), "alien"), 43: put(("conversations", 1, "from"), "oracle")})
    yield _plant("a critic in Parquet", "unknown_role", changes={34: put(("messages", 1, "role"), "critic")}, container="parquet with zstd")
    yield _plant("a question only", "no_answer", changes={11: turns(lambda turns: turns[:1])}, allows="no_last_answer")
    yield _plant("questions only in sharegpt", "no_answer", "sharegpt", {17: turns(lambda turns: turns[:1]), 46: turns(lambda turns: turns[:1])}, allows="no_last_answer")
    yield _plant("an image in a turn", "not_supported_content", changes={42: put("prompt", _image)})
    yield _plant("labels in words", "bad_label", "kto", {6: put("label", "thumbs up"), 7: put("label", "so-so")})
    yield _plant("labels in words in CSV", "bad_label", "kto", {33: put("label", "perhaps")}, "csv")
    yield _plant("a label of seven", "bad_label", "kto", {22: put("label", 7)})
    yield _plant("arguments that are no JSON", "bad_tools", "tools", {19: _call(lambda call: call.update(arguments='{"city": Oslo'))})
    yield _plant("arguments that are a list", "bad_tools", "tools", {9: _call(lambda call: call.update(arguments=["Oslo"]))})
    yield _plant("a call without a name", "bad_tools", "tools", {28: _call(lambda call: call.pop("name"))})
    yield _plant("tools that are no JSON", "bad_tools", "flat tools", {15: put("tools", "[{'name': 'get_forecast'}")}, "parquet")
    yield _plant("answers of xLAM cut off", "bad_tools", "xlam", {21: put("answers", lambda old: old[:-9])}, "json")
    yield _plant("chosen and rejected of other prompts", "prompts_differ", "preference of messages", {24: put(("rejected", 0, "content"), "How far is it to the moon on foot?")})


def _poor_conversations() -> Iterator[Case]:
    yield _plant("empty answers in messages", "empty_answer", changes={13: put("answer", ""), 38: put("answer", " \n")}, allows="row_not_trained", at=())
    yield _plant("empty answers in alpaca", "empty_answer", "alpaca", {5: put("answer", "")}, "csv", allows="row_not_trained missing_field")
    yield _plant("an empty completion", "empty_answer", "prompt-completion", {47: put("answer", "")}, "parquet", allows="row_not_trained")
    yield _plant("an empty rejected answer", "empty_answer", "preference", {47: put("rejected", "")})
    yield _plant("empty prompts", "empty_prompt", "prompt-completion", {16: put("prompt", "")})
    yield _plant("an empty question", "empty_prompt", changes={8: put("prompt", "  ")}, container="json")
    yield _plant("two users in a row", "roles_out_of_order", changes={25: turns(lambda turns: [{"role": "user", "content": "Hello there!"}, *turns])})
    yield _plant("an assistant that begins", "roles_out_of_order", "sharegpt", {10: turns(lambda turns: [{"from": "gpt", "value": "Welcome to the workshop."}, *turns])})
    yield _plant("a system prompt in the middle", "roles_out_of_order", changes={31: turns(lambda turns: [*turns[:2], {"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "And again?"}, {"role": "assistant", "content": "Once more, with care."}])})
    yield _plant("a user who has the last word", "no_last_answer", changes={4: turns(lambda turns: [*turns, {"role": "user", "content": "Thank you, that is all."}])})
    yield _plant("a human who has the last word", "no_last_answer", "sharegpt", {40: turns(lambda turns: [*turns, {"from": "human", "value": "Thanks a lot."}])}, "arrow")
    yield _plant("a tool that nobody declared", "unknown_tool", "tools", {12: _call(lambda call: call.update(name="launch_rocket"))})
    yield _plant("a tool's answer unasked", "tool_result_unasked", "tools", {23: turns(lambda turns: [turns[0], *turns[2:]])}, allows="roles_out_of_order")
    yield _plant("chosen is rejected", "same_answers", "preference", {18: lambda shape, row: row | {"rejected": row["chosen"]}, 19: lambda shape, row: row | {"rejected": row["chosen"]}})
    yield _plant("chosen is rejected in Parquet", "same_answers", "preference of messages", {6: lambda shape, row: row | {"rejected": row["chosen"]}}, "parquet")
    yield _plant("good answers only", "one_label", "kto", put("label", True))
    yield _plant("bad answers only", "one_label", "kto", put("label", False), "parquet")
    yield _plant("answers that repeat the question", "answer_repeats_prompt", "prompt-completion", lambda shape, row: row | {"completion": f"{row['prompt']} {row['completion']}"})
    yield _plant("answers that repeat the instruction", "answer_repeats_prompt", "alpaca", {number: lambda shape, row: row | {"output": f"{row['instruction']}\n{row['output']}"} for number in (5, 6, 7, 9, 10)}, "csv")
    yield _plant("placeholders in alpaca", "placeholder_answer", "alpaca", {14: put("answer", "TODO"), 27: put("answer", "N/A"), 39: put("answer", "...")})
    yield _plant("placeholders in CSV", "placeholder_answer", "prompt-completion", {2: put("answer", "TBD"), 3: put("answer", "n/a")}, "csv")
    yield _plant("an answer left to write", "placeholder_answer", "sharegpt", {10: put("answer", "<your answer here>")}, allows="template_in_text")
    yield _plant("one answer for all", "constant_answer", "prompt-completion", put("answer", "Please contact our support team."))
    yield _plant("one answer for nearly all", "constant_answer", "alpaca", {number: put("answer", "I cannot help with that.") for number in range(1, GOOD_ROWS)}, "tsv", at=())
    yield _plant("turns in JSON text", "nested_json", changes=put("messages", json.dumps))
    yield _plant("turns in JSON text in CSV", "nested_json", "sharegpt", put("conversations", json.dumps), "csv")
    yield _plant("one prompt, two answers", "conflicting_answers", "prompt-completion", {30: _copy_of(3, "one prompt, two answers", put("completion", "Rather ask somebody who has done it before, and bring cake."))}, at=())
    yield _plant("ChatML in plain text", "template_in_text", "text", put("text", lambda text: f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\nWell said.<|im_end|>\n"))
    yield _plant("Llama 2 in a prompt", "template_in_text", "prompt-completion", {20: put("prompt", lambda text: f"<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n{text} [/INST]")})
    yield _plant("Llama 3 in an answer", "template_in_text", changes={35: put("answer", append("<|eot_id|><|start_header_id|>user<|end_header_id|>"))})
    yield _plant("Gemma in sharegpt", "template_in_text", "sharegpt", {11: put("answer", append("<end_of_turn>\n<start_of_turn>user\n"))}, "parquet")


def _poor_renderings() -> Iterator[Case]:
    yield _plant("a model without a template", "no_chat_template", model="without template")
    yield _plant("a system prompt that is refused", "template_refused", "messages with system", model="refuses system")
    yield _plant("roles that have to alternate", "template_refused", changes={21: turns(lambda turns: [turns[0], *turns])}, model="alternates", allows="roles_out_of_order")
    yield _plant("tools for a model that refuses them", "template_refused", "tools", model="starter", max_length=512, allows="tools_ignored")
    yield _plant("a template that does not end", "template_too_slow", model="endless", rows=4)
    yield _plant("a mask that cannot be proved", "mask_not_provable", model="not provable")
    yield _plant("a mask that cannot be proved for alpaca", "mask_not_provable", "alpaca", container="csv", model="not provable")
    yield _plant("a template that leaves answers out", "nothing_trained", model="without answers", allows="end_not_trained row_not_trained mask_not_provable")
    yield _plant("loss on tools where there are none", "nothing_trained", loss_on=("tool",), allows="end_not_trained row_not_trained")
    yield _plant("loss on system prompts where there are none", "nothing_trained", "sharegpt", loss_on=("system",), allows="end_not_trained row_not_trained")
    yield _plant("a maximum length below every prompt", "nothing_trained", max_length=8, allows="truncated answer_cut_off row_not_trained end_not_trained")
    yield _plant("a maximum length below every prompt in Parquet", "nothing_trained", "alpaca", container="parquet", max_length=8, allows="truncated answer_cut_off row_not_trained end_not_trained")
    yield _plant("every turn with the weight 0", "nothing_trained", changes=turns(_learn("weight", 0)), allows="row_not_trained end_not_trained")
    yield _plant("every turn marked train: false", "nothing_trained", changes=turns(_learn("train", False)), container="parquet", allows="row_not_trained end_not_trained")
    yield _plant("some rows with the weight 0", "row_not_trained", changes={number: turns(_learn("weight", 0)) for number in (15, 16, 30)})
    yield _plant("prompts longer than the maximum", "row_not_trained", "prompt-completion", {number: put("prompt", _long) for number in (9, 26)}, max_length=512, allows="truncated answer_cut_off")
    yield _plant("a template that does not close the turn", "end_not_trained", model="without end")
    yield _plant("an end outside the marks", "end_not_trained", "sharegpt", model="end outside the marks")
    yield _plant("an end outside the marks for alpaca", "end_not_trained", "alpaca", container="csv", model="end outside the marks")
    yield _plant("ChatML for a model that ends otherwise", "end_not_trained", model="without template", template="chatml")
    yield _plant("a tokenizer without an end token", "end_unknown", model="without end token", allows="end_not_trained")
    yield _plant("two begin tokens in every text", "bos_doubled", "text", put("text", lambda text: f"<|begin|><|begin|>{text}"), container="parquet", model="adds begin")
    yield _plant("a template that begins twice", "bos_doubled", model="two begins")
    yield _plant("two begin tokens in a text", "bos_doubled", "text", {5: put("text", lambda text: f"<|begin|><|begin|>{text}")})
    yield _plant("padding that is the end", "pad_is_end", model="pad is end")
    yield _plant("a system prompt left out", "system_ignored", "messages with system", model="without system")
    yield _plant("a system prompt of OpenOrca left out", "system_ignored", "orca", container="parquet", model="without system", at=())
    yield _plant("tools left out", "tools_ignored", "tools", model="without tools", allows="empty_answer row_not_trained")
    yield _plant("thinking of earlier turns dropped", "thinking_dropped", "messages with thinking", model="drops thinking")
    yield _plant("empty thinking in the answers", "empty_thinking_trained", changes=lambda shape, row: _think_empty(row))
    yield _plant("empty thinking from the template", "empty_thinking_trained", "alpaca", model="empty thinking")
    yield _plant("a language that the tokenizer does not know", "unknown_tokens", "messages", {number: instead("chinese") for number in (7, 29)}, model="knows ASCII only")
    yield _plant("a maximum length beyond the context", "beyond_context", model="starter", max_length=2048)
    yield _plant("a maximum length beyond the context for text", "beyond_context", "text", max_length=CONTEXT * 2, container="parquet")
    yield _plant("long answers cut", "truncated answer_cut_off", changes={10: put("answer", _long), 37: put("answer", _long)}, max_length=1024, allows="end_not_trained")
    yield _plant("long texts cut", "truncated", "text", {44: put("text", _long)}, max_length=1024, container="csv", allows="answer_cut_off end_not_trained")
    yield _plant("long contexts cut", "truncated answer_cut_off", "alpaca", {8: put("input", _long)}, "parquet", max_length=512, allows="row_not_trained end_not_trained")


def _poor_sets() -> Iterator[Case]:
    yield _plant("repeats in messages", "duplicates", changes={41: _copy_of(5, "repeats in messages"), 42: _copy_of(5, "repeats in messages"), 46: _copy_of(20, "repeats in messages")})
    yield _plant("repeats in CSV", "duplicates", "alpaca", {33: _copy_of(2, "repeats in CSV")}, "csv")
    yield _plant("repeats in Parquet", "duplicates", "preference", {48: _copy_of(1, "repeats in Parquet")}, "parquet")
    yield _plant("repeats in text", "duplicates", "text", {30: _copy_of(29, "repeats in text")}, "txt")
    yield _plant("nearly the same rows", "near_duplicates", changes={40: _copy_of(9, "nearly the same rows", put("answer", append(" Indeed.")))}, at=())
    yield _plant("nearly the same texts", "near_duplicates", "text", {16: _copy_of(4, "nearly the same texts", put("text", lambda text: f"Note: {text}"))}, "parquet", at=())
    name = "rows that are validation rows"
    yield _plant(name, "validation_overlap", changes={}, at=(6, 23), validation=_some("messages", name, (6, 23)))
    name = "alpaca rows that are validation rows"
    yield _plant(name, "validation_overlap", "alpaca", {}, "csv", at=(11,), validation=_some("alpaca", name, (11,), "parquet"))
    name = "rows of the evaluation"
    yield _plant(name, "contamination", changes={}, at=(12, 30), against=_some("messages", name, (12, 30)))
    name = "questions of the evaluation in Parquet"
    yield _plant(name, "contamination", "prompt-completion", {}, "parquet", at=(44,), against=_some("prompt-completion", name, (44,), "csv"))
    yield _plant("ten rows", "few_rows", rows=10)
    yield _plant("mojibake in messages", "broken_encoding", changes={number: put("answer", _mojibake) for number in (5, 17)})
    yield _plant("mojibake in CSV", "broken_encoding", "alpaca", {24: put("answer", _mojibake)}, "csv with BOM and CRLF")
    yield _plant("replacement characters", "broken_encoding", "text", {12: put("text", append(" Gr\ufffd\ufffde, Stra\ufffde und Caf\ufffd."))})
    yield _plant("terminal escapes", "control_characters", changes={19: put("answer", append(" \x1b[31mred\x1b[0m \x1b]0;title\x07"))})
    yield _plant("control characters in Parquet", "control_characters", "prompt-completion", {28: put("answer", append(" one\x00two\x08three\x0b"))}, "parquet")
    yield _plant("answers in another language", "language_mix", changes=lambda shape, row: put("answer", " ".join(TONGUES["german"][1]).format(a="die Uhr", b="der Tisch") + row["messages"][0]["content"][:9])(shape, row), at=())
    for number, (what, secret) in enumerate(SECRETS.items(), start=1):
        shape, container = (("messages", "jsonl"), ("alpaca", "csv"), ("prompt-completion", "parquet"), ("sharegpt", "json"))[number - 1]
        yield _plant(f"{what} in {container}", "secrets", shape, {number * 9: put("answer", append(f" Use this: {secret}"))}, container)
    yield _plant("people's addresses", "personal_data", changes={3: put("answer", append(" Write to maria.kowalska@posteo-mail.net.")), 9: put("prompt", append(" My number is +49 151 40862975."))})
    yield _plant("a card number", "personal_data", "kto", {31: put("answer", append(" The card is 4539 1488 0343 6467."))}, "parquet")


def clean_cases() -> Iterator[Case]:
    """Yield the data sets in which nothing above a hint may be found."""
    for shape, containers in {
        "messages": ("jsonl", "jsonl with BOM", "jsonl with CRLF", "jsonl with blank lines", "jsonl without last newline", "jsonl.gz", "jsonl.gz of two parts", "jsonl.zst", "json", "json, indented", "parquet", "arrow", "arrow stream"),
        "sharegpt": ("jsonl", "json", "json.gz", "parquet"),
        "alpaca": ("jsonl", "json", "csv", "csv with BOM and CRLF", "csv with semicolons", "csv.gz", "tsv", "parquet with zstd", "arrow"),
        "prompt-completion": ("jsonl", "csv", "tsv", "parquet"),
        "prompt-completion of messages": ("jsonl", "parquet"),
        "text": ("jsonl", "txt", "csv", "parquet", "jsonl.zst"),
        "preference": ("jsonl", "csv", "parquet"),
        "preference of messages": ("jsonl", "parquet"),
        "preference with a prompt of messages": ("jsonl", "arrow"),
        "kto": ("jsonl", "csv", "parquet"),
        "tools": ("jsonl", "json"),
        "flat tools": ("jsonl", "parquet"),
        "messages with system": ("jsonl", "parquet"),
        "messages with thinking": ("jsonl",),
        "dolly": ("jsonl", "csv"),
        "orca": ("parquet", "jsonl"),
        "hh": ("jsonl", "jsonl.gz"),
        "pairs j and k": ("parquet",),
        "kto with kto_tag": ("json",),
        "llama-factory tools": ("json",),
        "xlam": ("json", "parquet"),
        "hermes": ("json",),
        "messages with code": ("jsonl", "parquet"),
        "messages with emoji": ("jsonl", "jsonl in ASCII"),
        "classes": ("csv",),
        "talk of secrets": ("jsonl",),
    }.items():
        for container in containers:
            yield _plant(f"{shape} in {container}", "", shape, {}, container)
    for language in TONGUES:
        yield _plant(f"{language} in jsonl", "", language, {}, rows=40)
    yield Case("a folder", _folder(("train-0.jsonl", "train-1.jsonl"), "messages", as_lines))
    yield Case("a folder of Parquet shards", _folder(("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"), "alpaca", as_parquet))
    yield Case("a folder with papers beside the data", _folder(("data.jsonl",), "sharegpt", as_lines, {"README.md": "# Data", "dataset_info.json": '{"citation": ""}', ".gitattributes": ""}))
    yield Case("a glob", _folder(("a.jsonl", "b.jsonl"), "kto", as_lines, glob="*.jsonl"))
    yield Case("a symlink", _symlink)
    yield Case("the starter's data", lambda folder: TRAINING_DATA, model="starter", data={"max_length": 512})
    yield _plant("messages without a model", "", model=None)
    yield _plant("text without a model", "", "text", {}, "parquet", model=None)
    yield _plant("tools without a model", "", "tools", model=None)
    yield _plant("messages for the starter", "", model="starter", max_length=512)
    yield _plant("a template without marks", "", "messages with system", model="without marks")
    yield _plant("loss on the last turn", "", loss_on="last")
    yield _plant("loss on all", "", "sharegpt", loss_on="all")
    yield _plant("loss on the completion", "", "prompt-completion", {}, "csv", loss_on="completion")
    yield _plant("loss on two roles", "", "messages with system", loss_on=("system", "assistant"))
    yield _plant("texts that bring their begin token", "", "text", put("text", lambda text: f"<|begin|>{text}"), model="adds begin")
    yield _plant("ChatML by name", "", "messages", model="ends as ChatML does", template="chatml")
    yield _plant("a system prompt put before the user", "", "messages with system", model="without system", system="user")
    yield _plant("a system prompt dropped", "", "messages with system", model="refuses system", system="drop")
    yield _plant("a system prompt for all", "", "alpaca", system_prompt="You mend old things.")
    yield _plant("columns by name", "", "prompt-completion", lambda shape, row: {"frage": row["prompt"], "antwort": row["completion"]}, "csv", format="prompt-completion", columns={"prompt": "frage", "completion": "antwort"})
    yield _plant("a model that begins texts", "", "text", model="adds begin")
    yield _plant("other rows for validation", "", validation=_file("jsonl", lambda: good_rows("messages", "kept out", 12)))
    yield _plant("other rows for the evaluation", "", "alpaca", {}, "csv", against=_file("jsonl", lambda: good_rows("messages", "judged", 12)))


# fmt: on


def _folder(names: Sequence[str], shape: str, pack: Callable[[Sequence[Line]], bytes], beside: Mapping[str, str] | None = None, glob: str = "") -> Write:  # fmt: skip
    """Return what writes the rows of a shape over several files, and other files beside them."""

    def write(folder: Path) -> Path:
        rows = good_rows(shape, "folder", 24 * len(names))
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(pack(rows[number * 24 : number * 24 + 24]))
        for name, text in (beside or {}).items():
            (folder / name).write_text(text)
        return folder / glob

    return write


def _symlink(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    written = _file("jsonl", lambda: good_rows("messages", "symlink"))(folder / "elsewhere")
    (folder / "data.jsonl").symlink_to(written)
    return folder / "data.jsonl"


# --- The audit's word on a case --------------------------------------------------------------------------------------


def audit_case(case: Case, folder: Path) -> Any:
    """Return the audit's report on a case that is written into `folder`; the models are built beside it."""
    from tunewright.engine.data.audit import AuditRequest, audit
    from tunewright.recipes.model import Data, Validation

    place, beside = (folder / re.sub(r"\W+", "-", case.name) / name for name in ("data", "beside"))
    place.mkdir(parents=True)
    beside.mkdir()
    source = case.write(place)
    validation = Validation(kind="none")
    if case.validation:
        validation = Validation(kind="file", value=0, source=str(case.validation(beside)))
    against = (str(case.against(beside)),) if case.against else ()
    model = build_model(case.model, folder / "models") if case.model else None

    def cancelled() -> bool:
        if case.meanwhile:
            case.meanwhile(source)
        return False

    data = Data(source=str(source), validation=validation, **case.data)
    return audit(AuditRequest(source=str(source), data=data, model=model, against=against, workers=0), None, cancelled)


def judge(case: Case, report: Any) -> list[str]:
    """Return what is wrong with a report on a case: what was missed, what was found too much, and wrong places."""
    found = {finding.code: finding for finding in report.findings}
    problems = [f"{code} was not found" for code in sorted(case.expects - set(found))]
    for code, finding in found.items():
        if finding.severity != "hint" and code not in case.expects | case.allows:
            shown = "; ".join(f"{each.place}: {each.detail}" for each in finding.examples[:2])
            problems.append(
                f"{code} ({finding.severity}, {finding.count} rows) was found too: {finding.detail} {shown}"
            )
    for code in sorted(case.expects & set(found)):
        problems += _misplaced(case, found[code])
    return problems


def _misplaced(case: Case, finding: Any) -> Iterator[str]:
    """Yield what is wrong with the count and the places of a finding."""
    if not case.at:
        return
    if finding.count != len(case.at):
        yield f"{finding.code} counts {finding.count} rows, and there are {len(case.at)}"
    shown = {each.place for each in finding.examples}
    right = {f"{unit} {number + (unit == 'line' and case.header)}" for number in case.at for unit in ("line", "row")}
    if not shown:
        yield f"{finding.code} shows no row"
    if wrong := {place for place in shown if not any(place.endswith(each) for each in right)}:
        yield f"{finding.code} shows {', '.join(sorted(wrong))} and not {', '.join(map(str, case.at))}"
