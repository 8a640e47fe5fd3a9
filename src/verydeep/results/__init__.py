"""Results, tables and reports; studies, which make them; the published figures beside them."""
