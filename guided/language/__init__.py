"""Language models with an editable key/value context."""
