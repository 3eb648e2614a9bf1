"""Runs the command line: ``python -m shelfwise.cli``."""

from shelfwise.cli import run

run()
