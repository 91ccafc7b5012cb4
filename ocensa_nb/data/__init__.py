"""From a table to notices: columns, texts, labels, splits, and synthetic notices."""
