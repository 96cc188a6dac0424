"""From the files of a source to stored partials."""
