"""The passes of the model import; each turns one sequence of steps into another.

:mod:`fcdcc.pipeline.model.importer` puts them in order.
"""
