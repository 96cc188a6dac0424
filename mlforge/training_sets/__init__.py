"""Training sets: folders of parquet with a spine and its features' values, made once and kept with what they were made from."""
