"""The version, which lower folders take from here: none of them imports the package's door."""

__version__ = "0.1.0"
