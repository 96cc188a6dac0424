"""The reconciler: it compares the actual state with the desired one, at intervals."""
