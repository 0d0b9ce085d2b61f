"""The passes of the model import, each from one run of steps to another.

:mod:`fcdcc.pipeline.model.importer` puts them in order.
"""
