"""Attributes to prompts: templates with `{name}` places, and class names as words."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentdrift.data.prompts.ages import AgeSpec
from latentdrift.data.prompts.grammar import MissingValueError, Place, parse, places, render
from latentdrift.data.prompts.words import (
    ABBREVIATIONS,
    BARE,
    PERSONS,
    SEX_NAMES,
    SEXES,
    VERBATIM,
    Term,
    Vocabulary,
    sex_words,
    value_words,
)
from latentdrift.data.records import Record, Value
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.data.cohort import Cohort

__all__ = [
    "ABBREVIATIONS",
    "BARE",
    "SEXES",
    "VERBATIM",
    "PromptTemplate",
    "check_caption_length",
    "default_template",
    "value_words",
]

MOST_WORDS = 50
BOOKKEEPING = ("days", "official_split", "cdr")
"""Attributes that sources bring for splits and pairs; nobody would write them into a caption."""


class PromptTemplate:
    """One wording or several. Of several, each sample always gets the same one, whatever the batch or the step.

    A text holds values in braces, how they are written after a colon, optional parts in brackets, and `a(n)`:
    "an MRI of a(n) {stage} brain[, {age:years}]". `latentdrift.data.prompts.grammar` and `.ages` describe them all.

    Args:
        texts: a template, or a list of them.
        seed: decides which sample gets which wording.
        abbreviations: codes to write out where `words` does not know a value; `ABBREVIATIONS` where None, nothing for
            {}.
        words: by attribute and value, how a class is named.
        class_texts: templates of their own for some classes, by the class's name.
        attribute: the attribute that is the class, for `class_texts`.

    Attributes:
        attribute_names: every attribute that a text names.
        required_names: those that stand outside optional parts.

    Raises:
        ConfigurationError: no template, or one whose braces or brackets are wrong.
    """

    def __init__(
        self,
        texts: str | Sequence[str],
        seed: int = 0,
        *,
        abbreviations: Mapping[str, str] | None = None,
        words: Mapping[str, Mapping[str, Term]] | None = None,
        class_texts: Mapping[str, Sequence[str]] | None = None,
        attribute: str | None = None,
    ) -> None:
        self.texts = (texts,) if isinstance(texts, str) else tuple(texts)
        self.seed = seed
        self.abbreviations = ABBREVIATIONS if abbreviations is None else dict(abbreviations)
        self.vocabularies = {name: Vocabulary(terms) for name, terms in (words or {}).items()}
        self.class_texts = {name: tuple(own) for name, own in (class_texts or {}).items()}
        self.attribute = attribute
        if not self.texts and not self.class_texts:
            raise ConfigurationError("A prompt template needs at least one text.")
        if self.class_texts and (attribute is None or not all(self.class_texts.values())):
            raise ConfigurationError("A prompt template with texts a class needs the class's attribute and the texts.")
        every = dict.fromkeys([*self.texts, *(text for own in self.class_texts.values() for text in own)])
        self._parts = {text: parse(text) for text in every}
        own = [attribute] if self.class_texts and attribute else []
        self.attribute_names = _names(own, [places(parts) for parts in self._parts.values()])
        self.required_names = _names(own, [places(parts, optional=False) for parts in self._parts.values()])

    def __repr__(self) -> str:
        if self.class_texts:
            return f"PromptTemplate({list(self.texts)!r}, texts for {', '.join(self.class_texts)})"
        return f"PromptTemplate({self.texts[0]!r})" if len(self.texts) == 1 else f"PromptTemplate({list(self.texts)!r})"

    def caption(self, attributes: Mapping[str, Value] | Record, key: str | None = None) -> str:
        """Return the prompt.

        Args:
            attributes: values by name, or a record.
            key: the sample's name, which decides the wording; a record brings its own. Without one, the first wording.

        Raises:
            DataError: an attribute is missing outside the optional parts, or cannot be written as the template says.
        """
        if isinstance(attributes, Record):
            key = attributes.key if key is None else key
            attributes = attributes.attributes
        texts = self._texts(attributes)
        wording = 0 if key is None or len(texts) == 1 else self._choice(key, len(texts))
        text, known = texts[wording], attributes

        def write(place: Place, optional: bool) -> str:
            value = known.get(place.name)
            if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                if optional:
                    raise MissingValueError
                have = ", ".join(known) or "none"
                sample = f" of {key}" if key else ""
                raise DataError(
                    f"The prompt {text!r} needs {place.name!r}, which the attributes{sample} lack ({have})."
                )
            return self._words(text, place, value, wording, optional)

        return render(self._parts[text], write)

    def captions(self, cohort: Iterable[Record]) -> list[str]:
        """Return the prompt of every record, in order."""
        return [self.caption(record) for record in cohort]

    def check(self, cohort: Cohort) -> None:
        """Raise `UnknownNameError`, with close matches, if the template needs an attribute the cohort has not."""
        for name in self.required_names:
            if name not in cohort.attribute_names:
                raise UnknownNameError("attribute", name, cohort.attribute_names)

    def stored(self) -> str | dict[str, Any]:
        """Return what `restore` makes the template again of, for JSON: the text itself where that is all there is."""
        abbreviations = None if self.abbreviations == ABBREVIATIONS else dict(self.abbreviations)
        if len(self.texts) == 1 and not self.vocabularies and not self.class_texts and abbreviations is None:
            return self.texts[0]
        return {
            "texts": list(self.texts),
            "seed": self.seed,
            "abbreviations": abbreviations,
            "words": {
                name: {code: dataclasses.asdict(term) for code, term in vocabulary.terms.items()}
                for name, vocabulary in self.vocabularies.items()
            },
            "class_texts": {name: list(own) for name, own in self.class_texts.items()},
            "attribute": self.attribute,
        }

    @classmethod
    def restore(cls, stored: str | Mapping[str, Any]) -> PromptTemplate:
        """Return the template that `stored` described.

        Raises:
            ConfigurationError: something else.
        """
        if isinstance(stored, str):
            return cls(stored)
        try:
            words = {
                name: {
                    code: Term(tuple(term["words"]), term.get("noun"), bool(term.get("nothing")))
                    for code, term in terms.items()
                }
                for name, terms in stored.get("words", {}).items()
            }
            return cls(
                list(stored["texts"]),
                int(stored.get("seed", 0)),
                abbreviations=stored.get("abbreviations"),
                words=words,
                class_texts=stored.get("class_texts"),
                attribute=stored.get("attribute"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"A stored prompt template is damaged ({type(error).__name__}: {error}). Restore the file it stands in."
            ) from error

    def _texts(self, attributes: Mapping[str, Value]) -> tuple[str, ...]:
        if not self.class_texts or self.attribute is None:
            return self.texts
        value = attributes.get(self.attribute)
        texts = self.class_texts.get(str(value), self.texts)
        if not texts:
            known = ", ".join(self.class_texts)
            raise DataError(f"The prompt template has no text for {self.attribute} = {value!r} (it has: {known}).")
        return texts

    def _choice(self, key: str, count: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[:8], "big") % count

    def _words(self, text: str, place: Place, value: Value, wording: int, optional: bool) -> str:
        name, spec = place.name, place.spec
        sex = sex_words(value) if name in SEX_NAMES else None
        if name in SEX_NAMES and sex is None and optional:
            raise MissingValueError  # "unknown" and the like say nothing that a picture could show
        age = AgeSpec.parse(spec) if spec else None
        if age is not None:
            try:
                return age.write(value)
            except DataError as error:
                raise DataError(f"The prompt {text!r} cannot write {name!r}. {error}") from error
        if spec == "person" and sex is not None:
            return PERSONS[sex]
        if spec and spec != "noun":
            try:
                return format(value, spec)
            except ValueError as error:
                raise DataError(
                    f"The prompt {text!r} cannot write {name!r} = {value!r} as {spec!r}: {error}."
                ) from error
        if name in VERBATIM:
            return str(value)
        if sex is not None:
            return sex
        vocabulary = self.vocabularies.get(name)
        if vocabulary is None:
            return value_words(value, self.abbreviations)
        return vocabulary.words(value, wording, self.abbreviations, noun=spec == "noun")


def default_template(cohort: Cohort) -> PromptTemplate:
    """Return a plain template over the cohort's attributes, such as "a medical image, {stage}, age {age}".

    A column of finished captions (caption, text, prompt) is used as it is. Columns with missing values, and of text
    that is different almost everywhere (names, paths), are left out.
    """
    names = []
    for name in cohort.attribute_names:
        values = {record.attributes.get(name) for record in cohort}
        if None in values or name in BOOKKEEPING:
            continue
        if name in VERBATIM:
            return PromptTemplate(f"{{{name}}}")
        if all(isinstance(value, str) for value in values) and len(values) > max(MOST_WORDS, len(cohort) / 2):
            continue
        if name.isidentifier():
            names.append(name)
    phrases = [f"{{{name}}}" if name.lower() in BARE else f"{name.replace('_', ' ')} {{{name}}}" for name in names]
    return PromptTemplate(", ".join(["a medical image", *phrases]))


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


def _names(first: Sequence[str], found: Sequence[Iterable[Place]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *(place.name for some in found for place in some)]))
