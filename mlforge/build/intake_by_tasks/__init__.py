"""An intake that several processes do: large numbers of new files, ingested a group at a time by whoever takes part."""
