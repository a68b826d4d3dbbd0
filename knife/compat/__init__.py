"""What is not public in libraries, each part with its reason; tests/test_compat.py watches it."""
