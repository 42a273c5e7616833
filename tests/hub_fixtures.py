"""A fake of the Hugging Face Hub."""

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class FakeHub:
    """A `huggingface_hub.HfApi` without a network: dataset repositories in memory."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}  # by repository and path, of the main branch
        self.private: dict[str, bool] = {}
        self.tags: dict[str, dict[str, dict[str, bytes]]] = {}  # files by repository and tag
        self.failing: dict[str, Exception] = {}  # raised by the next call of the method

    def _called(self, name: str, repo_type: str = "dataset") -> None:
        assert repo_type == "dataset"
        if name in self.failing:
            raise self.failing.pop(name)

    def whoami(self) -> dict[str, str]:
        self._called("whoami")
        return {"name": "nobody"}

    def repo_exists(self, repo_id: str, *, repo_type: str) -> bool:
        self._called("repo_exists", repo_type)
        return repo_id in self.files

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        self._called("repo_info", repo_type)
        return SimpleNamespace(private=self.private[repo_id])

    def list_repo_refs(self, repo_id: str, *, repo_type: str) -> Any:
        self._called("list_repo_refs", repo_type)
        return SimpleNamespace(tags=[SimpleNamespace(name=n) for n in self.tags[repo_id]])

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        self._called("create_repo", repo_type)
        assert exist_ok or repo_id not in self.files
        self.files.setdefault(repo_id, {".gitattributes": b""})
        self.private.setdefault(repo_id, private)
        self.tags.setdefault(repo_id, {})
        return f"https://huggingface.co/datasets/{repo_id}"

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: str,
        repo_type: str,
        commit_message: str,
        delete_patterns: list[str],
    ) -> Any:
        self._called("upload_folder", repo_type)
        root = Path(folder_path)
        files = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        kept = {
            name: content
            for name, content in self.files[repo_id].items()
            if not any(fnmatch(name, pattern) for pattern in delete_patterns)
        }
        self.files[repo_id] = kept | {name: p.read_bytes() for name, p in files.items()}
        return SimpleNamespace(oid=f"{commit_message} of {repo_id}")

    def create_tag(self, repo_id: str, *, tag: str, revision: str, repo_type: str) -> None:
        self._called("create_tag", repo_type)
        assert repo_id in revision and tag not in self.tags[repo_id]
        self.tags[repo_id][tag] = dict(self.files[repo_id])
