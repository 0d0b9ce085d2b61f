"""Run jobs at given times: in the foreground, or by unit files for other schedulers."""
