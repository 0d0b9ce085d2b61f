"""A sliding window: networks over the tiles of images, and predictions put together from them."""
