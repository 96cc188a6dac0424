"""The language: versions, time, windows, aggregates, manifests. Pure, without engine or client."""
