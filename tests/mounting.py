"""Whether tests may have a file system of their own."""

import shutil
import subprocess


def can_mount() -> bool:
    """Whether this system lets a process mount a file system of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    command = [unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
