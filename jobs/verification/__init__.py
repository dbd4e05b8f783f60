"""Check computed blocks against products by an independent route."""
