"""From server streams to batches in index order: channels, replicas, retries, merging."""
