"""Statistics and tables of what runs found."""
