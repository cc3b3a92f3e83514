"""Every error stzoo raises on purpose. Catch `StzooError` for all of them.

Each class also derives from the built-in a caller would expect, so `except ValueError` works on bad frames.
"""


class StzooError(Exception):
    """Base of all errors raised by stzoo."""


class UnknownModelError(StzooError, KeyError):
    """No catalogue entry has this name; the message lists close matches."""

    __str__ = Exception.__str__  # KeyError would print the message's repr


class SpecError(StzooError, ValueError):
    """A model specification is wrong: which key, what it was, what it may be."""


class ManifestError(StzooError, ValueError):
    """weights_manifest.json does not follow its schema."""


class FramesError(StzooError, ValueError):
    """Input frames do not fit the model: expected against given shape, dtype or range."""


class DataError(StzooError, ValueError):
    """A dataset's files are absent, damaged or of another format."""


class TrainingError(StzooError, RuntimeError):
    """Training cannot go on: a diverged loss, or a run folder that belongs to another run."""


class MissingExtraError(StzooError, ImportError):
    """An optional dependency is absent; the message holds the pip command that installs it."""


class WeightsError(StzooError):
    """Base of everything that can go wrong between a source and a filled module."""


class NotPublishedError(WeightsError):
    """The entry exists, its weights do not yet; the message holds the command that trains them."""


class DownloadError(WeightsError):
    """A remote source could not be read."""


class OfflineError(WeightsError):
    """The file is not on this machine and the network was not to be used."""


class IntegrityError(WeightsError):
    """A file's sha256 or size differs from the pinned one."""


class MismatchError(WeightsError):
    """Tensors in the file and in the module differ: missing, unexpected and misshapen ones, by name."""
