"""The any-k state machine: no Dask, no clock, no input or output. It begins in :mod:`.state`."""
