"""Tables, HTML pages and model cards of what runs found."""
