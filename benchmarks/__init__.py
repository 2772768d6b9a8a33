"""Speed measured side by side: run by hand, never by the tests. See README.md here."""
