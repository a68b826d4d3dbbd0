"""Parts of libraries that are not public, each with its reason; tests/compat watches them."""
