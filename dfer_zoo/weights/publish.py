"""Publish files on the Hub in one commit, and check them by downloading them again."""

from __future__ import annotations

import contextlib
import difflib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..atomic import sha256_of
from ..errors import InputError, WeightsError
from ..version import __version__
from . import hub
from .card import may_be_shared
from .fetch import MODEL_FILE
from .record import Weights

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Publication:
    """Result of `push_to_hub`.

    Attributes:
        repo_id: The repository.
        revision: The full commit. None for a dry run.
        pull_request: The link of the pull request, if one was opened.
        files: Name and size of every file.
        sha256: Digest of model.safetensors.
        record: The record for a manifest.
        manifest_diff: The change of the manifest as a unified diff.
    """

    repo_id: str
    revision: str | None
    pull_request: str | None
    files: Mapping[str, int]
    sha256: str
    record: Weights
    manifest_diff: str

    @property
    def name(self) -> str:
        """What `create_model` takes."""
        return f"hf-hub:{self.repo_id}@{self.revision or 'main'}"


def check_may_publish(record: Weights, i_have_permission: bool) -> None:
    """Raise an error unless the licence or, as the caller confirms, the authors allow publishing the file."""
    if not (may_be_shared(record) or i_have_permission):
        questions = "".join(f"; {question}" for question in record.open_questions)
        raise InputError(
            f"{record.name} must not be published without its authors' permission: its licence is {record.license} "
            f"({record.license_source}{questions}). With their permission: --i-have-permission."
        )


def publish(
    record: Weights,
    repo_id: str,
    files: Mapping[str, bytes | Path],
    *,
    private: bool = False,
    gated: bool = False,
    pull_request: bool = False,
    dry_run: bool = False,
) -> Publication:
    """Commit the files, download them again and compare them.

    Raises:
        WeightsUnavailable: The Hub refuses.
        WeightsError: The downloaded file differs from the one that was sent.
    """
    hub.check_repo_id(repo_id)
    if "/" not in repo_id:
        raise InputError(f"'{repo_id}' is not of the form 'owner/repo'.")
    model_file = files[MODEL_FILE]
    assert isinstance(model_file, Path)
    digest = sha256_of(model_file)
    sizes = {name: len(part) if isinstance(part, bytes) else part.stat().st_size for name, part in files.items()}
    revision, link = None, None
    if not dry_run:
        revision, link = _commit(record.name, repo_id, files, private, gated, pull_request)
        _read_back(record.name, repo_id, revision, digest, sizes[MODEL_FILE])
    published = replace(
        record,
        distribution="hub",
        repo_id=repo_id,
        revision=revision or "0" * 40,
        filename=MODEL_FILE,
        sha256=digest,
        size=sizes[MODEL_FILE],
        backbones={},
    )
    return Publication(repo_id, revision, link, sizes, digest, published, _diff(record, published))


def _commit(
    what: str, repo_id: str, files: Mapping[str, bytes | Path], private: bool, gated: bool, pull_request: bool
) -> tuple[str, str | None]:
    """Return (commit, link of the pull request)."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=hub.endpoint(), library_name="dfer_zoo", library_version=__version__)
    operations = [
        CommitOperationAdd(name, part if isinstance(part, bytes) else str(part)) for name, part in files.items()
    ]
    with _explained(what, repo_id):
        if not pull_request:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if gated:
                api.update_repo_settings(repo_id, gated="auto")
        done = api.create_commit(
            repo_id,
            operations,
            commit_message=f"Add {what}, converted by dfer_zoo {__version__}",
            create_pr=pull_request,
        )
    return done.oid, done.pr_url


def _read_back(what: str, repo_id: str, revision: str, digest: str, size: int) -> None:
    """Download the published file into an empty cache, and compare it."""
    with tempfile.TemporaryDirectory() as folder:
        path = hub.download(what, hub.HubFile(repo_id, MODEL_FILE, revision), folder, size=size)
        found = sha256_of(path)
    if found != digest:
        raise WeightsError(
            f"{what}: {hub.shown_endpoint()} returns {MODEL_FILE} with the sha256 {found}; {digest} was sent. "
            "Do not use this commit."
        )


@contextlib.contextmanager
def _explained(what: str, repo_id: str) -> Iterator[None]:
    file = hub.HubFile(repo_id, MODEL_FILE, "main")
    with hub.explained(what, file, None, f"it cannot be published at {hub.shown_endpoint()}"):
        try:
            yield
        except ValueError as error:  # raised by the client for metadata that the Hub rejects
            raise WeightsError(f"{what}: the Hub rejects the model card ({error}).") from error


def _diff(before: Weights, after: Weights) -> str:
    """Return the change of the manifest, without unchanged fields."""
    name = "weights_manifest.json"
    return "\n".join(difflib.unified_diff(_lines(before), _lines(after), name, name, n=1, lineterm=""))


def _lines(record: Weights) -> list[str]:
    return json.dumps(record.to_dict(), indent=1, ensure_ascii=False).splitlines()
