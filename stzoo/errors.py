"""Every error that stzoo raises on purpose. Catch `StzooError` to catch all of them.

Most classes also derive from the built-in error that a caller would expect: bad frames raise a `ValueError`, too.
"""

import os
import sys
import warnings


def printable(text: str) -> str:
    """`text` on one line that any terminal only shows, for text that comes from outside: names, headers, messages.

    What is not printable becomes its escape: a line break, the escape character with which terminals are steered, marks
    that turn the direction of reading, and halves of surrogate pairs, with which Python names files that are not UTF-8.
    Text that is printable comes back as it is, so this may be called twice.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def warn_caller(message: str) -> None:
    """Warn; Python then shows the line from which the package was called, and each warning once for such a line."""
    inside, level, frame = os.path.dirname(__file__) + os.sep, 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


class StzooError(Exception):
    """The base of all errors that stzoo raises on purpose."""


class NoHomeError(StzooError, OSError):
    """The user has no home folder in which files can be kept. The message names the variable that helps."""


class UnknownModelError(StzooError, KeyError):
    """No entry of the catalogue has this name. The message lists names that are close."""

    __str__ = Exception.__str__  # KeyError would print the message's repr


class SpecError(StzooError, ValueError):
    """A model's spec, an option or a setting is wrong. The message says which, what it is and what it may be."""


class ManifestError(StzooError, ValueError):
    """The file weights_manifest.json does not follow its schema. The message names the key."""


class FramesError(StzooError, ValueError):
    """Frames do not fit the model, or their file cannot be read or written. The message says what was expected."""


class ForecastError(StzooError, ArithmeticError):
    """The model's weights make numbers that are not finite of these frames. The message names the frame."""


class DataError(StzooError, ValueError):
    """Files of a dataset are absent, damaged or of another format. The message names the file or the folder."""


class TrainingError(StzooError, RuntimeError):
    """Training cannot go on: the loss diverged, or the run folder belongs to another run."""


class MemoryNeededError(StzooError, MemoryError):
    """There is less memory than is needed. The message says how much of both, and what needs less."""


class MissingExtraError(StzooError, ImportError):
    """An optional package is not installed. The message holds the pip command that installs it."""


class WeightsError(StzooError):
    """The base of all errors between the source of a model and a module that holds its weights."""


class NotPublishedError(WeightsError):
    """The entry exists, but its weights do not exist yet. The message holds the command that trains them."""


class DownloadError(WeightsError):
    """A source in the network could not be read, or its file could not be kept."""


class OfflineError(WeightsError):
    """The file is not on this machine, and the network must not be used."""


class IntegrityError(WeightsError):
    """The sha256 or the size of a file differs from the expected one. The wrong file is not kept."""


class MismatchError(WeightsError):
    """The file's tensors do not fit the module. The message names those that are missing, unexpected or misshapen."""
