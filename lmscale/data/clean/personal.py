"""Personal data and secrets: e-mail addresses, phone numbers, public IP addresses, keys and tokens.

Patterns err on the side of what surely is one: ten digits in a row may be anything and are left, as are addresses of
private networks. Keys are those that their makers give a form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lmscale.data.clean.settings import Kind, Personal
from lmscale.data.clean.verdict import Verdict, dropped, kept

EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![\w@])"
)
# With a country code and at least two groups behind it (ITU-T E.123), or as in North America, in groups of 3, 3 and 4
PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){1,4}"
    r"|\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w-]|\.\d)"
)
IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{1,4}:|:){2,7}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)")
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]{0,16384}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
)
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}"  # AWS access keys
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"  # GitHub
    r"|glpat-[A-Za-z0-9_-]{20,64}"  # GitLab
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,255}"  # Slack
    r"|AIza[A-Za-z0-9_-]{35}"  # Google
    r"|(?:sk|rk)_live_[A-Za-z0-9]{24,255}"  # Stripe
    r"|hf_[A-Za-z0-9]{34,64}"  # Hugging Face
    r"|sk-(?:ant-|proj-)?[A-Za-z0-9_-]{40,255}"  # OpenAI, Anthropic
    r"|eyJ[A-Za-z0-9_-]{10,2048}\.eyJ[A-Za-z0-9_-]{10,8192}\.[A-Za-z0-9_-]{10,2048}"  # JSON web tokens (RFC 7519)
    r")(?![A-Za-z0-9])"
)
# How each of them begins
TOKEN_SIGNS = ("AKIA", "ASIA", "AROA", "AIDA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-")
TOKEN_SIGNS += ("xox", "AIza", "k_live_", "hf_", "sk-", "eyJ")


def is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def is_number(phone: str) -> bool:
    return 8 <= sum(map(str.isdigit, phone)) <= 15  # ITU-T E.164: 15 at most


@dataclass(frozen=True, kw_only=True)
class Search:
    """A pattern is costly, and a match lies in one line with one of its signs: only such lines are searched."""

    kind: Kind
    signs: tuple[str, ...] | re.Pattern[str]
    pattern: re.Pattern[str]
    is_one: Callable[[str], bool] = bool  # what a match must be besides

    def lines(self, text: str) -> Iterator[tuple[int, int]]:
        """Where lines with a sign begin and end, in order."""
        found: set[int] = set()
        if isinstance(self.signs, re.Pattern):
            place = 0
            while match := self.signs.search(text, place):
                found.add(text.rfind("\n", 0, match.start()) + 1)
                place = _line_end(text, match.start())
        else:
            for sign in self.signs:
                place = text.find(sign)
                while place >= 0:
                    found.add(text.rfind("\n", 0, place) + 1)
                    place = text.find(sign, _line_end(text, place))
        for start in sorted(found):
            yield start, _line_end(text, start)


# Keys first: they may hold what looks like another kind
SEARCHES: tuple[Search, ...] = (
    Search(kind="key", signs=TOKEN_SIGNS, pattern=TOKEN),
    Search(kind="email", signs=("@",), pattern=EMAIL),
    Search(kind="ip", signs=re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:"), pattern=IP, is_one=is_public),
    Search(kind="phone", signs=re.compile(r"\d\d[ .-]\d\d|\(\d\d|\d\) ?\d"), pattern=PHONE, is_one=is_number),
)


class PersonalData:
    """Masks what it finds as <email>, <phone>, <ip> or <key>, or drops a document that holds too much."""

    def __init__(self, settings: Personal) -> None:
        self.settings = settings

    def __call__(self, name: str, text: str) -> Verdict:
        edits: dict[str, int] = dict.fromkeys(self.settings.kinds, 0)
        if "key" in edits and "PRIVATE KEY" in text:
            text, edits["key"] = PRIVATE_KEY.subn("<key>", text)
        for search in SEARCHES:
            if search.kind in edits:
                text, count = _mask(text, search)
                edits[search.kind] += count
        count = sum(edits.values())
        if self.settings.masked_max is not None and count > self.settings.masked_max:
            return dropped("masked_max", f"{count}: " + ", ".join(f"{n} {kind}" for kind, n in edits.items() if n))
        return kept(text, edits)


def _mask(text: str, search: Search) -> tuple[str, int]:
    """The text with its matches masked, and how many they were."""
    pieces: list[str] = []
    count = place = 0

    def mask(match: re.Match[str]) -> str:
        nonlocal count
        if not search.is_one(match.group()):
            return match.group()
        count += 1
        return f"<{search.kind}>"

    for start, end in search.lines(text):
        pieces += [text[place:start], search.pattern.sub(mask, text[start:end])]
        place = end
    return ("".join([*pieces, text[place:]]) if count else text), count


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end
