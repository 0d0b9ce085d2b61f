"""Run jobs and lazy inference: the cluster, blocks in flight, retries, stalls and the output."""
