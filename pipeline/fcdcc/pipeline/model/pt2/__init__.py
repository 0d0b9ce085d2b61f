"""Reads ``.pt2`` files safely: the archive, checks of its JSON, and the graph as steps."""
