"""Values asked for over HTTP: from the request to the bytes of its answer."""
