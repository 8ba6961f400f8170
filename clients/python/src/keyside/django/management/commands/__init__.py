"""keyside_backfill, keyside_reencrypt, keyside_status, keyside_decrypt_column."""
