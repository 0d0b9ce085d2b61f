"""``fcdcc demo``: a trained network classifies real images while workers are stopped."""
