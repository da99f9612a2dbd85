"""How commands end on errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, cast

import typer

from models.devices import INSTALL_TORCH
from models.errors import UnmaskError
from pipeline.commands.output import echo

if TYPE_CHECKING:
    from pydantic import ValidationError


# What brings a module that serving on a CPU does without.
_EXTRAS = dict.fromkeys(
    ("torch", "torchvision", "timm", "safetensors", "huggingface_hub", "facenet_pytorch"), INSTALL_TORCH
)
_EXTRAS |= dict.fromkeys(("pandas", "matplotlib", "scipy", "webdataset"), "pip install 'unmask[train]'")
_EXTRAS["pyarrow"] = "pip install 'unmask[archive]', or 'unmask[train]' for training"
_EXTRAS["simpy"] = "pip install 'unmask[plan]'"
_EXTRAS["ray"] = "pip install 'unmask[ray]'"
_EXTRAS |= dict.fromkeys(("fastapi", "uvicorn", "starlette", "python_multipart"), "pip install 'unmask[serve]'")

_EXTRAS |= dict.fromkeys(("asn1crypto", "rfc3161_client"), "pip install 'unmask[timestamp]'")
_EXTRAS |= dict.fromkeys(("authlib", "httpx", "joserfc"), "pip install 'unmask[oidc]'")


def fail(message: object, code: int = 2) -> NoReturn:
    """Print an error and end the command with this exit code."""
    echo(f"Error: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the command with the message and exit code of Unmask's errors; bad values and files, missing libraries: 2."""
    try:
        yield
    except UnmaskError as error:
        fail(error, error.exit_code)
    except ModuleNotFoundError as error:
        fail(missing_module(error))
    except ImportError as error:
        fail(f"a library cannot be loaded: {error}")
    except (OSError, ValueError) as error:
        fail(_described(error))


def missing_module(error: ModuleNotFoundError) -> str:
    """What is missing, and what brings it."""
    return f"{error.name} is not installed; {_EXTRAS.get(str(error.name).partition('.')[0], 'reinstall unmask')}"


def _described(error: Exception) -> object:
    """Errors of settings by the names of their variables."""
    if type(error).__name__ != "ValidationError":  # pydantic is not imported for every command
        return error
    from pipeline.settings import describe_invalid

    return describe_invalid(cast("ValidationError", error))
