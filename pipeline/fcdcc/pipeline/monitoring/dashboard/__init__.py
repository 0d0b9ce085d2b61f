"""The scheduler's side: what happened in its runs, as a page, as JSON and as metrics."""
