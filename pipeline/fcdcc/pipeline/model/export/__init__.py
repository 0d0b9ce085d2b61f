"""Making a model file of a live network: what ``fcdcc export`` does.

``network_names`` turns a NAME into a live network with what belongs to it, by one module for each
kind of name. ``model_file`` exports it, writes the file with its description, and compares what
the file computes with the live network.
"""

from __future__ import annotations
