"""The wire: protos to queries and back, and how calls end."""
