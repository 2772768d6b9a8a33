"""Concepts: tokens of their own for the values of an attribute, against what diffusers and transformers do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.data import Cohort, ImageTransform, PromptTemplate, Record
from latentdrift.data.records import Value
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError
from latentdrift.finetune import TrainingConfig
from latentdrift.finetune.concepts import (
    Concept,
    ConceptConfig,
    ConceptEmbedding,
    add_concepts,
    check_concepts,
    initial_rows,
    merge_concepts,
    with_placeholders,
    write_concepts,
)
from latentdrift.finetune.methods.custom_diffusion import CustomDiffusion, CustomDiffusionConfig
from latentdrift.finetune.methods.textual_inversion import TextualInversion, TextualInversionConfig
from latentdrift.finetune.sets import SetMaker
from latentdrift.models import encode_prompts, load_pipeline, tokenize_prompts
from latentdrift.models.adapter_files import text_towers
from latentdrift.models.text import TextEncoders, expanded

MILD, NON = "<stage-mild-demented>", "<stage-non-demented>"


def cohort_of(*values: Value, name: str = "stage", label: str | None = None) -> Cohort:
    """Records without files, one a value."""
    records = [Record(Path(f"{i}.png"), attributes={name: value}) for i, value in enumerate(values)]
    return Cohort(records, Path(), "toy", label)


def concepts_of(*places: str, vectors: int = 1, initializer: str = "b") -> tuple[Concept, ...]:
    return tuple(
        Concept(place, place, (place, *(f"{place}_{i}" for i in range(1, vectors))), initializer) for place in places
    )


def learned(pipeline: Any, concepts: Sequence[Concept]) -> list[ConceptEmbedding]:
    """Add concepts, and give their rows values as if they had been learned."""
    made = add_concepts(pipeline, concepts)
    for number, embedding in enumerate(made):
        noise = torch.randn(embedding.rows.shape, generator=torch.Generator().manual_seed(number))
        embedding.rows.data.copy_(noise)
    return made


# The values of an attribute as concepts.


def test_every_value_is_a_concept() -> None:
    found = ConceptConfig(vectors=3).find(cohort_of("NonDemented", "MildDemented", "NonDemented"))
    assert found == (
        Concept("MildDemented", MILD, (MILD, f"{MILD}_1", f"{MILD}_2"), "mild demented"),
        Concept("NonDemented", NON, (NON, f"{NON}_1", f"{NON}_2"), "non demented"),
    )
    own = ConceptConfig(initializer="brain", placeholder="<My-{value}>").find(cohort_of("CN", "AD"))
    assert [(c.placeholder, c.tokens, c.initializer) for c in own] == [
        ("<my-alzheimer-s-disease>", ("<my-alzheimer-s-disease>",), "brain"),
        ("<my-cognitively-normal>", ("<my-cognitively-normal>",), "brain"),
    ]


def test_several_findings_in_a_cell_are_concepts_each() -> None:
    cohort = cohort_of("Effusion|Mass", "Mass", "No Finding", name="findings", label="findings")
    concepts = ConceptConfig().find(cohort)
    assert [concept.value for concept in concepts] == ["Effusion", "Mass", "No Finding"]
    captions = with_placeholders(PromptTemplate("a {findings} x"), "findings", concepts).captions(cohort)
    assert captions[0] == "a <findings-effusion> and <findings-mass> x"
    assert captions[2] == "a <findings-no-finding> x"


def test_numbers_may_be_concepts() -> None:
    cohort = cohort_of(3.0, 1.5, name="field")
    concepts = ConceptConfig(concepts="field").find(cohort)
    captions = with_placeholders(PromptTemplate("at {field} tesla"), "field", concepts).captions(cohort)
    assert captions == ["at <field-3> tesla", "at <field-1-5> tesla"]
    check_concepts(concepts, "field", cohort, "the training part")


@pytest.mark.parametrize(
    ("cohort", "settings", "error", "says"),
    [
        (cohort_of(*(f"site {i}" for i in range(51)), label="stage"), {}, ConfigurationError, "51 values, too many"),
        (cohort_of("No Finding", "no_finding"), {}, ConfigurationError, "would both be '<stage-no-finding>'"),
        (cohort_of("a", "b"), {"concepts": "stge"}, UnknownNameError, "Did you mean 'stage'"),
        (cohort_of(1, 2), {}, ConfigurationError, r"say with --concepts .*it has: stage"),
    ],
)
def test_values_that_cannot_be_concepts(
    cohort: Cohort, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ConceptConfig(**settings).find(cohort)


def test_an_image_without_a_value_is_named() -> None:
    cohort = Cohort([*cohort_of("CN", "AD"), Record(Path("none.png"))], Path(), "toy")
    with pytest.raises(DataError, match=r"1 of 3 images have no 'stage', first none\.png"):
        ConceptConfig(concepts="stage").find(cohort)


def test_captions_say_the_placeholders(toy_cohort: Path) -> None:
    cohort = Cohort.open(toy_cohort)
    method = TextualInversion(TextualInversionConfig())
    captions = method.wording(PromptTemplate("a {stage} x[, {age}]"), cohort).captions(cohort)
    assert captions[:3] == [f"a {MILD} x, 60", f"a {MILD} x, 60", f"a {NON} x, 61"]
    plain = PromptTemplate("a {stage} x")
    without = CustomDiffusion(CustomDiffusionConfig(modifier_tokens=False))
    assert without.wording(plain, cohort) is plain
    assert not without.learns_words
    assert CustomDiffusion(CustomDiffusionConfig()).learns_words


def test_words_of_other_attributes_stay(toy_cohort: Path) -> None:
    from latentdrift.data.prompts.words import Term

    plain = PromptTemplate(
        ["a {stage} {view}", "{view} {stage}"],
        7,
        words={"view": {"PA": Term(("back",))}, "stage": {"CN": Term(("x",))}},
    )
    made = with_placeholders(plain, "stage", ConceptConfig().find(cohort_of("CN", "AD")))
    assert (made.texts, made.seed) == (plain.texts, plain.seed)
    assert made.caption({"stage": "CN", "view": "PA"}) == "a <stage-cognitively-normal> back"
    # What is stored with the model says the same.
    again = PromptTemplate.restore(made.stored())
    assert again.caption({"stage": "AD", "view": "PA"}) == "a <stage-alzheimer-s-disease> back"


@pytest.mark.parametrize("template", [PromptTemplate("a slice"), PromptTemplate("{age}")])
def test_a_template_without_the_attribute(toy_cohort: Path, template: PromptTemplate) -> None:
    for method in (TextualInversion(TextualInversionConfig()), CustomDiffusion(CustomDiffusionConfig())):
        with pytest.raises(ConfigurationError, match=r"does not say 'stage'.*Put {stage} into --template"):
            method.wording(template, Cohort.open(toy_cohort))


@pytest.mark.parametrize(
    ("name", "value", "template", "remedy"),
    [
        ("age", 70, "{age:years} old", "--concepts, or write {age} there"),
        ("age", 70, "a {age:03d} x", "--concepts, or write {age} there"),
        ("sex", "F", "a {sex} x", "Name another attribute with --concepts"),
        ("caption", "a brain", "{caption}", "Name another attribute with --concepts"),
    ],
)
def test_a_template_that_writes_values_by_a_rule(name: str, value: Value, template: str, remedy: str) -> None:
    """Else captions would never say the token, and nothing would be learned."""
    concepts = ConceptConfig(concepts=name).find(cohort_of(value, name=name))
    with pytest.raises(ConfigurationError, match=f"leaves no place for .*{remedy}"):
        with_placeholders(PromptTemplate(["{" + name + "}" if name == "age" else "x", template]), name, concepts)


def test_every_way_to_name_a_class_says_the_token() -> None:
    cohort = cohort_of("CN", "AD")
    prompts = PromptTemplate(["a(n) {stage} x", "x with {stage:noun}[, {stage}]"])
    made = with_placeholders(prompts, "stage", ConceptConfig().find(cohort))
    for key in "abcdefgh":
        assert "<stage-cognitively-normal>" in made.caption({"stage": "CN"}, key)


@pytest.mark.parametrize(
    "method",
    [TextualInversion(TextualInversionConfig()), CustomDiffusion(CustomDiffusionConfig(prior_weight=0.0))],
    ids=lambda method: type(method).__name__,
)
def test_a_class_without_an_image_to_learn_from(method: Any, toy_cohort: Path, toy_model: Path, latents: Path) -> None:
    cohort = Cohort.open(toy_cohort)
    prompts = method.wording(PromptTemplate("a {stage} x"), cohort)
    pipeline = method.adapt(load_pipeline(toy_model))
    make = SetMaker(pipeline, ImageTransform(size=32), prompts, latents, TrainingConfig())
    part = cohort.where(stage="NonDemented")
    with pytest.raises(DataError, match=r"No image of the training part has stage = 'MildDemented'.*demented>"):
        method.training_set(part, make)
    # To validate with, one class will do.
    assert len(method.validation_set(part, make)) == len(part)


# Their tokens in tokenizer and text encoder.


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
def test_several_vectors_are_written_out_as_diffusers_does(model: str, request: pytest.FixtureRequest) -> None:
    pipeline = load_pipeline(request.getfixturevalue(model))
    add_concepts(pipeline, [*concepts_of("<a>", vectors=3), *concepts_of("<b>")])
    prompts = ["x <a> y <b>", "<b>", "a b", ""]
    assert expanded(pipeline, prompts) == ["x <a> <a>_1 <a>_2 y <b>", "<b>", "a b", ""]
    assert expanded(pipeline, prompts) == pipeline.maybe_convert_prompt(prompts, pipeline.tokenizer)
    tokens = tokenize_prompts(pipeline, prompts)
    for (tokenizer, _), ids in zip(text_towers(pipeline), tokens.ids, strict=True):
        new = tokenizer.convert_tokens_to_ids(["<a>", "<a>_1", "<a>_2", "<b>"])
        assert new == list(range(len(tokenizer) - 4, len(tokenizer)))
        assert [i for i in ids[0].tolist() if i >= new[0]] == new
        assert [i for i in ids[1].tolist() if i >= new[0]] == [new[3]]
        assert (ids[2:] < new[0]).all()
    found = encode_prompts(pipeline, prompts).hidden
    arguments = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    for prompt, own in zip(prompts[:3], found, strict=False):
        assert torch.allclose(pipeline.encode_prompt(prompt, **arguments)[0][0], own, atol=1e-5)


def test_vectors_count_in_a_caption_s_length(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    add_concepts(pipeline, concepts_of("<a>", vectors=80))
    with pytest.raises(DataError, match="82 tokens long, and the text encoder takes 77"):
        tokenize_prompts(pipeline, ["<a>"])


@pytest.mark.parametrize("taken", ["<a>", "b"])
def test_a_token_that_is_there_already(toy_model: Path, taken: str) -> None:
    pipeline = load_pipeline(toy_model)
    add_concepts(pipeline, concepts_of("<a>"))
    with pytest.raises(ConfigurationError, match=f"has a token '{taken}' already.*--placeholder"):
        add_concepts(pipeline, concepts_of("<c>", taken))
    assert "<c>" not in pipeline.tokenizer.get_vocab()


def test_a_tokenizer_larger_than_its_text_encoder(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    pipeline.tokenizer.add_tokens(["<odd>"])
    with pytest.raises(ConfigurationError, match="has 515 tokens, but its text encoder only 514"):
        add_concepts(pipeline, concepts_of("<a>"))


def test_rows_beyond_the_tokenizer_s_tokens_are_not_taken_for_concepts(toy_model: Path) -> None:
    """Matrices padded to a round number of rows, as some models' are."""
    pipeline = load_pipeline(toy_model)
    pipeline.text_encoder.resize_token_embeddings(520, mean_resizing=False)
    (own,) = learned(pipeline, concepts_of("<a>"))
    assert pipeline.tokenizer.convert_tokens_to_ids("<a>") == 520
    ids = torch.tensor([[520, 3]])
    embedding = pipeline.text_encoder.get_input_embeddings()
    assert torch.equal(embedding(ids)[0], torch.stack([own.rows[0], own.base.weight[3]]))


def test_rows_begin_with_the_initializer(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    embedding = pipeline.text_encoder.get_input_embeddings()
    a, b, c = embedding.weight.detach()[pipeline.tokenizer("abc", add_special_tokens=False).input_ids]

    def rows(vectors: int, words: str) -> torch.Tensor:
        return initial_rows(pipeline.tokenizer, embedding, concepts_of("<x>", vectors=vectors, initializer=words)[0])

    assert torch.allclose(rows(1, "abc"), torch.stack([a, b, c]).mean(0, keepdim=True))
    assert torch.equal(rows(3, "abc"), torch.stack([a, b, c]))
    assert torch.equal(rows(2, "abc"), torch.stack([a, b]))
    assert torch.equal(rows(5, "abc"), torch.stack([a, b, c, a, b]))
    with pytest.raises(ConfigurationError, match="initializer ' ' of <x> has no token"):
        rows(1, " ")
    made = add_concepts(pipeline, concepts_of("<x>", "<y>", vectors=2, initializer="abc"))
    assert torch.equal(made[0].rows, torch.stack([a, b, a, b]))


def test_an_embedding_with_own_rows_is_a_larger_matrix_bit_for_bit() -> None:
    torch.manual_seed(0)
    base, rows = torch.nn.Embedding(7, 4), torch.randn(3, 4)
    own = ConceptEmbedding(base.requires_grad_(False), rows)
    whole = torch.nn.Embedding.from_pretrained(torch.cat([base.weight, rows]), freeze=False)
    ids = torch.tensor([[0, 9, 6, 7], [8, 8, 3, 7]])
    assert torch.equal(own(ids), whole(ids))
    assert torch.equal(own.weight, whole.weight)
    target = torch.randn(2, 4, 4)
    for embedding in (own, whole):
        (embedding(ids) - target).pow(2).sum().backward()
    assert whole.weight.grad is not None
    assert own.rows.grad is not None
    assert torch.allclose(own.rows.grad, whole.weight.grad[7:])
    assert base.weight.grad is None
    assert own.rows.data_ptr() != rows.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_own_rows_beside_a_matrix_in_half_precision(dtype: torch.dtype) -> None:
    own = ConceptEmbedding(torch.nn.Embedding(3, 4, dtype=dtype), torch.ones(1, 4))
    assert own(torch.tensor([3, 0])).dtype == own.weight.dtype == dtype
    assert own.rows.dtype == torch.float32


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
def test_states_are_those_of_a_resized_model_and_merging_makes_it(model: str, request: pytest.FixtureRequest) -> None:
    ours, theirs = (load_pipeline(request.getfixturevalue(model)) for _ in range(2))
    concepts = concepts_of("<a>", "<b>", vectors=2)
    made = learned(ours, concepts)
    assert len(made) == len(text_towers(ours)) == (2 if "xl" in model else 1)
    for (tokenizer, encoder), embedding in zip(text_towers(theirs), made, strict=True):
        tokenizer.add_tokens(["<a>", "<a>_1", "<b>", "<b>_1"])
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        encoder.get_input_embeddings().weight.data[-4:] = embedding.rows.detach()
    prompts = ["x <a>", "<b> <a>", "a"]
    before, expected = encode_prompts(ours, prompts), encode_prompts(theirs, prompts)
    assert torch.equal(before.hidden, expected.hidden)
    if expected.pooled is not None:
        assert torch.equal(before.pooled, expected.pooled)
    merge_concepts(ours, made)
    assert torch.equal(encode_prompts(ours, prompts).hidden, expected.hidden)
    for (_, encoder), (_, other) in zip(text_towers(ours), text_towers(theirs), strict=True):
        assert type(encoder.get_input_embeddings()) is torch.nn.Embedding
        assert encoder.config.vocab_size == other.config.vocab_size == len(ours.tokenizer)
        assert torch.equal(encoder.get_input_embeddings().weight, other.get_input_embeddings().weight)
        assert encoder.state_dict().keys() == other.state_dict().keys()


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
def test_only_the_rows_of_concepts_in_the_captions_move(model: str, request: pytest.FixtureRequest) -> None:
    pipeline = load_pipeline(request.getfixturevalue(model))
    method = TextualInversion(TextualInversionConfig(concepts="stage", initializer="b"))
    method.wording(PromptTemplate("a {stage} x"), cohort_of("NonDemented", "MildDemented"))
    module = method.prepare(method.adapt(pipeline))
    trained = dict(module.trained())
    assert sorted(value.shape for value in trained.values()) == [(2, 16)] * len(method.embeddings)
    assert all(name.startswith("text.encoders.") and name.endswith(".rows") for name in trained)
    assert module.text is not None
    states = module.text(tokenize_prompts(pipeline, [f"a {NON} x"]))
    (states.hidden.sum() + (0 if states.pooled is None else states.pooled.square().sum())).backward()
    for embedding in method.embeddings:
        assert embedding.rows.grad is not None
        assert not embedding.rows.grad[0].any()
        assert embedding.rows.grad[1].any()


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
def test_written_rows_are_read_by_diffusers(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    ours, theirs = (load_pipeline(request.getfixturevalue(model)) for _ in range(2))
    concepts = (*concepts_of("<a>", vectors=2), *concepts_of("<b>"))
    made = learned(ours, concepts)
    write_concepts(made, concepts, tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["learned_embeds.safetensors", "learned_embeds_2.safetensors"][: len(made)]
    for (tokenizer, encoder), file in zip(text_towers(theirs), files, strict=True):
        state = load_file(tmp_path / file)
        assert {place: tuple(value.shape) for place, value in state.items()} == {"<a>": (2, 16), "<b>": (1, 16)}
        for place in ("<a>", "<b>"):
            theirs.load_textual_inversion({place: state[place]}, token=place, tokenizer=tokenizer, text_encoder=encoder)
    prompts = ["x <a> <b>", "<b>"]
    found = [TextEncoders(pipeline)(tokenize_prompts(pipeline, prompts)) for pipeline in (ours, theirs)]
    assert torch.allclose(found[0].hidden, found[1].hidden, atol=1e-6)
