"""The offline store in a bucket: documents that change by compare-and-swap, and content-addressed files beside them."""
