"""Orders, risk checks, broker port, brokers, order journal and session engine."""
