"""What a local worker process does before anything else: it leaves Ctrl-C to the client.

A terminal sends SIGINT to all processes of a command. The client ends the run and its workers;
workers that ended by themselves would show their tracebacks and look as if they had died.
Importing this module in a worker process does it, elsewhere nothing.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading

if (
    multiprocessing.parent_process() is not None
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
