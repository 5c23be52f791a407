"""The command line, `crl-distill`. Its commands are thin: each is one documented call in Python as well."""

from distill.cli.app import app, main

__all__ = ["app", "main"]
