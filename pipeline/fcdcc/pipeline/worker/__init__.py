"""What workers run: the executable of a run, its kernels, checks of shares, process settings."""
