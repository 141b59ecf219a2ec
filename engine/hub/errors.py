"""What goes wrong between here and the Hub, as pages that say what happened and what to do; no page holds a token."""

from __future__ import annotations

import errno
from pathlib import Path

from ...foundation.errors import TunewrightError, explain_os_error
from ...foundation.hub import endpoint, explain_line, host, without_secrets
from ...foundation.text import one_line
from ...foundation.units import GIB
from .cache import HubName, Kind, nearest_cached


def explain(error: Exception, name: HubName, kind: Kind) -> TunewrightError:
    """Turn what huggingface-hub, the line to it or the disk raised into a page; what is none of these is raised again."""
    from huggingface_hub import errors

    if isinstance(error, TunewrightError):
        return error
    if isinstance(error, errors.OfflineModeIsEnabled):
        return TunewrightError(
            "The Hub is switched off",
            f"HF_HUB_OFFLINE=1 (or TRANSFORMERS_OFFLINE=1) is set, and {name} is not whole in the cache.",
            "Unset it, or copy the files here and give the path of their folder.",
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(error, name, kind)
    if (told := explain_line(error)) is not None:
        return told
    if isinstance(error, OSError):
        return explain_disk(error)
    raise error


def _explain_answer(error: Exception, name: HubName, kind: Kind) -> TunewrightError:
    from huggingface_hub import errors, get_token

    assert isinstance(error, errors.HfHubHTTPError), "the caller has looked"
    noun = "model" if kind == "model" else "data set"
    page = f"{endpoint()}/{'' if kind == 'model' else 'datasets/'}{name.repository}"
    status = error.response.status_code
    said = without_secrets(error.server_message or "") if error.server_message else ""
    if isinstance(error, errors.GatedRepoError):
        who = "The token in use does not belong to such an account." if get_token() else "No token is in use here."
        return TunewrightError(
            f"Gated {noun}",
            f"{name.repository} is given only to accounts that have accepted its terms. {who}",
            f"Accept the terms at {without_secrets(page)}, then `hf auth login`, or set HF_TOKEN to a token that may "
            "read gated repositories.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return TunewrightError(
            "Revision not found",
            f"{name.repository} has no branch, tag or commit {one_line(name.revision or 'main', 100)!r}.",
            f"Its page lists them: {without_secrets(page)}/tree/main.",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return TunewrightError(
            "File not on the Hub",
            f"{host()} lists a file of {name} and does not have it.",
            "Try again later. If HF_ENDPOINT names a mirror, it may not be whole: try without it.",
        )
    if isinstance(error, errors.DisabledRepoError):
        return TunewrightError(
            f"Disabled {noun}", f"The Hub has closed {name.repository}.", "Its page may say why: " + page
        )
    if status == 401 and "invalid" in said.lower() and "credential" in said.lower():
        return TunewrightError(
            "Token refused",
            f"{host()} does not know the token that this machine sends; it may have expired.",
            "`hf auth login` takes a new one; without HF_TOKEN and after `hf auth logout` none is sent.",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        close = nearest_cached(name.repository, kind)
        other = "dataset" if kind == "model" else "model"
        found = nearest_cached(name.repository, other) == name.repository
        hint = f"Did you mean {close}, which is here? " if close and close != name.repository else ""
        hint += f"A {'data set' if kind == 'model' else 'model'} of this name is here. " if found else ""
        return TunewrightError(
            f"No such {noun} on the Hub",
            f"{host()} has no {noun} {name.repository}, or shows it to its owners only.",
            f"{hint}Check the name; for a private one `hf auth login`, or set HF_TOKEN.",
        )
    if status == 403:
        return TunewrightError(
            "The Hub forbids it",
            f"{host()} does not give {name.repository} to the account of the token in use. {said}".strip(),
            f"Ask for access at {without_secrets(page)}, or take a token with the right to read it.",
        )
    if status == 429:
        return TunewrightError(
            "Too many requests",
            f"{host()} asks this address to slow down. {said}".strip(),
            "Wait some minutes and try again; what has arrived stays. With `hf auth login` the limits are wider.",
        )
    return TunewrightError(
        "The Hub has a problem" if status >= 500 else "The Hub refused",
        f"{host()} answered with status {status}. {said}".strip(),
        "Try again later; what has arrived stays. https://status.huggingface.co says how the Hub is.",
    )


def explain_disk(error: OSError) -> TunewrightError:
    """Return the page for an error of the disk that holds the cache."""
    from .cache import cache_folder

    place = Path(str(error.filename)) if error.filename else cache_folder()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TunewrightError(
            "The disk is full",
            f"The disk of {cache_folder()} has no space left. What has arrived stays.",
            "Free some space (`hf cache ls` lists what is there) and fetch again, or set HF_HOME to another disk.",
        )
    return explain_os_error(error, place, "Writing")


def require_space(needed_bytes: int, free_bytes: int, name: HubName) -> None:
    """Raise TunewrightError when the disk of the cache has no room for `needed_bytes`."""
    from .cache import cache_folder

    if needed_bytes > free_bytes:
        raise TunewrightError(
            "Not enough space on the disk",
            f"{name} needs {needed_bytes / GIB:.1f} GiB more, and {cache_folder()} has "
            f"{free_bytes / GIB:.1f} GiB free.",
            "Free some space (`hf cache ls` lists what is there), or set HF_HOME to a folder on another disk.",
        )
