"""HTTP rules that no version changes: pure functions on bytes."""
