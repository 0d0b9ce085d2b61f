"""Rules of the row arithmetic, one module for each group of operators.

Each module has a table ``RULES`` from the name of an operator without its overload to its rule,
a function from a :class:`~fcdcc.pipeline.halo.operation.Call` to a
:class:`~fcdcc.pipeline.halo.operation.RowOperation`.
"""
