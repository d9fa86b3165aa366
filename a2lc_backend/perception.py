"""The foundation models of an installation, with the embeddings they share: who is asked for what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from a2lc_backend.embeddings import Embeddings
from a2lc_backend.features import Appearance
from a2lc_backend.foundation import Embedding, FoundationError, PromptedModel
from a2lc_backend.foundation.models import Models
from a2lc_backend.proposals import SAM_SOURCES, TEXT_SOURCES, Foundation, Picture
from a2lc_backend.settings import ProjectSettings, Settings, SettingsError
from a2lc_backend.store import Artifacts, Ledger
from a2lc_backend.weights import Weights, WeightsError

Image = NDArray[np.uint8]

log = structlog.get_logger()


class Perception:
    """Opens models when they are asked, and keeps what their encoders saw.

    Args:
        settings: of the installation.
        artifacts: where embeddings are kept.
        ledger: knows which were used when.
    """

    def __init__(self, settings: Settings, artifacts: Artifacts, ledger: Ledger) -> None:
        self._settings = settings
        self.weights = Weights(settings.weights_folder, settings.accepted_licences)
        self._models = Models(self.weights.path, settings.device)
        self._embeddings = Embeddings(
            artifacts, ledger, settings.embeddings_memory * 2**20, int(settings.embeddings_disk * 2**30)
        )

    def foundation(self, proposals: str) -> Foundation | None:
        """The models that a source of masks asks, None if it asks none."""
        family = SAM_SOURCES.get(proposals)
        if family is None:
            return None

        def embed(model: PromptedModel, picture: Picture) -> Embedding:
            return self._embeddings.of(model, picture.image_key, lambda: picture.image)

        return Foundation(
            lambda: self._models.detector(self._settings.detector),
            lambda: self._models.prompted(self._named(family)),
            embed,
        )

    def appearance(self, settings: ProjectSettings) -> Appearance | None:
        """What tells a project's corrector how masks look; None if no model does."""
        family = _appearance(settings)
        if family == "looks":
            return None
        if family == "dinov2":
            weights = self._settings.dinov2
            return Appearance(weights, lambda _key, image: self._models.dense(weights).dense(image))

        def see(key: str, image: Image) -> NDArray[np.float16]:
            model = self._models.prompted(self._named(family))
            return model.dense(self._embeddings.of(model, key, lambda: image))

        return Appearance(self._named(family), see)

    def needed(self, settings: ProjectSettings) -> list[str]:
        """Names of the weights that a project's rounds ask, there or not."""
        families = [SAM_SOURCES[settings.proposals]] if settings.proposals in SAM_SOURCES else []
        if (family := _appearance(settings)) != "looks":
            families.append(family)
        names = [self._settings.dinov2 if family == "dinov2" else self._named(family) for family in families]
        if settings.proposals in TEXT_SOURCES:
            names.insert(0, self._settings.detector)
        return list(dict.fromkeys(names))

    def clicked(self, settings: ProjectSettings) -> PromptedModel | None:
        """The model that answers smart tools in a project, None if there is none.

        Raises:
            SettingsError: if A2LC_CLICKS names weights that are not there.
        """
        name = self.clicked_name(settings)
        if name is None:
            return None
        try:
            return self._models.prompted(name)
        except FoundationError as error:
            raise SettingsError(f"A2LC_CLICKS: {error}") from error

    def clicked_name(self, settings: ProjectSettings) -> str | None:
        """Name of the weights that answer smart tools in a project, None if none do."""
        if self._settings.clicks == "off":
            return None
        if self._settings.clicks != "auto":
            return self._settings.clicks
        families = [SAM_SOURCES.get(settings.proposals, "sam"), "sam", "sam2"]
        for name in dict.fromkeys(self._named(family) for family in families):
            try:
                self.weights.path(name)
            except WeightsError:
                continue
            return name
        return None

    def warm(self) -> None:
        """Read the weights that answer smart tools, if there are any: the first click need not wait for them."""
        try:
            model = self.clicked(self._settings.project())
            if model is not None:
                model.warm()
        except (FoundationError, SettingsError) as error:
            log.warning("smart tools are not answered", error=str(error))

    def embedding(self, model: PromptedModel, image_key: str, image: Callable[[], Image]) -> Embedding:
        """See `Embeddings.of`."""
        return self._embeddings.of(model, image_key, image)

    def _named(self, family: str) -> str:
        return self._settings.sam2 if family == "sam2" else self._settings.sam


def _appearance(settings: ProjectSettings) -> str:
    """What tells the corrector how masks look: `looks`, `dinov2`, or a family of models of masks by prompt."""
    return SAM_SOURCES.get(settings.proposals, "looks") if settings.appearance == "auto" else settings.appearance
