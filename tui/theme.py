"""The look: one dark and one light theme, with a single accent; every semantic colour comes with a word or a glyph."""

from __future__ import annotations

from textual.theme import Theme


def _theme(
    name: str,
    dark: bool,
    background: str,
    surface: str,
    panel: str,
    foreground: str,
    muted: str,
    rule: str,
    faint: str,
    accent: str,
    soft: str,
    success: str,
    warning: str,
    error: str,
) -> Theme:
    """Return a theme; `muted` is for secondary words, `rule` for lines, `faint` for what stands behind, `soft` for the accent in the background."""
    return Theme(
        name=name,
        dark=dark,
        primary=accent,
        secondary=accent,
        accent=accent,
        success=success,
        warning=warning,
        error=error,
        foreground=foreground,
        background=background,
        surface=surface,
        panel=panel,
        variables={
            "muted": muted,
            "rule": rule,
            "faint": faint,
            "soft": soft,
            "border": accent,
            "border-blurred": rule,
            "block-cursor-foreground": foreground,
            "block-cursor-background": soft,
            "block-cursor-text-style": "bold",
            "block-cursor-blurred-foreground": foreground,
            "block-cursor-blurred-background": panel,
            "block-cursor-blurred-text-style": "none",
            "block-hover-background": surface,
            "input-cursor-background": foreground,
            "input-cursor-foreground": background,
            "input-selection-background": soft,
            "scrollbar": rule,
            "scrollbar-hover": muted,
            "scrollbar-active": accent,
            "scrollbar-background": background,
            "scrollbar-background-hover": background,
            "scrollbar-background-active": background,
            "scrollbar-corner-color": background,
        },
    )


DARK = _theme(
    "tunewright-dark",
    dark=True,
    background="#10151b",
    surface="#161d25",
    panel="#1d2630",
    foreground="#d6dde5",
    muted="#8793a0",
    rule="#35414e",
    faint="#566a7d",
    accent="#79bde8",
    soft="#24445c",
    success="#8fcb90",
    warning="#e6bd70",
    error="#ef8a8f",
)
LIGHT = _theme(
    "tunewright-light",
    dark=False,
    background="#fbfbf8",
    surface="#f3f4f0",
    panel="#e8eae6",
    foreground="#20272e",
    muted="#5c6771",
    rule="#c3c9cc",
    faint="#9fb0bd",
    accent="#12639b",
    soft="#cfe3f1",
    success="#2a7430",
    warning="#875800",
    error="#b0222b",
)
THEMES = (DARK, LIGHT)
