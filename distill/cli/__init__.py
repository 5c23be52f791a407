"""The command line, `crl-distill`: arguments and printing. Each command calls one documented function."""

from distill.cli.app import app, main

__all__ = ["app", "main"]
