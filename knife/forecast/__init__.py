"""Whether KNIFE will help: what the data say, and a model fitted to measured gains."""
