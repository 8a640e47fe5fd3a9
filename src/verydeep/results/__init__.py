"""Studies: which runs make one up, the published figures, tables and the report."""
