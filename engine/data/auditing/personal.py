"""Personal data in text: addresses and numbers of people, by their forms and check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_BEFORE_AT = re.compile(r"[A-Za-z0-9._%+-]{1,64}\Z")
_AFTER_AT = re.compile(
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}([A-Za-z]{2,18}))(?![A-Za-z0-9@-]|\.[A-Za-z0-9])"
)
_NOBODYS_NAME = re.compile(
    r"(?:no|do.?not).?reply.*|(?:user|name|your|my|some|e?mail|address|foo|bar|test|example|sample|demo|abc|xyz|info|support|contact"
    r"|sales|hello|help|office|admin|root|git|hr|jobs|press|privacy|security|webmaster|postmaster|abuse|billing|service|team|news"
    r"|marketing|someone|somebody|first|last|john|jane|alice|bob|customer|client|recipient|sender|to|from|me|you)"
    r"(?:[._-]?(?:user|name|me|one|e?mail|address|here|doe|smith|last|first|service|account|\d{1,3}))*",
    re.IGNORECASE,
)
_NOBODYS_DOMAIN = re.compile(
    r"(?:.*\.)?(?:example|invalid|test|local|localhost|internal|lan)|(?:.*\.)?example\.[a-z.]+"
    r"|(?:.*\.)?(?:(?:your|my|some|the|our)?-?(?:domain|company|email|mail|site|website|business|organi[sz]ation|server|provider|host)"
    r"|acme|foo|bar|test|abc|xyz|sample|demo|noreply\.github|users\.noreply\.github|contoso|fabrikam)\.[a-z]{2,4}",
    re.IGNORECASE,
)
_FILE_ENDINGS = _set_of(
    "png jpg jpeg gif svg webp ico bmp pdf js ts css html htm py json yaml yml toml md txt tar gz zip so exe service "
    "timer latest"
)


def find_mail(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the e-mail addresses of people: not those of documentation, offices and machines."""
    at = text.find("@")
    while at >= 0:
        after = _AFTER_AT.match(text, at)
        before = _BEFORE_AT.search(text[max(0, at - 65) : at]) if after else None
        if after and before:
            name = before.group().lstrip("._%+-")
            start = at - len(name)
            previous = text[start - 1] if start else " "
            # What stands within a web address belongs to that, and names of people do not begin with a slash or a second @.
            token = text[max(0, start - 200) : start].rsplit(None, 1)
            within = bool(token) and not text[start - 1 : start].isspace() and "://" in token[-1]
            if (
                len(name) >= 2
                and previous not in "@/=\\"
                and not within
                and not name.endswith(".")
                and ".." not in name
                and after[2].lower() not in _FILE_ENDINGS
                and not _NOBODYS_NAME.fullmatch(name)
                and not _NOBODYS_DOMAIN.fullmatch(after[1])
                # Long names of digits and letters are numbers of messages.
                and not (len(name) >= 24 and sum(map(str.isdigit, name)) >= 4)
            ):
                yield start, after.end(), "e-mail address"
        at = text.find("@", at + 1)


_TELEPHONE = re.compile(
    r"(?<![\w+=*^/.,)\]-])\+(?:1|7|20|2[1-69]\d|27|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[789]\d|8[1246]|8[0578]\d|9[0-58]|9[679]\d)"
    r"(?P<rest>(?:[ .\-]?(?:\(\d{1,5}\)|\d{1,5})){2,6})(?![\w]|[.,]\d|[ ]?[+*/=^%])",
    re.ASCII,
)
_TELEPHONE_WORD = re.compile(
    r"tel|phone|call|mobil|cell|fax|whatsapp|signal|sms|contact|number|dial|reach|text|ruf|nummer|móvil|numéro|celular|телефон|电话|電話",
    re.IGNORECASE,
)


def find_telephones(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield telephone numbers in their international form."""
    for each in _TELEPHONE.finditer(text):
        number = each.group()
        digits = re.sub(r"\D", "", number)
        groups = re.findall(r"\d+", each["rest"])
        before = text[max(0, each.start() - 40) : each.start()]
        if not 9 <= len(digits) <= 15 or len(set(digits)) < 4 or before.rstrip()[-1:].isdigit():
            continue
        # Numbers that count upwards, and the exchange 555 of films and examples.
        if _COUNTING.search(digits) or (
            digits[0] == "1" and (len(digits) != 11 or digits[4:7] == "555" or digits[1:4] == "555")
        ):
            continue
        written_so = len(groups) >= 2 and len(groups[-1]) >= 2 and bool(re.search(r"[ .\-()]", each["rest"]))
        if written_so or _TELEPHONE_WORD.search(before):
            yield each.start(), each.end(), "telephone number"


_COUNTING = re.compile(r"01234|12345|23456|34567|45678|56789|98765|87654|76543|65432|(\d)\1{4}")
_CARD = re.compile(
    r"(?<![\w.,/+=-])(?<!\d )(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5}|\d{15,16})(?![\w/+=-]|[.,]\d|[ ]\d)",
    re.ASCII,
)
_CARD_PREFIX = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|6011|65")
_CARD_WORD = re.compile(
    r"card|visa|master|amex|american express|credit|debit|karte|tarjeta|carte|cartão|карт", re.IGNORECASE
)
_EXAMPLE_CARDS = _set_of(
    "4111111111111111 4242424242424242 4012888888881881 4000056655665556 4000000000000002 4222222222222 "
    "5555555555554444 5105105105105100 5200828282828210 2223003122003222 378282246310005 371449635398431 "
    "378734493671000 6011111111111117 6011000990139424 4532015112830366 4539578763621486 4916338506082832 "
    "5425233430109903 2222420000001113 4263982640269299 4917484589897107 4001919257537193 4007702835532454 "
    "374245455400126 6011000991300009 4012001037141112 4485275742308327"
)
_SOCIAL_SECURITY = re.compile(r"(?<![\w.,/+=-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w/+=-])", re.ASCII)
_SOCIAL_SECURITY_WORD = re.compile(r"\bssn?\b|social security", re.IGNORECASE)
_EXAMPLE_SOCIAL_SECURITY = frozenset(
    {"078-05-1120", "219-09-9999", "123-45-6789", "111-22-3333", "111-11-1111", "457-55-5462"}
)
_SHAPE_OF_ACCOUNT = re.compile(rb"aa00 ?[0a]{4} ?[0a]{4}")
_BANK_ACCOUNT = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_BANK_ACCOUNT_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21, "CR": 22,
    "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22,
    "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30,
    "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30,
    "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
_EXAMPLE_BANK_ACCOUNTS = _set_of(
    "DE89370400440532013000 DE91100000000123456789 GB29NWBK60161331926819 GB82WEST12345698765432 "
    "GB33BUKB20201555555555 FR1420041010050500013M02606 FR7630006000011234567890189 NL91ABNA0417164300 "
    "CH9300762011623852957 ES9121000418450200051332 IT60X0542811101000000123456 BE68539007547034 AT611904300234573201 "
    "PL61109010140000071219812874 SE4550000000058398257466 NO9386011117947 FI2112345600000785 DK5000400440116243 "
    "IE29AIBK93115212345678 PT50000201231234567890154 DE75512108001245126199 GR1601101250000000012300695 "
    "LU280019400644750000"
)


def find_long_numbers(text: str, shape: bytes) -> Iterator[tuple[int, int, str]]:
    """Find cards, bank accounts and social security numbers, each only where the shape of the text has one."""
    if (
        b"0000 0000 0000 0000" in shape
        or b"0000-0000-0000-0000" in shape
        or b"0" * 15 in shape
        or b" 000000 00000" in shape
    ):
        for each in _CARD.finditer(text):
            digits = each.group().replace(" ", "").replace("-", "")
            if (
                _CARD_PREFIX.match(digits)
                and (len(digits) == 15) == (digits[0] == "3")
                and digits not in _EXAMPLE_CARDS
                and len(set(digits)) >= 5
                and _passes_luhn(digits)
                # Sixteen digits without a break may be any number: one in a hundred would pass so far.
                and (digits != each.group() or _is_beside(_CARD_WORD, text, each.start(), each.end()))
            ):
                yield *each.span(), "card number"
    if _SHAPE_OF_ACCOUNT.search(shape):
        for each in _BANK_ACCOUNT.finditer(text):
            account = each.group().replace(" ", "")
            length = _BANK_ACCOUNT_LENGTHS.get(account[:2], 0)
            # A word in capitals may follow, so the account is cut to the length of its country.
            end = each.start()
            for _ in range(min(length, len(account))):
                end += 2 if text[end] == " " else 1
            account = account[:length]
            whole = not text[end : end + 1].isalnum()
            if whole and len(account) == length and account not in _EXAMPLE_BANK_ACCOUNTS and _passes_mod_97(account):
                yield each.start(), end, "bank account"
    if b"000-00-0000" in shape:
        for each in _SOCIAL_SECURITY.finditer(text):
            if each.group() not in _EXAMPLE_SOCIAL_SECURITY and _is_beside(
                _SOCIAL_SECURITY_WORD, text, each.start(), each.end()
            ):
                yield *each.span(), "social security number"


def _is_beside(word: re.Pattern[str], text: str, start: int, end: int, reach: int = 60) -> bool:
    return word.search(text[max(0, start - reach) : end + reach // 2]) is not None


def _passes_luhn(digits: str) -> bool:
    """Tell whether the last digit is right, as ISO/IEC 7812 computes it."""
    doubled = (sum(divmod(2 * int(each), 10)) for each in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _passes_mod_97(account: str) -> bool:
    """Tell whether the two digits after the country are right, as ISO 13616 computes them."""
    return int("".join(str(int(each, 36)) for each in account[4:] + account[:4])) % 97 == 1


_FOUR_NUMBERS = re.compile(r"(?<![\w.+-])(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?![\w/-]|\.\w)", re.ASCII)
_VERSION_WORD = re.compile(
    r"(?:version|release|build|firmware|driver|update|upgrade|patch|chapter|section|clause|§|oid|rev|[a-z]+[=<>~!]=|/|\bv\.?)[\s:(]*\Z",
    re.IGNORECASE,
)
_KNOWN_MACHINES = _set_of(
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220 4.2.2.2 1.2.3.4 4.3.2.1 "
    "5.6.7.8 12.34.56.78 123.45.67.89 11.22.33.44 123.123.123.123 93.184.216.34 169.254.169.254"
)


def find_addresses_of_machines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield public IPv4 addresses."""
    for each in _FOUR_NUMBERS.finditer(text):
        numbers = tuple(map(int, each.groups()))
        if (
            not any(len(part) > 1 and part[0] == "0" for part in each.groups())
            and max(numbers) <= 255
            and _is_public(numbers)
            # Numbers of versions and chapters are small.
            and sum(number >= 20 for number in numbers) >= 2
            and each.group() not in _KNOWN_MACHINES
            and not _VERSION_WORD.search(text[max(0, each.start() - 24) : each.start()])
        ):
            yield *each.span(), "IP address"


def _is_public(numbers: tuple[int, ...]) -> bool:
    """Tell whether an address is of the internet, and not private, reserved or set aside for documentation."""
    first, second, third, last = numbers
    return not (
        first in (0, 10, 127)
        or first >= 224
        or (first == 100 and 64 <= second < 128)
        or (first == 169 and second == 254)
        or (first == 172 and 16 <= second < 32)
        or (first == 192 and (second == 168 or (second, third) in ((0, 0), (0, 2), (88, 99))))
        or (first == 198 and (second in (18, 19) or (second, third) == (51, 100)))
        or (first, second, third) == (203, 0, 113)
        or last == 0
    )
