"""Upload of releases to dataset repositories of the Hugging Face Hub."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from emovox.dataset import schema
from emovox.errors import ConfigError, InputError, NetworkError
from emovox.packages import explained

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# Files of an earlier version that this one may not have. takedown.txt is not among them: a list
# that was added to the repository later must stay.
REPLACED = [
    *(f"{folder}/*" for folder in (*schema.TABLES, "hdf5")),
    *(schema.CARD_FIELDS, schema.DROPPED_FILE, schema.CROISSANT, schema.CHECKSUMS, schema.MANIFEST),
]
DENIED = (401, 403)


@dataclass(frozen=True)
class Repository:
    """A dataset repository on the Hub; each version is a tag, the newest the main branch."""

    repo_id: str  # `ORG/NAME`
    version: str  # tag of the upload
    private: bool  # visible to its owners only
    # A `huggingface_hub.HfApi`, or a fake of it
    api: Any = field(repr=False)

    def check(self) -> None:
        """Check that the version can be uploaded.

        Raises:
            InputError: the version was uploaded before, or the repository is public and `private`
                was asked for.
            NetworkError: the Hub was not reached or refuses access.
        """
        with self._calling():
            self.api.whoami()
            if not self.api.repo_exists(self.repo_id, repo_type="dataset"):
                return
            info = self.api.repo_info(self.repo_id, repo_type="dataset")
            refs = self.api.list_repo_refs(self.repo_id, repo_type="dataset")
        if self.version in {tag.name for tag in refs.tags}:
            raise InputError(
                f"{self.repo_id}: tag {self.version} exists, and releases do not change; "
                "pass another --version"
            )
        if self.private and not info.private:
            raise InputError(f"{self.repo_id}: is public; pass --public to upload anyway")

    def upload(self, release: str | os.PathLike[str]) -> str:
        """Upload a release and tag it; return the address of the repository.

        Raises:
            InputError: as for `check`.
            NetworkError: the Hub was not reached or refuses access.
        """
        self.check()
        where = {"repo_id": self.repo_id, "repo_type": "dataset"}
        with self._calling():
            address = self.api.create_repo(**where, private=self.private, exist_ok=True)
            commit = self.api.upload_folder(
                **where,
                folder_path=str(release),
                commit_message=f"Version {self.version}",
                delete_patterns=REPLACED,
            )
            self.api.create_tag(**where, tag=self.version, revision=commit.oid)
        return str(address)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Turn errors of the Hub and of the network into one line."""
        from huggingface_hub import errors

        # The Hub's own errors derive from those of the HTTP library that it uses.
        failures: tuple[type[Exception], ...]
        failures = (*errors.HfHubHTTPError.__bases__, OSError, RuntimeError)
        try:
            yield
        except errors.HFValidationError as error:
            raise ConfigError(f"--push: {' '.join(str(error).split())}") from error
        except failures as error:
            if isinstance(error, OSError) and error.filename:
                raise  # a file of the release
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            action = "rerun the same command"
            if status in DENIED or isinstance(error, errors.LocalTokenNotFoundError):
                reason = f"access denied ({reason})"
                action = "run `hf auth login` or set HF_TOKEN, then rerun the same command"
            raise NetworkError(f"{self.repo_id}: {reason}; {action}") from error


def open_repository(
    repo_id: str, version: str, *, private: bool = True, api: Any = None
) -> Repository:
    """Return a dataset repository that a version can be uploaded to; it need not exist yet.

    `version` becomes the tag; `api` stands in for `huggingface_hub.HfApi` in tests.

    Raises:
        ConfigError: `repo_id` is not valid.
        MissingPackageError: huggingface_hub is not installed.
        InputError, NetworkError: see `Repository.check`.
    """
    if not REPOSITORY.fullmatch(repo_id):
        raise ConfigError(f"--push {repo_id!r} is not ORG/NAME")
    with explained("--push"):
        from huggingface_hub import HfApi
    repository = Repository(repo_id, version, private, api or HfApi())
    repository.check()
    return repository
