"""Finds the best plan for a network, the shape of its images, options and workers.

:mod:`.search` compares :mod:`.candidates` by what they cost (:mod:`.cost`); :mod:`.bands` cuts
images that are too large to be computed at once.
"""
