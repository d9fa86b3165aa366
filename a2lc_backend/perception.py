"""The foundation models of an installation, with the embeddings they share: who is asked for what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from a2lc_backend.embeddings import Embeddings
from a2lc_backend.foundation import Embedding, FoundationError, PromptedModel
from a2lc_backend.foundation.models import Models
from a2lc_backend.proposals import SAM_SOURCES, Foundation, Picture
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
        self._weights = Weights(settings.weights_folder, settings.accepted_licences)
        self._models = Models(self._weights.path, settings.device)
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

    def appearance(self, settings: ProjectSettings) -> Callable[[str, Image], NDArray[np.float16]] | None:
        """What tells a project's corrector how masks look, see `Context.appearance`; None if nothing does."""
        name = settings.appearance
        if name == "auto":
            name = SAM_SOURCES.get(settings.proposals, "looks")  # type: ignore[assignment]
        if name == "looks":
            return None
        if name == "dinov2":
            return lambda _key, image: self._models.dense(self._settings.dinov2).dense(image)

        def see(key: str, image: Image) -> NDArray[np.float16]:
            model = self._models.prompted(self._named(name))
            return model.dense(self._embeddings.of(model, key, lambda: image))

        return see

    def clicked(self, settings: ProjectSettings) -> PromptedModel | None:
        """The model that answers smart tools in a project, None if there is none.

        Raises:
            SettingsError: if A2LC_CLICKS names weights that are not there.
        """
        if self._settings.clicks == "off":
            return None
        if self._settings.clicks != "auto":
            try:
                return self._models.prompted(self._settings.clicks)
            except FoundationError as error:
                raise SettingsError(f"A2LC_CLICKS: {error}") from error
        families = [SAM_SOURCES.get(settings.proposals, "sam"), "sam", "sam2"]
        for name in dict.fromkeys(self._named(family) for family in families):
            try:
                return self._models.prompted(name)
            except WeightsError:
                continue
        log.warning("smart tools are not answered: there are no weights of SAM; a2lc weights fetch sam-vit-b")
        return None

    def embedding(self, model: PromptedModel, image_key: str, image: Callable[[], Image]) -> Embedding:
        """See `Embeddings.of`."""
        return self._embeddings.of(model, image_key, image)

    def _named(self, family: str) -> str:
        return self._settings.sam2 if family == "sam2" else self._settings.sam
