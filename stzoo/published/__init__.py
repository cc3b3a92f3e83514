"""Checkpoints that others published, by name: what is known of each, and how its file becomes one of stzoo's.

`records` knows the files, `support` which of them stzoo can build, `trust` how their content is pinned, `fetching`
brings one to this machine, `behaviour` tries it on a small clip, and `page` writes the table of all.
"""

from stzoo.published.records import PublishedCheckpoint, info, list_published, published

__all__ = ["PublishedCheckpoint", "info", "list_published", "published"]
