"""A search's best recipe made short enough to be read: fewer numbers that do as well."""
