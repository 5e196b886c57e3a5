"""What the corpus consists of: one module for each folder, and the words they share."""
