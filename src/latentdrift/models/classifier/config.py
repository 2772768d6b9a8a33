"""Settings of a classifier's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.models.classifier.views import Views

ROLES = ("guide", "judge")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """What a classifier tells apart, and how it is trained."""

    attribute: str
    """The attribute whose values are told apart, such as stage."""
    classes: tuple[str, ...] = ()
    """Values to tell apart, in this order, at least two; images with others are left out. All values by default."""
    contains: bool = False
    """A value lists several findings, such as Pneumonia|Effusion: an image is of the class whose word is among them.
    Images with none or several of the words are left out."""
    separator: str = "|"
    """What stands between the findings of a value, with contains."""
    bins: tuple[float, ...] = ()
    """Of a numeric attribute: where a class ends and the next begins; 65 75 makes under 65, 65 to 75, 75 and over."""
    role: Literal["guide", "judge"] = "guide"
    """guide searches and steers, judge scores. Under one seed the two share no subject and no image."""
    network: str = "small"
    """small, from nothing; efficientnet-lite0, from ImageNet's weights, which are installed; timm:NAME,
    torchvision:NAME, monai:NAME or torchxrayvision:NAME, such as timm:resnet18."""
    pretrained: bool = False
    """Begin with the network's published weights; its library downloads them."""
    size: int = 128
    """Side in pixels of what the network sees."""
    epochs: int = 24
    """Most passes over as many images as there are."""
    patience: int = 6
    """Stop after this many passes without a better validation loss."""
    batch_size: int = 32
    """Images at once."""
    learning_rate: float = 5e-4
    """Of AdamW, at its highest; it rises for a twentieth of the steps and falls along a cosine to 0."""
    weight_decay: float = 0.02
    """Of AdamW."""
    validation: float = 0.15
    """Share of the role's subjects that stop the training and calibrate, and are not trained on."""
    views: Views = field(default_factory=Views)
    seed: int = 0
    """Decides who is in which role, and the training."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UnknownNameError("role of a classifier", self.role, ROLES)
        if not self.attribute or not self.network:
            raise ConfigurationError("A classifier needs an attribute and a network: give both names.")
        if self.contains and not self.separator:
            raise ConfigurationError("The separator is empty; give what stands between findings, such as |.")
        for name, least in (("size", 16), ("epochs", 1), ("patience", 1), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigurationError(f"{name} is {value!r}; give a whole number, {least} or more.")
        if self.size > 1024:
            raise ConfigurationError(f"size is {self.size}; classifiers take images of at most 1024 pixels a side.")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ConfigurationError(
                f"learning_rate is {self.learning_rate} and weight_decay {self.weight_decay}; the first must be above "
                "0, the second not below."
            )
        if not 0 < self.validation <= 0.5:
            raise ConfigurationError(f"validation is {self.validation}; give a share above 0, at most 0.5.")
