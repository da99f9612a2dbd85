"""Archives: a manifest of files judged as one batch, with a Parquet file for each part."""
