"""Units: what figures are counted in, and how sizes are told."""

GIB = 2**30
"""Bytes of a GiB."""


def gib(value: float | None) -> str:
    """Return gibibytes with the precision that matters, such as 0.38 GiB or 139.8 GiB."""
    if value is None:
        return "—"
    if value * 1024 < 0.9995:
        return f"{value * 2**20:.0f} KiB"
    if value < 0.095:
        return f"{value * 1024:.0f} MiB"
    if not value < 1e9:  # hand-edited, or no number
        return f"{value:.1e} GiB"
    return f"{value:.2f} GiB" if value < 10 else f"{value:,.1f} GiB"


def size(count_bytes: float) -> str:
    """Return the size of a file: 312 bytes, 425 KiB, 1.20 GiB."""
    return f"{count_bytes:,.0f} bytes" if count_bytes < 1024 else gib(count_bytes / GIB)
