"""What keeps patients unknown: hashed ids, scrubbed texts, hidden names, masked pictures; and terms of use."""
