"""The version of trimtab, defined once."""

__version__ = "0.1.0"
