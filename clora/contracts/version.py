"""The version of clora."""

__version__ = "0.1.0"
