"""The errors of dlcore.

DlcoreError
├── ConfigError    a config that cannot be built or trained
├── DataError      a table that cannot be read, split or learned from
├── DeviceError    a device that is not there
└── ExportError    an export that cannot be written, or must not be trusted

A training that diverges is no error: it is a result (`dlcore.training.Divergence`).
Every message says what must hold, what was found, and what to do.
"""


class DlcoreError(Exception):
    """Base of all errors that dlcore raises on purpose."""


class ConfigError(DlcoreError, ValueError):
    """A config that cannot be built or trained."""


class DataError(DlcoreError, ValueError):
    """A table that cannot be read, split or learned from."""


class DeviceError(DlcoreError, RuntimeError):
    """A device that was asked for and is not there."""


class ExportError(DlcoreError, RuntimeError):
    """An export that cannot be written, or must not be trusted."""
