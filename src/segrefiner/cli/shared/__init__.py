"""What commands share: options, messages, pipes, the words of a ledger, and how a job is run."""
