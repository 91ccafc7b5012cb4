"""Files written whole or not at all, read only if regular, and compared with their checksums."""
