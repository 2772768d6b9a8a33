"""Where a synthetic image comes from: marks inside its file, a manifest beside it, and the check of both."""
