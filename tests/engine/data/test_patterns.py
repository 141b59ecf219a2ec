"""Tests of what looks like secrets and personal data, and above all of what does not."""

from __future__ import annotations

import base64
import json
import random
import string
from itertools import pairwise

import pytest
from tunewright.engine.data.auditing.patterns import LABELS, PERSONAL, redact, scan
from tunewright.engine.data.findings import CATALOGUE


def made(alphabet: str, length: int, seed: int = 1) -> str:
    """Return characters drawn at random; every key in these tests is made here, so that none is anybody's."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


ALPHANUMERIC = string.ascii_letters + string.digits
CAPITALS = string.ascii_uppercase + "234567"
HEXADECIMAL = "0123456789abcdef"


def web_token(claims: dict[str, object]) -> str:
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps(claims))
    encoded = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return f"{encoded}.{made(ALPHANUMERIC, 43)}"


KEYS: dict[str, tuple[str, ...]] = {
    "AWS key": ("AKIA" + made(CAPITALS, 16), "ASIA" + made(CAPITALS, 16, 2)),
    "GitHub token": (
        "ghp_" + made(ALPHANUMERIC, 36),
        "github_pat_" + made(ALPHANUMERIC, 22) + "_" + made(ALPHANUMERIC, 59),
    ),
    "GitLab token": ("glpat-" + made(ALPHANUMERIC, 20),),
    "Slack token": ("xoxb-" + "482910375561-" + made(ALPHANUMERIC, 24),),
    "OpenAI key": (
        "sk-" + made(ALPHANUMERIC, 48),
        "sk-proj-" + made(ALPHANUMERIC + "_-", 100) + "Q7",
    ),
    "Anthropic key": ("sk-ant-" + "api03-" + made(ALPHANUMERIC + "_-", 93) + "AA",),
    "Google key": ("AIza" + made(ALPHANUMERIC, 35),),
    "Hugging Face token": ("hf_" + made(ALPHANUMERIC, 34), "hf_" + made(string.ascii_letters, 34, 3)),
    "Stripe key": ("sk_" + "live_" + made(ALPHANUMERIC, 24), "rk_" + "live_" + made(ALPHANUMERIC, 99)),
    "JSON web token": (web_token({"sub": "u-83920", "exp": 1893456000}),),
    "private key": (
        "-----BEGIN RSA PRIVATE KEY-----\n"
        + "\n".join(made(ALPHANUMERIC + "+/", 64, line) for line in range(12))
        + "\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n"
        + "\n".join(made(ALPHANUMERIC + "+/", 70, line) for line in range(6))
        + "\n-----END OPENSSH PRIVATE KEY-----",
    ),
}


def luhn(start: str) -> str:
    """Return `start` with the check digit that makes it a card's number."""
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(start)))
    return f"{start}{-total % 10}"


def mod_97(country: str, rest: str) -> str:
    """Return the account with the check digits that make it valid."""
    number = int("".join(str(int(each, 36)) for each in f"{rest}{country}00"))
    return f"{country}{98 - number % 97:02}{rest}"


def group(digits: str, separator: str) -> str:
    return separator.join(digits[start : start + 4] for start in range(0, len(digits), 4))


AMERICAN_EXPRESS = luhn("37582930147559")
FOUND = [(kind, text) for kind, texts in KEYS.items() for text in texts] + [
    ("e-mail address", "maria.k.lopez84@gmail.com"),
    ("e-mail address", "j.vandenberg@uni-leiden.nl"),
    ("e-mail address", "k+lists@mail.brauer.co.uk"),
    ("telephone number", "+49 30 901820"),
    ("telephone number", "+1 (415) 867-2093"),
    ("telephone number", "+33 6 42 17 83 95"),
    ("telephone number", "+81-3-6281-4507"),
    ("IP address", "81.169.145.72"),
    ("IP address", "203.98.77.14"),
    ("card number", group(luhn("471682930147552"), " ")),
    ("card number", group(luhn("527183920471652"), "-")),
    ("card number", f"{AMERICAN_EXPRESS[:4]} {AMERICAN_EXPRESS[4:10]} {AMERICAN_EXPRESS[10:]}"),
    ("bank account", group(mod_97("DE", "500105175407324931"), " ")),
    ("bank account", mod_97("FR", "300040123400056789012X3")),
    ("bank account", group(mod_97("NO", "30005832719"), " ")),
]


@pytest.mark.parametrize(("kind", "text"), FOUND)
@pytest.mark.parametrize("around", ["{}", "It is {}.", "a\n{}\nb", "see ({}), please", "“{}”", "日本{}、", "x: '{}'"])
def test_every_kind_is_found_where_it_stands(kind: str, text: str, around: str):
    whole = around.format(text)
    (match,) = scan(whole)
    assert (match.kind, whole[match.start : match.end]) == (kind, text)
    assert match.masked.endswith("…") and text.startswith(match.masked[:-1]) and len(match.masked) <= 5
    assert redact(whole) == around.format(f"[{LABELS[kind]}]")
    assert match.code == ("personal_data" if kind in PERSONAL else "secrets")
    assert match.code in CATALOGUE


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("password = 'tR7#vw92Lq'", "password", "tR7#vw92Lq"),
        ("DB_PASSWORD=gK3-pz81Wm\nDB_PORT=5432", "password", "gK3-pz81Wm"),
        ('{"password": "Vb83kdWq!z"}', "password", "Vb83kdWq!z"),
        ("My password: Zw82!kdfq.", "password", "Zw82!kdfq"),
        ("api_key: " + made(HEXADECIMAL, 32), "API key", made(HEXADECIMAL, 32)),
        ('"apiKey" : "' + made(ALPHANUMERIC, 32) + '"', "API key", made(ALPHANUMERIC, 32)),
        ("aws_secret_access_key = " + made(ALPHANUMERIC, 40, 3), "API key", made(ALPHANUMERIC, 40, 3)),
        ("client_secret=" + made(ALPHANUMERIC, 24), "API key", made(ALPHANUMERIC, 24)),
        ("postgres://svc_billing:kW82vRq91z@db7.brauer.io:5432/main", "password", "kW82vRq91z"),
        ("visa " + luhn("471682930147552"), "card number", luhn("471682930147552")),
        ("His SSN is 536-22-8719.", "social security number", "536-22-8719"),
        ("call me: +4915203918274", "telephone number", "+4915203918274"),
        ("mailto:maria.k.lopez84@gmail.com", "e-mail address", "maria.k.lopez84@gmail.com"),
        ("E-Mail:maria.k.lopez84@gmail.com;", "e-mail address", "maria.k.lopez84@gmail.com"),
    ],
)
def test_values_are_found_by_the_words_before_them(text: str, kind: str, value: str):
    (match,) = scan(text)
    assert (match.kind, text[match.start : match.end]) == (kind, value)
    assert redact(text) == text.replace(value, f"[{LABELS[kind]}]")


INNOCENT = [
    # Examples and placeholders.
    "AKIAIOSFODNN7EXAMPLE",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "sk-1234567890abcdef1234567890abcdef1234567890abcdef",
    "OPENAI_API_KEY=sk-your-openai-api-key-goes-here-0000000000000000",
    "export HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx and ghp_000000000000000000000000000000000000",
    "sk_live_... and sk_test_4eC39HqLyjWDarjtT1zdp7dc",
    "AIzaSyXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
    "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nYOUR PRIVATE KEY GOES HERE, IN BASE64 AND OVER MANY LINES, EACH OF 64 CHARACTERS\n-----END",
    "-----BEGIN PUBLIC KEY-----\n" + made(ALPHANUMERIC, 64) + "\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\n" + made(ALPHANUMERIC, 64) + "\n-----END CERTIFICATE-----",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"
    ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    "eyJub3Rqc29u.eyJub3Rqc29ufQ.aaaaaaaaaaaaaaaaaaaaaaaaaa",
    # Code that handles secrets without holding one.
    'password = os.environ["DB_PASSWORD_2"]',
    "password = get_password(user1, 'x')",
    "password: str = Field(min_length=8)",
    "secret_key = settings.SECRET_KEY_2024",
    "api_key=config['openai2'].key1",
    "apiKey: process.env.API_KEY_V2",
    "const password = req.body.password1;",
    'password = "changeme123"',
    'password = "P@ssw0rd123!"',
    "password: Hunter2!hunter2",
    "Password: at least 8 characters, 1 digit and 1 symbol",
    'password = "${DB_PASSWORD_1}"',
    "password=<YOUR_PASSWORD_1>",
    'api_key = "your-api-key-123456789"',
    "token = tokens[i + 1]; key = keys2[i]",
    "The secret: 12-year-old whisky",
    "secret = 3f",
    "access_token: 1234567890123456789012",
    "password_hash: 5f4dcc3b5aa765d61d8327deb882cf99",
    "public_key = " + made(HEXADECIMAL, 64),
    "postgres://user:password@localhost:5432/db",
    "postgresql://postgres:postgres@db:5432/app1",
    "https://username:pass1234@example.com/path1",
    "https://host:8080/@maria/1",
    "mongodb+srv://<user>:<pass1>@cluster0.mongodb.net",
    # Addresses of nobody.
    "jane@example.com, bob1@example.org and x1@sub.example.net",
    "noreply@github.com no-reply@accounts.google.com do-not-reply@bank.de noreply-7@x.io",
    "user@domain.com you@yourcompany.com name@email.com john.doe@gmail.com info@acme.com",
    "git@github.com:owner/name.git",
    "Contact support@brauer.de or info@brauer.de.",
    "@property\n@app.route('/x1')\n@pytest.mark.slow",
    "icon@2x.png logo@3x.webp react@18.2.0 name@latest",
    "@maria@mastodon.social on https://medium.com/@maria.lopez84/text",
    "x @ y, a@b, @, @@, 3@4.5, foo@bar",
    "user@host.local admin@localhost root@192.168.1.1",
    "1a2b3c4d5e6f7a8b9c0d1e2f3a4b@mail.example-list.org",
    # Numbers.
    "ISBN 978-3-16-148410-0 and 9783161484100, ISSN 0317-8471",
    "version 4.18.0.305, v10.20.30.40, Chrome/120.0.6099.129, build 81.22.33.44",
    "numpy==81.20.33.44",
    "UUID 550e8400-e29b-41d4-a716-446655440000",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    "Order 4716829301475523 was shipped as 1Z999AA10123456784.",
    "4111 1111 1111 1111, 4242 4242 4242 4242 and 378282246310005 are cards for tests",
    "4716 8293 0147 5521 has the wrong check digit",
    "0000 0000 0000 0000 and 1111-1111-1111-1111",
    "1234 5678 9012 3456 7890 1234",
    "3.14159265358979323846, 6.02214076e23, 299 792 458",
    "2024-01-15 10:30:00, 15.01.2024, 2024-01-15T10:30:00+01:00, UTC+05:30",
    "timestamps 1700000000 1700000000000 +1700000000",
    "2 + 3 = 5, a+1234567890, 5 +49 30 901820 x, +100 200 300, x = +1.2345678901",
    "+1 555 0100, +1-555-123-4567, +1 (212) 555-0143, +1234567890, +12 345 678 901",
    "(415) 867-2093, 030 901820, 867-5309",
    "123-45-6789 is not a SSN, and SSN 078-05-1120 neither",
    "part 536-22-8719 of the catalogue",
    "SSN 000-12-3456, 666-12-3456, 912-12-3456",
    "127.0.0.1 192.168.178.20 10.20.30.40 172.20.30.40 8.8.8.8 203.0.113.77 198.51.100.99 255.255.255.0 169.254.20.30",
    "81.169.145.0/24 1.3.6.1.4.1.311.21.20 999.88.77.66 081.169.145.072",
    "§ 12.34.56.7, section 23.45.67.8",
    "DE89 3704 0044 0532 0130 00, GB82 WEST 1234 5698 7654 32, FR14 2004 1010 0505 0001 3M02 606",
    "DE12 5001 0517 5407 3249 31 has wrong check digits",
    "AB12 3456 7890 1234 5678, CO2H 2O10 1234 5678",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==",
    "task-based risk-averse disk-1234567890123456789012345678901234567890abcdefgh",
    "JWT begins with eyJ, AWS with AKIA, Google with AIza1",
    "\ud800 1 a1 \udfff@x.de +0 0000 0.0",
    "",
]


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_no_secret_and_nobodys_is_left_alone(text: str):
    assert scan(text) == ()
    assert redact(text) == text


@pytest.mark.parametrize("seed", range(20))
def test_random_base64_hashes_and_numbers_raise_nothing(seed: int):
    chance = random.Random(seed)
    parts = [
        base64.b64encode(chance.randbytes(3000)).decode(),
        chance.randbytes(500).hex(),
        " ".join(str(chance.randrange(10**16)) for _ in range(100)),
        ",".join(f"{chance.gauss(0, 100):.6f}" for _ in range(200)),
        ".".join(str(chance.randrange(300)) for _ in range(100)),
    ]
    assert scan("\n".join(parts)) == ()


def test_the_prefix_of_an_innocent_word_does_not_hide_a_key_after_it():
    key = KEYS["OpenAI key"][0]
    text = f"risk-free, sk-xxxxxxxx, and {key}"
    assert redact(text) == "risk-free, sk-xxxxxxxx, and [API KEY]"


def test_many_in_one_text_are_found_in_order_and_never_overlap():
    text = (
        f"user maria.k.lopez84@gmail.com, password: tR7#vw92Lq, key {KEYS['GitHub token'][0]},\n"
        f"api_key={KEYS['OpenAI key'][0]} https://me:kW82vRq91z@git.brauer.io from 81.169.145.72"
    )
    matches = scan(text)
    assert [each.kind for each in matches] == [
        "e-mail address", "password", "GitHub token", "OpenAI key", "password", "IP address",
    ]  # fmt: skip
    assert all(one.end <= other.start for one, other in pairwise(matches))
    assert scan(redact(text)) == ()


def test_what_is_shown_of_a_match_gives_little_away():
    (match,) = scan("password = 'tR7#vw92Lq'")
    assert match.masked == "tR…"
    (match,) = scan(KEYS["AWS key"][0])
    assert match.masked == "AKIA…"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + "@" + "b." * 50_000,
        "a1@" * 50_000,
        "password:" * 30_000 + "1",
        "eyJ" + "a1" * 100_000,
        "+1 " * 50_000,
        "0000 " * 50_000,
        "AB12 " * 50_000,
        "http://a1:" * 20_000 + "@",
        "-----BEGIN RSA PRIVATE KEY-----\n" * 5_000,
        "1." * 100_000,
        "sk-" * 50_000 + "1a",
    ],
)
@pytest.mark.timeout(20)
def test_hostile_text_takes_no_long_time(text: str):
    scan(text)


def test_two_addresses_in_one_do_not_make_a_password():
    assert scan("MultiHostUrl('https://foo.com:123,foo:bar@bar.com/p1')") == ()
