"""What the catalog says of models' memory, counted from their architectures: no weights and no GPU are needed."""
