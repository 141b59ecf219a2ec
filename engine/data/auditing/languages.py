"""The language of a text, told by its script and its commonest words."""

from __future__ import annotations

import re
from itertools import repeat

import numpy as np

SAMPLE_CHARACTERS = 400
"""So much of a text is looked at, and as much of its middle where that says nothing."""

# Languages in Latin letters, told by their commonest words. Those after the first nineteen are there so that they are
# not taken for a neighbour.
_WORDS: dict[str, str] = {
    "en": (
        "the of and to in is that it for was are with as be this have from or by not but what all were when your can "
        "said there use an each which she do how their if will about many then them these some her would make like "
        "him has two more could my than been who its now did get may you on at we they our just because should very "
        "also only over such between where please does here he his write give me explain describe list name following "
        "create provide using tell summarize best any while why"
    ),
    "de": (
        "der die das und ist nicht ein eine einen einem einer zu den dem des mit von für auf im sich auch als an es "
        "wird werden aus bei nach wie ich sie wir ihr sind hat haben kann aber oder wenn nur noch über zum zur durch "
        "war man mehr so dass daß vom bis unter vor zwischen sehr was wo warum mein dein sein ihre ihren diese dieser "
        "dieses keine kein er hier du bitte geht dir dich heute mich uns euch gibt zwei weil schreibe schreiben "
        "müssen können"
    ),
    "fr": (
        "le la les des et est une un du en dans que qui pour pas sur au aux avec ce cette ces il elle nous vous ils "
        "sont par plus ne se son sa ses leur mais ou où comme être été fait tout tous très peut même sans si leurs "
        "entre donc quand c'est d'une d'un n'est qu'il je mon ma votre notre depuis aussi avoir ont était quelle quel "
        "quels quelles combien y elles lors ici alors jamais toujours puis chaque lorsque afin deux laissent qu'elle "
        "qu'elles l'on écris écrivez"
    ),
    "es": (
        "el la los las de y que en un una es por con para no se su del al lo como más pero sus le ya o este sí porque "
        "esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni "
        "contra otros ese eso ante ellos esto mí antes algunos qué unos yo otro era está son tiene puede ser fue cómo "
        "usted nuestro están cuál cuáles cuántas cuántos dos ella ellas hacer cada entonces aquí escribe hola estás "
        "gusta quiero dime gracias bien"
    ),
    "it": (
        "il lo la i gli le di e che è un una in non per con del della dei delle si da come sono al nel nella ma anche "
        "più questo questa alla ha o se ci ai dal dalla degli essere era hanno suo sua loro quando molto mi dove "
        "perché cosa tutti tutto fatto io così può dopo senza quale sul sulla tra fra stato ogni chi quante quanti "
        "qual quali due scrivi lui lei nostro"
    ),
    "pt": (
        "o a os as de e que do da em um uma para com não no na por mais dos das se como mas ao ele seu sua ou ser "
        "quando muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos ter seus quem "
        "nas me esse eles estão você tinha foram essa num nem suas meu minha são foi pode sobre qual quais quantas "
        "quantos lá essas esses deixam dois duas fazer porque pois ainda então cada onde todos isto escreva"
    ),
    "nl": (
        "de het een en van is dat in te op zijn voor met niet aan er om ook als dan bij maar door over uit naar heeft "
        "hebben was wordt worden deze dit die kan ik je we wij hij zij ze nog wel geen meer of tot onder tussen waar "
        "wat hoe wie veel mijn jouw hun ons zich kunnen moet zou alleen waren heel werd hier jij uw hoeveel mensen "
        "twee schrijf omdat daarom zoals altijd nooit elke"
    ),
    "sv": (
        "och att det som en på är av för med den till inte om ett har de jag var från vi man kan så men han hon när "
        "ska eller vad efter sig också hur alla mycket nu mot där under sedan blir bara vara över mellan få upp ut "
        "två sin sitt sina detta dessa varför något någon hade skulle utan andra många dem vilket vilka vilken "
        "människor min mitt kort därför eftersom medan sådan göra våra blivit"
    ),
    "da": (
        "og at det som en på er af for med den til ikke om et har de jeg var fra vi man kan så men han hun når skal "
        "eller hvad efter sig også hvordan alle meget nu mod der under siden bliver blev bare være over mellem få op "
        "ud to sin sit dette disse hvorfor noget nogen havde skulle uden andre mange dem ved hvor hvis deres dig mig "
        "os nogle laver efterlader din kort dag uger måske både fordi derfor dog mens sådan gøre vores blevet"
    ),
    "no": (
        "og at det som en på er av for med den til ikke om et har de jeg var fra vi man kan så men han hun når skal "
        "eller hva etter seg også hvordan alle mye nå mot der under siden blir ble bare være over mellom få opp ut to "
        "sin sitt dette disse hvorfor noe noen hadde skulle uten andre mange dem ved hvor hvis deres deg meg oss "
        "veldig ei gjennom lager etterlater din kort dag uker kanskje både fordi derfor mens slik gjøre våre blitt"
    ),
    "fi": (
        "ja on ei se että hän oli ovat mutta kun niin kuin myös tai jos sen joka minä sinä me te he ole olen voi olla "
        "mitä mikä missä miksi hyvin vain jo nyt sitten kanssa mukaan jälkeen ennen tämä tämän tässä siitä siinä "
        "niitä niiden hänen jotka jossa vielä enemmän kaikki ollut koska eivät en et noin sekä eli voidaan tulee "
        "kuinka paljon tehdä tästä aina ihmiset olisi sitä tätä kuten näin ensin voit sinun minun kuitenkin sillä joko käyttää ilman"
    ),
    "pl": (
        "i w na z do się nie to jest że o jak ale po co tak za od jego jej przez dla czy ich może są był była być "
        "przy już tylko tym ten ta te który która które bardzo także oraz lub więc gdy jeśli kiedy gdzie dlaczego "
        "mnie mam ma nas został przed między pod bez tego tej tych ze jako można roku "
        "ile jaka jaki jakie mieszka osób ludzi dwóch napisz proszę należy"
    ),
    "cs": (
        "a v na se je že s z do to o i jako ale za by pro tak po jsou byl byla být si od které který která jeho nebo "
        "co jak když však ve ze už jen mezi při není také více podle jsem kde proč až této tento tato toto velmi může "
        "mohou aby pokud před pouze další kteří tím kolik lidí jaké jaká jaký protože dva mi než své svůj něm ještě "
        "vám mě můžete prosím takže"
    ),
    "hu": (
        "a az és hogy nem is egy ez meg de van volt csak ha már mint vagy még el kell után le fel ki be lesz lehet "
        "azt ezt amely ami aki mert minden nagyon majd pedig között szerint alatt miatt akkor most itt ott hol mi ő "
        "én te ők így úgy sem pont olyan más sok több vannak voltak milyen hogyan"
    ),
    "ro": (
        "și şi de la în a nu că este cu pe un o pentru din se mai care ce sunt au sau dar fi fost al ale ai lui ei "
        "prin după între până foarte cum când unde acest această acestea poate dacă doar toate fără asupra într-un "
        "într-o eu noi lor fiecare către le îl are avea"
    ),
    "tr": (
        "ve bir bu da de için ile çok olarak daha gibi ne en kadar olan sonra var ama mi mı değil o ben sen biz siz "
        "onlar her ya veya şey ki hem göre nasıl neden nerede kim tüm büyük olduğu oldu olur diye ise içinde üzerinde "
        "arasında bunu önce bile yok zaman iki tarafından"
    ),
    "vi": (
        "và của là có không được một cho các những trong này với người để đã tôi bạn khi từ về như thì ở đó ra nhiều "
        "cũng hay vào nó đến tại theo sẽ phải rất làm mà nếu hơn chúng ta đang trên còn sau bị do gì sao thế việc năm"
    ),
    "id": (
        "yang dan di ini itu dengan untuk tidak dari dalam akan pada juga saya ke karena bisa ada oleh mereka lebih "
        "kita kami telah dapat atau sebagai adalah anda dia sudah tersebut saat seperti banyak hanya tetapi bagaimana "
        "apa mengapa setiap antara jika para menjadi agar secara tentang satu dua orang harus setelah ketika namun"
    ),
    "sk": (
        "a v na sa je že s z do to o aj ako ale za by pre tak po sú bol bola byť si od ktoré ktorý ktorá jeho alebo "
        "čo keď však vo zo už len medzi pri nie tiež viac podľa som kde prečo až táto tento toto veľmi môže môžu aby "
        "ak pred iba ďalšie ktorí koľko ľudí aké aká aký pretože dva mi než svoje ešte vám ma prosím takže"
    ),
    "hr": (
        "i u na se je da za s od su a kako koji što ne to ali ili koja koje bio bila biti će sa iz po ako samo više "
        "već gdje zašto može mogu kada nakon između prije vrlo ovaj ova ovo jer također prema zbog tako sve smo sam "
        "bi nije nisu"
    ),
    "sl": (
        "in je na se da za v so ki pa z kot ne tudi po s iz bi od do ali ko si še pri že sem kaj kako zakaj kje ima "
        "bil bila biti lahko samo več med pred zelo ta to te če ker smo niso ni kjer vse"
    ),
    "ca": (
        "el la els les de i que en un una és per amb no es al del com més però seu seva aquest aquesta ha són va ser "
        "si dels pel molt quan on també fins hi ho sobre entre tot tots perquè han què nosaltres després sense cada"
    ),
    "et": (
        "ja on ei see et ta oli kui ka või mis aga siis kes oma selle seda mida nii veel kas ning mitte välja ma sa "
        "me te nad olen oled olid kus miks pärast enne väga ainult juba üks kõik saab peab"
    ),
    "lt": (
        "ir yra kad tai į su iš ne kaip bet ar o buvo už apie nuo jo jos jie po tik dar jau labai kuris kuri kai jei "
        "šis ši gali būti dėl prie mes aš tu jūs kur kodėl"
    ),
    "lv": (
        "un ir ka tas uz ar no ne kā bet vai bija par pēc līdz viņš viņa tikai vēl jau ļoti kas kur kāpēc kad ja šis "
        "šī var būt mēs es tu jūs arī lai"
    ),
    "af": (
        "die en van is nie het dat in te op vir met aan om ook as by maar deur oor uit na was word hierdie dit wat "
        "kan ek jy ons hy sy hulle nog geen meer of tot onder tussen waar hoe baie my jou sal moet alleen"
    ),
    "tl": (
        "ang ng sa na mga at ay ko mo ito si ni para hindi kung may ka siya namin natin ako ikaw kami sila niya po "
        "lang din rin nang isang mas bakit paano saan"
    ),
    "sw": (
        "na ya wa kwa ni katika za la kuwa hii huu hiyo pia cha au kama lakini sana watu yake wake ambayo kwamba "
        "hivyo baada kabla nini vipi wapi"
    ),
}
# Letters that few languages have.
_LETTERS: dict[str, str] = {
    "ß": "de", "ñ": "es", "¿": "es", "ø": "da no", "å": "sv da no", "ł": "pl", "ż": "pl", "ę": "pl lt", "ř": "cs", "ů": "cs",
    "ě": "cs", "ľ": "sk", "ő": "hu", "ű": "hu", "ğ": "tr", "ı": "tr", "ş": "tr", "ț": "ro", "ă": "ro vi", "đ": "vi hr", "ư": "vi",
    "ơ": "vi", "ạ": "vi", "ế": "vi", "œ": "fr", "ê": "fr pt vi", "ã": "pt vi", "õ": "pt et vi", "ò": "it ca vi", "ä": "de sv fi et sk",
    "ė": "lt", "ų": "lt", "ļ": "lv", "ņ": "lv",
}  # fmt: skip
_LANGUAGES = tuple(_WORDS)
# A word of one language counts most; one that many share says little. The scores of all languages are fields of one
# number, so that one addition a word counts for all of them.
_WEIGHTS = (0, 60, 40, 28, 20, 15)
_FIELD_BITS = 16
_ENOUGH_SCORE = 120
_SCORE_PER_WORD = 7
_LEAST_WORDS = 4
_MOST_WORDS = 48
_CLEARLY = 1.1
_CLEAR_DISTANCE = 40
"""Two thirds of a word that only one language has: neighbours differ by few words."""


def _weight(word: str, languages: int) -> int:
    weight = _WEIGHTS[min(languages, len(_WEIGHTS) - 1)]
    # A single letter may be a variable or a unit as well.
    return weight // 3 if len(word) == 1 and word.isascii() else weight


def _scores(entries: dict[str, list[str]]) -> dict[str, int]:
    """Return for each word the number that holds its weight in the field of each of its languages."""
    return {
        word: sum(_weight(word, len(languages)) << (_FIELD_BITS * _LANGUAGES.index(language)) for language in languages)
        for word, languages in entries.items()
    }


def _languages_of_words() -> dict[str, list[str]]:
    entries: dict[str, list[str]] = {}
    for language, words in _WORDS.items():
        for word in sorted(set(words.split())):
            entries.setdefault(word, []).append(language)
    return entries


_SCORE_OF_WORD = {word.encode(): score for word, score in _scores(_languages_of_words()).items()}
_SCORE_OF_LETTER = tuple(_scores({letter: languages.split() for letter, languages in _LETTERS.items()}).items())

# Punctuation and digits part words; the apostrophe belongs to them, as in c'est.
_APART = bytes(
    each if each > 127 or chr(each).isalpha() or each == 39 else 32 for each in range(256)
).lower()  # fmt: skip
_SYMBOLS = b"{}[]()<>=;|\\_/&$+@^~%"
_NOT_SYMBOLS = bytes(each for each in range(256) if each not in _SYMBOLS)
_SYMBOL_SHARE_OF_CODE = 0.07
_CODE = re.compile(
    r"\s*(?:SELECT |INSERT INTO |CREATE TABLE |UPDATE |#include |import |from \w+ import |def |class |#!/|<\?|<!DOCTYPE|<html"
    r"|[\[{]\s*[\"{\[])"
)

# Script by character of the basic plane.
_SCRIPTS: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = (
    ("", ()),
    ("Latin", ((0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x250), (0x1E00, 0x1F00))),
    ("Cyrillic", ((0x400, 0x530),)),
    ("el", ((0x370, 0x400), (0x1F00, 0x2000))),
    ("he", ((0x5D0, 0x5F5),)),
    ("Arabic", ((0x620, 0x700), (0x750, 0x780), (0xFB50, 0xFE00), (0xFE70, 0xFF00))),
    ("Devanagari", ((0x900, 0x964), (0x970, 0x980))),
    ("hy", ((0x531, 0x588),)),
    ("bn", ((0x980, 0xA00),)),
    ("pa", ((0xA00, 0xA80),)),
    ("gu", ((0xA80, 0xB00),)),
    ("or", ((0xB00, 0xB80),)),
    ("ta", ((0xB80, 0xC00),)),
    ("te", ((0xC00, 0xC80),)),
    ("kn", ((0xC80, 0xD00),)),
    ("ml", ((0xD00, 0xD80),)),
    ("si", ((0xD80, 0xE00),)),
    ("th", ((0xE01, 0xE50),)),
    ("lo", ((0xE80, 0xF00),)),
    ("bo", ((0xF00, 0x1000),)),
    ("my", ((0x1000, 0x10A0),)),
    ("ka", ((0x10A0, 0x1100),)),
    ("am", ((0x1200, 0x1380),)),
    ("km", ((0x1780, 0x1800),)),
    ("ko", ((0x1100, 0x1200), (0x3131, 0x3190), (0xAC00, 0xD7A4))),
    ("ja", ((0x3041, 0x30FB), (0x30FC, 0x3100), (0xFF66, 0xFFA0))),
    ("zh", ((0x3400, 0x4DC0), (0x4E00, 0xA000))),
)
_NAMES = tuple(name for name, _ in _SCRIPTS)
_LATIN, _KANA, _HAN, _HANGUL = (_NAMES.index(name) for name in ("Latin", "ja", "zh", "ko"))
_LEAST_LETTERS = 8
_SHARE_OF_SIGNS = 0.75
_LEAST_SIGNS = 5
"""Of Chinese, Japanese and Korean, in which a sign says as much as several letters."""
_SHARE_OF_SCRIPT = 0.6


def _number_scripts() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    numbers = np.zeros(1 << 16, np.uint8)
    for number, (_, ranges) in enumerate(_SCRIPTS):
        for first, end in ranges:
            numbers[first:end] = number
    numbers[[0xD7, 0xF7]] = 0
    return numbers


_SCRIPT_OF = _number_scripts()


def language_of(text: str) -> str:
    """Return the ISO 639 code of the language of `text`; an empty string where it is too short, mixed, code or unsure."""
    language = _language_of_sample(text[:SAMPLE_CHARACTERS])
    if not language and len(text) > 2 * SAMPLE_CHARACTERS:
        middle = len(text) // 2
        language = _language_of_sample(text[middle : middle + SAMPLE_CHARACTERS])
    return language


def _language_of_sample(sample: str) -> str:
    if sample.isascii():
        return _language_of_words(sample)
    # Text that is nearly all Latin-1 need not be counted out.
    if len(sample.encode("latin-1", "ignore")) >= 0.92 * len(sample):
        return _language_of_words(sample)
    codes = np.frombuffer(sample.encode("utf-16-le", "surrogatepass"), "<u2")
    counts: list[int] = np.bincount(_SCRIPT_OF.take(codes), minlength=len(_NAMES)).tolist()
    # A sign of Chinese or Japanese stands for half a word, a Korean one for a third of one.
    counts[_HAN] *= 3
    counts[_KANA] *= 2
    counts[_HANGUL] *= 2
    most = max(counts[_LATIN:])
    script = counts.index(most, _LATIN)
    everything = sum(counts[_LATIN:])
    if script in (_HAN, _KANA):
        most = counts[_HAN] + counts[_KANA]
        if most < 3 * _LEAST_SIGNS or most < _SHARE_OF_SIGNS * everything:
            return ""
        share = counts[_KANA] / most
        return "ja" if share >= 0.1 else "zh" if share < 0.02 else ""
    if most < _LEAST_LETTERS or most < _SHARE_OF_SCRIPT * everything:
        return ""
    if script == _LATIN:
        return _language_of_words(sample)
    name = _NAMES[script]
    if name == "Cyrillic":
        return _language_in_cyrillic(sample.lower())
    if name == "Arabic":
        return _language_in_arabic(sample)
    return _language_in_devanagari(sample) if name == "Devanagari" else name


def _language_of_words(sample: str) -> str:
    """Tell languages in Latin letters by their commonest words."""
    data = sample.encode("utf-8", "surrogatepass")
    symbols = len(data.translate(None, _NOT_SYMBOLS))
    if symbols > _SYMBOL_SHARE_OF_CODE * (len(data) - data.count(b" ")) or _CODE.match(sample):
        return ""
    words = data.translate(_APART).split(None, _MOST_WORDS)
    del words[_MOST_WORDS:]
    if len(words) < _LEAST_WORDS:
        return ""
    total = sum(map(_SCORE_OF_WORD.get, words, repeat(0)))
    if not sample.isascii():
        total += sum([score for letter, score in _SCORE_OF_LETTER if letter in sample])
    scores: list[int] = np.frombuffer(total.to_bytes(len(_LANGUAGES) * _FIELD_BITS // 8, "little"), "<u2").tolist()
    best = max(scores)
    if best < max(_ENOUGH_SCORE, _SCORE_PER_WORD * len(words)):
        return ""
    which = scores.index(best)
    scores[which] = 0
    second = max(scores)
    return _LANGUAGES[which] if best >= _CLEARLY * second and best >= second + _CLEAR_DISTANCE else ""


def _has(sample: str, letters: str) -> bool:
    return any(letter in sample for letter in letters)


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_RUSSIAN = _set_of("как что это не и в на для его или они был если только из по от до при так же все с я мне чтобы она")
_UKRAINIAN = _set_of("що як це або та не на для його вони був якщо тільки з до при так все я мені щоб вона у й")
_BULGARIAN = _set_of("това е и да се на са от със не като за който която които при но по ще бъде в или до той много")


def _language_in_cyrillic(sample: str) -> str:
    if _has(sample, "әғқңөұүһҷӣӯ"):
        return "kk" if _has(sample, "қғұ") and "ң" in sample else ""
    russian, ukrainian, serbian = _has(sample, "ыэё"), _has(sample, "іїєґ"), _has(sample, "ђћљњџј")
    if serbian:
        # Macedonian has most of these letters too.
        sure = _has(sample, "ђћ") or " је " in sample
        return "sr" if sure and not russian and not ukrainian and not _has(sample, "ѓќѕ") else ""
    if russian and ukrainian:
        return "be" if "ў" in sample else ""
    if russian:
        return "ru"
    if ukrainian:
        return "" if "ў" in sample else "uk"
    # A short text may have none of these letters; Bulgarian has one of them often where Russian hardly has it.
    words = sample.split()
    counts = [sum(map(common.__contains__, words)) for common in (_RUSSIAN, _UKRAINIAN, _BULGARIAN)]
    counts[2] += sample.count("ъ")
    *_, second, best = sorted(counts)
    return ("ru", "uk", "bg")[counts.index(best)] if best >= 2 and best > second else ""


def _language_in_arabic(sample: str) -> str:
    if _has(sample, "ٹڈڑںےہ"):
        return "ur"
    if _has(sample, "ټډړښځڕڵۆێەڭ"):
        return ""
    persian = sum(map(sample.count, "پچژگکی"))
    arabic = sum(map(sample.count, "ةيكىأإ"))
    if persian > arabic:
        return "fa"
    return "ar" if arabic > 2 * persian or not persian else ""


_HINDI = _set_of("है हैं के में और का की को से यह पर ने एक भी कि लिए नहीं था थी हो कर क्या हम आप वह")
_MARATHI = _set_of("आहे आहेत आणि नाही हे ते या व मी होते काय तर किंवा ही हा केले असते कसे")
_NEPALI = _set_of("छ छन् हो र मा छैन थियो गर्न पनि यो भएको गरेको तपाईं हुन्छ के म लागि नेपाली कसरी")


def _language_in_devanagari(sample: str) -> str:
    words = sample.replace("।", " ").replace(",", " ").replace("?", " ").split()
    counts = [sum(map(common.__contains__, words)) for common in (_HINDI, _MARATHI, _NEPALI)]
    best = max(counts)
    if best < 2 or counts.count(best) > 1:
        return ""
    return ("hi", "mr", "ne")[counts.index(best)]
