"""Named prompt sets, and whatever a user may call a template: a text, a set's name, a file, or what a card stores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data.captions import PromptTemplate
from latentdrift.data.prompts.ages import AgeSpec, check_style, with_style
from latentdrift.data.prompts.documents import SUFFIXES
from latentdrift.data.prompts.files import CLASS, MODALITIES, TemplateFile, read_template_file, shipped
from latentdrift.data.prompts.grammar import Part, Place, parse, replace_places, unparse, without_optional
from latentdrift.data.prompts.words import Vocabulary, split_value
from latentdrift.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.data.cohort import Cohort

PATIENT = "patient"
PROMPT_SETS = ("simple", "diverse", f"simple+{PATIENT}", f"diverse+{PATIENT}")
"""One wording or 21 a class, without or with age and sex (and the diagnosis, where another attribute is the class)."""

_NAME = re.compile(r"(?:([\w-]+):)?([\w-]+(?:\+[\w-]+)*)")


def prompt_set(
    name: str,
    modality: str = "mri",
    attribute: str | Sequence[str] | None = None,
    *,
    age: str = "number",
    seed: int = 0,
) -> PromptTemplate:
    """Return one of `PROMPT_SETS`.

    Age and sex are mentioned where a sample has them. A wording names the same class in the same words for every
    sample, so that there are exactly 21 captions a class without the patient's age and sex.

    Args:
        name: the set.
        modality: "mri" of the brain, or "xray" of the chest.
        attribute: the attribute that is the class, or several; "diagnosis" and "findings" where None.
        age: "number", "words", "decade", or "bin" with its years, such as "bin5" ("bin" is of ten).
        seed: decides which sample gets which wording.

    Raises:
        UnknownNameError: no such set or modality.
        ConfigurationError: no such age style, or an attribute's name that cannot stand in a template.
    """
    if name not in PROMPT_SETS:
        raise UnknownNameError("prompt set", name, PROMPT_SETS)
    file = shipped(modality)
    wordings = file.wordings if name.startswith("diverse") else file.wordings[:1]
    file = TemplateFile(wordings, {}, file.words, file.instructions, file.attribute)
    return from_file(file, attribute, patient=name.endswith(PATIENT), age=age, seed=seed)


def as_template(
    template: str | Path | Mapping[str, Any] | PromptTemplate,
    cohort: Cohort | None = None,
    *,
    modality: str | None = None,
    attribute: str | Sequence[str] | None = None,
    age: str = "number",
    seed: int = 0,
) -> PromptTemplate:
    """Return the template that a text, a name, a file or a stored description stands for.

    A name is one of `PROMPT_SETS`, with the modality before it and the age style after it where wanted:
    "diverse+patient", "xray:simple", "mri:diverse+patient+words".

    Args:
        template: such a name; a template such as "an MRI of a(n) {stage} brain"; a file (see `files`); or what
            `PromptTemplate.stored` returned.
        cohort: tells the class attribute and the modality where they are not given.
        modality: of a named set.
        attribute: the class of a named set or file.
        age: how ages are written where the template leaves it open.
        seed: decides which sample gets which wording.

    Raises:
        ConfigurationError, UnknownNameError: no template, set, modality or file; or the modality is not to be told.
    """
    if isinstance(template, PromptTemplate):
        return template
    if isinstance(template, Mapping):
        return PromptTemplate.restore(template)
    if isinstance(template, Path) or ("{" not in template and template.lower().endswith(SUFFIXES)):
        file = read_template_file(template)
        chosen = attribute or file.attribute or (cohort.class_attribute() if cohort is not None else None)
        return from_file(file, chosen, age=age, seed=seed)
    found = _NAME.fullmatch(template.strip())
    if found is None:
        return PromptTemplate(template, seed)
    parts = found[2].split("+")
    styles = [part for part in parts[1:] if part != PATIENT]
    name = "+".join(part for part in parts if part not in styles)
    unknown = [style for style in styles if _is_no_style(style)]
    if name not in PROMPT_SETS or unknown or len(styles) > 1:
        raise UnknownNameError(
            "prompt set", template, [*PROMPT_SETS, *(f"{m}:{s}" for m in MODALITIES for s in PROMPT_SETS)]
        )
    if attribute is None and cohort is not None:
        attribute = cohort.class_attribute()
    chosen_modality = found[1] or modality or _modality_of(cohort, attribute, template)
    return prompt_set(name, chosen_modality, attribute, age=(styles or [age])[0], seed=seed)


def from_file(
    file: TemplateFile,
    attribute: str | Sequence[str] | None = None,
    *,
    patient: bool = True,
    age: str = "number",
    seed: int = 0,
) -> PromptTemplate:
    """Return the template of a file's wordings.

    Args:
        file: what was read.
        attribute: the class, or several attributes that are; the file's own where None.
        patient: keep the optional parts.
        age: how ages are written where a wording leaves it open (`{age:years}`).
        seed: decides which sample gets which wording.

    Raises:
        ConfigurationError: an attribute or age style that cannot be, or a file without wordings.
    """
    check_style(age)
    names = (
        [attribute] if isinstance(attribute, str) else list(attribute or ([file.attribute] if file.attribute else []))
    )
    for name in names:
        if not name.isidentifier():
            raise ConfigurationError(f"The attribute {name!r} cannot stand in a template. Rename the column.")
    if not file.wordings and not file.class_wordings:
        raise ConfigurationError("The template file holds no wordings. Add some, or extend mri or xray.")

    def made(text: str) -> str:
        parts = parse(text) if patient else without_optional(parse(text))
        parts = replace_places(parts, lambda place: _placed(place, names, age))
        if patient and "diagnosis" not in names and file.attribute == "diagnosis" and names:
            parts = (*parts, *parse("[, diagnosis {diagnosis}]"))
        return unparse(parts)

    terms = file.words.get(CLASS, {})
    words = {name: {**terms, **file.words.get(name.lower(), {})} for name in names or [CLASS]}
    if "diagnosis" not in words and file.attribute == "diagnosis":
        words["diagnosis"] = dict(terms)
    for name, own in file.words.items():
        if name not in (CLASS, *words):
            words[name] = dict(own)
    return PromptTemplate(
        [made(text) for text in file.wordings],
        seed,
        words=words,
        class_texts={name: [made(text) for text in texts] for name, texts in file.class_wordings.items()},
        attribute=(names or [CLASS])[0],
    )


def _placed(place: Place, names: Sequence[str], age: str) -> Sequence[Part]:
    if place.name == CLASS and names:
        parts: list[Part] = []
        for number, name in enumerate(names):
            parts += [*([" and " if number == len(names) - 1 else ", "] if number else []), Place(name, place.spec)]
        return parts
    return [Place(place.name, with_style(place.spec, age))]


def _is_no_style(text: str) -> bool:
    found = AgeSpec.parse(text)
    return found is None or bool(found.form)


def _modality_of(cohort: Cohort | None, attribute: str | Sequence[str] | None, template: str) -> str:
    """Return the modality whose vocabulary knows most of the cohort's classes."""
    names = [attribute] if isinstance(attribute, str) else list(attribute or ())
    values = {
        part
        for record in cohort or ()
        for name in names
        if name in record.attributes
        for part in split_value(record.attributes[name])
    }
    known = {m: Vocabulary(shipped(m).words[CLASS]) for m in MODALITIES}
    counts = {m: sum(words.find(value) is not None for value in values) for m, words in known.items()}
    best = max(counts, key=lambda m: counts[m])
    if list(counts.values()).count(counts[best]) > 1:
        options = " or ".join(f"{m}:{template}" for m in MODALITIES)
        raise ConfigurationError(f"The classes do not tell what the images are: write {options} for the prompt set.")
    return best
