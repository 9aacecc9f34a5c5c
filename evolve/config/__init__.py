"""search.yml: its schema, its reader, and the pages made from the schema."""
