"""Repositories of a Hugging Face compatible hub, by way of huggingface_hub: its cache, environment and log-in."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stzoo.addresses import scrubbed, unchained
from stzoo.catalog import CODEC_FILE
from stzoo.environment import offline
from stzoo.errors import DownloadError, OfflineError, WeightsError

REPO = r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*"
COMMIT = r"[0-9a-f]{40}"


class AbsentError(DownloadError):
    """The repository exists, but has no such file."""


def parse(source: str) -> tuple[str, str | None]:
    """ "hf://user/repo@revision" -> ("user/repo", "revision"); the revision is None if the source names none.

    Raises:
        WeightsError: `source` is written in another way.
    """
    match = re.fullmatch(rf"hf://({REPO})(?:@([\w./-]+))?", source, re.ASCII)
    if match is None or ".." in source:
        raise WeightsError(f"{source!r} is no hub source; write hf://user/repo or hf://user/repo@revision")
    return match[1], match[2]


@unchained()
def fetch(
    repo: str, revision: str | None, name: str, *, cache_dir: Path | None = None, offline: bool, progress: bool = True
) -> Path:
    """One file of a repository, in huggingface_hub's cache; it is downloaded if it is not there.

    Args:
        repo: "user/repo".
        revision: a branch, tag or commit; None is the main branch.
        name: of the file.
        cache_dir: the cache's folder; None is the one that huggingface_hub uses.
        offline: take the file from the cache only.
        progress: show a bar.

    Raises:
        AbsentError: the repository has no such file. OfflineError: the file is not in the cache, and the network is
            off. DownloadError: it cannot be had for another reason; the message says which, and what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{repo}@{revision}" if revision else repo

    def ask() -> str:
        return hf_hub_download(repo, name, revision=revision, cache_dir=cache_dir, local_files_only=offline)

    try:
        with _bars(progress), _discreet_logs():
            try:
                return Path(ask())
            except Exception as error:
                if not _passing(error):
                    raise
                time.sleep(1)
                return Path(ask())
    except LocalEntryNotFoundError as error:
        if offline:
            raise OfflineError(f"{at} has no {name} in the local cache, and the network is off") from error
        raise DownloadError(f"the hub did not send {name} of {at}: {_reason(error)}") from error
    except EntryNotFoundError as error:
        raise AbsentError(f"{at} has no file {name}") from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repo} has no revision {revision}") from error
    except GatedRepoError as error:
        raise DownloadError(
            f"{repo} is gated: accept its terms on its page, then put your token in HF_TOKEN or run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"no repository {repo} for you: check the name; a private one needs your token in HF_TOKEN, "
            "or `hf auth login`"
        ) from error
    except Exception as error:  # an error of the HTTP library, which differs between versions of huggingface_hub
        raise DownloadError(f"cannot fetch {name} of {at}: {_reason(error)}") from error


@unchained()
def push(
    folder: Path, repo_id: str, *, private: bool = False, token: str | None = None, message: str | None = None
) -> str:
    """Send the files of a folder to a repository in one commit. The repository is made if it does not exist.

    Args:
        folder: every file in it is sent. If it holds no codec, the commit removes that of an earlier model, which would
            be loaded in place of the codec inside this one.
        repo_id: "user/repo".
        private: make a new repository private.
        token: by default the one that huggingface_hub finds. White space around it is left out.
        message: the commit's message.

    Returns:
        "hf://user/repo@<40 hex>", which `stzoo.load` opens.

    Raises:
        WeightsError: `repo_id` is not "user/repo", `token` is none, or the hub refused, with its reason.
        OfflineError: the network is off.
    """
    if re.fullmatch(REPO, repo_id, re.ASCII) is None or ".." in repo_id:
        raise WeightsError(f"{repo_id!r} is no repository; write user/repo")
    if offline():
        raise OfflineError(f"nothing is sent to {repo_id}: the network is off by STZOO_OFFLINE or HF_HUB_OFFLINE")
    if token is not None and re.fullmatch(r"[!-~]+", token := token.strip()) is None:  # the HTTP library would quote it
        raise WeightsError("the token is empty, or holds a character that no token has; copy it again")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    files = sorted(folder.iterdir())
    changes: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationAdd(f.name, f) for f in files]
    try:
        with _discreet_logs():
            api.create_repo(repo_id, private=private, exist_ok=True)
            if CODEC_FILE not in (f.name for f in files) and api.file_exists(repo_id, CODEC_FILE):
                changes.append(CommitOperationDelete(CODEC_FILE))
            commit = api.create_commit(repo_id, changes, commit_message=message or "A model saved by stzoo")
    except Exception as error:  # see `fetch`
        raise WeightsError(
            f"cannot publish to {repo_id}: {_reason(error)}; publishing needs a token that may write, in HF_TOKEN "
            "or by `hf auth login`"
        ) from error
    if re.fullmatch(COMMIT, commit.oid) is None:
        raise WeightsError(f"the hub's answer names no commit of {repo_id}, but {commit.oid!r}")
    return f"hf://{repo_id}@{commit.oid}"


def remove(file: Path) -> str:
    """Remove a damaged file from huggingface_hub's cache, and from no other place; return a sentence on what happened.

    In that cache a file is a link to its blob, which may itself be a link, to a store that repositories share.
    """
    cache = next((p.parent for p in file.parents if p.name.startswith("models--")), file.parent)
    try:
        while file.is_relative_to(cache):
            link = os.readlink(file) if file.is_symlink() else None
            file.unlink(missing_ok=True)
            if link is None:
                break
            file = Path(os.path.normpath(file.parent / link))
    except OSError as error:
        return f"it could not be removed ({error.strerror})"
    return "it has been removed, load again"


def _passing(error: BaseException) -> bool:
    """Whether the download of a file failed in a way that may pass. huggingface_hub retries all other requests."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else None
        return status is not None and (status in (408, 429) or status >= 500)
    local = isinstance(error, (EntryNotFoundError, ValueError)) or getattr(error, "errno", None) is not None
    return not local  # so it is an error of the HTTP library, or a body of another length


def _reason(error: BaseException) -> str:
    """What the hub or the network said: the cause of the error, if huggingface_hub only says that there is one."""
    cause = error.__cause__
    text = str(cause if cause is not None and "LocalEntry" in type(error).__name__ else error)
    text = scrubbed(text).removesuffix("Please retry with `force_download=True`.").rstrip()
    return text[:500] or type(error).__name__


@contextmanager
def _bars(progress: bool) -> Iterator[None]:
    """Hide the bars of huggingface_hub inside the block unless `progress` is true."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not progress and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


@contextmanager
def _discreet_logs() -> Iterator[None]:
    """Inside the block huggingface_hub logs addresses without the user name and password that HF_ENDPOINT may hold."""

    def scrub(record: logging.LogRecord) -> bool:
        record.msg, record.args = scrubbed(record.getMessage()), ()
        return True

    known = list(logging.root.manager.loggerDict)  # a filter acts on what is logged to this very logger, not below it
    loggers = [logging.getLogger(name) for name in known if name.partition(".")[0] == "huggingface_hub"]
    for logger in loggers:
        logger.addFilter(scrub)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(scrub)
