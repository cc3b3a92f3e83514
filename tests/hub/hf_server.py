"""The protocol of a Hugging Face hub, as far as `huggingface_hub` speaks it to download and to upload models.

Large files (here: all *.safetensors) lie on a second origin, the CDN, as on the real hub: a request to resolve one is
answered by a redirect that names size and sha256, and an upload goes there by the basic transfer of Git LFS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from hub.server import Answer, LoopbackServer, Request

REPO = r"/(?P<repo>[\w.-]+/[\w.-]+)"
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class _Repo:
    token: str | None = None  # who may read it; None: everyone
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], ref: str) -> str:
        """One more commit, with a name that no test has seen before: caches may outlive a test."""
        name = secrets.token_hex(20)
        self.commits[name] = dict(files)
        self.refs[ref] = name
        return name


class LoopbackHub(LoopbackServer):
    """`url` is the hub's origin, what HF_ENDPOINT must be; `cdn` that of the large files."""

    def __init__(self) -> None:
        super().__init__()
        self._repos: dict[str, _Repo] = {}
        self._large: dict[str, bytes] = {}
        self.url, self.cdn = self.listen(), self.listen()

    def clear(self) -> None:
        super().clear()
        self._repos.clear()
        self._large.clear()

    def add(
        self, repo: str, files: Mapping[str, bytes], *, ref: str = "main", token: str | None = None, gated: bool = False
    ) -> str:
        """Commit `files` as all that a repository holds; the commit's 40 hexadecimal digits."""
        self._large.update({_sha256(data): data for name, data in files.items() if _large(name)})
        place = self._repos.setdefault(repo, _Repo())
        place.token, place.gated = token, gated
        return place.commit(files, ref)

    def files(self, repo: str, commit: str) -> dict[str, bytes]:
        return dict(self._repos[repo].commits[commit])

    def commits(self, repo: str) -> list[str]:
        return list(self._repos[repo].commits) if repo in self._repos else []

    def answer(self, request: Request) -> Answer:
        path = unquote(urlsplit(request.path).path)
        if request.origin == self.cdn:
            return self._of_cdn(request, path)
        for method, pattern, found in (
            ("GET", REPO + r"/resolve/(?P<rev>[^/]+)/(?P<file>.+)", self._resolve),
            ("GET", r"/api/models" + REPO + r"(?:/revision/(?P<rev>[^/]+))?", self._info),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", lambda request: _json(200, {"errors": [], "warnings": []})),
            ("POST", r"/api/models" + REPO + r"/preupload/(?P<rev>[^/]+)", self._preupload),
            ("POST", REPO + r"\.git/info/lfs/objects/batch", self._batch),
            ("POST", r"/verify", self._verify),
            ("POST", r"/api/models" + REPO + r"/commit/(?P<rev>[^/]+)", self._commit),
        ):
            match = re.fullmatch(pattern, path)
            if match and method == request.method.replace("HEAD", "GET"):
                return found(request, **match.groupdict())
        return _json(404, {"error": f"no route for {request.method} {path}"})

    def _of_cdn(self, request: Request, path: str) -> Answer:
        """Signed addresses: whoever knows one may read and write there, without a token."""
        name = path.removeprefix("/objects/")
        if request.method == "PUT":
            if _sha256(request.body) != name:
                return _json(400, {"error": "the digest does not match"})
            self._large[name] = request.body
            return Answer(200)
        if name not in self._large:
            return Answer(403, {}, b"<Error>no such object</Error>")
        return Answer(200, {"ETag": f'"{name[:32]}"'}, self._large[name], ranged=True)

    def _allowed(self, request: Request, repo: str, *, writing: bool = False) -> _Repo | Answer:
        place, given = self._repos.get(repo), _token(request)
        if place is None:
            return _error(404, "RepoNotFound", "Repository not found")
        if place.token is not None and given is None:
            return _error(401, "RepoNotFound", "Invalid username or password.")
        if place.token not in (None, given):
            return _error(401, None, "Invalid credentials in Authorization header")
        if writing and given is None:
            return _error(401, None, "Invalid username or password.")
        if place.gated:
            return _error(403, "GatedRepo", f"Access to model {repo} is restricted; ask for access on its page.")
        return place

    def _resolve(self, request: Request, repo: str, rev: str, file: str) -> Answer:
        place = self._allowed(request, repo)
        if isinstance(place, Answer):
            return place
        commit = place.refs.get(rev, rev)
        if commit not in place.commits:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        if file not in place.commits[commit]:
            return _error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        data = place.commits[commit][file]
        if not _large(file):
            return Answer(200, {"X-Repo-Commit": commit, "ETag": f'"{_git_id(data)}"'}, data, ranged=True)
        linked = {"X-Linked-ETag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data))}
        return Answer(302, {"X-Repo-Commit": commit, "Location": f"{self.cdn}/objects/{_sha256(data)}", **linked})

    def _info(self, request: Request, repo: str, rev: str | None) -> Answer:
        place = self._allowed(request, repo)
        if isinstance(place, Answer):
            return place
        commit = place.refs.get(rev or "main", rev)
        if rev is not None and commit not in place.commits:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        siblings = [{"rfilename": name} for name in place.commits.get(commit or "", {})]
        return _json(200, {"id": repo, "sha": commit, "private": place.token is not None, "siblings": siblings})

    def _create(self, request: Request) -> Answer:
        wanted, token = json.loads(request.body), _token(request)
        if token is None:
            return _error(401, None, "Invalid username or password.")
        repo = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        url = {"url": f"{self.url}/{repo}"}
        if repo in self._repos:
            return _json(409, {"error": "You already created this model repo", **url})
        self._repos[repo] = _Repo(token if wanted.get("visibility") == "private" or wanted.get("private") else None)
        return _json(200, url)

    def _preupload(self, request: Request, repo: str, rev: str) -> Answer:
        place = self._allowed(request, repo, writing=True)
        if isinstance(place, Answer):
            return place
        there = place.commits.get(place.refs.get(rev, ""), {})
        files = [
            {
                "path": (name := asked["path"]),
                "uploadMode": "lfs" if _large(name) else "regular",
                "shouldIgnore": False,
                "oid": (_sha256 if _large(name) else _git_id)(there[name]) if name in there else None,
            }
            for asked in json.loads(request.body)["files"]
        ]
        return _json(200, {"files": files})

    def _batch(self, request: Request, repo: str) -> Answer:
        place = self._allowed(request, repo, writing=True)
        if isinstance(place, Answer):
            return place
        objects = []
        for asked in json.loads(request.body)["objects"]:
            upload, verify = {"href": f"{self.cdn}/objects/{asked['oid']}"}, {"href": f"{self.url}/verify"}
            there = asked["oid"] in self._large
            objects.append(asked if there else asked | {"actions": {"upload": upload, "verify": verify}})
        return _json(200, {"transfer": "basic", "objects": objects})

    def _verify(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        known = len(self._large.get(asked["oid"], b"")) == asked["size"]
        return _json(200 if known else 404, {})

    def _commit(self, request: Request, repo: str, rev: str) -> Answer:
        place = self._allowed(request, repo, writing=True)
        if isinstance(place, Answer):
            return place
        files = dict(place.commits.get(place.refs.get(rev, ""), {}))
        for line in request.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile" and value["oid"] in self._large:
                files[value["path"]] = self._large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key != "header":
                return _json(400, {"error": f"cannot commit {key} of {value}"})
        commit = place.commit(files, rev)
        url = f"{self.url}/{repo}/commit/{commit}"
        return _json(200, {"success": True, "commitUrl": url, "commitOid": commit, "pullRequestUrl": None})


def _large(name: str) -> bool:
    return name.endswith(".safetensors")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _token(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token if kind == "Bearer" else None


def _json(status: int, content: Mapping[str, Any]) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _error(status: int, code: str | None, message: str, headers: Mapping[str, str] = {}) -> Answer:
    named = {} if code is None else {"X-Error-Code": code}
    return Answer(status, {**named, "X-Error-Message": message, **headers}, b"")
