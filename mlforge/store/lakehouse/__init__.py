"""Tables that have a log, as sources: Delta and Iceberg (extra `lakehouse`)."""
