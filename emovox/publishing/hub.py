"""Upload a release to a dataset repository of the Hugging Face Hub."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emovox.dataset import schema
from emovox.errors import ConfigError, InputError, NetworkError
from emovox.packages import explained

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# What an earlier version may have left that this one does not have. A takedown list is not among
# it: one that joined the repository later has to stay.
REPLACED = [
    *(f"{folder}/*" for folder in (*schema.TABLES, "hdf5")),
    *(schema.DROPPED_FILE, schema.CROISSANT, schema.CHECKSUMS, schema.MANIFEST),
]
DENIED = (401, 403)


class Api(Protocol):
    """The part of `huggingface_hub.HfApi` that an upload needs; `emovox.testing` has a fake."""

    def whoami(self) -> Any: ...
    def repo_exists(self, repo_id: str, *, repo_type: str) -> bool: ...
    def repo_info(self, repo_id: str, *, repo_type: str) -> Any: ...
    def list_repo_refs(self, repo_id: str, *, repo_type: str) -> Any: ...
    def create_repo(
        self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool
    ) -> Any: ...
    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: str,
        repo_type: str,
        commit_message: str,
        delete_patterns: list[str],
    ) -> Any: ...
    def create_tag(self, repo_id: str, *, tag: str, revision: str, repo_type: str) -> None: ...


@dataclass(frozen=True)
class Repository:
    """Where a version of a dataset goes: it is a tag there, and the head of the main branch.

    Attributes:
        repo_id: `ORG/NAME`.
        version: the tag.
        private: whether nobody else may see it.
        api: the Hub.
    """

    repo_id: str
    version: str
    private: bool
    api: Api

    def check(self) -> None:
        """Look whether the version can go there.

        Raises:
            InputError: it has been there before, or everybody could see what is to be private.
            NetworkError: the Hub was not reached, or does not know who asks.
        """
        with self._calling():
            self.api.whoami()
            if not self.api.repo_exists(self.repo_id, repo_type="dataset"):
                return
            info = self.api.repo_info(self.repo_id, repo_type="dataset")
            refs = self.api.list_repo_refs(self.repo_id, repo_type="dataset")
        if self.version in {tag.name for tag in refs.tags}:
            raise InputError(
                f"{self.repo_id}: has a tag {self.version} already, and releases do not change; "
                "choose another --version"
            )
        if self.private and not info.private:
            raise InputError(f"{self.repo_id}: is public; give --public if that is meant")

    def upload(self, release: Path) -> str:
        """Upload a release and tag it; returns the address.

        Raises:
            InputError: as `check`.
            NetworkError: the Hub was not reached, or refuses.
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
        """Turn what goes wrong on the way to the Hub into one line."""
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalTokenNotFoundError,
        )

        # The base of its own errors is that of the HTTP library it uses.
        failures: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError, RuntimeError)
        try:
            yield
        except HFValidationError as error:
            raise ConfigError(f"--push: {' '.join(str(error).split())}") from error
        except failures as error:
            if isinstance(error, OSError) and error.filename:
                raise  # a file of the release
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if isinstance(error, LocalTokenNotFoundError):
                reason = "the Hub does not know you: `hf auth login`, or set HF_TOKEN"
            elif status in DENIED:
                reason = f"the Hub does not let you in: `hf auth login`, or set HF_TOKEN ({reason})"
            raise NetworkError(f"{self.repo_id}: {reason}; run the same command again") from error


def open_repository(
    repo_id: str, version: str, *, private: bool = True, api: Api | None = None
) -> Repository:
    """A dataset repository that a version can be uploaded to; it need not be there yet.

    Args:
        repo_id: `ORG/NAME`.
        version: MAJOR.MINOR.PATCH, the tag.
        private: make it private if it is not there.
        api: the Hub, or a stand-in for it.

    Raises:
        ConfigError: no such name.
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
