"""Settings: of the installation from the environment, of a project on top of them."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from a2lc_backend.callers import CallerSecrets
from a2lc_backend.image_limits import AllowedHosts, ImageLimits

_LEAST_TILE = 2**16

_TEST_PREFIX = "A2LC_TEST_"
"""Variables of this project's own tests."""


class SettingsError(ValueError):
    """A setting is wrong; the message names it and what it may be."""


class ProjectSettings(BaseModel):
    """How the rounds of a project run.

    Every field is also an environment variable with the prefix `A2LC_`, which sets the default of all projects; the
    "extra params" of the ML backend in Label Studio (a JSON object) override it for one project.

    Attributes:
        budget: masks queued a round.
        proposals: where masks come from; `auto` takes regions already in Label Studio, else the world folder if one is
            set, else superpixels. `grounded-sam` and `sam2` look for what the labels' words name, `sam-everything` and
            `sam2-everything` for whatever looks like a thing.
        superpixels: masks an image that `superpixels` aims at.
        box_threshold: least score of a box that `grounded-sam` and `sam2` make a mask of.
        background: class of the pixels that no mask covers; they stay without label if empty.
        appearance: which foundation model tells the corrector how masks look, beside colour and shape: `auto` the one
            that made the masks, if any did; `looks` none.
        segmenter: θ; `auto` is `head` on a frozen backbone where one is set, else a small `unet` from scratch;
            `deeplabv3plus` is the paper's, for a GPU.
        encoder: network of torchvision under `deeplabv3plus`.
        iterations: steps that `deeplabv3plus` trains; with crop, batch and learning rate as in the paper on Cityscapes
            (on PASCAL VOC crop 513, batch 16, learning rate 0.1).
        crop: side of its training crops in pixels.
        batch: its crops a step.
        learning_rate: of its decoder at the first step.
        corrector: ψ: `boosted` learns from all answers so far (docs/method.md), `paper` is the paper's, `none` leaves
            all correcting to people.
        ranking: `doubt` heeds θ and the corrector's own doubt (docs/method.md), `abc` is the paper's, `cil` the same
            without class weights.
        explore: share of the queue that is drawn at random, so that the corrector also learns what no ranking asks.
        audit: share of the queue for each of two blind audits of the corrector, at least 20 masks where the budget is
            100 or more; 0 for none.
        policy: which proposals are applied: where audits make a `gain` likely; where the share right surely reaches
            `precision`; or, of the former, only those of class pairs that a person approved (`manual`).
        precision: least share right of the policy `precision`.
        repeats: masks that people have answered may be queued again, as the published code of ALC does.
        whole_image: every region of a submitted image counts as human, not only the queued and changed ones.
        auto_round: begin the next round by itself when people have corrected so many masks since the last; 0 for never.
        regions_shown: regions that a queued image shows at most, so that it opens fast: the queued ones, then their
            neighbours; the others stay as they are. 0 for all of them.
        annotators: e-mail addresses, parted by commas, each of whom gets a review queue of their own: a part of the
            queued images; one queue for all if empty.
        review: put the queued masks also one by one into a second project in Label Studio, for the review page.
        second_opinion: share of the queued masks that the review page asks of two people.
        keep_versions: versions of finished rounds that stay in Label Studio beside the newest one's; older predictions
            are deleted.
        seed: of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: int = Field(default=200, ge=1, le=10_000_000)
    proposals: Literal[
        "auto", "existing", "world", "superpixels", "grounded-sam", "sam2", "sam-everything", "sam2-everything"
    ] = "auto"
    superpixels: int = Field(default=40, ge=2, le=1000)
    box_threshold: float = Field(default=0.2, gt=0, lt=1)
    background: str = ""
    appearance: Literal["auto", "looks", "sam", "sam2", "dinov2"] = "auto"
    segmenter: Literal["auto", "head", "unet", "deeplabv3plus"] = "auto"
    encoder: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"
    ] = "resnet101"
    iterations: int = Field(default=30_000, ge=1, le=10_000_000)
    crop: int = Field(default=768, ge=32, le=2048)
    batch: int = Field(default=8, ge=1, le=1024)
    learning_rate: float = Field(default=0.05, gt=0, le=10)
    corrector: Literal["boosted", "paper", "none"] = "boosted"
    ranking: Literal["doubt", "abc", "cil"] = "doubt"
    explore: float = Field(default=0.15, ge=0, le=1)
    audit: float = Field(default=0.05, ge=0, le=0.2)
    policy: Literal["gain", "precision", "manual"] = "gain"
    precision: float = Field(default=0.9, gt=0, lt=1)
    repeats: bool = False
    whole_image: bool = False
    auto_round: int = Field(default=0, ge=0)
    regions_shown: int = Field(default=30, ge=0)
    annotators: str = ""
    review: bool = True
    second_opinion: float = Field(default=0.0, ge=0, le=1)
    keep_versions: int = Field(default=3, ge=2, le=10_000)
    seed: int = 0

    @property
    def annotator_addresses(self) -> tuple[str, ...]:
        """Who gets a review queue of their own, each once."""
        return tuple(dict.fromkeys(_parted(self.annotators)))

    @model_validator(mode="after")
    def _policy_fits_corrector(self) -> ProjectSettings:
        if self.policy != "gain" and self.corrector == "paper":
            raise ValueError(
                f"the policy {self.policy} needs the corrector boosted: what the paper's corrector once applied stays"
            )
        return self


class Settings(BaseSettings):
    """How the program is installed; read from the environment (prefix `A2LC_`), from `.env`, and from files of secrets.

    Attributes:
        secrets_dir: folder of files, each named like a variable in small letters (`label_studio_api_key`,
            `a2lc_database_url`) and holding its value; a variable that is set wins over its file.
        label_studio_url: address of Label Studio as this program reaches it (`LABEL_STUDIO_URL`).
        label_studio_public_url: address of Label Studio as people's browsers reach it (`LABEL_STUDIO_PUBLIC_URL`);
            `label_studio_url` if not set.
        label_studio_api_key: personal access token or legacy token (`LABEL_STUDIO_API_KEY`).
        url: address of this program as Label Studio reaches it.
        public_url: address of this program as people's browsers reach it; `url` if not set.
        login: people log in with their account of Label Studio before they see or change anything.
        admins: e-mail addresses, parted by commas, of those who may change what is not their own answer, besides the
            owner of `label_studio_api_key`.
        basic_auth_user: name that Label Studio, and Prometheus, must call with (HTTP basic authentication); anybody may
            call if not set. `a2lc connect` tells Label Studio.
        basic_auth_password: the password of that name.
        webhook_secret: what Label Studio's webhooks must carry in the header `X-A2LC-Secret`; anybody may send them if
            not set. It needs the name and password too, which Start Training shows. `a2lc connect` tells Label Studio.
        rate_limit: requests that one person may make, such as `3000/minute`; any number if empty. What Label Studio
            calls is not counted.
        max_request_mb: larger requests are refused.
        host: address to listen on.
        port: port to listen on.
        data_dir: folder of the ledger and the artifacts.
        database_url: SQLAlchemy address of the ledger; a SQLite file in `data_dir` if not set.
        artifacts_url: fsspec address of the artifacts; a folder in `data_dir` if not set.
        redis_url: address of the Redis that carries jobs to `a2lc worker`; rounds run on a thread if not set.
        job_seconds: longest time a worker may take for one shard of a phase.
        predict_deadline: seconds `/predict` may compute for a task it does not know.
        max_pixels: larger images are refused; Pillow refuses those of more than 178 million pixels anyway.
        max_image_mb: larger image files are refused.
        image_hosts: hosts besides Label Studio that images may come from though their addresses are not public, parted
            by commas: names, `name:port`, or networks such as `10.1.0.0/16`.
        tile_pixels: foundation models are shown larger images in tiles of fewer pixels; 65,536 or more, or 0 for never.
        weights_dir: folder of the weights of foundation models; `weights` in `data_dir` if not set.
        accept_licences: weights whose own licence a person has read and accepted, parted by commas.
        sam: weights of SAM, see `a2lc weights list`.
        sam2: weights of SAM 2.
        detector: weights of the model of boxes by text.
        dinov2: weights of DINOv2.
        clicks: weights that answer smart tools in Label Studio; `auto`: those that made the project's masks, else
            those of SAM, else of SAM 2, if they are there; `off`.
        embeddings_memory: MB of image embeddings that a process keeps in memory.
        embeddings_disk: GB of image embeddings that are kept as artifacts; those used longest ago are dropped.
        world: world folder whose masks and first labels the `world` proposals read.
        backbone: frozen feature extractor of the `head` segmenter: a `torch.export` file (.pt2), or a state dict of a
            torchvision ResNet; or such a state dict that the encoder of `deeplabv3plus` starts from.
        device: `cuda` or `cpu`; what is there if not set.
        log_level: of the structured log.
    """

    model_config = SettingsConfigDict(env_prefix="A2LC_", env_file=".env", extra="ignore", populate_by_name=True)

    secrets_dir: Path | None = None
    label_studio_url: str = Field(
        default="http://127.0.0.1:8080", validation_alias=AliasChoices("LABEL_STUDIO_URL", "A2LC_LABEL_STUDIO_URL")
    )
    label_studio_public_url: str = Field(
        default="", validation_alias=AliasChoices("LABEL_STUDIO_PUBLIC_URL", "A2LC_LABEL_STUDIO_PUBLIC_URL")
    )
    label_studio_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("LABEL_STUDIO_API_KEY", "A2LC_LABEL_STUDIO_API_KEY")
    )
    url: str = ""
    public_url: str = ""
    login: bool = True
    admins: str = ""
    basic_auth_user: str = ""
    basic_auth_password: SecretStr = SecretStr("")
    webhook_secret: SecretStr = SecretStr("")
    rate_limit: str = "3000/minute"
    max_request_mb: int = Field(default=64, ge=1)
    host: str = "0.0.0.0"  # noqa: S104 - Label Studio calls from another machine or container
    port: int = Field(default=9090, ge=1, le=65535)
    data_dir: Path = Field(default_factory=lambda: user_data_path("a2lc"))
    database_url: str = ""
    artifacts_url: str = ""
    redis_url: SecretStr = SecretStr("")
    job_seconds: int = Field(default=6 * 3600, ge=1)
    predict_deadline: float = Field(default=60.0, gt=0, le=95)
    max_pixels: int = Field(default=64_000_000, gt=0)
    max_image_mb: int = Field(default=250, gt=0)
    image_hosts: str = ""
    tile_pixels: int = Field(default=0, ge=0)
    weights_dir: Path | None = None
    accept_licences: str = ""
    sam: str = "sam-vit-b"
    sam2: str = "sam2.1-hiera-small"
    detector: str = "grounding-dino-tiny"
    dinov2: str = "dinov2-small"
    clicks: str = "auto"
    embeddings_memory: int = Field(default=512, ge=0)
    embeddings_disk: float = Field(default=20.0, ge=0)
    world: Path | None = None
    backbone: Path | None = None
    device: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    budget: int = ProjectSettings().budget
    proposals: str = ProjectSettings().proposals
    superpixels: int = ProjectSettings().superpixels
    box_threshold: float = ProjectSettings().box_threshold
    background: str = ProjectSettings().background
    appearance: str = ProjectSettings().appearance
    segmenter: str = ProjectSettings().segmenter
    encoder: str = ProjectSettings().encoder
    iterations: int = ProjectSettings().iterations
    crop: int = ProjectSettings().crop
    batch: int = ProjectSettings().batch
    learning_rate: float = ProjectSettings().learning_rate
    corrector: str = ProjectSettings().corrector
    ranking: str = ProjectSettings().ranking
    explore: float = ProjectSettings().explore
    audit: float = ProjectSettings().audit
    policy: str = ProjectSettings().policy
    precision: float = ProjectSettings().precision
    repeats: bool = ProjectSettings().repeats
    whole_image: bool = ProjectSettings().whole_image
    auto_round: int = ProjectSettings().auto_round
    regions_shown: int = ProjectSettings().regions_shown
    annotators: str = ProjectSettings().annotators
    review: bool = ProjectSettings().review
    second_opinion: float = ProjectSettings().second_opinion
    keep_versions: int = ProjectSettings().keep_versions
    seed: int = ProjectSettings().seed

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, the first wins: the folder of secrets is itself one of the others' settings."""
        given = dotenv_settings() | env_settings() | init_settings()
        folder = given.get("secrets_dir")
        files = [SecretsSettingsSource(settings_cls, folder)] if folder and Path(folder).is_dir() else []
        return init_settings, env_settings, dotenv_settings, *files

    @field_validator("secrets_dir")
    @classmethod
    def _folder_of_secrets_is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("there is no such folder")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _rate_can_be_read(cls, value: str) -> str:
        from limits import parse  # noqa: PLC0415 - only a server counts

        try:
            if value:
                parse(value)
        except ValueError as error:
            raise ValueError("write a rate as 3000/minute or 50/second; nothing for no limit") from error
        return value

    @model_validator(mode="after")
    def _basic_auth_is_whole(self) -> Settings:
        if bool(self.basic_auth_user) != bool(self.basic_auth_password.get_secret_value()):
            raise ValueError("A2LC_BASIC_AUTH_USER and A2LC_BASIC_AUTH_PASSWORD belong together: set both or none")
        if self.webhook_secret.get_secret_value() and not self.basic_auth_user:
            raise ValueError(
                "A2LC_WEBHOOK_SECRET needs A2LC_BASIC_AUTH_USER and A2LC_BASIC_AUTH_PASSWORD too: Label Studio's Start "
                "Training shows those, as it is no webhook"
            )
        if ":" in self.basic_auth_user:
            raise ValueError("A2LC_BASIC_AUTH_USER may hold no colon")
        return self

    @property
    def ledger_url(self) -> str:
        """Address of the ledger."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'ledger.db'}"

    @property
    def artifact_url(self) -> str:
        """Address of the artifacts."""
        return self.artifacts_url or f"file://{self.data_dir.absolute() / 'artifacts'}"

    @field_validator("tile_pixels")
    @classmethod
    def _tiles_hold_something(cls, value: int) -> int:
        if 0 < value < _LEAST_TILE:
            raise ValueError(f"tiles need {_LEAST_TILE} pixels at least; 0 means that images are never cut")
        return value

    @field_validator("image_hosts")
    @classmethod
    def _image_hosts_can_be_read(cls, value: str) -> str:
        AllowedHosts.parse(value)
        return value

    @property
    def image_limits(self) -> ImageLimits:
        """What is fetched and decoded as an image."""
        return ImageLimits(self.max_pixels, self.max_image_mb * 2**20, AllowedHosts.parse(self.image_hosts))

    @property
    def installation(self) -> str:
        """16 hex digits that tell this installation, all its processes together, from any other."""
        own = f"{self.ledger_url} {self.artifact_url} {'' if self.database_url else socket.gethostname()}"
        return hashlib.sha256(own.encode()).hexdigest()[:16]

    @property
    def weights_folder(self) -> Path:
        """Folder of the weights of foundation models."""
        return self.weights_dir or self.data_dir / "weights"

    @property
    def accepted_licences(self) -> tuple[str, ...]:
        """Names of weights whose own licence was accepted."""
        return _parted(self.accept_licences)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Tokens and passwords, which no log may show."""
        addresses = (self.redis_url.get_secret_value(), self.database_url, self.artifacts_url)
        passwords = [urlsplit(address).password or "" for address in addresses]
        tokens = (self.label_studio_api_key, self.basic_auth_password, self.webhook_secret)
        return (
            *(token.get_secret_value() for token in tokens), self.callers.basic, *passwords,
            *(unquote(word) for word in passwords),
        )  # fmt: skip

    @property
    def callers(self) -> CallerSecrets:
        """What Label Studio must show when it calls this program."""
        password, webhook = self.basic_auth_password.get_secret_value(), self.webhook_secret.get_secret_value()
        return CallerSecrets(self.basic_auth_user, password, webhook)

    @property
    def own_url(self) -> str:
        """Address of this program as others reach it."""
        return (self.url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def browser_url(self) -> str:
        """Address of this program as people's browsers reach it."""
        return (self.public_url or self.own_url).rstrip("/")

    @property
    def label_studio_browser_url(self) -> str:
        """Address of Label Studio as people's browsers reach it."""
        return (self.label_studio_public_url or self.label_studio_url).rstrip("/")

    @property
    def admin_emails(self) -> frozenset[str]:
        """Who may change what is not their own answer, in small letters."""
        return frozenset(email.strip().lower() for email in self.admins.split(",") if email.strip())

    def project(self, extra_params: dict[str, Any] | None = None) -> ProjectSettings:
        """The settings of one project.

        Args:
            extra_params: what the admin wrote into the ML backend's "extra params".

        Raises:
            SettingsError: for an unknown name or a value out of range.
        """
        values = {name: getattr(self, name) for name in ProjectSettings.model_fields}
        try:
            return ProjectSettings(**(values | (extra_params or {})))
        except (ValidationError, TypeError) as error:
            from_environment = [name for name in values if name not in (extra_params or {})]
            where = " (extra params of the ML backend, in the project's Settings > Model)" if extra_params else ""
            raise SettingsError(f"project settings: {describe(error, from_environment)}{where}") from error


def _parted(text: str) -> tuple[str, ...]:
    """What commas part."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: naming each wrong variable.
    """
    _refuse_unknown({*os.environ, *dotenv_values(str(Settings.model_config["env_file"]))})
    try:
        settings = Settings()
        if settings.secrets_dir:
            _refuse_unknown(file.name for file in settings.secrets_dir.iterdir())
    except ValidationError as error:
        raise SettingsError(f"settings: {describe(error, Settings.model_fields)}") from error
    except SourceError as error:
        raise SettingsError(f"settings: {error} (A2LC_SECRETS_DIR): {error.__cause__}") from error
    settings.project()
    return settings


def _refuse_unknown(given: Iterable[str]) -> None:
    """Raise SettingsError for a name that looks like a setting and is none: a slip of the pen would go unseen."""
    known = [f"A2LC_{name.upper()}" for name in Settings.model_fields]
    unknown = sorted(name for name in given if name.upper().startswith("A2LC_") and name.upper() not in known)
    unknown = [name for name in unknown if not name.upper().startswith(_TEST_PREFIX)]
    if unknown:
        raise SettingsError(
            "; ".join(f"settings: {name} is no setting{_nearest(name.upper(), known, 'A2LC_')}" for name in unknown)
        )


def _nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """What may have been meant by a name; a prefix that all names have does not make them alike."""
    found = get_close_matches(name.removeprefix(prefix), [other.removeprefix(prefix) for other in known], n=1)
    return f"; did you mean {prefix}{found[0]}?" if found else "; docs/reference/settings.md lists them"


def describe(error: ValidationError | TypeError, from_environment: Collection[str] = ()) -> str:
    """Say in one line which values are wrong and why.

    Args:
        error: what was found.
        from_environment: fields whose values were read from the environment; they are named as there.
    """
    if isinstance(error, TypeError):
        return "extra params must be a JSON object"
    wrong = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])  # empty where values do not fit each other
        field = Settings.model_fields.get(name)
        shown = "" if field and field.annotation is SecretStr else f", not {str(item['input'])[:60]!r}"
        if name in from_environment:
            name = f"A2LC_{name.upper()}"
        if item["type"] == "extra_forbidden":
            wrong.append(f"{name} is no setting of a project{_nearest(name, ProjectSettings.model_fields)}")
        elif name:
            wrong.append(f"{name}: {item['msg']}{shown}")
        else:
            wrong.append(item["msg"])
    return "; ".join(wrong)
