"""The errors a user can meet. Each message says which file, what is wrong and what to do, on one line."""


class MitosisError(Exception):
    """Base of every error that is the input's or the set-up's fault, not a bug."""

    exit_code = 1


class InputError(MitosisError, ValueError):
    """The image, the input folder or its description cannot be used."""

    exit_code = 2


class SpacingError(InputError):
    """The image states no pixel spacing, or one that no microscope gives."""

    exit_code = 3


class BundleError(MitosisError, ValueError):
    """The model bundle is missing, incomplete or damaged."""

    exit_code = 4


class RuntimeUnavailableError(MitosisError, RuntimeError):
    """The requested device or runtime is not usable on this machine."""

    exit_code = 5


class MemoryFullError(MitosisError, MemoryError):
    """The memory that this process may take is not enough."""

    exit_code = 7


class UnexpectedError(MitosisError, RuntimeError):
    """A bug of ours, met on one slide among others."""

    exit_code = 70


class OutputError(MitosisError, OSError):
    """The results cannot be written."""

    exit_code = 6
