"""The brokers behind the port: the simulated one and Alpaca's paper account."""
