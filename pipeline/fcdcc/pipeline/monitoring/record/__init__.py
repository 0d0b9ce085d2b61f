"""The record of a run: its journal, and the recorder that writes it."""
