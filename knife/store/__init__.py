"""The artifact store, on a local folder or a bucket."""
