"""Facts about a dataset that its maintainer states in card.toml."""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from emovox.config import Options, read_config
from emovox.dataset.schema import CARD_FIELDS
from emovox.errors import ConfigError, find_secrets
from emovox.ids import ABSOLUTE_PATH, printable

TEXTS = tomllib.loads(Path(__file__).with_name("card_texts.toml").read_text(encoding="utf-8"))
PRIVATE = "contains an absolute path, a password, a token or a control character"
LANGUAGE = re.compile(r"(?ai)[a-z]{2,3}(-[a-z]{3,4}){0,2}(-([a-z]{2}|\d{3}))?(-[a-z\d]{4,8})*")


@dataclass(frozen=True)
class CardFields(Options):
    """Facts about a dataset that its maintainer states in card.toml; all are optional.

    Attributes:
        licence: Of the rows, an id of the Hugging Face Hub such as `cc-by-4.0`, or `other`.
        contact: For questions, such as an address.
        citation: BibTeX or text, beside that of the paper.
        description: Of the dataset, before its numbers.
        languages: Spoken in the tracks, as BCP 47 codes.
    """

    licence: str = "other"
    contact: str = ""
    citation: str = ""
    description: str = ""
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.licence not in TEXTS["licences"]:
            example = "an id of the Hugging Face Hub, such as cc-by-4.0, odbl or other"
            raise ConfigError(f"licence {self.licence!r}: not {example}")
        if wrong := [code for code in self.languages if not LANGUAGE.fullmatch(code)]:
            raise ConfigError(f"languages {wrong[0]!r}: not a BCP 47 code, such as en or pt-BR")
        for name in ("contact", "citation", "description"):
            text = re.sub(r"[\n\t]", " ", getattr(self, name))
            if printable(text) != text or ABSOLUTE_PATH.search(text) or find_secrets(text):
                raise ConfigError(f"{name}: {PRIVATE}; remove it")

    @property
    def terms(self) -> str:
        """Text on the licence of the rows and of the media."""
        is_stated = self.licence not in ("other", "unknown")
        return str(TEXTS["licensed"].format(self.licence) if is_stated else TEXTS["licence"])


def read_fields(
    root: str | os.PathLike[str], card: str | os.PathLike[str] | None = None
) -> CardFields:
    """Return the fields in the TOML file `card`, by default card.toml of a dataset, if it exists.

    Raises:
        ConfigError: the file is unreadable, has an unknown key, or a value that is not valid.
    """
    path = Path(card or Path(root, CARD_FIELDS))
    if card and not path.is_file():  # `read_config` would look for a recipe of this name
        raise ConfigError(f"{path}: file not found")
    return read_config(CardFields, path) if path.is_file() else CardFields()
