"""The record of a run: its journal, and who writes it."""
