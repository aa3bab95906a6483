"""gRPC services: request messages -> queries, samples -> response messages, errors -> statuses."""
