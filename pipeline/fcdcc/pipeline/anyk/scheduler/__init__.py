"""The any-k scheduler plugin: connects the state machine to Dask's scheduler."""
