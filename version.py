"""The version, which every product records."""

__version__ = "0.1.0"
