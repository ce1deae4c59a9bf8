"""Rules about the text of tracked files: length, words that must not be committed, links between Markdown files."""

import re
from pathlib import Path

LIMIT = 500  # lines; praised code has nine files in ten below it
# Whole texts by others, and data that tests read, are not for reading through.
LENGTH_FREE = re.compile(r"^(LICENSE$|tests/data/|tests/fuzz/corpus/)")

# Written in pieces so that this file passes its own rule.
FORBIDDEN = [
    (re.compile(r"(?<![\w.*)}>-])/(?:work|root|home/[a-z]\w*|Users/\w+|opt/pypi\S*|tmp/quern)\b"), "a path of one machine"),
    (re.compile(r"\b[\w.-]*(?:pkg\.dev|artifact" + r"ory|artifact" + r"registry|dev" + r"pi|\.internal)\b"), "a registry's host"),
    (re.compile(r"\b(?:files\.)?python" + r"hosted\.org\b|\bpypi\.org/simple\b"), "a registry's host"),
    (re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"), "a note of unfinished work"),
    (re.compile(r"^(?:<{7} |>{7} |={7}$)"), "a merge conflict"),
]


def too_long(path: Path, text: str, readme: str | None) -> list[str]:
    """A file over LIMIT lines is allowed if the README of its folder has a line with `NAME` and "over 500 lines" (and says why)."""
    lines = text.count("\n") + (not text.endswith("\n"))
    if lines <= LIMIT or LENGTH_FREE.match(path.as_posix()):
        return []
    if any(f"`{path.name}`" in line and f"over {LIMIT} lines" in line for line in (readme or "").splitlines()):
        return []
    return [
        f"{path}:{lines}: {lines} lines, over {LIMIT}: split it, or let the folder's README say why "
        f"(a line with `{path.name}` and \"over {LIMIT} lines\")"
    ]


def forbidden_words(path: Path, text: str) -> list[str]:
    return [
        f"{path}:{number}: {what}: {match.group(0)!r}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, what in FORBIDDEN
        if (match := pattern.search(line))
    ]


FENCE = re.compile(r"^ {0,3}(```|~~~)")
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")


def prose(text: str) -> list[tuple[int, str]]:
    """The numbered lines outside fenced code, with inline code blanked."""
    lines, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            lines.append((number, line))
    return lines


def anchors(text: str) -> set[str]:
    """The fragments that GitHub gives the headings: lower case, punctuation dropped, spaces to hyphens, repeats numbered."""
    seen: dict[str, int] = {}
    found = set()
    for _, line in prose(text):
        if match := HEADING.match(line):
            slug = re.sub(r"[^\w\- ]", "", match.group(1).lower()).replace(" ", "-")
            found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
            seen[slug] = seen.get(slug, 0) + 1
    return found


def broken_links(path: Path, text: str, root: Path) -> list[str]:
    """Relative links of one Markdown file whose file or heading does not exist; links to the web are not followed."""
    found = []
    for number, line in prose(text):
        for target in LINK.findall(re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, fragment = target.partition("#")
            file = (root / path.parent / name) if name else root / path
            if not file.resolve().is_relative_to(root.resolve()) or not file.exists():
                found.append(f"{path}:{number}: the link {target} leads to no file of this repository")
            elif fragment and file.suffix == ".md" and fragment not in anchors(file.read_text()):
                found.append(f"{path}:{number}: {name or path.name} has no heading #{fragment}")
    return found
