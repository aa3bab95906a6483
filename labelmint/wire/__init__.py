"""The path from a server's stream to batches: channels, replicas, retries, prefetch, merging."""
