"""Tests of telling languages, text that was decoded wrongly, and control characters."""

from __future__ import annotations

import pytest
from tunewright.engine.data.auditing.encodings import broken_encoding, control_characters, mend_encoding
from tunewright.engine.data.auditing.languages import language_of

SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "What is the capital of France, and how many people live there?",
        "Plants turn sunlight into sugar, and the oxygen that we breathe is what they leave behind.",
        "Please write a short letter to my landlord about the heating, which has been broken for two weeks.",
    ),
    "de": (
        "Was ist die Hauptstadt von Frankreich und wie viele Menschen leben dort?",
        "Die Straße führt über die alte Brücke, und am Abend ist dort kaum noch jemand zu sehen.",
        "Bitte schreibe einen kurzen Brief an meinen Vermieter, weil die Heizung seit zwei Wochen nicht geht.",
    ),
    "fr": (
        "Quelle est la capitale de la France et combien de personnes y vivent ?",
        "Les plantes transforment la lumière en sucre, et l'oxygène est ce qu'elles laissent derrière elles.",
        "Écris une courte lettre à mon propriétaire, car le chauffage ne marche plus depuis deux semaines.",
    ),
    "es": (
        "¿Cuál es la capital de Francia y cuántas personas viven en ella?",
        "Las plantas convierten la luz en azúcar, y el oxígeno que respiramos es lo que dejan.",
        "Por favor, escribe una carta breve al dueño del piso, porque la calefacción no funciona.",
    ),
    "it": (
        "Qual è la capitale della Francia e quante persone ci vivono?",
        "Le piante trasformano la luce in zucchero, e l'ossigeno che respiriamo è quello che lasciano.",
        "Scrivi una breve lettera al padrone di casa, perché il riscaldamento non funziona da due settimane.",
    ),
    "pt": (
        "Qual é a capital da França e quantas pessoas vivem lá?",
        "As plantas transformam a luz em açúcar, e o oxigênio que respiramos é o que elas deixam.",
        "Escreva uma carta curta ao dono da casa, porque o aquecimento não funciona há duas semanas.",
    ),
    "nl": (
        "Wat is de hoofdstad van Frankrijk en hoeveel mensen wonen er?",
        "Planten maken suiker van zonlicht, en de zuurstof die wij ademen is wat ze overhouden.",
        "Schrijf een korte brief aan mijn huisbaas, want de verwarming doet het al twee weken niet meer.",
    ),
    "sv": (
        "Vad är huvudstaden i Frankrike och hur många människor bor där?",
        "Växterna gör socker av ljuset, och syret som vi andas är det som de lämnar efter sig.",
        "Skriv ett kort brev till min hyresvärd, för värmen har inte fungerat på två veckor.",
    ),
    "da": (
        "Hvad er hovedstaden i Frankrig, og hvor mange mennesker bor der?",
        "Planterne laver sukker af lyset, og ilten, som vi indånder, er det, de efterlader sig.",
        "Skriv et kort brev til min udlejer, for varmen har ikke virket i to uger, og jeg fryser meget.",
    ),
    "no": (
        "Hva er hovedstaden i Frankrike, og hvor mange mennesker bor der?",
        "Plantene lager sukker av lyset, og oksygenet som vi puster inn, er det de etterlater seg.",
        "Skriv et kort brev til utleieren min, for varmen har ikke virket på to uker, og jeg fryser mye.",
    ),
    "fi": (
        "Mikä on Ranskan pääkaupunki ja kuinka paljon ihmisiä siellä on?",
        "Kasvit tekevät valosta sokeria, ja happi, jota me hengitämme, on se mitä niistä jää.",
        "Kirjoita lyhyt kirje vuokranantajalle, koska lämmitys ei ole toiminut kahteen viikkoon.",
    ),
    "pl": (
        "Jaka jest stolica Francji i ile osób w niej mieszka?",
        "Rośliny zamieniają światło w cukier, a tlen, którym oddychamy, jest tym, co po nich zostaje.",
        "Napisz krótki list do właściciela mieszkania, bo ogrzewanie nie działa już od dwóch tygodni.",
    ),
    "cs": (
        "Jaké je hlavní město Francie a kolik lidí v něm žije?",
        "Rostliny mění světlo na cukr a kyslík, který dýcháme, je to, co po nich zůstává.",
        "Napiš krátký dopis majiteli bytu, protože topení už dva týdny nefunguje a je mi zima.",
    ),
    "hu": (
        "Mi Franciaország fővárosa, és hány ember él ott?",
        "A növények cukrot készítenek a fényből, és az oxigén az, amit maguk után hagynak.",
        "Írj egy rövid levelet a főbérlőnek, mert a fűtés már két hete nem működik.",
    ),
    "ro": (
        "Care este capitala Franței și câți oameni trăiesc acolo?",
        "Plantele transformă lumina în zahăr, iar oxigenul pe care îl respirăm este ceea ce lasă în urmă.",
        "Scrie o scurtă scrisoare către proprietar, pentru că încălzirea nu mai merge de două săptămâni.",
    ),
    "tr": (
        "Fransa'nın başkenti neresi ve orada kaç kişi yaşıyor, bunu bana söyler misin?",
        "Bitkiler ışığı şekere çevirir ve soluduğumuz oksijen onlardan geriye kalan bir şeydir.",
        "Ev sahibine kısa bir mektup yaz, çünkü ısıtma iki haftadır çalışmıyor ve çok üşüyorum.",
    ),
    "vi": (
        "Thủ đô của nước Pháp là gì và có bao nhiêu người sống ở đó?",
        "Cây cối biến ánh sáng thành đường, và khí ôxy mà chúng ta thở là những gì chúng để lại.",
        "Hãy viết một lá thư ngắn cho chủ nhà, vì lò sưởi đã không hoạt động trong hai tuần.",
    ),
    "id": (
        "Apa ibu kota Prancis dan berapa banyak orang yang tinggal di sana?",
        "Tumbuhan mengubah cahaya menjadi gula, dan oksigen yang kita hirup adalah sisa dari proses itu.",
        "Tolong tulis surat singkat untuk pemilik rumah karena pemanas sudah tidak bisa menyala dua minggu.",
    ),
    "ru": (
        "Как называется столица Франции и сколько людей там живёт?",
        "Растения превращают свет в сахар, а кислород, которым мы дышим, остаётся после них.",
        "Напиши короткое письмо хозяину квартиры, потому что отопление не работает уже две недели.",
    ),
    "uk": (
        "Як називається столиця Франції і скільки людей там живе?",
        "Рослини перетворюють світло на цукор, а кисень, яким ми дихаємо, лишається після них.",
        "Напиши короткого листа власникові квартири, бо опалення не працює вже два тижні.",
    ),
    "ar": (
        "ما هي عاصمة فرنسا وكم عدد السكان الذين يعيشون فيها؟",
        "تحول النباتات الضوء إلى سكر، والأكسجين الذي نتنفسه هو ما تتركه وراءها.",
    ),
    "fa": (
        "پایتخت فرانسه کجاست و چند نفر در آن زندگی می‌کنند؟",
        "گیاهان نور را به قند تبدیل می‌کنند و اکسیژنی که نفس می‌کشیم از آن‌ها می‌ماند.",
    ),
    "he": ("מהי בירת צרפת וכמה אנשים גרים בה?", "הצמחים הופכים אור לסוכר, והחמצן שאנו נושמים הוא מה שנשאר מהם."),
    "el": (
        "Ποια είναι η πρωτεύουσα της Γαλλίας και πόσοι άνθρωποι ζουν εκεί;",
        "Τα φυτά μετατρέπουν το φως σε ζάχαρη, και το οξυγόνο είναι αυτό που μένει.",
    ),
    "hi": (
        "फ्रांस की राजधानी क्या है और वहाँ कितने लोग रहते हैं?",
        "पौधे प्रकाश को शर्करा में बदलते हैं, और जिस ऑक्सीजन में हम साँस लेते हैं वह उनसे बचती है।",
    ),
    "th": ("เมืองหลวงของฝรั่งเศสคืออะไรและมีคนอาศัยอยู่ที่นั่นกี่คน", "พืชเปลี่ยนแสงเป็นน้ำตาลและออกซิเจนที่เราหายใจคือสิ่งที่เหลืออยู่"),
    "ja": (
        "フランスの首都はどこですか。何人が住んでいますか。",
        "植物は光を糖に変え、私たちが吸う酸素を残します。Pythonで書いてください。",
    ),
    "ko": (
        "프랑스의 수도는 어디이며 몇 명이 살고 있습니까?",
        "식물은 빛을 당으로 바꾸고 우리가 숨쉬는 산소를 남깁니다.",
    ),
    "zh": ("法国的首都是哪里？那里住着多少人？", "请用Python写一个函数，计算列表中所有数字的平均值并返回结果。"),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_every_sentence_is_told_by_its_language(language: str):
    assert {sentence: language_of(sentence) for sentence in SENTENCES[language]} == dict.fromkeys(
        SENTENCES[language], language
    )


@pytest.mark.parametrize("language", SENTENCES)
def test_a_long_text_is_told_by_its_language(language: str):
    assert language_of(" ".join(SENTENCES[language]) * 20) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes.",
        "42",
        "Paris",
        "OK, danke!",
        "Ja, natürlich.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        "😀 😀 😀 👍🏽",
        "你好",
        "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    if i is not None and i in (1, 2):\n        print(add(i, 2))\n",
        '{"name": "get_weather", "arguments": {"city": "in the middle of it", "unit": "is this the one"}}',
        '[{"role": "user", "content": "What is the capital of France and how many people live there?"}]',
        "SELECT name FROM users WHERE age > 30 AND city IN (SELECT city FROM places) ORDER BY name",
        '#include <stdio.h>\nint main(void) {\n    for (int i = 0; i < 10; i++) printf("%d\\n", i);\n}\n',
        "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==",
        "What is the weather like today? 今天天气怎么样？请告诉我明天会不会下雨。",
        "Lorem ipsum dolor sit amet consectetur adipiscing elit sed eiusmod tempor incididunt",
        "\ud800\udfff \ud83d",
    ],
)
def test_what_is_short_or_mixed_or_code_has_no_language(text: str):
    assert language_of(text) == ""


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Translate “你好” into English and say when it is used, and by whom.", "en"),
        ("**What is the answer?**\n\n- It is the one that you have seen before\n- There is no other", "en"),
        ("Ktoré mesto je hlavným mestom Francúzska a koľko ľudí v ňom žije, keď sú tam aj turisti?", "sk"),
        ("Quina és la capital de França i quantes persones hi viuen, i per què és tan gran aquesta ciutat?", "ca"),
        ("Koji je glavni grad Francuske i koliko ljudi u njemu živi, a što je najveće od svega?", "hr"),
        ("Шта је главни град Француске и колико људи живи у њему?", "sr"),
        ("Това е столицата на Франция и в нея живеят много хора, но не всички са доволни.", "bg"),
    ],
)
def test_neighbours_and_quotations_do_not_mislead(text: str, language: str):
    assert language_of(text) == language


BROKEN = [
    ("I went to the cafÃ© yesterday.", "cafÃ©", "I went to the café yesterday."),
    ("I donâ€™t know.", "donâ€™t", "I don’t know."),
    ("Itâ\x80\x99s here", "Itâs", "It’s here"),
    ("She said â€œhelloâ€\x9d â€“ twice", "â€œhelloâ€", "She said “hello” – twice"),
    ("GrÃ¼ÃŸe aus MÃ¼nchen", "GrÃ¼ÃŸe", "Grüße aus München"),
    ("25Â°C outside, Â£100 in hand", "25Â°C", "25°C outside, £100 in hand"),
    ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
    ("Tiáº¿ng Viá»‡t", "Tiáº¿ng", "Tiếng Việt"),
    ("ä¸–ç•Œ", "ä¸–ç•Œ", "世界"),
    ("so nice ðŸ˜€", "ðŸ˜€", "so nice 😀"),
    ("TÃ¼rkÃ§e Ã¶ÄŸrenmek iÃ§in", "TÃ¼rkÃ§e", "Türkçe öğrenmek için"),
    ("un ÃƒÂ©tÃƒÂ©", "ÃƒÂ©tÃƒÂ©", "un été"),
    ("Zaå¼ Ã©tÃ© Ã©tÃ© Ã©tÃ©", "Ã©tÃ©", "Zaå¼ été été été"),
]


@pytest.mark.parametrize(("text", "shown", "mended"), BROKEN)
def test_text_that_was_decoded_wrongly_is_found_and_mended(text: str, shown: str, mended: str):
    assert broken_encoding(text) == shown
    assert mend_encoding(text) == mended
    assert broken_encoding(mended) is None


@pytest.mark.parametrize("sentence", [each for group in SENTENCES.values() for each in group])
def test_correct_text_of_any_language_is_not_broken_and_stays(sentence: str):
    for text in (sentence, sentence.upper(), f"« {sentence} »", f"„{sentence}“", f"”{sentence}”", f"“{sentence}”…"):
        assert broken_encoding(text) is None
        assert mend_encoding(text) == text


@pytest.mark.parametrize("language", ["fr", "de", "es", "pt", "tr", "vi", "cs", "ro", "pl", "hu", "fi", "sv"])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_what_a_wrong_decoding_does_to_a_language_is_undone(language: str, encoding: str):
    text = " ".join(SENTENCES[language])
    data = text.encode()
    # Windows-1252 has no characters for five bytes; readers keep them as they are.
    broken = "".join(bytes((each,)).decode(encoding, "ignore") or chr(each) for each in data)
    assert broken_encoding(broken) is not None
    assert mend_encoding(broken) == text


@pytest.mark.parametrize(
    "text",
    [
        'If you see "Ã©" in the output, the file was read with the wrong encoding.',
        "The pair `Ã©` stands for é.",
        'Words such as "cafÃ©" are broken.',
        "„MENÜ“ und „Ä“ und »Ö«",
        "Il a dit « café » et « là » puis « été »…",
        "«está»… «CAÑ» «Ñ»",
        "NÃO AMANHÃ”, disse a IRMÔ",
        "”TÄMÄ” ja ”HYVÄ”",
        "MAÇÔ – “CORAÇÃO”",
        "x² + y² ≤ 4·π·r² ± ½",
        "print('ñandú')  # año",
        'The character "�" replaces what could not be read.',
        "a � b",
        "Â cause de lui",
        "日本語「テスト」です。…",
    ],
)
def test_correct_and_quoting_text_is_not_broken(text: str):
    assert broken_encoding(text) is None
    assert mend_encoding(text) == text


def test_replacement_characters_within_words_are_found_but_cannot_be_mended():
    assert broken_encoding("Das ist sch�n") == "sch�n"
    assert mend_encoding("Das ist sch�n") == "Das ist sch�n"
    assert broken_encoding("� and � again") == "�"


@pytest.mark.parametrize("code", [0, 7, 8, 11, 12, 14, 27, 31, 127, 0x80, 0x9B, 0x9F, 0x202A, 0x202E, 0x2066, 0x2069])
def test_control_characters_are_found(code: int):
    assert control_characters(f"a{chr(code)}b")
    assert control_characters(f"ü{chr(code)}日")


def test_line_ends_and_tabs_and_correct_text_are_not_control_characters():
    assert not control_characters("a\tb\nc\r\nd")
    assert not control_characters("ü\tб\n日\r\n‎עברית  ‍")
    assert not any(control_characters(sentence) for group in SENTENCES.values() for sentence in group)
