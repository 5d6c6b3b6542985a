"""Reads the lake with DuckDB: the views of `sql/`, and queries over them. Knows nothing of Kafka."""
