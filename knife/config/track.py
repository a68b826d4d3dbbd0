"""Where MLflow records a run."""

import unicodedata
import warnings

from pydantic import Field, field_validator

from knife.config.section import ConfigSection

# Length of the name columns in MLflow's databases.
_COLUMN = 250


# Every pydantic class has a method `register`, from ABCMeta; nothing calls it.
warnings.filterwarnings("ignore", 'Field name "register" in "Track" shadows')


class Track(ConfigSection):
    """Where MLflow records: null is MLFLOW_TRACKING_URI, or else a sqlite file in the store.

    The best student on dev becomes the `champion` of the registered model `register`.
    """

    uri: str | None = None
    experiment: str = "knife"
    register: str | None = Field(None, pattern=r"^[^/:'\s]+$", max_length=_COLUMN)

    @field_validator("experiment")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.strip() or value in (".", ".."):
            raise ValueError(f"must be the name of an experiment in MLflow, but got {value!r}")
        if len(value) > _COLUMN:
            raise ValueError(f"must have at most {_COLUMN} letters, but got {len(value)}")
        if bad := [c for c in value if unicodedata.category(c) in ("Cc", "Cs")]:
            raise ValueError(f"must have no control characters, but got {bad[0]!r}")
        return value
