"""What people type, and what it means: phrasings, the grammar that varies them, and where words come from."""
