"""Attributes to prompts: templates with `{name}` places, and class names as words."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentdrift.data.records import CLASS_NAMES, Record, Value
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.data.cohort import Cohort

ABBREVIATIONS = {
    "AD": "Alzheimer's disease",
    "CN": "cognitively normal",
    "EMCI": "early mild cognitive impairment",
    "LMCI": "late mild cognitive impairment",
    "MCI": "mild cognitive impairment",
    "SMC": "significant memory concern",
}
SEXES = {"F": "female", "M": "male", "female": "female", "male": "male"}
VERBATIM = ("caption", "text", "prompt")
"""Attributes that are prompts already; their words are left alone."""

BARE = (*CLASS_NAMES, "finding", "findings", "sex", "gender", "view")
"""Attributes whose value speaks for itself in a default prompt."""

MOST_WORDS = 50


class PromptTemplate:
    """One wording or several. Of several, each sample always gets the same one, whatever the batch or the step.

    Args:
        texts: a template such as "a brain MRI slice, {stage}, age {age}", or a list of them.
        seed: decides which sample gets which wording.
        abbreviations: codes to write out; `ABBREVIATIONS` where None, nothing for {}.

    Raises:
        ConfigurationError: no template, or one whose braces are wrong.
    """

    def __init__(
        self, texts: str | Sequence[str], seed: int = 0, *, abbreviations: Mapping[str, str] | None = None
    ) -> None:
        self.texts = (texts,) if isinstance(texts, str) else tuple(texts)
        self.seed = seed
        self.abbreviations = ABBREVIATIONS if abbreviations is None else dict(abbreviations)
        if not self.texts:
            raise ConfigurationError("A prompt template needs at least one text.")
        self.attribute_names = tuple(dict.fromkeys(name for text in self.texts for name in _places(text)))

    def __repr__(self) -> str:
        return f"PromptTemplate({self.texts[0]!r})" if len(self.texts) == 1 else f"PromptTemplate({list(self.texts)!r})"

    def caption(self, attributes: Mapping[str, Value] | Record, key: str | None = None) -> str:
        """Return the prompt.

        Args:
            attributes: values by name, or a record.
            key: the sample's name, which decides the wording; a record brings its own. Without one, the first wording.

        Raises:
            DataError: an attribute of the template is missing.
        """
        if isinstance(attributes, Record):
            key = attributes.key if key is None else key
            attributes = attributes.attributes
        text = self.texts[0] if key is None or len(self.texts) == 1 else self.texts[self._choice(key)]
        pieces = []
        for literal, name, spec, _ in string.Formatter().parse(text):
            pieces.append(literal)
            if name is not None:
                if name not in attributes:
                    have = ", ".join(attributes) or "none"
                    sample = f" of {key}" if key else ""
                    raise DataError(f"The prompt {text!r} needs {name!r}, which the attributes{sample} lack ({have}).")
                pieces.append(self._words(text, name, attributes[name], spec or ""))
        return "".join(pieces)

    def captions(self, cohort: Iterable[Record]) -> list[str]:
        """Return the prompt of every record, in order."""
        return [self.caption(record) for record in cohort]

    def check(self, cohort: Cohort) -> None:
        """Raise `UnknownNameError`, with close matches, if the template names an attribute the cohort has not."""
        for name in self.attribute_names:
            if name not in cohort.attribute_names:
                raise UnknownNameError("attribute", name, cohort.attribute_names)

    def _choice(self, key: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[:8], "big") % len(self.texts)

    def _words(self, text: str, name: str, value: Value, spec: str) -> str:
        if spec:
            try:
                return format(value, spec)
            except ValueError as error:
                raise DataError(
                    f"The prompt {text!r} cannot write {name!r} = {value!r} as {spec!r}: {error}."
                ) from error
        if name in VERBATIM:
            return str(value)
        if name in ("sex", "gender") and str(value) in SEXES:
            return SEXES[str(value)]
        return value_words(value, self.abbreviations)


def value_words(value: Value, abbreviations: Mapping[str, str] = ABBREVIATIONS) -> str:
    """Return a value as words of a prompt.

    >>> value_words("VeryMildDemented"), value_words("CN"), value_words(74.0), value_words("Effusion|No_Mass")
    ('very mild demented', 'cognitively normal', '74', 'effusion and no mass')
    """
    if not isinstance(value, str):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    return " and ".join(_part_words(part.strip(), abbreviations) for part in value.split("|") if part.strip())


def default_template(cohort: Cohort) -> PromptTemplate:
    """Return a plain template over the cohort's attributes, such as "a medical image, {stage}, age {age}".

    A column of finished captions (caption, text, prompt) is used as it is. Columns with missing values, and of text
    that is different almost everywhere (names, paths), are left out.
    """
    names = []
    for name in cohort.attribute_names:
        values = {record.attributes.get(name) for record in cohort}
        if None in values:
            continue
        if name in VERBATIM:
            return PromptTemplate(f"{{{name}}}")
        if all(isinstance(value, str) for value in values) and len(values) > max(MOST_WORDS, len(cohort) / 2):
            continue
        if name.isidentifier():
            names.append(name)
    places = [f"{{{name}}}" if name.lower() in BARE else f"{name.replace('_', ' ')} {{{name}}}" for name in names]
    return PromptTemplate(", ".join(["a medical image", *places]))


def check_caption_length(captions: str | Iterable[str], tokenizer: Any) -> None:
    """Raise `DataError` for the first caption that a tokenizer of transformers would cut off.

    Text beyond `tokenizer.model_max_length` is dropped silently in training, and with it attributes at the end.
    """
    limit = tokenizer.model_max_length
    for caption in dict.fromkeys([captions] if isinstance(captions, str) else captions):
        count = len(tokenizer(caption, truncation=False, verbose=False).input_ids)
        if count > limit:
            raise DataError(
                f"The caption {caption!r} is {count} tokens long, and the text encoder takes {limit}. "
                "Shorten the template or name fewer attributes."
            )


def _places(text: str) -> list[str]:
    try:
        found = [(name, conversion) for _, name, _, conversion in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ConfigurationError(
            f"The prompt template {text!r} is malformed: {error}. Write a brace as {{{{."
        ) from error
    for name, conversion in found:
        if not name.isidentifier() or conversion:
            raise ConfigurationError(
                f"The prompt template {text!r} has the place {name!r}; write {{age}}, {{stage}} ..."
            )
    return [name for name, _ in found]


def _part_words(text: str, abbreviations: Mapping[str, str]) -> str:
    if text in abbreviations:
        return abbreviations[text]
    words = re.split(r"[_\s]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", text)
    return " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words if word)
