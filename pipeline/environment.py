"""Settings that are read from the environment, each from the variable of its name with a prefix."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class FromEnvironment(BaseModel):
    """A model whose fields come from variables in capitals; what is given as an argument wins.

    Not `pydantic_settings`: its import takes longer than scanning a short clip.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    prefix: ClassVar[str]
    # Whether an empty variable counts as not set.
    ignore_empty: ClassVar[bool] = False

    def __init__(self, **given: Any) -> None:
        """Read the environment.

        Args:
            given: values by field.

        Raises:
            pydantic.ValidationError: a value is invalid.
        """
        variables = {name: os.environ.get(f"{self.prefix}{name.upper()}") for name in type(self).model_fields}
        skipped = (None, "") if self.ignore_empty else (None,)
        super().__init__(**{name: text for name, text in variables.items() if text not in skipped} | given)
