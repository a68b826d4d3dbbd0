"""Tables of any source, whose columns are mapped to the fields of examples."""
