"""Weights files on the Hugging Face Hub. Nothing else uses a network, and a local copy serves without one."""

import re
from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError, MissingError

WEIGHTS, CARD = "model.safetensors", "README.md"  # files of a repository


def is_id(name: str) -> bool:
    """Whether it may be a repository, owner/name, or a state of one, owner/name@revision."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?", name) is not None and not name.endswith(".safetensors")


def fetch(name: str) -> Path:
    """The local copy of a repository's weights file; what is newer there is downloaded, where a network is.

    Args:
        name: owner/name, or owner/name@revision: a branch, a tag or a commit, of which the last stays what it is.

    Raises:
        InputError: no such repository, revision or file, or neither a network nor a local copy. MissingError: no
            huggingface_hub.
    """
    hub = _package()
    repository, _, revision = name.partition("@")
    try:
        return Path(hub.hf_hub_download(repository, WEIGHTS, revision=revision or None))
    except hub.errors.LocalEntryNotFoundError:
        raise InputError(f"{name}: no local copy, and the Hugging Face Hub cannot be reached") from None
    except hub.errors.RevisionNotFoundError:
        raise InputError(f"{repository}: no branch, tag or commit {revision} on the Hugging Face Hub") from None
    except hub.errors.EntryNotFoundError:
        raise InputError(f"{name}: this repository holds no {WEIGHTS}") from None
    except hub.errors.RepositoryNotFoundError:
        raise InputError(f"{repository}: no such repository on the Hugging Face Hub, or it wants a login") from None
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise InputError(f"{name}: {_line(error)}") from None


def upload(folder: Path, repository: str, private: bool) -> str:
    """Puts the files of a folder into a repository, which is made if need be; returns the address of the commit.

    Raises:
        InputError: the Hub refuses. MissingError: no huggingface_hub.
    """
    hub = _package()
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="codeczoo push"))
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise InputError(f"{repository}: {_line(error)} (hf auth login, or HF_TOKEN, says who you are)") from None


def _package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise MissingError('the Hugging Face Hub needs huggingface_hub: pip install "codeczoo[hub]"') from None
    return huggingface_hub


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
