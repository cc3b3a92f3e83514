"""Where models come from and go to: local files, hubs, https mirrors and the caches between them."""

from stzoo.hashing import file_sha256
from stzoo.hub.sources import Resolved, read_config, resolve

__all__ = ["Resolved", "file_sha256", "read_config", "resolve"]
