"""``fcdcc demo``: real images, a network that reads them, and workers stopped in the middle."""
