"""New labels for recorded Steps, for one bag or many in parallel."""
