"""The way in for rows: a request's rows become a file of a source, which is on the disk before the caller is told so."""
