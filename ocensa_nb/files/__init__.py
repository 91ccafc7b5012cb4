"""Files on disk: tables are read and written, writes are atomic, folders are locked."""
