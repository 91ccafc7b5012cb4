"""From a file to notices: CSV and XLSX, columns, labels, splits, and synthetic notices."""
