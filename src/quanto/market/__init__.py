"""Exchange calendar, table schemas, panels, point-in-time views, regimes and corporate actions."""
