"""Keeping a store honest: rollback, retention, verification, audit."""
