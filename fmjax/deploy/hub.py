"""A folder -> a repository of the Hugging Face hub, by its own client, which knows tokens, mirrors and large files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from fmjax.errors import CheckpointError, escaped

REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
OFFLINE = ("FMJAX_OFFLINE", "HF_HUB_OFFLINE")
TRUE = ("1", "TRUE", "YES", "ON")


def is_repository(target: str) -> bool:
    """Whether a target is "owner/name" and no folder: one that is there, or is written as a path, is no repository."""
    return REPOSITORY.fullmatch(target) is not None and not Path(target).exists()


def obstacle() -> str:
    """Why nothing can be uploaded now, with its fix; "" where it can be tried."""
    for name in OFFLINE:
        if os.environ.get(name, "").upper() in TRUE:
            return f"{name} is set; unset it"
    # the client is imported only where it could be used
    from huggingface_hub import get_token

    if get_token() is None:
        return "there is no token; `hf auth login`, or set HF_TOKEN"
    return ""


def upload(
    folder: Path, repository: str, *, files: Iterable[str], private: bool, message: str
) -> str:
    """Uploads files of a folder, all in one commit, to a repository that is made where it is not there, and returns its
    address. private: False leaves that to the settings of its owner. Raises CheckpointError with what the hub
    answered."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="fmjax")
    try:
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            allow_patterns=list(files),
        )
    # its client's errors are of several libraries; nothing of ours is between
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = escaped(str(error).partition("\n")[0], 300)
        raise CheckpointError(
            f"{repository} was not uploaded ({reason}); the folder is whole in {folder}, run the command again"
        ) from error
    return str(made)
