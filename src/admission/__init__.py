"""Part of headgate."""
