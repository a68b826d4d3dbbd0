"""Parts of libraries that are not public, each with its reason; tests/test_compat.py watches them."""
