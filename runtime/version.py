"""The version of stein: the one place where it is written (`pyproject.toml` reads it from here)."""

VERSION = "0.1.0"
