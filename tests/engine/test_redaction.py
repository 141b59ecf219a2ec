"""No secret of a known form, from a known place or after a telling word stays in a text; what is none stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tunewright.engine import redaction
from tunewright.engine.redaction import redact

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA2c"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A home without secrets, and none in the environment."""
    for name in ("HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "NETRC", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    redaction._known.cache_clear()
    yield
    redaction._known.cache_clear()


SECRETS = [
    (f"using {TOKEN} now", TOKEN),
    (f"https://user:{TOKEN}@huggingface.co/a/b", TOKEN),
    ("https://me:pw@host.example/path", "pw@"),
    ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
    ("headers={'authorization': 'Bearer s3cr3t-t0ken-v4lue'}", "s3cr3t-t0ken-v4lue"),
    ("curl -H bearer 0123456789abcdef01", "0123456789abcdef01"),
    ("HF_TOKEN=whatever-it-is", "whatever-it-is"),
    ("export WANDB_API_KEY='0123456789abcdef0123456789abcdef01234567'", "0123456789abcdef"),
    ("AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG/bPxRfiCYKEYKEYKEYKEY", "wJalrXUtnFEMI"),
    ("id AKIA2E0A8F3B244C9986 used".replace("0", "Q").replace("8", "T").replace("9", "U"), "AKIA"),
    ("GET https://cdn.example/x?Expires=9&X-Amz-Signature=0a1b2c3d4e5f&x=1", "0a1b2c3d4e5f"),
    ('{"accessToken": "a1b2c3d4e5f6a7b8c9d0e1f2"}', "a1b2c3d4e5f6"),
    ("sk-ant-api03-" + "Ab1" * 20, "Ab1Ab1"),
    ("-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7bq3xk29fJ0sLmQwErTyUiOpAsDfGhJkLzXcVbNm1234567\n" * 4
     + "-----END RSA PRIVATE KEY-----", "MIIEow"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "secret"), SECRETS, ids=[secret.strip("@")[:12] for _, secret in SECRETS])
def test_a_secret_is_left_out(text: str, secret: str) -> None:
    found = redact(text)
    assert secret not in found
    assert "left out]" in found
    assert redact(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "step 5: loss=0.513 lr: 1e-4 tokens=81920000 key=value",
        "eos_token=<|endoftext|>, pad_token: <pad>, special_tokens: 12345678",
        '{"eos_token": "<|im_end|>", "model_max_length": 8192}',
        "https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json?download=true",
        "File /usr/lib/python3/site-packages/torch/nn/modules/module.py:1511, in _call_impl",
        "KeyError: 'model.layers.0.self_attn.q_proj.weight'",
        "10:42:07 epoch 3:  44%|████▍     | 44/100 [00:12<00:15,  3.51it/s]",
        "short",
    ],
    ids=range(8),
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_what_the_environment_and_the_usual_files_hold_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "correct horse")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsefalse")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id")
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text("a-token-of-no-known-form\n")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password wandb-plain-words\n")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_secret_access_key = plain/aws+secret\n")
    redaction._known.cache_clear()
    text = "correct horse, a-token-of-no-known-form, wandb-plain-words, plain/aws+secret, falsefalse, /home/me/.ssh/id"
    mask = "[secret left out]"
    assert redact(text) == f"{mask}, {mask}, {mask}, {mask}, falsefalse, /home/me/.ssh/id"
